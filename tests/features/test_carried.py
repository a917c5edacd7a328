"""Context variables that an application declares go along, from a starter to all it sets going."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from perdure import (
    MISSING,
    ActivityError,
    App,
    Client,
    EntityContext,
    EntityId,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OutcomeUnknownError,
    PayloadTooLargeError,
    UnavailableError,
    UsageError,
)
from perdure.runtime.placement.hashing import partition_of
from perdure.testing.inside import partitions_of
from tests.faults import Crash, let_turns_crash
from tests.runtime.orchestrating import advance, evict, quiet, running

trace: ContextVar[str] = ContextVar("trace", default="none")
local: ContextVar[str] = ContextVar("local", default="none")

app = App(context_vars=[trace])


@app.activity
async def on_the_loop() -> str:
    return trace.get()


@app.activity
def in_a_thread() -> str:
    return trace.get()


@app.entity
class Box:
    seen: list[str]

    def look(self) -> str:
        assert local.get() == "none"
        return trace.get()

    async def look_slowly(self) -> str:
        return trace.get()

    def note(self) -> None:
        self.seen.append(trace.get())

    def pass_on(self, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Box, "next"), Box.note)
        ctx.start_new(child, instance_id="started")

    def get(self) -> list[str]:
        return self.seen


BOX, NEXT = EntityId(Box, "b"), EntityId(Box, "next")


@app.orchestration
async def child(ctx: OrchestrationContext) -> str:
    return trace.get()


@app.orchestration
async def flow(ctx: OrchestrationContext, again: bool = True) -> list[str]:
    seen = [trace.get()]
    ctx.signal_entity(BOX, Box.note)
    ctx.signal_entity(BOX, Box.note, at=timedelta(0))
    ctx.signal_entity(BOX, Box.pass_on)
    await ctx.wait_for_external_event("go")
    seen += [
        await ctx.call_activity(on_the_loop),
        await ctx.call_activity(in_a_thread),
        await ctx.call_entity(BOX, Box.look),
        await ctx.call_entity(BOX, Box.look_slowly),
        await ctx.call_sub_orchestrator(child),
    ]
    if again:
        ctx.continue_as_new(False)
    return [*seen, trace.get()]


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory:", "sqlite"])
async def test_what_the_starter_held_goes_along_to_all_that_is_called(
    kind: str, tmp_path: Path
) -> None:
    clock = ManualClock()
    store: Any = kind if kind == "memory:" else f"sqlite:{tmp_path}/hub"
    async with running(app, store, partitions=3, clock=clock) as hub:
        trace.set("t-1")
        local.set("here")
        handle = await hub.client.start_new(flow, instance_id="i")
        later = await hub.client.start_new(child, start_at=timedelta(seconds=5))
        assert await hub.client.call_entity(BOX, Box.look) == "t-1"
        trace.set("t-2")
        local.set("none")
        await quiet(hub)
        await evict(hub)
        await handle.raise_event("go")
        await quiet(hub)
        await evict(hub)
        await handle.raise_event("go")
        await advance(hub, clock, 6)

        assert await handle.result(5) == ["t-1"] * 7
        assert await later.result(5) == "t-1"
        assert await hub.client.get_handle("started").result(5) == "t-1"
        assert await hub.client.call_entity(BOX, Box.get) == ["t-1"] * 4
        assert await hub.client.call_entity(NEXT, Box.get) == ["t-1"] * 2


async def test_nothing_is_carried_where_nothing_is_set_and_only_texts_are() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(child)
        assert await handle.result(5) == "none"

        trace.set(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(UsageError, match=r"'trace' holds 5"):
            await hub.client.start_new(child)
        trace.set("none")


Ask = Callable[[Client], Awaitable[Any]]

ASKED: dict[str, Ask] = {
    "start": lambda client: client.start_new(child),
    "call": lambda client: client.call_entity(BOX, Box.look),
    "signal": lambda client: client.signal_entity(BOX, Box.note),
    "later": lambda client: client.signal_entity(BOX, Box.note, at=timedelta(0)),
    "many": lambda client: client.signal_entities([(BOX, "note", MISSING)]),
    "restart": lambda client: client.restart("ended"),
}
BROKEN: dict[str, tuple[str, type[Exception]]] = {
    "a lone surrogate": ("\udcff", UsageError),
    "too large": ("z" * 1_000, PayloadTooLargeError),
}


@pytest.mark.parametrize("how", ASKED)
@pytest.mark.parametrize("what", BROKEN)
async def test_what_cannot_be_stored_is_refused_at_the_call_and_meets_nobody_else(
    what: str, how: str
) -> None:
    value, error = BROKEN[what]
    async with running(app, partitions=1, max_payload=1_000) as hub:
        assert await (await hub.client.start_new(child, instance_id="ended")).result(5) == "none"
        seen: list[str] = []

        async def other(number: int) -> None:
            seen.append(await hub.client.call_entity(EntityId(Box, f"o{number}"), Box.look))

        async def broken() -> None:
            trace.set(value)
            with pytest.raises(error, match="'trace'"):
                await ASKED[how](hub.client)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other, 1)
            tasks.start_soon(broken)
            tasks.start_soon(other, 2)

        assert seen == ["none", "none"]
        assert await hub.client.call_entity(BOX, Box.get) == []


@pytest.mark.parametrize("what", BROKEN)
async def test_what_an_activity_asks_a_client_with_such_a_value_fails_that_activity_alone(
    what: str,
) -> None:
    value, error = BROKEN[what]
    asking = App(context_vars=[trace])
    asking.include(app)
    clients: list[Client] = []

    @asking.activity
    async def asks() -> None:
        trace.set(value)
        await clients[0].signal_entity(BOX, Box.note, at=timedelta(0))

    @asking.orchestration
    async def calls(ctx: OrchestrationContext) -> str:
        trace.set(value)  # stays with it: its calls take along what it was started with
        try:
            await ctx.call_activity(asks)
        except ActivityError as failed:
            return f"{failed.failure.error_type} {await ctx.call_entity(BOX, Box.look)}"
        return "sent"

    async with running(asking, partitions=1, max_payload=1_000) as hub:
        clients.append(hub.client)
        trace.set("t-1")

        assert await (await hub.client.start_new(calls)).result(5) == f"{error.__name__} t-1"


def test_only_context_variables_can_be_declared() -> None:
    for given in ("trace", [1], 5, trace):
        with pytest.raises(UsageError, match="context_vars"):
            App(context_vars=given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="'trace'"):
        App(context_vars=[trace, ContextVar("trace")])
    with pytest.raises(UsageError, match="name of each of context_vars"):
        App(context_vars=[ContextVar("\ud800")])


without_child = App(context_vars=[trace])


@without_child.orchestration
async def other(ctx: OrchestrationContext) -> None: ...


@pytest.mark.by_turns
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_goes_along_is_there_when_an_instance_begins_after_it_was_parked(
    kind: str, tmp_path: Path
) -> None:
    clock = ManualClock()
    store: Any = MemoryStore() if kind == "memory" else f"sqlite:{tmp_path}/hub"
    trace.set("t-1")
    async with running(app, store, clock=clock) as hub:
        await hub.client.start_new(child, instance_id="c", start_at=timedelta(seconds=5))
    trace.set("none")
    for _ in range(2):
        async with running(without_child, store, clock=clock) as hub:
            await advance(hub, clock, 6)
            [parked] = [one async for one in hub.client.query(parked=True)]
            assert parked.instance_id == "c"

    async with running(app, store, clock=clock) as hub:
        assert await hub.client.get_handle("c").result(5) == "t-1"


async def test_what_goes_along_is_there_when_an_instance_begins_as_it_is_resumed() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        trace.set("t-1")
        handle = await hub.client.start_new(child, start_at=timedelta(seconds=5))
        trace.set("none")
        await handle.suspend()
        await advance(hub, clock, 6)
        await evict(hub)

        await handle.resume()

        assert await handle.result(5) == "t-1"
        assert (await handle.status()).suspended is None


@pytest.mark.by_turns
async def test_what_goes_along_is_there_when_an_instance_is_retried_that_crashed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_turns_crash(monkeypatch)
    crashes = [2]
    local_app = App(context_vars=[trace])

    @local_app.orchestration
    async def crash(ctx: OrchestrationContext) -> str:
        if crashes[0]:
            crashes[0] -= 1
            raise Crash("poison")
        return trace.get()

    async with running(local_app, crashes_max=2) as hub:
        trace.set("t-1")
        for _ in range(2):
            with suppress(UnavailableError):
                await hub.client.start_new(crash, instance_id="c", request_id="r")
        handle = await hub.client.start_new(crash, instance_id="c", request_id="r")
        trace.set("none")
        assert (await handle.status()).parked is not None
        await evict(hub)

        await hub.client.retry("c")

        assert await handle.result(5) == "t-1"


@app.orchestration
async def holds(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(BOX):
        await ctx.wait_for_external_event("go")


@pytest.mark.by_turns
async def test_a_request_with_what_goes_along_is_known_by_its_id_after_a_restart(
    tmp_path: Path,
) -> None:
    store = f"sqlite:{tmp_path}/hub"

    async def note(client: Client) -> None:
        trace.set("t-1")
        with suppress(OutcomeUnknownError):
            await client.call_entity(BOX, Box.note, request_id="r")

    async with anyio.create_task_group() as tasks, running(app, store, drain_s=0.01) as hub:
        await hub.client.start_new(holds, instance_id="h")
        await quiet(hub)
        tasks.start_soon(note, hub.client)
        await until_waiting(hub)
    async with running(app, store) as hub, anyio.create_task_group() as tasks:
        tasks.start_soon(note, hub.client)
        await anyio.lowlevel.checkpoint()
        await quiet(hub)
        await hub.client.raise_event("h", "go")
        await hub.client.get_handle("h").result(5)

        assert await hub.client.call_entity(BOX, Box.get) == ["t-1"]


async def until_waiting(hub: Hub) -> None:
    """Return when a message waits in the store for the locked entity."""
    while not await partitions_of(hub)[partition_of(str(BOX), 2)].store.waiting([str(BOX)]):
        await anyio.sleep(0.001)
