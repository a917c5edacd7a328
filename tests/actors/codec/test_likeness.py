from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given, strategies as st

from perdure.actors.codec.annotations import plain
from perdure.actors.codec.likeness import EXACT, Manner, attributes, cached_names, difference
from tests.actors.codec.samples import Circle, Item, Level, Point

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
AS_JSON = Manner(plain)


class Bare:
    def __init__(self, number: int) -> None:
        self.number = number


class Slotted:
    __slots__ = ("number", "other")

    def __init__(self, number: int) -> None:
        self.number = number


class Nothing:
    __slots__ = ()


class Blind:
    """Says that it equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class Names(list[str]):
    pass


class Fixed(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> str:
        return "fixed"


@dataclasses.dataclass
class Cached:
    number: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.number


@attrs.define
class CachedSlots:
    number: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.number


def with_more(value: Any, **more: Any) -> Any:
    for name, part in more.items():
        vars(value)[name] = part
    return value


def nan() -> float:
    return float("nan")


ALIKE: list[tuple[Any, Any]] = [
    (1, 1),
    (nan(), nan()),
    (-0.0, -0.0),
    (1, 1.0),
    (Level.LOW, 1),
    (Decimal("1.10"), Decimal("1.10")),
    (Decimal("nan"), Decimal("nan")),
    (1j, 1j),
    ([1, [2]], [1, [2]]),
    ((1,), (1,)),
    ({"a": [1]}, {"a": [1]}),
    ({1, (2,)}, {(2,), 1}),
    (collections.deque([1], 3), collections.deque([1], 3)),
    (Circle(1.0), Circle(1.0)),
    (Bare(1), Bare(1)),
    (Slotted(1), Slotted(1)),
    (ValueError("a"), ValueError("a")),
    (NOON, NOON.replace()),
    (NOON, NOON.replace(tzinfo=timezone(timedelta()))),
    (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=ZoneInfo("Europe/Berlin"))),
    (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=ZoneInfo.no_cache("Europe/Berlin"))),
    (NOON.replace(tzinfo=Fixed()), NOON.replace(tzinfo=timezone(timedelta(hours=1)))),
    (time(1, tzinfo=UTC), time(1, tzinfo=UTC)),
    (Names(["a"]), Names(["a"])),
]
LOST: list[tuple[Any, Any, str, str]] = [
    (1, "1", "", "a int would come back as a str"),
    (True, 1, "", "a bool would come back as a int"),
    (1, 2, "", "this int would come back as another"),
    (0.0, -0.0, "", "this float would come back as another"),
    (Decimal("1.1"), Decimal("1.10"), "", "this Decimal would come back as another"),
    (0j, -0j, "", "this complex would come back as another"),
    ((1,), [1], "", "a tuple would come back as a list"),
    ([1, 2], [1], "", "2 elements would come back as 1"),
    ([1, [2]], [1, [3]], "[1][0]", "this int would come back as another"),
    ({"a": 1}, {}, "", "1 entries would come back as 0"),
    ({"a": {"b c": 1}}, {"a": {"b c": 2}}, ".a['b c']", "this int would come back as another"),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ".a", "this str would come back as another"),
    ({1: "a"}, {"1": "a"}, "['1']", "a int would come back as a str"),
    ({1}, {2}, "", "a int in it would come back as another"),
    ({1, 2}, {1}, "", "2 elements would come back as 1"),
    ({True}, {1}, "", "a bool would come back as a int"),
    (collections.deque([1], 3), collections.deque([1]), "", "the maxlen of a deque would be lost"),
    (
        collections.defaultdict(list[int]),
        collections.defaultdict(set[int]),
        "",
        "the default_factory of a defaultdict would be lost",
    ),
    (Circle(1.0), Circle(2.0), ".radius", "this float would come back as another"),
    (with_more(Bare(1), more=1), Bare(1), ".more", "this would not come back"),
    (Bare(1), with_more(Bare(1), more=1), ".more", "this would not come back"),
    (with_more(Names("a"), more=1), Names("a"), ".more", "this would not come back"),
    (ValueError("a"), ValueError("b"), ".args[0]", "this str would come back as another"),
    (Nothing(), Nothing(), "", "a Nothing cannot be compared with what is read back"),
    (NOON, NOON.replace(fold=1), "", "the time zone or fold of this datetime would be lost"),
    (
        NOON.replace(tzinfo=BERLIN),
        NOON.replace(tzinfo=timezone(timedelta(hours=2))),
        "",
        "the time zone or fold of this datetime would be lost",
    ),
    (NOON, NOON.replace(hour=13), "", "this datetime would come back as another"),
    (NOON, NOON.replace(tzinfo=None), "", "this datetime would come back as another"),
    (len, print, "", "this builtin_function_or_method would come back as another"),
    (int, str, "", "it would come back as another"),
    (Level.LOW, 2, "", "this Level would come back as another"),
]


@pytest.mark.parametrize(("before", "after"), ALIKE, ids=range(len(ALIKE)))
def test_what_is_like_it_throughout_has_no_difference(before: Any, after: Any) -> None:
    assert difference(before, after) is None


@pytest.mark.parametrize(("before", "after", "path", "reason"), LOST, ids=range(len(LOST)))
def test_what_is_lost_is_told_by_its_place(before: Any, after: Any, path: str, reason: str) -> None:
    found = difference(before, after, "$")

    assert found is not None
    assert found[0] == f"${path}"
    assert found[1].startswith(reason)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(PLAIN, PLAIN)
def test_plain_values_are_alike_exactly_if_they_print_alike(one: Any, other: Any) -> None:
    assert difference(one, one) is None
    assert (difference(one, other, manner=EXACT) is None) == (repr(one) == repr(other))


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (Level.LOW, 1)])
def test_exactly_a_number_is_nothing_that_it_equals(before: Any, after: Any) -> None:
    assert difference(before, after) is None
    assert difference(before, after, manner=EXACT) is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, (2,)), [1, [2]]),
        ({"a": NOON}, {"a": NOON.isoformat()}),
        ({3, 1}, [1, 3]),
        (Item("a", 1.0), {"sku": "a", "price": 1.0, "count": 1}),
        ({(1,)}, {(1,)}),
    ],
    ids=range(5),
)
def test_where_json_may_take_its_place_a_value_is_like_its_json(before: Any, after: Any) -> None:
    assert difference(before, after, manner=AS_JSON) is None


def test_where_json_may_take_its_place_another_is_still_another() -> None:
    assert difference((1, 2), [1, 3], manner=AS_JSON) is not None
    assert difference({"a": {1, 2}}, {"a": [2, 1]}, manner=AS_JSON) is not None
    never = Manner(plain, lambda cls: False)
    assert difference(Circle((1,)), Circle([1]), manner=never) is not None  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert difference(Circle((1,)), Circle([1]), manner=AS_JSON) is None  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_what_equals_everything_is_looked_into() -> None:
    one, other = dataclasses.make_dataclass("Two", ["a"])(1), Blind()

    assert difference([Blind()], [one]) is not None
    assert difference(Blind(), other) is None  # of its own class ``==`` is all there is


def ring(length: int, number: int) -> Bare:
    parts = [Bare(n) for n in range(length)]
    for one, following in zip(parts, [*parts[1:], parts[0]], strict=True):
        vars(one)["next"] = following
    parts[-1].number = number
    return parts[0]


def test_parts_that_lead_back_to_their_whole_are_compared_once() -> None:
    assert difference(ring(5, 4), ring(5, 4)) is None
    found = difference(ring(5, 4), ring(5, 7), "$")
    assert found is not None
    assert found[0] == "$.next.next.next.next.number"


def test_a_comparison_that_raised_leaves_nothing_to_the_next() -> None:
    class Raising:
        def __eq__(self, other: object) -> bool:
            raise KeyError("no")

        __hash__ = object.__hash__

    for _ in range(2):
        with pytest.raises(KeyError):
            difference(with_more(Bare(1), a=Raising()), with_more(Bare(1), a=Raising()))
    assert difference(Bare(1), Bare(2)) is not None


def test_what_an_object_has_lies_in_its_dict_its_slots_and_its_class() -> None:
    assert attributes(Slotted(1)) == {"number": 1}
    assert attributes(Bare(1)) == {"number": 1}
    assert attributes(with_more(Names("a"), more=1)) == {"more": 1}
    assert attributes(ValueError("a"))["args"] == ("a",)
    assert attributes(Point(1)) == {}


@pytest.mark.parametrize("cls", [Cached, CachedSlots])
def test_what_can_be_worked_out_again_is_no_part_of_it(cls: Any) -> None:
    value = cls(2)

    assert value.double == 4
    assert attributes(value) == {"number": 2}
    assert "double" in cached_names(cls)
    assert difference(value, cls(2)) is None


def test_a_function_and_a_module_are_themselves_alone() -> None:
    def one() -> None: ...
    def other() -> None: ...

    assert difference(one, one) is None
    assert difference(one, other) is not None
    assert difference(enum.Enum, enum.Flag) is not None
    assert difference(types, types) is None
