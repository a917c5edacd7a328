from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import to_thread

from perdure.storage.bridge import AsyncioBridge, on_asyncio

ON_TRIO = pytest.mark.parametrize("anyio_backend", ["trio"])


@pytest.fixture
async def bridge() -> AsyncIterator[AsyncioBridge]:
    bridge = AsyncioBridge()
    yield bridge
    await to_thread.run_sync(bridge.close)


async def where() -> tuple[bool, str]:
    await asyncio.sleep(0)
    return on_asyncio(), threading.current_thread().name


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("no")


async def test_a_call_runs_where_asyncio_is(bridge: AsyncioBridge, anyio_backend_name: str) -> None:
    here = threading.current_thread().name

    for shield in (False, True):
        thread = here if anyio_backend_name == "asyncio" else "perdure-storage"
        assert await bridge.run(where, shield=shield) == (True, thread)
    assert on_asyncio() is (anyio_backend_name == "asyncio")


async def test_what_a_call_raises_comes_back(bridge: AsyncioBridge) -> None:
    for shield in (False, True):
        with pytest.raises(KeyError, match="no"):
            await bridge.run(fail, shield=shield)


def test_outside_of_any_loop_there_is_no_asyncio() -> None:
    assert not on_asyncio()


class Slow:
    """Goes on when it is told, from whatever thread."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    async def __call__(self) -> str:
        self.begun.set()
        while not self.may_end.is_set():
            await asyncio.sleep(0.001)
        self.ended = True
        return "done"


async def test_a_shielded_call_is_waited_for_to_its_end(bridge: AsyncioBridge) -> None:
    slow = Slow()
    results: list[Any] = []

    async def run(scope: anyio.CancelScope) -> None:
        with scope:
            results.append(await bridge.run(slow, shield=True))

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(run, scope)
        await to_thread.run_sync(slow.begun.wait)
        scope.cancel()
        slow.may_end.set()

    assert (slow.ended, results) == (True, ["done"])


@ON_TRIO
async def test_one_who_stops_waiting_leaves_what_was_begun_to_its_end(
    bridge: AsyncioBridge,
) -> None:
    slow = Slow()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge.run, slow)
        await to_thread.run_sync(slow.begun.wait)
        tasks.cancel_scope.cancel()
    assert not slow.ended
    slow.may_end.set()
    await to_thread.run_sync(bridge.close)

    assert slow.ended


@ON_TRIO
async def test_its_thread_ends_with_it_and_begins_again_where_it_is_used(
    bridge: AsyncioBridge,
) -> None:
    def threads() -> int:
        return [thread.name for thread in threading.enumerate()].count("perdure-storage")

    before = threads()
    await bridge.run(where)
    await bridge.run(where)
    during = threads()
    await to_thread.run_sync(bridge.close)
    await to_thread.run_sync(bridge.close)

    assert (during, threads()) == (before + 1, before)
    assert await bridge.run(where) == (True, "perdure-storage")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_asyncio_there_is_no_thread_to_end(bridge: AsyncioBridge) -> None:
    await bridge.run(where)

    bridge.close()

    assert not bridge.has_thread
