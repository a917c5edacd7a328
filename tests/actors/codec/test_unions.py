from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet
from datetime import date
from typing import Annotated, Any, Literal, Optional

import orjson
import pytest

from perdure.actors.codec.annotations import dump_function, shape_for
from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.unions import union_members, union_shape
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec.samples import BigCircle, Box, Circle, Square, of, round_trip


def test_a_subclass_that_a_union_declares_comes_back_as_it_was() -> None:
    assert round_trip(Circle | BigCircle, BigCircle(2.0)) == BigCircle(2.0)
    assert round_trip(Circle | BigCircle, Circle(2.0)) == Circle(2.0)


def test_ints_and_floats_of_a_union_keep_their_type() -> None:
    values = round_trip(list[int | float], [1, 1.0])

    assert [type(value) for value in values] == [int, float]


def test_a_union_of_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(RegistrationError, match="two members"):
        codec_for(Box[int] | Box[str] | Box[float])


def test_the_json_of_an_int_is_read_as_float_in_a_union_without_int() -> None:
    assert type(codec_for(float | str).decode(b"1")) is float


def encoded(annotation: Any, value: Any) -> Any:
    return orjson.loads(codec_for(annotation).encode(value))


@pytest.mark.parametrize(
    ("annotation", "members"),
    [
        (int | str | None, [int, str, type(None)]),
        (of(Optional, Annotated[int | None, "note"]), [int, type(None)]),
        (Literal["a"] | str | Literal[1], [str, Literal[1]]),
        (Literal["a"] | date | Literal["b", None], [date, Literal["a", "b", None]]),
        (Literal[None] | int | None, [int, type(None)]),
        (of(Optional, Annotated[Circle | date | None, "x"]) | Circle, [Circle, date, type(None)]),
    ],
    ids=str,
)
def test_a_union_is_flat_with_one_literal_of_what_no_plain_type_has(
    annotation: Any, members: list[Any]
) -> None:
    assert union_members(annotation) == members


def test_members_that_their_json_tells_apart_are_bare() -> None:
    annotation = int | str | list[int] | dict[str, int] | bool | None

    for value in (1, "a", [1], {"a": 1}, True, None):
        assert encoded(annotation, value) == value
        read = codec_for(annotation).decode(codec_for(annotation).encode(value))
        assert (read, type(read)) == (value, type(value))


def test_members_that_share_a_kind_carry_a_tag_and_with_them_all_objects() -> None:
    annotation = list[int] | tuple[int, ...] | Circle | int

    assert encoded(annotation, [1]) == {"$type": "list[int]", "$value": [1]}
    assert encoded(annotation, (1,)) == {"$type": "tuple[int]", "$value": [1]}
    assert encoded(annotation, Circle(1)) == {"$type": "Circle", "radius": 1.0}
    assert encoded(annotation, 1) == 1
    for value in ([1], (1,), Circle(1), 1):
        assert round_trip(annotation, value) == value


@pytest.mark.parametrize(
    "stored",
    [{}, {"$type": "Other"}, {"$type": 5}, {"$type": None}, {"$type": ["Circle"]}],
    ids=str,
)
def test_an_object_without_a_tag_that_is_known_is_refused(stored: Any) -> None:
    with pytest.raises(PayloadError, match=r"an object with '\$type' of Circle, Square expected"):
        codec_for(Circle | Square).from_json(stored)


def test_a_tag_without_its_value_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"'\$value' is missing beside '\$type'"):
        codec_for(str | date).from_json({"$type": "date"})


@pytest.mark.parametrize("stored", [1, True, None, [1]])
def test_json_of_a_kind_that_no_member_has_is_refused(stored: Any) -> None:
    with pytest.raises(PayloadError, match=r"str \| dict\[str, int\] expected"):
        codec_for(str | dict[str, int]).from_json(stored)


def test_what_two_members_take_is_written_by_the_one_that_gives_it_back() -> None:
    annotation = list[float] | list[int]

    assert encoded(annotation, [1]) == {"$type": "list[int]", "$value": [1]}
    assert encoded(annotation, [1.5]) == {"$type": "list[float]", "$value": [1.5]}
    read = round_trip(annotation, [1])
    assert [type(one) for one in read] == [int]
    with pytest.raises(PayloadError, match=r"list\[float\] \| list\[int\] expected, not"):
        codec_for(annotation).encode(["a"])


def test_where_no_member_gives_it_back_the_first_that_takes_it_is_written() -> None:
    assert encoded(list[float] | list[str], [1]) == {"$type": "list[float]", "$value": [1.0]}


def test_a_union_of_one_is_that_one_and_any_swallows_all() -> None:
    one = shape_for(int)

    assert union_shape([one], dump_function) is one
    assert union_shape([one, shape_for(Any), shape_for(str)], dump_function) is shape_for(Any)
    assert shape_for(int | None).name == "int | None"
    assert shape_for(int | None).kinds == {"integer", "null"}


@pytest.mark.parametrize(
    ("annotation", "usual", "other"),
    [
        (Sequence[int], [1], (1,)),
        (AbstractSet[int], {1}, frozenset({1})),
    ],
    ids=["sequence", "set"],
)
def test_the_other_class_of_an_abstract_type_is_tagged(
    annotation: Any, usual: Any, other: Any
) -> None:
    tag = type(other).__name__

    assert encoded(annotation, usual) == [1]
    assert encoded(annotation, other) == {"$type": tag, "$value": [1]}
    for value in (usual, other):
        read = round_trip(annotation, value)
        assert (read, type(read)) == (value, type(value))
    with pytest.raises(PayloadError, match=f"of {tag}, or an array, expected"):
        codec_for(annotation).from_json({"$type": "dict", "$value": [1]})
    with pytest.raises(PayloadError) as raised:
        codec_for(annotation).from_json({"$type": tag, "$value": ["x"]})
    assert raised.value.path == "$['$value'][0]"


def test_a_bad_part_of_a_member_is_named_with_its_path() -> None:
    codec = codec_for(Circle | Square | list[int])

    for value, path in ((Circle("x"), "$.radius"), ([1, "x"], "$[1]")):  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        with pytest.raises(PayloadError) as raised:
            codec.encode(value)
        assert raised.value.path == path
