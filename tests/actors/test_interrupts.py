"""Ctrl-C is told from a KeyboardInterrupt that code raised."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from perdure.actors.interrupts import is_interrupt


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    # A process that a shell started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def caught_from_signal() -> BaseException | None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1_000):
            pass
    except KeyboardInterrupt as error:
        return error
    return None


def caught_from_raise() -> BaseException:
    try:
        raise KeyboardInterrupt("by hand")
    except KeyboardInterrupt as error:
        return error


def test_a_signal_is_an_interrupt() -> None:
    error = caught_from_signal()

    assert error is not None
    assert is_interrupt(error)


def test_what_code_raises_is_none() -> None:
    assert not is_interrupt(caught_from_raise())
    assert not is_interrupt(KeyboardInterrupt())
    assert not is_interrupt(SystemExit())


def test_the_second_signal_under_asyncio_is_an_interrupt() -> None:
    found: list[bool] = []

    async def main() -> None:
        assert caught_from_signal() is None  # the first one cancels the main task
        error = caught_from_signal()
        assert error is not None
        found.append(is_interrupt(error))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())

    assert found == [True]


def test_no_other_thread_is_interrupted() -> None:
    error = caught_from_signal()
    assert error is not None
    found: list[bool] = []

    thread = threading.Thread(target=lambda: found.append(is_interrupt(error)))
    thread.start()
    thread.join()

    assert found == [False]
