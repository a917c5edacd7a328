from __future__ import annotations

import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, strategies as st

from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.scalars import is_bare_number, scalar_shapes
from perdure.actors.codec.shapes import Fault
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import FLOAT, INT, TEXT, round_trip


def test_an_int_is_accepted_for_a_float_and_read_as_one() -> None:
    value = round_trip(float, 5)

    assert (value, type(value)) == (5.0, float)


def test_a_naive_datetime_stays_naive_and_an_offset_stays_exact() -> None:
    offset = timezone(timedelta(minutes=19, seconds=32))

    assert round_trip(datetime, datetime(2024, 1, 1)).tzinfo is None  # noqa: DTZ001
    assert round_trip(datetime, datetime(1930, 1, 1, tzinfo=offset)).utcoffset() == timedelta(
        minutes=19, seconds=32
    )


@pytest.mark.parametrize("fold", [0, 1])
def test_a_datetime_keeps_its_zone_also_in_the_hour_that_comes_twice(fold: int) -> None:
    moment = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)

    read = round_trip(datetime, moment)

    assert (read, read.tzinfo, read.fold) == (moment, moment.tzinfo, fold)
    assert read + timedelta(days=1) == moment + timedelta(days=1)


def test_a_zone_that_is_not_known_is_refused() -> None:
    with pytest.raises(PayloadError, match="Nowhere/Land"):
        codec_for(datetime).decode(b'"2024-10-27T02:30:00+02:00[Nowhere/Land]"')


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'"P1D"', timedelta(days=1)),
        (b'"PT2H30M"', timedelta(hours=2, minutes=30)),
        (b'"PT-0.5S"', timedelta(seconds=-0.5)),
        (b"90", timedelta(seconds=90)),
        (b"0.5", timedelta(seconds=0.5)),
    ],
)
def test_other_spellings_of_a_duration_are_read(data: bytes, expected: timedelta) -> None:
    assert codec_for(timedelta).decode(data) == expected


def test_the_text_of_a_string_enum_crosses_as_str() -> None:
    class Name(enum.StrEnum):
        ANNA = "anna"

    assert round_trip(dict[str, str], {Name.ANNA: Name.ANNA}) == {"anna": "anna"}
    assert codec_for(Any).encode([Name.ANNA]) == b'["anna"]'


SHAPES = scalar_shapes()


class Half(float, enum.Enum):
    HALF = 0.5


class Number(enum.IntEnum):
    ONE = 1


class Rate(float):
    pass


class Bare(float):
    __slots__ = ()


@pytest.mark.parametrize(
    ("annotation", "taken", "refused"),
    [
        (int, [0, True, Number.ONE], [1.0, "1", None, Half.HALF]),
        (bool, [True, False], [1, 0, None, "True"]),
        (str, ["", "a"], [b"a", 1, None]),
        (None, [None], [0, False, ""]),
        (float, [0.5, 1, Half.HALF, Number.ONE], [True, "1", None, Rate(1)]),
        (date, [date(2024, 2, 29)], [datetime(2024, 2, 29, tzinfo=UTC), "2024-02-29"]),
        (time, [time(1)], [datetime(2024, 2, 29, tzinfo=UTC), "01:00"]),
        (timedelta, [timedelta(1)], [1, "P1D"]),
        (UUID, [UUID(int=1)], [str(UUID(int=1)), 1]),
        (Decimal, [Decimal(1)], [1, "1"]),
        (bytes, [b""], ["", bytearray(b"a")]),
    ],
)
def test_a_value_of_another_class_is_refused(
    annotation: Any, taken: list[Any], refused: list[Any]
) -> None:
    shape = SHAPES[annotation]

    for value in taken:
        read = shape.decode(shape.encode(value))
        assert (read, shape.immutable) == (value, True)
    for value in refused:
        with pytest.raises(Fault, match="expected, not"):
            shape.encode(value)


@pytest.mark.parametrize("annotation", [one for one in SHAPES if one is not None])
@given(value=st.none() | st.booleans() | INT | FLOAT | TEXT | st.just([]))
def test_whatever_json_there_is_it_is_a_value_or_a_fault(annotation: Any, value: Any) -> None:
    shape = SHAPES[annotation]

    try:
        read = shape.decode(value)
    except Fault:
        return
    assert type(read) is annotation or (annotation is int and type(read) is bool)
    assert shape.decode(shape.encode(read)) == read or read != read


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "nan has no JSON form"),
        (-math.inf, "-inf has no JSON form"),
        (10**400, "is too large for a float"),
        (2**53 + 1, "would lose digits as a float"),
    ],
)
def test_a_number_that_no_float_of_json_is_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(Fault, match=reason):
        SHAPES[float].encode(value)


def test_a_float_of_c_code_is_a_float_and_one_of_a_class_statement_is_none() -> None:
    assert is_bare_number(Half.HALF)
    assert is_bare_number(Number.ONE)
    assert is_bare_number(0.5)
    assert not is_bare_number(Rate(0.5))
    assert not is_bare_number(Bare(0.5))
    assert not is_bare_number(1)
    assert not is_bare_number("1")


@given(st.integers(), st.integers())
def test_a_number_as_a_key_has_one_text(number: int, other: int) -> None:
    key = SHAPES[int].key
    assert key is not None

    assert key.decode(key.encode(number)) == number
    assert (key.encode(number) == key.encode(other)) == (number == other)


@pytest.mark.parametrize("text", ["01", "+1", " 1", "1_0", "-0", "1.0", "", "\u0661"])
def test_another_text_of_a_number_is_no_key(text: str) -> None:
    key = SHAPES[int].key
    assert key is not None

    with pytest.raises(Fault, match="is not the text of a int"):
        key.decode(text)


def test_a_boolean_is_no_key_of_a_number() -> None:
    key = SHAPES[int].key
    assert key is not None

    with pytest.raises(Fault, match="int expected, not"):
        key.encode(True)
    assert key.encode(Number.ONE) == "1"


@given(st.timedeltas())
def test_a_duration_is_read_back_exactly(value: timedelta) -> None:
    shape = SHAPES[timedelta]

    assert shape.decode(shape.encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "P1Y",
        "1D",
        "PT1.S",
        "PT.5S",
        "PT1.1234567S",
        "P1D ",
        "P99999999999D",
        1e300,
        [],
        None,
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(Fault):
        SHAPES[timedelta].decode(value)


@given(st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.integers(0, 1))
@example(timedelta(microseconds=1), 0)
@example(timedelta(microseconds=-1), 1)
def test_an_offset_is_kept_to_the_microsecond(offset: timedelta, fold: int) -> None:
    for moment in (datetime(2024, 2, 29, 12), time(12)):  # noqa: DTZ001
        aware: Any = moment.replace(tzinfo=timezone(offset), fold=fold)
        read = SHAPES[type(aware)].decode(SHAPES[type(aware)].encode(aware))

        assert (read, read.utcoffset(), read.fold) == (aware, offset, fold)


@pytest.mark.parametrize("annotation", [date, Decimal, UUID, bytes, str, float])
def test_what_a_subclass_adds_is_lost_where_only_its_base_is_written(annotation: Any) -> None:
    shape = SHAPES[annotation]

    if annotation is str:
        assert shape.write_subclass is None
        return
    assert shape.write_subclass is not None
    value = {
        date: date(2024, 2, 29),
        Decimal: Decimal(1),
        UUID: UUID(int=1),
        bytes: b"a",
        float: Rate(0.5),
    }[annotation]
    assert shape.write_subclass(value) == shape.encode(
        annotation(0.5) if annotation is float else value
    )
