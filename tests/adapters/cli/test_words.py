from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure import UsageError
from perdure.adapters.cli.words import (
    counted,
    duration,
    read_since,
    read_when,
    relative,
    shortened,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "now"),
        (-5.9, "5 s ago"),
        (-59, "59 s ago"),
        (-60, "1 min ago"),
        (-7_300, "2 h ago"),
        (-86_400, "1 day ago"),
        (-200_000, "2 days ago"),
        (90, "in 1 min"),
    ],
)
def test_a_time_is_said_from_now(seconds: float, words: str) -> None:
    assert relative(NOW + timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 messages"), (1, "1 message"), (2_000, "2,000 messages")]
)
def test_one_of_something_is_not_several(number: int, words: str) -> None:
    assert counted(number, "message") == words


def test_what_takes_less_than_a_second_is_said_in_milliseconds() -> None:
    assert duration(0.25) == "250 ms"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7_200), ("1d", 86_400), ("1w", 604_800)],
)
def test_how_long_is_written_with_a_unit(text: str, seconds: float) -> None:
    assert read_when(text, "--at") == seconds

    since = datetime.fromisoformat(read_since(text, "--created-from"))
    ago = datetime.now(UTC) - since
    assert seconds <= ago.total_seconds() < seconds + 60


def test_a_time_without_a_zone_is_one_of_this_machine() -> None:
    assert (
        datetime.fromisoformat(str(read_when("2026-05-01T12:00:00", "--at")))
        == datetime(2026, 5, 1, 12).astimezone()
    )
    assert read_since("2026-05-01T12:00:00+00:00", "--created-to").startswith("2026-05-01T")


@pytest.mark.parametrize("text", ["", "soon", "5 years", "-3s", "99999999999d"])
def test_what_is_no_time_is_refused_by_the_option_s_name(text: str) -> None:
    with pytest.raises(UsageError, match="--created-from"):
        read_since(text, "--created-from")


def test_a_text_is_cut_between_words_and_said_to_be() -> None:
    assert shortened("one two\n three", 20) == "one two three"
    assert shortened("one two three four", 14) == "one two..."
