"""Nothing hurts more than itself: bad things in every place where users' code runs.

One hub takes all bad things of one place after another, beside innocents in the same partition;
it lives, they answer, a stored hub starts again, and closing takes no longer than it may.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    EntityOperationError,
    Hub,
    MemoryStore,
    OrchestrationContext,
    PerdureError,
    Settings,
)
from perdure.actors.logs import Log
from tests.guarantees.bad_things import (
    ALL,
    AT_THE_DOOR,
    AWAITED,
    RAISED,
    SYNC,
    Box,
    Innocent,
    app,
    releases,
)

Do = Callable[[Hub, str], Awaitable[Any]]

# Some of the bad things cancel all tasks of the loop, also those that have not begun.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")

PATIENCE_S = 30.0


def slug(name: str) -> str:
    return name.replace(" ", "-")


def operation(verb: str, *, wrap: Callable[[str], Any] = lambda name: name) -> Do:
    async def do(hub: Hub, name: str) -> None:
        await hub.client.call_entity(EntityId("box", f"{verb}-{name}"), verb, wrap(name))

    return do


def entity(prefix: str) -> Do:
    async def do(hub: Hub, name: str) -> None:
        await hub.client.call_entity(EntityId(f"{prefix}-{slug(name)}", "k"), "touch")

    return do


def orchestration(name: str) -> Do:
    async def do(hub: Hub, bad: str) -> None:
        handle = await hub.client.start_new(name, bad, instance_id=f"{name}-{slug(bad)}")
        await handle.result()

    return do


def activity(name: str) -> Do:
    async def do(hub: Hub, bad: str) -> None:
        handle = await hub.client.start_new("caller", (name, bad))
        outcome = await handle.result()
        if bad in RAISED:
            assert outcome == "ActivityError"

    return do


async def signal_combined(hub: Hub, name: str) -> None:
    id = EntityId("box", f"combined-{name}")
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(hub.client.signal_entity, id, "combined", name)


async def fold(hub: Hub, name: str) -> None:
    id = EntityId("striped", slug(name))
    await hub.client.signal_entity(id, "note", name)
    await hub.client.call_entity(id, "read")


async def signal(hub: Hub, name: str) -> None:
    id = EntityId("box", f"signalled-{name}")
    await hub.client.signal_entity(id, Box.sync_operation, name)


async def send(hub: Hub, name: str) -> None:
    id = EntityId("plain", f"plain-{name}")
    await hub.client.signal_entity(EntityId("sender", "s"), "send", name)
    with suppress(PerdureError):
        await hub.client.call_entity(id, "bad", name)
    assert await hub.client.call_entity(id, "add") >= 1


async def function_entity(hub: Hub, name: str) -> None:
    await hub.client.call_entity(EntityId("function_entity", name), "any", name)


PLACES: dict[str, tuple[Do, list[str]]] = {
    "sync activity": (activity("sync_activity"), SYNC),
    "activity before await": (activity("activity_before_await"), ALL),
    "activity after await": (activity("activity_after_await"), ALL),
    "sync operation": (operation("sync_operation"), SYNC),
    "signalled operation": (signal, SYNC),
    "operation before await": (operation("operation_before_await"), ALL),
    "operation after await": (operation("operation_after_await"), ALL),
    "operation at a checkpoint": (send, SYNC),
    "read-only operation": (operation("readonly_operation"), SYNC),
    "state of an entity": (operation("bad_state"), SYNC),
    "function entity": (function_entity, SYNC),
    "default factory": (entity("made"), SYNC),
    "property and comparison": (entity("shown"), SYNC),
    "validator": (operation("checked", wrap=lambda name: {"name": name}), AT_THE_DOOR),
    "converter": (operation("converted", wrap=lambda name: {"name": name}), AT_THE_DOOR),
    "missing member of an enum": (operation("chosen"), AT_THE_DOOR),
    "combiner": (signal_combined, SYNC),
    "merge": (fold, SYNC),
    "orchestration before await": (orchestration("before_await"), ALL),
    "orchestration after await": (orchestration("after_await"), ALL),
    "generator": (orchestration("generator"), SYNC),
    "predicate of a policy": (orchestration("predicate"), SYNC),
    "custom status": (orchestration("status"), SYNC),
}

CELLS = sum(len(names) for _, names in PLACES.values())


async def suffer(hub: Hub, place: str) -> list[str]:
    """Do all the bad things in a place, a few at a time; gives those that nobody answered."""
    do, names = PLACES[place]
    silent: list[str] = []
    limit = anyio.CapacityLimiter(8)

    async def one(name: str) -> None:
        async with limit:
            with anyio.move_on_after(PATIENCE_S) as scope:
                with suppress(PerdureError):  # each its own answer
                    await do(hub, name)
            if scope.cancelled_caught:
                silent.append(name)

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(one, name)
    return silent


class Witness:
    """Innocents in the partitions of a hub, and what they have counted."""

    def __init__(self, hub: Hub, partitions: int) -> None:
        self.hub = hub
        self.partitions = partitions
        self.counts: dict[str, int] = {}

    async def start(self) -> None:
        for n in range(4 * self.partitions):
            await self.hub.client.start_new("innocent", instance_id=f"innocent-{n}")

    async def check(self) -> None:
        """Have every kind of work done by those who did nothing bad."""
        for n in range(2 * self.partitions):
            key = f"witness-{n}"
            self.counts[key] = self.counts.get(key, 0) + 2
            id = EntityId(Innocent, key)
            await self.hub.client.call_entity(id, Innocent.add)
            count = await self.hub.client.call_entity(id, Innocent.add_slowly)
            assert count == self.counts[key]
            assert await self.hub.client.call_entity(id, Innocent.variable) == "clean"

    async def finish(self) -> None:
        for n in range(4 * self.partitions):
            handle = self.hub.client.get_handle(f"innocent-{n}")
            await handle.raise_event("end", "well")
            assert await handle.result(timeout=PATIENCE_S) == "well clean clean"


async def torture(places: list[str], **options: Any) -> None:
    """Run a hub through places; then start it again, where it is stored."""
    settings = Settings(drain_s=1.0)
    with anyio.fail_after(100):
        hub = Hub(app, settings=settings, **options)
        async with hub:
            witness = Witness(hub, options["partitions"])
            await witness.start()
            for place in places:
                assert await suffer(hub, place) == [], place
                with anyio.fail_after(PATIENCE_S):
                    await witness.check()
            began = anyio.current_time()
        assert anyio.current_time() - began < 1.0 + 15.0  # the machine may be busy
        if isinstance(options.get("store"), str):
            async with Hub(app, settings=settings, **options) as hub:
                witness.hub = hub
                await witness.check()
                await witness.finish()


HALVES = [list(PLACES)[::2], list(PLACES)[1::2]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    # Thousands of tracebacks are of no use to whoever reads a failure.
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("perdure").setLevel(logging.NOTSET)


def test_there_are_enough_cells() -> None:
    assert len(ALL) >= 40
    assert len(PLACES) >= 20
    assert set(AWAITED) <= set(ALL)
    assert CELLS > 800


@pytest.mark.by_turns("trio")
@pytest.mark.parametrize("half", [0, 1])
async def test_bad_things_hurt_nobody_else_on_one_loop(half: int, tmp_path: Path) -> None:
    await torture(HALVES[half], store=f"sqlite:{tmp_path / 'hub'}", partitions=1)


@pytest.mark.by_turns
@pytest.mark.parametrize("half", [0, 1])
async def test_bad_things_hurt_nobody_else_on_two_loops(half: int, tmp_path: Path) -> None:
    await torture(HALVES[half], store=f"sqlite:{tmp_path / 'hub'}", partitions=2, shards=2)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_bad_things_hurt_nobody_else_in_worker_processes(tmp_path: Path) -> None:
    places = ["activity after await", "operation before await"]
    await torture(places, store=f"sqlite:{tmp_path / 'hub'}", partitions=2, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
async def test_all_bad_things_hurt_nobody_else_in_worker_processes(
    half: int, tmp_path: Path
) -> None:
    await torture(HALVES[half], store=f"sqlite:{tmp_path / 'hub'}", partitions=2, workers=2)


@pytest.mark.by_turns
async def test_an_upgrade_that_misbehaves_parks_its_entity_alone() -> None:
    old, new = releases()
    store = MemoryStore()
    async with Hub(old, store=store, partitions=1) as hub:
        for name in SYNC:
            await hub.client.call_entity(EntityId(f"up-{slug(name)}", "k"), "add")
    with anyio.fail_after(60):
        async with Hub(new, store=store, partitions=1) as hub:
            for n, name in enumerate(SYNC, 1):
                with suppress(PerdureError):
                    await hub.client.call_entity(EntityId(f"up-{slug(name)}", "k"), "add")
                assert await hub.client.call_entity(EntityId(Innocent, "i"), Innocent.add) == n


class Broken(logging.Handler):
    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error()


async def test_log_handlers_that_raise_hurt_nobody() -> None:
    logging.getLogger("perdure").setLevel(logging.NOTSET)
    lost = Log.lost
    async with Hub(app, partitions=1) as hub:
        for n, kind in enumerate(RAISED.values(), 1):
            handler = Broken(kind)
            logging.getLogger("perdure").addHandler(handler)
            try:
                await signal(hub, "StrRaises")
                assert await hub.client.call_entity(EntityId(Innocent, "i"), Innocent.add) == n
            finally:
                logging.getLogger("perdure").removeHandler(handler)
    assert Log.lost >= lost + len(RAISED)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_whoever_cancels_the_tasks_that_serve_stops_nothing() -> None:
    async with Hub(app, partitions=1) as hub:
        for n in range(1, 4):
            found: list[Any] = gc.get_objects()
            kind: Any = asyncio.Task
            for task in [one for one in found if type(one) is kind]:
                here = task.get_loop() is asyncio.get_running_loop()  # others' may not be collected
                if here and not task.done() and task.get_name() == "perdure-hand":
                    task.cancel()

            async def add() -> int:
                try:
                    return await hub.client.call_entity(EntityId(Innocent, "i"), Innocent.add)
                except PerdureError:
                    return 0

            with anyio.fail_after(PATIENCE_S):
                while (count := await add()) == 0:
                    await anyio.sleep(0.01)
            assert count == n


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_bad_code_kept_and_cancels_later_is_nobodys_harm() -> None:
    local = App("kept")

    def cancel_later() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.005, task.cancel)

    @local.entity
    class Bad:
        n: int = 0

        def keep(self) -> None:
            cancel_later()

    @local.entity
    class Slow:
        n: int = 0

        async def add(self) -> int:
            self.n += 1
            await asyncio.sleep(0.02)
            return self.n

    @local.activity
    async def keep() -> None:
        cancel_later()

    @local.activity
    async def slow() -> str:
        await asyncio.sleep(0.02)
        return "done"

    @local.orchestration
    async def run(ctx: OrchestrationContext) -> str:
        await ctx.call_activity(keep)
        return await ctx.call_activity(slow)

    async def call(number: int) -> None:
        bad, slow_one = EntityId("bad", f"{number}"), EntityId("slow", f"{number}")
        for n in range(1, 4):
            await hub.client.call_entity(bad, "keep")
            assert await hub.client.call_entity(slow_one, "add") == n
            handle = await hub.client.start_new(run)
            assert await handle.result() == "done"

    with anyio.fail_after(PATIENCE_S):
        async with Hub(local, partitions=1) as hub, anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(call, number)


@pytest.mark.by_turns
@pytest.mark.parametrize("what", ["calls", "event", "event and time"])
async def test_a_wait_that_an_operation_drives_by_hand_hurts_nobody(what: str) -> None:
    local, begun = App("by hand"), list[Any]()

    def begin(work: Any) -> None:
        begun.append(work)
        work.send(None)

    @local.entity
    class Bad:
        n: int = 0

        def drive(self) -> None:
            if what == "calls":
                for number in range(3):
                    begin(hub.client.call_entity(EntityId("good", f"{number}"), "add"))
                return
            event = anyio.Event()
            begin(event.wait())
            if what == "event and time":
                time.sleep(0.005)  # the pump looks at the event loop next
            event.set()

    @local.entity
    class Good:
        n: int = 0

        def add(self) -> int:
            self.n += 1
            return self.n

    async def call(number: int) -> None:
        for n in range(1, 11):
            with suppress(EntityOperationError):  # its own event may wake a task twice at once
                await hub.client.call_entity(EntityId("bad", f"{number}"), "drive")
            assert await hub.client.call_entity(EntityId("good", f"mine-{number}"), "add") == n

    with anyio.fail_after(PATIENCE_S):
        async with Hub(local, partitions=1) as hub:
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(call, number)
            assert (await hub.statistics()).restarted == 0
            for work in begun:
                work.close()
