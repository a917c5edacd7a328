from __future__ import annotations

from typing import Any
from zlib import crc32

import orjson
import pytest

from perdure.actors.codec import codec_for
from perdure.actors.replay.script import Script

INPUT = b'{"a":1}'
SCHEDULED: list[Any] = ["TaskScheduled", 5, 1, "work", crc32(INPUT), [{"a": 1}], None, 1, None, 1]
TIMER: list[Any] = ["TimerCreated", 6, 2, 100]


def decided(name: str = "work", data: bytes = INPUT, number: int = 1) -> tuple[Any, ...]:
    fragment = [orjson.Fragment(data)]
    return ("TaskScheduled", 9, number, name, crc32(data), fragment, None, 1, None, number)


def test_what_the_code_decides_again_is_gone_past_whatever_the_time() -> None:
    script = Script([SCHEDULED, TIMER])

    assert script.takes(decided(), INPUT, None)
    assert (script.position, script.next) == (1, TIMER)
    assert script.takes(("TimerCreated", 9, 2, 100), None, None)
    assert (script.position, script.next) == (2, None)


@pytest.mark.parametrize(
    "decision",
    [
        decided("other"),
        decided(number=2),
        decided(data=b'{"a":2}'),
        ("TimerCreated", 5, 1, 100),
    ],
    ids=["another name", "another number", "another input", "another kind"],
)
def test_what_the_code_decides_otherwise_is_not_gone_past(decision: tuple[Any, ...]) -> None:
    script = Script([SCHEDULED, TIMER])

    assert not script.takes(decision, b'{"a":2}', (codec_for(dict[str, int]), {"a": 2}))
    assert (script.position, script.next) == (0, SCHEDULED)


def test_an_input_that_its_class_writes_otherwise_today_is_the_same() -> None:
    script = Script([SCHEDULED])
    today = b'{"a": 1.0}'

    assert script.takes(decided(data=today), today, (codec_for(dict[str, float]), {"a": 1.0}))


def test_behind_the_last_nothing_is_expected() -> None:
    script = Script([])

    assert script.next is None
    assert not script.takes(decided(), INPUT, None)


def test_the_next_is_given_if_it_is_of_the_kind_asked_for() -> None:
    script = Script([TIMER])

    assert script.next_of("TimerCreated") is TIMER
    assert script.next_of("TaskScheduled") is None
