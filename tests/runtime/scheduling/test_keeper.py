"""Loops that must not end are begun anew, loudly, whatever ended them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from perdure.actors.errors import InternalError
from perdure.runtime.scheduling.keeper import Keeper
from tests.runtime.harness import until_true


@asynccontextmanager
async def keeping() -> AsyncGenerator[Keeper]:
    keeper = Keeper()
    keeper.start()
    try:
        yield keeper
    finally:
        with anyio.CancelScope(shield=True):
            await keeper.stop()


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError]
)
async def test_a_loop_that_raises_is_repaired_and_begun_anew(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def loop() -> bool:
        log.append("began")
        if len(log) < 3:
            raise kind("for the test")
        await anyio.sleep_forever()
        return False

    def repair(trouble: InternalError) -> None:
        log.append(f"repaired {trouble}")

    async with keeping() as keeper:
        keeper.keep("the loop", loop, repair)
        await until_true(lambda: len(log) == 3)
        restarts = keeper.restarts

    assert restarts == 1
    assert log[1].startswith(f"repaired the loop ended ({kind.__name__}")
    assert kind.__name__ in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_loop_that_somebody_cancels_is_begun_anew() -> None:
    log: list[asyncio.Task[object] | None] = []

    async def loop() -> bool:
        log.append(asyncio.current_task())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
        return False

    async with keeping() as keeper:
        keeper.keep("the loop", loop)
        await until_true(lambda: len(log) == 1)
        assert log[0] is not None
        assert log[0] not in asyncio.all_tasks()
        log[0].cancel()
        await until_true(lambda: len(log) == 2)


async def test_a_loop_that_is_done_is_left_alone() -> None:
    log: list[str] = []

    async def loop() -> bool:
        log.append("began")
        await anyio.lowlevel.checkpoint()
        return True

    async with keeping() as keeper:
        keeper.keep("the loop", loop)
        await until_true(lambda: keeper.count == 0)

        assert log == ["began"]
        assert keeper.restarts == 0


async def test_stopping_lets_a_loop_finish_what_is_shielded() -> None:
    log, has_begun = list[str](), anyio.Event()

    async def loop() -> bool:
        try:
            has_begun.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
                log.append("finished")
        return False

    async with keeping() as keeper:
        keeper.keep("the loop", loop)
        await has_begun.wait()

    assert log == ["finished"]
