from __future__ import annotations

import enum
from datetime import datetime, timedelta, timezone
from typing import (
    Any,
)
from zoneinfo import ZoneInfo

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import round_trip


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
