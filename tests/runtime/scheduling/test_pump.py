from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from perdure.runtime.scheduling.hands import Hand
from perdure.runtime.scheduling.pump import Pump
from tests.runtime.harness import until_true


class Item:
    """Something to run that notes when it does."""

    def __init__(
        self, log: list[str], name: str, work: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self.log = log
        self.name = name
        self.work = work

    @property
    def title(self) -> str:
        return self.name

    def run(self) -> Coroutine[Any, Any, None] | None:
        self.log.append(self.name)
        return None if self.work is None else self.work()

    def on_suspended(self, hand: Hand) -> None:
        self.log.append(f"{self.name} suspended")


@asynccontextmanager
async def running(budget_s: float = 0.002) -> AsyncGenerator[Pump]:
    pump = Pump(budget_s)
    pump.start()
    try:
        yield pump
    finally:
        with anyio.CancelScope(shield=True):
            assert await pump.stop(1.0) == []


async def test_items_run_in_the_order_in_which_they_were_put() -> None:
    log: list[str] = []

    async with running() as pump:
        for name in "abcde":
            pump.put(Item(log, name))
        await until_true(lambda: pump.is_quiet)

    assert log == list("abcde")


async def test_what_is_put_before_the_start_runs_then() -> None:
    log: list[str] = []
    pump = Pump(0.002)
    pump.put(Item(log, "early"))

    pump.start()
    await until_true(lambda: log == ["early"])
    await pump.stop(1.0)


async def test_an_item_may_put_others_and_itself() -> None:
    log: list[str] = []

    async with running() as pump:

        class Again(Item):
            def run(self) -> None:
                self.log.append(self.name)
                if len(self.log) < 5:
                    pump.put(self)

        pump.put(Again(log, "again"))
        await until_true(lambda: len(log) == 5)

        assert pump.is_quiet


async def test_work_that_does_not_suspend_is_done_in_order_and_never_counts_as_suspended() -> None:
    log: list[str] = []

    async def work() -> None:
        log.append("work")

    async with running() as pump:
        pump.put(Item(log, "a", work))
        pump.put(Item(log, "b"))
        await until_true(lambda: pump.is_quiet)

    assert log == ["a", "work", "b"]


async def test_others_go_on_while_work_is_suspended() -> None:
    log: list[str] = []
    gate = anyio.Event()

    async def work() -> None:
        await gate.wait()
        log.append("woken")

    async with running() as pump:
        pump.put(Item(log, "slow", work))
        pump.put(Item(log, "quick"))
        await until_true(lambda: "quick" in log)
        suspended = pump.suspended
        quiet = pump.is_quiet
        gate.set()
        await until_true(lambda: pump.is_quiet)

    assert (suspended, quiet) == (1, False)
    assert log == ["slow", "slow suspended", "quick", "woken"]


async def test_hundreds_may_be_suspended_at_once_and_go_on_in_their_own_time() -> None:
    log: list[str] = []
    gates = [anyio.Event() for _ in range(300)]
    woken: list[int] = []

    def work_of(i: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def work() -> None:
            await gates[i].wait()
            woken.append(i)

        return work

    def is_last(i: int) -> bool:
        return woken[-1:] == [i]

    async with running() as pump:
        for i in range(300):
            pump.put(Item(log, str(i), work_of(i)))
        await until_true(lambda: pump.suspended == 300)
        for i in reversed(range(300)):
            gates[i].set()
            await until_true(partial(is_last, i))
        pump.put(Item(log, "after"))
        await until_true(lambda: log[-1] == "after")

    assert woken == list(reversed(range(300)))


async def test_cancel_scopes_and_timeouts_work_in_suspended_work() -> None:
    log: list[str] = []

    async def work() -> None:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        log.append(f"caught {scope.cancelled_caught}")
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
        log.append("done")

    async with running() as pump:
        pump.put(Item(log, "work", work))
        await until_true(lambda: log[-1:] == ["done"])

    assert "caught True" in log


async def test_a_scope_around_work_that_does_not_suspend_leaves_the_leader_whole() -> None:
    log: list[str] = []

    async def work() -> None:
        with anyio.CancelScope() as scope:  # noqa: ASYNC100
            scope.cancel()
        log.append("done")

    async with running() as pump:
        for i in range(3):
            pump.put(Item(log, str(i), work))
        await until_true(lambda: pump.is_quiet)

    assert log == ["0", "done", "1", "done", "2", "done"]


async def test_the_pump_gives_the_loop_back_when_its_budget_is_spent() -> None:
    log: list[str] = []
    others = 0
    stop = False

    async with running(budget_s=1e-9) as pump:

        class Endless(Item):
            def run(self) -> None:
                self.log.append(self.name)
                if not stop:
                    pump.put(self)

        pump.put(Endless(log, "endless"))
        with anyio.fail_after(10):
            while others < 10:
                await anyio.sleep(0.001)
                others += 1
        stop = True
        await until_true(lambda: pump.is_quiet)

    assert len(log) >= 10


async def test_stopping_ends_suspended_work() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cleaned up")

    async with running() as pump:
        pump.put(Item(log, "work", work))
        await until_true(lambda: pump.suspended == 1)

    assert log[-1] == "cleaned up"
    assert pump.suspended == 0


def spoil(log: list[str], *, cancel: bool) -> None:
    """Do to the current task what users' code may do to it."""
    log.append("spoils")
    if cancel and sniffio.current_async_library() == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.cancel()
    else:
        scope = anyio.move_on_after(0).__enter__() if cancel else anyio.CancelScope().__enter__()
        kept.append(scope)


kept: list[anyio.CancelScope] = []


class Spoiler(Item):
    """Work that suspends nowhere and spoils the task that leads."""

    cancel = False

    def run(self) -> None:
        spoil(self.log, cancel=self.cancel)


@pytest.mark.parametrize("cancel", [True, False])
async def test_work_that_suspends_is_not_touched_by_what_ran_before_it(cancel: bool) -> None:
    log: list[str] = []

    async def innocent() -> None:
        await anyio.sleep(0.001)
        await anyio.lowlevel.checkpoint()
        log.append("done")

    async with running() as pump:
        for _ in range(3):
            spoiler = Spoiler(log, "spoiler")
            spoiler.cancel = cancel
            pump.put(spoiler)
            pump.put(Item(log, "innocent", innocent))
        await until_true(lambda: log.count("done") == 3)

        assert pump.replaced >= 3


async def test_a_scope_that_is_left_open_in_what_is_lent_to_code_does_not_stay_there() -> None:
    log: list[str] = []

    async with running() as pump:
        here = anyio.get_current_task().id
        await until_true(lambda: pump.lend(lambda: anyio.get_current_task().id) != here)
        pump.lend(lambda: spoil(log, cancel=False))

        assert (log, pump.replaced) == (["spoils"], 1)


async def test_an_idle_leader_that_is_cancelled_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []

    async with running() as pump:
        for number in range(30):
            spoiler = Spoiler(log, "spoiler")
            spoiler.cancel = True
            pump.put(spoiler)
            await until_true(lambda: pump.replaced == number + 1)  # noqa: B023
        pump.put(Item(log, "after"))
        await until_true(lambda: log[-1] == "after")

    # However often it happens, the log stays readable, and says how often that was.
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 11
    assert told[10] == "20 more records like the last ones were left out"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
async def test_whatever_gets_out_of_an_item_the_next_ones_run(kind: type[BaseException]) -> None:
    log: list[str] = []

    class Raising(Item):
        def run(self) -> None:
            raise kind("out")

    async def late() -> None:
        await anyio.lowlevel.checkpoint()
        raise kind("out")

    async with running() as pump:
        pump.put(Raising(log, "raising"))
        pump.put(Item(log, "late", late))
        pump.put(Item(log, "after"))
        await until_true(lambda: "after" in log and pump.is_quiet)


async def test_work_that_swallows_its_cancellation_is_named_and_left() -> None:
    log: list[str] = []
    end = anyio.Event()

    async def stubborn() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except BaseException:
                await anyio.lowlevel.cancel_shielded_checkpoint()

    pump = Pump(0.002)
    pump.start()
    pump.put(Item(log, "stubborn", stubborn))
    await until_true(lambda: pump.suspended == 1)
    left = await pump.stop(0.05)

    assert left == ["stubborn"]
    end.set()
    await until_true(lambda: pump.suspended == 0)


async def test_a_task_group_left_open_does_not_outlive_the_work() -> None:
    log: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("child ended")

    async def work() -> None:
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(child)
        await anyio.sleep(0.001)

    async with running() as pump:
        pump.put(Item(log, "work", work))
        await until_true(lambda: "child ended" in log)
        await until_true(lambda: pump.is_quiet)
        pump.put(Item(log, "after"))
        await until_true(lambda: log[-1] == "after")
