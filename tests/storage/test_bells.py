"""A bell of trio's wakes who sleeps for it, whatever code begins waits and leaves them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from perdure.storage.bells import Bell

pytestmark = pytest.mark.parametrize("anyio_backend", ["trio"])


def drive(work: Any) -> Any:
    """Begin a coroutine in the name of the running task, and leave it there."""
    work.send(None)
    return work


async def test_all_who_wait_are_woken_and_who_comes_later_goes_on_at_once() -> None:
    bell, woken = Bell(), list[int]()

    async def wait(number: int) -> None:
        await bell.wait()
        woken.append(number)

    with trio.fail_after(5):
        async with trio.open_nursery() as tasks:
            for number in range(3):
                tasks.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            assert (bell.is_set(), woken) == (False, [])
            bell.set()
            bell.set()
        await wait(3)

    assert (bell.is_set(), sorted(woken)) == (True, [0, 1, 2, 3])


async def test_one_who_has_given_up_is_not_woken() -> None:
    bell = Bell()

    with trio.move_on_after(0):
        await bell.wait()
    bell.set()

    with pytest.raises(trio.TooSlowError), trio.fail_after(0.001):
        await trio.sleep_forever()


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_wait_that_was_driven_by_hand_wakes_nobody(is_kept: bool) -> None:
    bells = [Bell() for _ in range(3)]
    kept = [drive(bell.wait()) for bell in bells]
    if not is_kept:
        kept.clear()

    for bell in bells:
        bell.set()

    with pytest.raises(trio.TooSlowError), trio.fail_after(0.001):
        await trio.sleep_forever()


async def test_a_wait_that_was_driven_by_hand_in_a_task_that_has_ended_wakes_nobody() -> None:
    bell, kept = Bell(), list[Any]()

    async def begin() -> None:
        kept.append(drive(bell.wait()))

    async with trio.open_nursery() as tasks:
        tasks.start_soon(begin)
    bell.set()

    await trio.testing.wait_all_tasks_blocked()


async def test_a_task_that_others_wake_for_no_reason_sleeps_on() -> None:
    bell, event, woken = Bell(), trio.Event(), list[str]()

    async def wait() -> None:
        kept = drive(event.wait())
        await bell.wait()
        woken.append("woken")
        del kept

    with trio.fail_after(5):
        async with trio.open_nursery() as tasks:
            tasks.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            event.set()
            bell.set()  # it is about to run already
        assert woken == ["woken"]
