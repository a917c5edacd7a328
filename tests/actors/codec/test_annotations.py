from __future__ import annotations

import collections
import dataclasses
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set as AbstractSet,
)
from datetime import date
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    ForwardRef,
    Literal,
    NewType,
    Required,
    TypeVar,
)

import attrs
import orjson
import pytest

from perdure.actors.codec.annotations import ANY, dump_function, plain, shape_for
from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec.samples import Color, Constrained, Item, Options, Point, round_trip


@pytest.mark.parametrize(
    "annotation",
    [3, Callable[[], None], list[complex], dict[float, int], dict[int | str, int], "Nowhere"],
    ids=str,
)
def test_an_annotation_without_json_form_is_refused(annotation: Any) -> None:
    with pytest.raises(RegistrationError):
        codec_for(annotation)


def test_an_unhashable_annotation_is_accepted() -> None:
    assert round_trip(Annotated[int, []], 5) == 5


class Rate(float):
    pass


class SubDate(date):
    pass


def test_untyped_takes_subclasses_of_what_it_knows() -> None:
    values = [Rate(1.5), SubDate(2024, 2, 29), collections.deque([1]), collections.Counter("a")]

    assert codec_for(Any).encode(values) == b'[1.5,"2024-02-29",[1],{"a":1}]'


def test_untyped_refuses_nan_of_a_subclass_of_float() -> None:
    with pytest.raises(PayloadError, match="nan"):
        codec_for(Any).encode([Rate("nan")])


Bound = TypeVar("Bound", bound=date)
Free = TypeVar("Free")
UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("annotation", "same"),
    [
        (UserId, int),
        (Annotated[int, "note"], int),
        (Final[int], int),
        (ClassVar[int], int),
        (Bound, date),
        (Free, Any),
        (object, Any),
        (list, list[Any]),
        (dict, dict[str, Any]),
        (tuple, tuple[Any, ...]),
        (Required[int], int),
    ],
    ids=str,
)
def test_what_says_the_same_has_the_same_shape(annotation: Any, same: Any) -> None:
    assert shape_for(annotation).name == shape_for(same).name


def test_a_shape_is_made_once() -> None:
    assert shape_for(list[UserId]) is shape_for(list[UserId])
    assert shape_for(Any) is ANY


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (complex, "complex has no JSON form; use builtins"),
        ("int", "the annotation 'int' cannot be resolved"),
        (ForwardRef("int"), "cannot be resolved"),
        (list["Nowhere"], "'Nowhere'.* cannot be resolved"),  # type: ignore[name-defined] # noqa: F821 # pyright: ignore[reportUndefinedVariable]
        (Callable[[int], str], "has no JSON form"),
        (5, "5 has no JSON form"),
        (type, "type has no JSON form"),
    ],
    ids=range(7),
)
def test_what_has_no_json_form_is_refused_by_name(annotation: Any, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        shape_for(annotation)


def test_a_class_that_was_refused_is_refused_again() -> None:
    @attrs.define
    class Bad:
        inner: complex

    for _ in range(2):
        with pytest.raises(RegistrationError, match="complex has no JSON form"):
            shape_for(Bad)
    assert shape_for(list[int]).name == "list[int]"


class More(dict[str, int]):
    pass


class Words(list[str]):
    pass


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Words("ab"), ["a", "b"]),
        (More(a=1), {"a": 1}),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 1}), [1, 2]),
        (collections.deque([1], 5), [1]),
        ((1, (2,)), [1, [2]]),
        (Item("a", 1.0), {"sku": "a", "price": 1.0, "count": 1}),
        (SubDate(2024, 2, 29), "2024-02-29"),
        (Color.RED, "red"),
    ],
    ids=range(9),
)
def test_untyped_a_value_is_written_as_its_class_says(value: Any, written: Any) -> None:
    assert orjson.loads(dump_function(ANY)({"a": [value]})) == {"a": [written]}
    assert plain([value]) == [written]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), r"a bare object\(\) cannot be encoded"),
        (Odd(), "a value of type Odd cannot be encoded"),
        ([float("nan")], "nan has no JSON form"),
        ({"a": {float("inf")}}, "inf has no JSON form"),
        ([None, (Rate("nan"),)], "nan has no JSON form"),
        ([None, collections.deque([float("nan")])], "nan has no JSON form"),
    ],
    ids=range(6),
)
def test_untyped_what_has_no_json_form_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        codec_for(Any).encode(value)


def test_untyped_what_a_subclass_holds_beside_its_items_is_refused() -> None:
    words: Any = Words("a")
    words.more = 1

    with pytest.raises(PayloadError, match=r"at \$\.more: only the list in this Words is written"):
        codec_for(Any).encode(words)


def double(number: int) -> int:
    return 2 * number


@attrs.define
class Doubled:
    number: int = attrs.field(converter=double)


@dataclasses.dataclass
class Summed:
    items: list[int]
    total: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.items)


def refuse_negative(_: object, attribute: object, number: int) -> None:
    if number < 0:
        raise ValueError("it is negative")


@attrs.define
class Positive:
    number: int = attrs.field(default=1, validator=refuse_negative)


def test_untyped_what_runs_code_is_read_back_by_its_class_and_compared() -> None:
    assert codec_for(Any).encode([Summed([1, 2])]) == b'[{"items":[1,2],"total":3}]'
    with pytest.raises(
        PayloadError, match=r"at \$\[0\]\.number: this int would come back as anoth"
    ):
        codec_for(Any).encode([Doubled(3)])
    bad = Positive()
    object.__setattr__(bad, "number", -1)
    with pytest.raises(PayloadError, match=r"at \$\[0\]: ValueError: it is negative"):
        codec_for(Any).encode([bad])


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (Sequence[int], "Sequence[int]"),
        (MutableSequence[int], "MutableSequence[int]"),
        (Collection[int], "Collection[int]"),
        (Iterable[int], "Iterable[int]"),
        (AbstractSet[int], "set[int]"),
        (MutableSet[int], "set[int]"),
        (Mapping[str, int], "Mapping[str, int]"),
        (tuple[int, ...], "tuple[int]"),
        (tuple[int, str], "tuple[int, str]"),
        (tuple[()], "tuple[()]"),
        (Constrained, "int | str"),
        (int | None, "int | None"),
        (Color, "Color"),
        (Item, "Item"),
        (Point, "Point"),
        (Options, "Options"),
        (Literal[1, "a"], "Literal[1, 'a']"),
    ],
    ids=str,
)
def test_an_annotation_has_the_shape_of_its_form(annotation: Any, name: str) -> None:
    assert shape_for(annotation).name == name
