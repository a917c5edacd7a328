"""A hub and its client from other tasks, other threads and other loops than the hub's own."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from perdure import (
    MISSING,
    App,
    EntityId,
    EntityOperationError,
    Hub,
    HubStoppingError,
    LeaseLostError,
    MemoryStore,
    OrchestrationContext,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
    UsageError,
)
from perdure.runtime.scheduling.homes import Home
from perdure.testing.inside import partitions_of

app = App("homes")


@app.entity
class Counter:
    n: int = 0

    def add(self) -> int:
        self.n += 1
        return self.n

    def fail(self) -> None:
        raise ValueError("no")


@app.orchestration
async def one(ctx: OrchestrationContext) -> int:
    return 1


@app.orchestration
async def never(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")


C = EntityId(Counter, "c")
LOOPS = ["asyncio", "trio"]


async def on_a_loop(backend: str, function: Callable[[], Awaitable[Any]]) -> Any:
    """Run a function on a new event loop in another thread."""

    async def call() -> Any:
        with anyio.fail_after(20):
            return await function()

    return await anyio.to_thread.run_sync(lambda: anyio.run(call, backend=backend))


@pytest.mark.parametrize("other", LOOPS)
@pytest.mark.parametrize("shards", [1, 2])
async def test_a_client_works_on_a_loop_of_another_thread(other: str, shards: int) -> None:
    async with Hub(app, shards=shards) as hub:
        client = hub.client

        async def everything() -> list[Any]:
            handle = await client.start_new(one, instance_id="i")
            made = await client.start_new(one)
            await client.signal_entity(C, Counter.add)
            await client.signal_entities([(C, "add", MISSING), (C, "add", None)])
            count = await client.call_entity(C, Counter.add, timeout=10)
            state = await client.read_entity_state(C)
            assert state is not None
            entities = [status async for status in client.query_entities()]
            instances = [status async for status in client.query()]
            statistics = await hub.statistics()
            history = await handle.history()
            return [
                await handle.result(10),
                await made.result(10),
                (await handle.status()).output,
                count,
                state.n,
                len(entities),
                len(instances),
                statistics.messages > 0,
                len(history) > 0,
                await handle.purge(),
            ]

        assert await on_a_loop(other, everything) == [1, 1, 1, 4, 4, 1, 2, True, True, 1]
        assert await client.call_entity(C, Counter.add) == 5


@pytest.mark.parametrize("other", LOOPS)
async def test_errors_come_back_to_another_loop(other: str) -> None:
    async with Hub(app) as hub:

        async def fail() -> None:
            await hub.client.call_entity(C, Counter.fail)

        with pytest.raises(EntityOperationError, match="ValueError: no"):
            await on_a_loop(other, fail)


@pytest.mark.parametrize("other", LOOPS)
async def test_a_timeout_on_another_loop_ends_the_wait_at_home_too(other: str) -> None:
    async with Hub(app) as hub:
        handle = await hub.client.start_new(never)

        async def wait() -> str:
            try:
                await handle.result(0.05)
            except TimeoutError:
                return "in time"
            return "too late"

        assert await on_a_loop(other, wait) == "in time"
        with anyio.fail_after(5):
            while any(partition.watchers for partition in partitions_of(hub)):
                await anyio.sleep(0.001)


@pytest.mark.parametrize("other", LOOPS)
async def test_a_hub_that_stops_answers_what_waits_on_other_loops(other: str) -> None:
    errors: list[BaseException] = []
    async with Hub(app) as hub:
        handle = await hub.client.start_new(never)

        async def wait() -> None:
            try:
                await handle.result()
            except HubStoppingError as error:
                errors.append(error)

        thread = threading.Thread(target=lambda: anyio.run(wait, backend=other), daemon=True)
        thread.start()
        with anyio.fail_after(10):
            while not any(partition.watchers for partition in partitions_of(hub)):
                await anyio.sleep(0.001)
    await anyio.to_thread.run_sync(lambda: thread.join(10))

    assert [type(error) for error in errors] == [HubStoppingError]
    with pytest.raises(HubStoppingError):
        await on_a_loop(other, handle.status)


async def test_a_plain_thread_calls_through_anyio() -> None:
    async with Hub(app) as hub:

        def call() -> int:
            return anyio.from_thread.run(hub.client.call_entity, C, Counter.add)

        assert await anyio.to_thread.run_sync(call) == 1


@pytest.mark.parametrize("other", LOOPS)
async def test_a_hub_is_stopped_from_another_loop(other: str) -> None:
    hub = await Hub(app).start()

    await on_a_loop(other, hub.stop)

    with pytest.raises(HubStoppingError):
        hub.client  # noqa: B018


async def in_task(function: Callable[[], Awaitable[Any]]) -> Any:
    """Run a function in a task of its own, which has ended when this returns."""
    found: list[Any] = []

    async def keep() -> None:
        found.append(await function())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
    return found[0]


async def test_a_hub_is_started_in_one_task_and_stopped_in_another() -> None:
    hub = Hub(app)

    await in_task(hub.start)
    assert await in_task(lambda: hub.client.call_entity(C, Counter.add)) == 1
    await in_task(hub.stop)

    with pytest.raises(HubStoppingError, match="stopped"):
        hub.client  # noqa: B018


# On trio, whatever is entered belongs to the task that enters it.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_is_entered_in_one_task_and_left_in_another() -> None:
    hub = Hub(app)

    await asyncio.create_task(hub.__aenter__())
    assert await asyncio.create_task(hub.client.call_entity(C, Counter.add)) == 1
    await asyncio.create_task(hub.__aexit__(None, None, None))

    await anyio.lowlevel.checkpoint()  # the task that goes on is not cancelled


class LosingStore(MemoryStore):
    """A store that cannot be closed."""

    async def close(self) -> None:
        await super().close()
        raise StorageError("lost")


async def test_what_goes_wrong_at_the_end_is_raised_by_stop() -> None:
    hub = await Hub(app, store=LosingStore()).start()

    with pytest.raises(StorageError, match="lost"):
        await hub.stop()


class ClosedStore(MemoryStore):
    """A store that cannot be opened."""

    async def open(self, partitions: int) -> Any:
        raise StorageError("shut")


async def test_what_goes_wrong_at_the_start_is_raised_by_start() -> None:
    hub = Hub(app, store=ClosedStore())

    with pytest.raises(StorageError, match="shut"):
        await hub.start()
    with pytest.raises(UsageError, match="stopped already"):
        await hub.stop()


async def lose(hub: Hub, store: MemoryStore) -> None:
    """Have another owner take the hub's partitions over, which it notices when it next commits."""
    for rows in store.rows:
        rows.epoch += 1
    with pytest.raises(UnavailableError):
        await hub.client.call_entity(C, Counter.add)


async def test_a_hub_that_fails_cancels_the_block_that_it_is_in() -> None:
    cancelled: list[bool] = []

    async def work() -> None:
        store = MemoryStore()
        async with Hub(app, store=store) as hub:
            try:
                await lose(hub, store)
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                cancelled.append(True)
                raise

    with pytest.raises(LeaseLostError):
        await work()

    assert cancelled == [True]
    await anyio.lowlevel.checkpoint()  # nothing of the cancellation is left


async def test_a_hub_that_fails_between_start_and_stop_says_so_at_stop() -> None:
    store = MemoryStore()
    hub = await Hub(app, store=store).start()
    client = hub.client

    await lose(hub, store)

    with anyio.fail_after(10):
        while True:
            try:
                await client.call_entity(C, Counter.add)
            except HubStoppingError:
                break
            except LeaseLostError:
                continue  # it was in the checkpoint that was refused
    with pytest.raises(LeaseLostError):
        await hub.stop()


async def test_starting_and_stopping_happen_once() -> None:
    hub = Hub(app)
    with pytest.raises(UsageError, match="not been started"):
        await hub.stop()
    await hub.start()
    with pytest.raises(UsageError, match="only once"):
        await hub.start()
    await hub.stop()
    with pytest.raises(UsageError, match="stopped already"):
        await hub.stop()
    with pytest.raises(UsageError, match="only once"):
        async with hub:
            pass


async def test_a_hub_may_be_stopped_inside_of_its_block() -> None:
    async with Hub(app) as hub:
        await hub.stop()


async def test_a_start_that_is_cancelled_gives_the_store_back() -> None:
    store = MemoryStore()
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with Hub(app, store=store):
            pass

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(C, Counter.add) == 1


def test_a_hub_that_is_never_left_ends_with_its_loop(
    anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(app)

    async def start() -> None:
        await hub.start()
        await hub.client.call_entity(C, Counter.add)

    with caplog.at_level(logging.WARNING, logger="perdure"):
        anyio.run(start, backend=anyio_backend_name)

    assert "the event loop ended while the hub served" in caplog.text
    with pytest.raises(HubStoppingError):
        hub.client  # noqa: B018
    with pytest.raises(UsageError, match="stopped"):
        anyio.run(hub.start, backend=anyio_backend_name)


def test_a_hub_is_not_used_on_a_loop_that_comes_after_its_own() -> None:
    hub = Hub(app)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(hub.start())
        client = hub.client
        for call in (lambda: client.call_entity(C, Counter.add), hub.stop, hub.statistics):
            with pytest.raises(UsageError, match="does not run"):
                second.run_until_complete(call())
        first.run_until_complete(hub.stop())
    finally:
        first.close()
        second.close()


SCRIPT = """
import asyncio, sys
from pathlib import Path
from perdure import App, Hub
loop = asyncio.new_event_loop()
hub = Hub(App(), store=Path(sys.argv[1]))
loop.run_until_complete(hub.start())
if sys.argv[2] == "close":
    loop.close()
"""


@pytest.mark.parametrize("how", ["close", "leave open"])
def test_a_process_ends_though_its_hub_is_never_left(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "hub"), how], timeout=60, check=False
    )

    assert done.returncode == 0


async def test_what_is_cut_off_at_home_may_have_happened() -> None:
    home = Home()
    asked = threading.Event()
    errors: list[BaseException] = []

    async def ask() -> None:
        asked.set()
        await anyio.sleep_forever()

    async def fetch() -> None:
        try:
            await home.fetch(ask)
        except OutcomeUnknownError as error:
            errors.append(error)

    thread = threading.Thread(target=lambda: anyio.run(fetch), daemon=True)

    async def until_asked() -> None:
        thread.start()
        await anyio.to_thread.run_sync(asked.wait)

    await home.serve(until_asked)
    await anyio.to_thread.run_sync(lambda: thread.join(10))

    assert len(errors) == 1


async def test_a_thread_without_a_loop_has_something_done_at_home() -> None:
    home = Home()
    answers: list[Any] = []

    async def answer() -> tuple[str, int]:
        await anyio.lowlevel.checkpoint()
        return "done", threading.get_ident()

    async def fail() -> None:
        raise LookupError("not here")

    def elsewhere() -> None:
        answers.append(home.fetch_blocking(answer))
        with pytest.raises(LookupError, match="not here"):
            home.fetch_blocking(fail)

    async def serve() -> None:
        await anyio.to_thread.run_sync(elsewhere)
        with pytest.raises(UsageError, match="await the method of the hub itself"):
            home.fetch_blocking(answer)

    await home.serve(serve)

    assert answers == [("done", threading.get_ident())]

    def too_late() -> None:
        with pytest.raises(HubStoppingError):
            home.fetch_blocking(answer)

    await anyio.to_thread.run_sync(too_late)


async def test_a_thread_that_stands_still_is_told_when_nobody_is_at_home_any_more() -> None:
    home = Home()
    asked = threading.Event()

    async def never() -> None:
        asked.set()
        await anyio.sleep_forever()

    def elsewhere() -> None:
        with pytest.raises(OutcomeUnknownError):
            home.fetch_blocking(never)

    async def serve() -> None:
        await anyio.to_thread.run_sync(asked.wait)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, elsewhere)
        await home.serve(serve)
