from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import InvalidTimeError
from perdure.actors.times import (
    LONGEST_S,
    due_time,
    microseconds,
    optional_timestamp,
    seconds,
    timestamp,
    to_datetime,
)

NOW = 1_700_000_000_000_000


class Hostile(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise KeyError("nothing")

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> str:
        return "nowhere"


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_comes_back_from_its_microseconds(when: datetime) -> None:
    assert to_datetime(timestamp(when)) == when


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (0, 0),
        (1.5, 1_500_000),
        (timedelta(days=1, microseconds=1), 86_400_000_001),
        (1e-9, 0),
        (LONGEST_S - 1, (LONGEST_S - 1) * 1_000_000),
    ],
)
def test_a_delay_is_seconds_or_a_timedelta(delay: Any, expected: int) -> None:
    assert microseconds(delay) == expected
    assert seconds(delay, "delay") == expected / 1e6


def test_a_delay_longer_than_nothing_is_one_however_short() -> None:
    assert microseconds(1e-9, least=1) == 1


@pytest.mark.parametrize(
    "delay",
    [
        -1,
        timedelta(microseconds=-1),
        float("nan"),
        float("inf"),
        10**400,
        -(10**400),
        LONGEST_S,
        timedelta.max,
        True,
        "1",
        None,
    ],
    ids=str,
)
def test_what_is_no_delay_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidTimeError, match="zero or more, and finite"):
        microseconds(delay)


@pytest.mark.parametrize("delay", [0, 0.0, timedelta()])
def test_no_delay_is_refused_where_there_must_be_one(delay: Any) -> None:
    with pytest.raises(InvalidTimeError, match=r"pause must be .* longer than 0"):
        microseconds(delay, "pause", least=1)


@pytest.mark.parametrize(
    "when",
    [
        datetime(2024, 2, 29),  # noqa: DTZ001
        datetime(2024, 2, 29, tzinfo=Hostile()),
        "2024-02-29",
        5,
        None,
    ],
    ids=range(5),
)
def test_what_is_no_aware_datetime_is_refused(when: Any) -> None:
    with pytest.raises(InvalidTimeError, match="timezone-aware"):
        timestamp(when)


@pytest.mark.parametrize(
    ("extreme", "hours"),
    [(datetime.max.replace(tzinfo=UTC), -12), (datetime.min.replace(tzinfo=UTC), 12)],
    ids=["max", "min"],
)
def test_a_time_that_has_no_year_in_utc_is_refused(extreme: datetime, hours: int) -> None:
    with pytest.raises(InvalidTimeError):
        timestamp(extreme.replace(tzinfo=timezone(timedelta(hours=hours))))

    assert to_datetime(timestamp(extreme)) == extreme


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(1970, 1, 1, 1, tzinfo=UTC), 3_600_000_000),
        (datetime(1969, 12, 31, 23, tzinfo=UTC), -3_600_000_000),
        (timedelta(seconds=2), NOW + 2_000_000),
        (0.5, NOW + 500_000),
        (0, NOW),
    ],
)
def test_what_is_due_is_due_at_a_time_or_so_long_from_now(at: Any, expected: int) -> None:
    assert due_time(at, NOW) == expected


def test_a_timedelta_of_a_subclass_counts_from_now_too() -> None:
    assert due_time(type("Delay", (timedelta,), {})(seconds=2), NOW) == NOW + 2_000_000


@pytest.mark.parametrize("at", ["soon", None, [], datetime(2024, 1, 1)])  # noqa: DTZ001
def test_what_is_neither_a_time_nor_a_delay_is_refused_by_name(at: Any) -> None:
    with pytest.raises(InvalidTimeError, match="start_at must be"):
        due_time(at, NOW, "start_at")


@pytest.mark.parametrize("read", [timestamp, optional_timestamp])
def test_a_time_may_be_left_out_only_where_it_is_optional(
    read: Callable[[object, str], int | None],
) -> None:
    if read is optional_timestamp:
        assert read(None, "after") is None
    else:
        with pytest.raises(InvalidTimeError, match="after must be"):
            read(None, "after")
