from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.models import is_model, pydantic_shape
from perdure.actors.codec.shapes import Fault
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import of, round_trip

pydantic: Any = pytest.importorskip("pydantic")


def test_a_pydantic_model_crosses() -> None:
    model = pydantic.create_model("Model", name=(str, ...), size=(int, 1))

    assert round_trip(of(list, model), [model(name="a")]) == [model(name="a")]
    with pytest.raises(PayloadError):
        codec_for(model).decode(b'{"size":"x"}')


def model(title: str = "Model", **fields: Any) -> Any:
    return pydantic.create_model(title, **fields)


def test_only_a_pydantic_model_is_one() -> None:
    assert is_model(model(a=(int, 1)))
    assert not is_model(int)
    assert not is_model(5)


def test_a_model_is_written_by_its_fields_names_and_read_by_its_aliases_too() -> None:
    aliased = model(label=(str, pydantic.Field(alias="theName")))

    shape = pydantic_shape(aliased)

    assert shape.encode(aliased(theName="a")) == {"label": "a"}
    assert shape.decode({"label": "a"}) == shape.decode({"theName": "a"}) == aliased(theName="a")


def test_sets_of_a_model_are_sorted_however_deep() -> None:
    inner: Any = model("Inner", tags=(set[str], ...))
    outer = model(
        "Outer", all=(of(dict, str, of(list, inner)), ...), pairs=(frozenset[tuple[str, int]], ...)
    )
    value = outer(
        all={"a": [inner(tags=set("cab"))]}, pairs=frozenset({("b", 1), ("a", 2), ("a", 1)})
    )

    assert pydantic_shape(outer).encode(value) == {
        "all": {"a": [{"tags": ["a", "b", "c"]}]},
        "pairs": [["a", 1], ["a", 2], ["b", 1]],
    }


def test_a_complaint_of_pydantic_has_its_place_and_not_the_value() -> None:
    strict = model(items=(list[int], ...))

    with pytest.raises(Fault) as raised:
        pydantic_shape(strict).decode({"items": [1, "hunter2"]})

    assert raised.value.where == ".items[1]"
    assert "hunter2" not in str(raised.value)


def test_a_model_of_another_class_is_refused() -> None:
    one, other = model("One", a=(int, 1)), model("Other", a=(int, 1))

    for value in (other(), {"a": 1}, None):
        with pytest.raises(Fault, match="One expected, not"):
            pydantic_shape(one).encode(value)


def test_a_root_model_may_be_any_json() -> None:
    rooted: Any = pydantic.RootModel[list[int]]

    assert pydantic_shape(rooted).encode(rooted([1])) == [1]
    assert "array" in pydantic_shape(rooted).kinds
    assert pydantic_shape(model(a=(int, 1))).kinds == {"object"}
