from __future__ import annotations

import pytest

from perdure.runtime.scheduling import sparing
from perdure.runtime.scheduling.sparing import RECORDS_MAX, SPAN_S, Sparing


class Made:
    """A sparing log and the clock that it looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.written: list[str] = []
        monkeypatch.setattr(sparing, "perf_counter", lambda: self.now)
        self.sparing = Sparing(self.log)

    def log(self, message: str, *values: object) -> None:
        self.written.append(message % values)

    def write(self, times: int) -> None:
        for _ in range(times):
            self.sparing.write("%s failed", "it")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


def test_the_first_of_a_span_are_written_and_the_others_are_not(made: Made) -> None:
    made.write(RECORDS_MAX + 1_000)

    assert made.written == ["it failed"] * RECORDS_MAX


def test_the_next_span_says_how_many_were_left_out_before_it_begins(made: Made) -> None:
    made.write(RECORDS_MAX + 3)
    made.written.clear()

    made.now += SPAN_S + 0.1
    made.write(2)

    assert made.written == [
        "3 more records like the last ones were left out",
        "it failed",
        "it failed",
    ]


def test_a_span_begins_with_its_first_record_and_does_not_end_early(made: Made) -> None:
    made.write(RECORDS_MAX)
    made.now += SPAN_S - 0.1
    made.write(1)

    assert len(made.written) == RECORDS_MAX


def test_nothing_is_said_where_nothing_was_left_out(made: Made) -> None:
    made.write(RECORDS_MAX)

    made.sparing.tell()

    assert made.written == ["it failed"] * RECORDS_MAX


def test_what_was_left_out_is_told_once(made: Made) -> None:
    made.write(RECORDS_MAX + 1)
    made.written.clear()

    made.sparing.tell()
    made.sparing.tell()

    assert made.written == ["1 more records like the last ones were left out"]
