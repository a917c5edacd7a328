"""Orchestrations to try things with, an instance of one of them, and what it is sent."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import orjson

from perdure import App, EntityId, OrchestrationContext
from perdure.actors.errors import FailureDetails
from perdure.actors.failures import encode_failure
from perdure.actors.messages import Caller, Command, Completion, Event, Message, Start
from perdure.actors.registry.lookup import Lookup
from tests.actors.recording import START, Instance

app = App()
PARENT = Caller("p", 1, 3)
CLIENT = "a client"

FICKLE = 4

#: What the code does besides, which a test may change between failure and rewind.
ways: set[str] = set()


@app.entity
class Thing:
    value: int = 0

    def add(self, n: int) -> int: ...  # type: ignore[empty-body]


THING = EntityId(Thing, "t")


@app.activity
async def work(name: str) -> str: ...  # type: ignore[empty-body]


@app.orchestration
async def child(ctx: OrchestrationContext) -> str: ...  # type: ignore[empty-body]


@app.orchestration
async def chain(ctx: OrchestrationContext) -> list[str]:
    """Does three things, one after the other."""
    return [await ctx.call_activity(work, name) for name in "abc"]


@app.orchestration
async def waits(ctx: OrchestrationContext) -> Any:
    """Waits for an event."""
    if "more" in ways:
        await ctx.call_activity(work, "more")
    return await ctx.wait_for_external_event("go")


@app.orchestration
async def raises(ctx: OrchestrationContext) -> None:
    """Fails by itself, behind an event, unless that is repaired."""
    await ctx.call_activity(work, "a")
    await ctx.wait_for_external_event("go")
    if "repaired" not in ways:
        raise ValueError("by itself")
    await ctx.call_activity(work, "z")


@app.orchestration
async def compensates(ctx: OrchestrationContext) -> None:
    """Takes back what it has done, where what follows fails."""
    await ctx.call_activity(work, "book")
    try:
        await ctx.call_activity(work, "pay")
    except Exception:
        await ctx.call_activity(work, "cancel")
        ctx.signal_entity(THING, Thing.add, 1)
        ctx.send_event("other", "cancelled", 1)
        await ctx.call_sub_orchestrator(child, instance_id="c")
        await ctx.call_entity(THING, Thing.add, 2)
        raise


@app.orchestration
async def logs(ctx: OrchestrationContext) -> None:
    """Only notes that something failed, goes on, and fails by something else."""
    first = ctx.call_activity(work, "a")
    try:
        await first
    except Exception:
        ctx.set_custom_status("a failed")
        await ctx.call_activity(work, "note")
    await ctx.call_activity(work, "b")


@app.orchestration
async def many(ctx: OrchestrationContext) -> list[Any]:
    """Has several things under way at once."""
    return await ctx.task_all(
        [
            ctx.call_activity(work, "a"),
            ctx.call_sub_orchestrator(child, instance_id="c"),
            ctx.create_timer(timedelta(seconds=5)),
            ctx.call_entity(THING, Thing.add, 1),
            ctx.wait_for_external_event("go"),
        ],
        fail_fast="slow" not in ways,
    )


@app.orchestration
async def locks(ctx: OrchestrationContext) -> Any:
    """Fails under a lock."""
    async with ctx.lock_entities(THING):
        await ctx.call_entity(THING, Thing.add, 1)
        return await ctx.call_entity(THING, Thing.add, 2)


@app.orchestration
async def starts_badly(ctx: OrchestrationContext) -> None:
    """Fails before it waits for anything, unless that is repaired."""
    ctx.signal_entity(THING, Thing.add, 1)
    ctx.create_timer(timedelta(seconds=5))
    if "repaired" not in ways:
        raise ValueError("at once")
    await ctx.call_activity(work, "a")


@app.orchestration
async def cleans_up(ctx: OrchestrationContext) -> None:
    """Has something to do where it is cancelled."""
    try:
        await ctx.wait_for_external_event("go")
    finally:
        await ctx.call_activity(work, "clean")


@app.orchestration
async def types(ctx: OrchestrationContext) -> int:
    """Waits for a number."""
    return await ctx.wait_for_external_event("go", data_type=int)


@app.orchestration
async def looks_away(ctx: OrchestrationContext) -> None:
    """Calls what it does not look at again."""
    ctx.call_activity(work, "a")
    await ctx.wait_for_external_event("go")


@app.orchestration
async def leaves(ctx: OrchestrationContext) -> None:
    """Starts a child that it does not wait for."""
    ctx.call_sub_orchestrator(child, instance_id="c")
    await ctx.wait_for_external_event("go")


@app.orchestration
async def waits_and_raises(ctx: OrchestrationContext) -> None:
    """Fails by itself, and is repaired where nothing was wrong."""
    if "more" in ways:
        await ctx.call_activity(work, "more")
    await ctx.wait_for_external_event("go")
    raise ValueError("by itself")


@app.orchestration
async def fickle(ctx: OrchestrationContext) -> None:
    """Fails by itself, and does something else when it runs for the fourth time."""
    await ctx.wait_for_external_event("go")
    ways.add(f"run {len(ways)}")
    ctx.signal_entity(THING, Thing.add, len(ways) // FICKLE)
    raise ValueError("by itself")


@app.orchestration
async def goes_on(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")
    ctx.continue_as_new(None)


@app.orchestration
def big(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    yield ctx.wait_for_external_event("go")
    return "x" * 2_000


@app.orchestration
async def counts(ctx: OrchestrationContext, count: int) -> None:
    """Has many signals in one turn, and waits behind them."""
    for _ in range(count):
        ctx.signal_entity(THING, Thing.add, 1)
    await ctx.wait_for_external_event("go")


LOOKUP = Lookup(app, 1_000)


#: The instances that were made, to be closed in the end.
made: list[Instance] = []


def unborn() -> Instance:
    """An instance that is none yet."""
    made.append(Instance(LOOKUP))
    return made[-1]


def begun(flow: Callable[..., Any] | str, *, parent: Caller | None = None) -> Instance:
    """An instance that has begun."""
    instance = unborn()
    name = flow if isinstance(flow, str) else flow.__name__
    instance.take(Start(name, None, None, parent=parent), START)
    return instance


def waited(message: Message) -> Message:
    """The message, with a client that waits for its answer."""
    message.reply = CLIENT
    return message


def command(action: Any, **options: Any) -> Message:
    """A client's command."""
    return waited(Command(action, "why", **options))


def done(task: int, result: Any = None, *, kind: str = "Task", execution: int = 1) -> Completion:
    """The answer of what has completed."""
    event: Any = f"{kind}Completed"
    return Completion(event, execution, task, orjson.dumps(result))


def failed(task: int, *, kind: str = "Task", execution: int = 1) -> Completion:
    """The answer of what has failed."""
    failure = encode_failure(FailureDetails("ValueError", "it is broken"))
    event: Any = f"{kind}Failed"
    return Completion(event, execution, task, failure)


def granted(task: int) -> Completion:
    """The answer of the last of the entities that are locked."""
    return Completion("EntityLockGranted", 1, task, b"null")


def go(data: Any = None) -> Event:
    """The event that they wait for."""
    return Event("go", orjson.dumps(data))


def run(instance: Instance, *messages: Message, now: int = START + 1) -> list[tuple[Any, ...]]:
    """Let it take messages, each in a turn; gives all effects."""
    return [effect for message in messages for effect in instance.take(message, now)]


def kinds(effects: list[tuple[Any, ...]]) -> list[str]:
    return [effect[0] for effect in effects]


def activities(effects: list[tuple[Any, ...]]) -> list[str | None]:
    """The inputs of the activities that were started."""
    return [e[1].input and orjson.loads(e[1].input) for e in effects if e[0] == "start activity"]


def sent(effects: list[tuple[Any, ...]]) -> list[tuple[str, Any]]:
    """Who was sent what."""
    return [(e[1], orjson.loads(e[2])) for e in effects if e[0] == "send"]


def events_of(instance: Instance) -> list[str]:
    """The types of the events of its history."""
    return [event[0] for event in instance.history]
