from __future__ import annotations

import enum
from typing import Any, Literal

import pytest

from perdure.actors.codec.annotations import shape_for
from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.enums import enum_shape, literal_shape
from perdure.actors.codec.shapes import Fault, Unsupported
from tests.actors.codec.samples import Color, Level, Mixed, Permission


class Hostile(enum.Enum):
    """Has code over all that could be asked of a member."""

    A = "a"
    B = "b"

    @property
    def value(self) -> Any:
        raise KeyError("value")

    @property
    def name(self) -> Any:
        raise KeyError("name")

    def __eq__(self, other: object) -> bool:
        raise KeyError("eq")

    def __hash__(self) -> int:
        return 5


class Huge(enum.Enum):
    SMALL = 1
    HUGE = 2**64


class Flagged(enum.Enum):
    NO = 0
    YES = True


class Empty(enum.Enum):
    pass


class Kept(enum.Flag, boundary=enum.KEEP):
    ONE = 1


@pytest.mark.parametrize("cls", [Color, Level, Mixed, Hostile, Huge, Flagged])
def test_each_member_is_read_as_what_was_written(cls: Any) -> None:
    shape = enum_shape(cls)
    key = shape.key
    assert key is not None

    for member in cls:
        assert shape.decode(shape.encode(member)) is member
        assert key.decode(key.encode(member)) is member


@pytest.mark.parametrize(
    ("member", "written"),
    [
        (Color.RED, "red"),
        (Level.LOW, 1),
        (Mixed.NUMBER, "NUMBER"),
        (Huge.SMALL, "SMALL"),
        (Flagged.YES, "YES"),
    ],
    ids=str,
)
def test_values_are_written_if_all_are_texts_or_all_are_numbers_else_names(
    member: enum.Enum, written: object
) -> None:
    shape = enum_shape(type(member))

    assert shape.encode(member) == written
    assert shape.kinds == {"integer" if type(written) is int else "string"}


@pytest.mark.parametrize("value", [1, "red", Mixed.NUMBER, None])
def test_what_is_no_member_is_refused(value: object) -> None:
    with pytest.raises(Fault, match="Color expected, not"):
        enum_shape(Color).encode(value)


@pytest.mark.parametrize("value", ["RED", 1, None, [], True], ids=repr)
def test_json_that_is_no_members_names_those_that_are(value: object) -> None:
    with pytest.raises(Fault, match="one of red, blue for Color expected"):
        enum_shape(Color).decode(value)


def test_a_number_is_no_boolean_and_a_key_is_its_text_exactly() -> None:
    key = enum_shape(Level).key
    assert key is not None

    with pytest.raises(Fault):
        enum_shape(Level).decode(True)
    with pytest.raises(Fault):
        key.decode("01")


def test_a_member_that_its_class_does_not_list_is_refused() -> None:
    made: Any = object.__new__(Color)
    made._name_, made._value_ = "RED", "red"

    with pytest.raises(Fault, match="not a member that its class does not list"):
        enum_shape(Color).encode(made)


def test_an_enum_without_members_has_a_shape_that_nothing_is_of() -> None:
    with pytest.raises(Fault):
        enum_shape(Empty).decode("x")


def test_flags_are_numbers_together() -> None:
    shape = enum_shape(Permission)
    both = Permission.READ | Permission.WRITE

    assert shape.encode(both) == 3
    assert shape.decode(3) == both
    assert shape.key is None
    assert enum_shape(Kept).decode(6) == Kept(6)
    for value in (8, "1", True, 1.0):
        with pytest.raises(Fault):
            shape.decode(value)
    with pytest.raises(Fault, match="Permission expected, not int 1"):
        shape.encode(1)


def test_a_literal_tells_values_apart_by_their_class() -> None:
    shape = literal_shape(Literal[1, True, "1", None, Color.RED], shape_for)

    value: Any
    for value in (1, True, "1", None, Color.RED):
        read = shape.decode(shape.encode(value))
        assert (read, type(read)) == (value, type(value))
    assert shape.kinds == {"integer", "boolean", "string", "null"}
    assert shape.key is None
    empty: list[Any] = [[], {}]
    for value in (1.0, False, 2, *empty, Color.BLUE):
        with pytest.raises(Fault, match="Literal"):
            shape.encode(value)
    for value in (1.0, False, 2, *empty, "blue"):
        with pytest.raises(Fault, match="Literal"):
            shape.decode(value)


def test_a_literal_of_texts_may_be_a_key() -> None:
    codec = codec_for(dict[Literal["a", "b"], int])

    assert codec.decode(codec.encode({"a": 1})) == {"a": 1}


def test_a_literal_whose_values_look_the_same_is_refused() -> None:
    with pytest.raises(Unsupported, match="look the same in JSON"):
        literal_shape(Literal[Color.RED, "red"], shape_for)
