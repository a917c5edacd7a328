from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from perdure.runtime.scheduling.hands import Hand, hand_factory, is_foreign
from perdure.runtime.scheduling.waiter import is_cancellation, on_asyncio
from tests.runtime.harness import until_true

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Ends:
    """The ends that hands have told of."""

    def __init__(self) -> None:
        self.told: list[tuple[Hand, BaseException | None]] = []

    def __call__(self, hand: Hand, error: BaseException | None) -> None:
        self.told.append((hand, error))

    @property
    def errors(self) -> list[BaseException | None]:
        return [error for _, error in self.told]

    async def all_of(self, count: int) -> None:
        await until_true(lambda: len(self.told) == count)


async def sleep_for_ever(hand: Hand) -> None:
    await anyio.sleep_forever()


async def do_nothing(hand: Hand) -> None:
    await anyio.lowlevel.checkpoint()


async def test_a_hand_does_its_work_in_a_task_of_its_own_and_says_that_it_has() -> None:
    ends, seen = Ends(), list[Any]()

    async def work(hand: Hand) -> None:
        await anyio.lowlevel.checkpoint()
        seen.extend((hand, anyio.get_current_task().id))

    hand = hand_factory()(work, ends)
    await ends.all_of(1)

    assert ends.told == [(hand, None)]
    assert seen[0] is hand
    assert seen[1] != anyio.get_current_task().id


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr
)
async def test_whatever_ends_a_hand_is_told_and_reaches_no_other_task(
    error: BaseException,
) -> None:
    ends, make = Ends(), hand_factory()

    async def fail(hand: Hand) -> None:
        raise error

    make(fail, ends)
    make(do_nothing, ends)
    await ends.all_of(2)

    assert sorted(map(repr, ends.errors)) == sorted([repr(error), "None"])


async def test_a_hand_that_is_cancelled_ends_by_that() -> None:
    ends = Ends()
    hand = hand_factory()(sleep_for_ever, ends)
    await anyio.wait_all_tasks_blocked()

    hand.cancel()
    await ends.all_of(1)

    [error] = ends.errors
    assert error is None or is_cancellation(error)
    assert not is_foreign(hand, ValueError("no"))


async def test_a_hand_that_is_cancelled_before_it_began_does_nothing() -> None:
    ends, seen = Ends(), list[str]()

    async def work(hand: Hand) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append("done")

    hand_factory()(work, ends).cancel()
    await ends.all_of(1)

    assert seen == []


async def test_each_hand_begins_with_the_context_of_the_factory() -> None:
    ends, seen = Ends(), list[str]()

    async def work(hand: Hand) -> None:
        seen.append(variable.get())
        variable.set("of a hand")

    variable.set("of the hub")
    make = hand_factory()
    variable.set("later")
    for count in (1, 2):
        make(work, ends)
        await ends.all_of(count)

    assert seen == ["of the hub", "of the hub"]


def spoil_by_cancelling() -> None:
    """Do to the current task what users' code may do to it."""
    if on_asyncio():
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
    else:
        left_open.append(anyio.move_on_after(0).__enter__())


def spoil_by_a_scope() -> None:
    left_open.append(anyio.CancelScope().__enter__())


left_open: list[anyio.CancelScope] = []


@pytest.mark.parametrize("spoil", [spoil_by_cancelling, spoil_by_a_scope])
async def test_a_hand_that_code_has_spoilt_says_so(spoil: Callable[[], None]) -> None:
    ends, seen = Ends(), list[bool]()

    async def work(hand: Hand) -> None:
        seen.append(hand.is_spoilt())
        spoil()
        seen.append(hand.is_spoilt())
        hand.give_up()

    hand_factory()(work, ends)
    await ends.all_of(1)

    assert seen == [False, True]


async def test_what_the_hub_cancels_is_not_spoilt_by_that() -> None:
    ends, seen = Ends(), list[bool]()

    async def work(hand: Hand) -> None:
        try:
            await anyio.sleep_forever()
        except BaseException:
            seen.append(hand.is_spoilt())
            raise

    hand = hand_factory()(work, ends)
    await anyio.wait_all_tasks_blocked()
    hand.cancel()
    await ends.all_of(1)

    assert seen == [False]


async def test_a_cancellation_is_foreign_only_where_other_code_may_have_made_it() -> None:
    ends, seen = Ends(), list[bool]()

    async def work(hand: Hand) -> None:
        error = anyio.get_cancelled_exc_class()
        cancelled = error() if on_asyncio() else error.__new__(error)
        seen.append(is_foreign(hand, cancelled))
        spoil_by_cancelling()
        seen.extend((is_foreign(hand, cancelled), is_foreign(hand, ValueError("no"))))
        hand.give_up()

    hand_factory()(work, ends)
    await ends.all_of(1)

    assert seen == [False, True, False]


async def test_what_was_left_open_is_cancelled_with_all_in_it() -> None:
    ends, seen = Ends(), list[str]()

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("ended")

    async def work(hand: Hand) -> None:
        group = await anyio.create_task_group().__aenter__()
        kept.append(group)
        group.start_soon(child)
        await anyio.wait_all_tasks_blocked()
        assert hand.is_spoilt()
        hand.give_up()
        await anyio.sleep_forever()

    kept: list[Any] = []
    hand_factory()(work, ends)
    await ends.all_of(1)
    await until_true(lambda: seen == ["ended"])


async def test_what_is_lent_to_a_hand_runs_as_if_in_its_task() -> None:
    ends = Ends()
    hand = hand_factory()(sleep_for_ever, ends)
    await anyio.wait_all_tasks_blocked()
    here = anyio.get_current_task().id

    there = hand.lend(lambda: anyio.get_current_task().id)

    assert there != here
    assert anyio.get_current_task().id == here
    with pytest.raises(ValueError, match="no"):
        hand.lend(lambda: int("no"))
    assert anyio.get_current_task().id == here
    hand.cancel()
    await ends.all_of(1)
    assert hand.lend(lambda: anyio.get_current_task().id) == here  # it has ended


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio waits for all of its tasks
async def test_what_is_lent_outside_of_any_task_runs_there() -> None:
    ends = Ends()
    hand = hand_factory()(sleep_for_ever, ends)
    await anyio.wait_all_tasks_blocked()
    seen: list[Any] = []

    asyncio.get_running_loop().call_soon(
        lambda: seen.append(hand.lend(lambda: asyncio.current_task()))
    )
    await until_true(lambda: len(seen) == 1)

    assert seen == [None]
    hand.cancel()
    await ends.all_of(1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # of which this knows the insides
async def test_where_anyio_keeps_its_scopes_elsewhere_an_open_one_is_not_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from anyio._backends import _asyncio as backend

    with monkeypatch.context() as patched:
        patched.delattr(backend, "_task_states")
        make = hand_factory()
    ends, seen = Ends(), list[bool]()

    async def work(hand: Hand) -> None:
        spoil_by_a_scope()
        seen.append(hand.is_spoilt())
        hand.give_up()

    make(work, ends)
    await ends.all_of(1)

    assert seen == [False]


def test_a_loop_of_asyncio_ends_without_a_hand_that_was_left_behind() -> None:
    ended = threading.Event()

    async def swallow(hand: Hand) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        hand = hand_factory()(swallow, Ends())
        await asyncio.sleep(0)
        hand.leave_behind()

    def run() -> None:
        asyncio.run(main())
        ended.set()

    threading.Thread(target=run, daemon=True).start()

    assert ended.wait(10)


def test_on_trio_a_hand_ends_with_the_loop() -> None:
    ends = Ends()

    async def main() -> None:
        hand = hand_factory()(sleep_for_ever, ends)
        await trio.testing.wait_all_tasks_blocked()
        hand.leave_behind()

    trio.run(main)

    assert len(ends.told) == 1
