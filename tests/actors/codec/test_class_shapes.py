from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any, NamedTuple, NotRequired, Required, TypedDict

import attrs
import orjson
import pytest

from perdure.actors.codec.annotations import shape_for
from perdure.actors.codec.class_shapes import is_typed_dict
from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec.samples import BigCircle, Box, Circle, Item, Square

DAY = date(2024, 2, 29)


@pytest.mark.parametrize("annotation", [Circle, Circle | Square, list[Circle], Circle | None])
def test_a_subclass_that_is_not_declared_is_refused(annotation: Any) -> None:
    value: Any = [BigCircle(2.0)] if annotation == list[Circle] else BigCircle(2.0)

    with pytest.raises(PayloadError, match="subclass BigCircle"):
        codec_for(annotation).encode(value)


def test_fields_that_are_not_declared_are_ignored_and_missing_ones_default() -> None:
    item = codec_for(Item).decode(b'{"sku":"a","price":1,"color":"red"}')

    assert item == Item("a", 1.0, 1)


def test_an_error_of_a_validator_is_a_payload_error_with_its_path() -> None:
    @attrs.define
    class Positive:
        value: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(PayloadError, match="must be > 0") as raised:
        codec_for(list[Positive]).decode(b'[{"value":1},{"value":0}]')

    assert raised.value.path == "$[1]"


class Pair(NamedTuple):
    one: date
    two: int = 5


class Loose(Pair):
    """Has room for more than its fields."""


class Entry(TypedDict):
    name: Required[str]
    day: NotRequired[date]


class Total(Entry, total=False):
    more: int


@dataclasses.dataclass
class Roomy:
    one: int


class Above:
    __slots__ = ("hidden",)


@dataclasses.dataclass
class Below(Above):
    __slots__ = ("one",)
    one: int


@dataclasses.dataclass
class Listed(list[int]):
    one: int = 0


Refused = TypedDict("Refused", {"$type": str})


@attrs.frozen
class Inner:
    one: int


@pytest.mark.parametrize(
    ("annotation", "value", "written"),
    [
        (Pair, Pair(DAY), {"one": "2024-02-29", "two": 5}),
        (Entry, {"name": "a"}, {"name": "a"}),
        (Total, {"name": "a", "day": DAY}, {"name": "a", "day": "2024-02-29"}),
        (Roomy, Roomy(1), {"one": 1}),
        (Below, Below(1), {"one": 1}),
        (Box[date], Box(DAY, []), {"content": "2024-02-29", "spare": []}),
    ],
    ids=range(6),
)
def test_a_class_is_an_object_of_its_fields(annotation: Any, value: Any, written: Any) -> None:
    codec = codec_for(annotation)

    assert orjson.loads(codec.encode(value)) == written
    read = codec.from_json({**written, "gone": 1})
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("annotation", "stored", "path", "reason"),
    [
        (Pair, {}, "$", "field 'one' of Pair is missing"),
        (Pair, [], "$", "an object for Pair"),
        (Pair, {"one": 1}, "$.one", "the text of a date"),
        (Entry, {}, "$", "key 'name' of Entry is missing"),
        (Total, {"day": "2024-02-29"}, "$", "key 'name' of Total is missing"),
        (Entry, {"name": "a", "day": 1}, "$.day", "the text of a date"),
        (Entry, [], "$", "an object for Entry"),
        (Roomy, {}, "$", "field 'one' of Roomy is missing"),
        (Roomy, [], "$", "an object for Roomy"),
    ],
    ids=range(9),
)
def test_json_that_is_no_such_object_is_refused(
    annotation: Any, stored: Any, path: str, reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason) as raised:
        codec_for(annotation).from_json(stored)

    assert raised.value.path == path


def with_more(value: Any, name: str) -> Any:
    object.__setattr__(value, name, 1)
    return value


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"),
    [
        (Roomy, with_more(Roomy(1), "more"), "$.more", "declares no field 'more'"),
        (Below, with_more(Below(1), "hidden"), "$.hidden", "declares no field 'hidden'"),
        (Loose, with_more(Loose(DAY), "more"), "$.more", "declares no field 'more'"),
        (Pair, (DAY, 5), "$", "Pair expected, not tuple"),
        (Entry, {"name": "a", "other": 1}, "$", "Entry has no key 'other'"),
        (Entry, {"day": DAY}, "$", "key 'name' of Entry is missing"),
        (Entry, {"name": 5}, "$.name", "str expected"),
        (Entry, [], "$", "Entry expected"),
    ],
    ids=range(8),
)
def test_a_value_that_has_more_or_less_than_its_fields_is_refused(
    annotation: Any, value: Any, path: str, reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason) as raised:
        codec_for(annotation).encode(value)

    assert raised.value.path == path


def test_a_class_that_is_a_list_as_well_is_refused() -> None:
    with pytest.raises(RegistrationError, match="Listed has fields and is a list as well"):
        codec_for(Listed)


def test_a_frozen_class_of_what_never_changes_never_changes() -> None:
    assert shape_for(Inner).immutable
    assert not shape_for(Roomy).immutable
    assert shape_for(Pair).immutable
    assert [shape_for(one).levels for one in (Roomy, Inner)] == [0, 0]


def test_a_typed_dict_has_room_for_a_tag_unless_a_key_is_called_so() -> None:
    assert shape_for(Entry).is_record
    assert not shape_for(Refused).is_record
    assert is_typed_dict(Entry)
    assert not is_typed_dict(dict)
    assert not is_typed_dict(5)
