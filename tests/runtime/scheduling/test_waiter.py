from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest

from perdure.runtime.scheduling.waiter import TOLD, Waiter, on_asyncio, thread_waker, waiter_factory
from tests.runtime.harness import until_true


async def test_a_waiter_gives_what_was_set_before_or_after_it_was_awaited() -> None:
    make = waiter_factory()
    early, late = make(), make()
    results: list[object] = []

    async def wait(waiter: Waiter) -> None:
        results.append(await waiter)

    early.set("early")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, early)
        tasks.start_soon(wait, late)
        await until_true(lambda: results == ["early"])
        late.set("late")

    assert results == ["early", "late"]


async def test_a_waiter_raises_what_it_failed_with() -> None:
    waiter = waiter_factory()()
    waiter.fail(ValueError("no"))

    with pytest.raises(ValueError, match="no"):
        await waiter


@pytest.mark.parametrize("first", ["set", "fail"])
async def test_the_first_outcome_counts(first: str) -> None:
    waiter = waiter_factory()()
    if first == "set":
        waiter.set(1)
        waiter.fail(ValueError())
        waiter.set(2)

        assert await waiter == 1
    else:
        waiter.fail(ValueError("first"))
        waiter.set(1)
        waiter.fail(ValueError("second"))

        with pytest.raises(ValueError, match="first"):
            await waiter


async def test_an_outcome_for_a_caller_that_has_gone_is_dropped_without_a_word() -> None:
    make = waiter_factory()
    for outcome in ("set", "fail"):
        waiter = make()
        with anyio.move_on_after(0.001):
            await waiter
        if outcome == "set":
            waiter.set(1)
        else:
            waiter.fail(ValueError("nobody hears it"))
    make().fail(ValueError("never awaited"))


async def test_which_loop_runs_is_known(anyio_backend: str) -> None:
    assert on_asyncio() is (anyio_backend == "asyncio")


async def test_another_thread_can_have_a_callback_run_on_the_loop() -> None:
    here = threading.get_ident()
    ran_in: list[int] = []
    wake = thread_waker(lambda: ran_in.append(threading.get_ident()))

    await anyio.to_thread.run_sync(wake)
    await until_true(lambda: bool(ran_in))

    assert ran_in == [here]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waking_a_loop_that_has_ended_does_nothing(backend: str) -> None:
    called: list[str] = []

    async def main() -> Callable[[], None]:
        return thread_waker(lambda: called.append("called"))

    wake = anyio.run(main, backend=backend)
    wake()

    assert called == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # futures are asyncio's alone
async def test_a_failure_that_nobody_awaits_is_not_reported_when_it_is_collected() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    waiter = waiter_factory()()
    waiter.fail(ValueError("nobody hears it"))

    del waiter
    await anyio.lowlevel.checkpoint()

    assert reported == []


def test_a_client_that_was_told_takes_any_further_outcome() -> None:
    TOLD.set(1)
    TOLD.fail(ValueError())

    with pytest.raises(NotImplementedError):
        TOLD.__await__()
