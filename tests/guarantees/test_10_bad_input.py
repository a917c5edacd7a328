"""Guarantee 10: bad input is refused at the door, with a clear error, and nothing is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest
from attrs import define, frozen

from perdure import (
    MISSING,
    App,
    Client,
    EntityContext,
    EntityId,
    ForkError,
    Hub,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidIdError,
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    PayloadError,
    PayloadTooLargeError,
    Settings,
    UnknownNameError,
    UsageError,
)
from tests.faults import everything, settle, within

pytestmark = pytest.mark.by_turns

app = App()


@define
class Order:
    name: str
    amounts: list[int]


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def take(self, order: Order) -> None:
        self.value += len(order.amounts)

    def bare(self) -> None:
        self.value += 1

    def any(self, data: Any) -> None:
        self.value += 1

    def _hidden(self) -> None:
        self.value += 1


@app.entity
def free(ctx: EntityContext) -> None:
    ctx.set_state(1)


@app.orchestration
async def listen(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("end")


@app.orchestration(version="1.0")
async def sized(ctx: OrchestrationContext, order: Order) -> int:
    return len(order.amounts)


C: EntityId[Any] = EntityId(Counter, "c")
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001
LONG = "x" * 257
LIMIT = 1_000
NO_ID: Any = "@counter@c"
TEXTS: Any = ["1"]


class Opaque:
    pass


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@frozen
class Case:
    name: str
    error: type[Exception]
    call: Callable[[Client], Awaitable[Any]]
    says: str = ""


def start(name: Any, *input: Any, **options: Any) -> Callable[[Client], Awaitable[Any]]:
    return lambda client: client.start_new(name, *input, **options)


def signal(op: Any, *input: Any, **options: Any) -> Callable[[Client], Awaitable[Any]]:
    return lambda client: client.signal_entity(C, op, *input, **options)


def call(op: Any, *input: Any, **options: Any) -> Callable[[Client], Awaitable[Any]]:
    return lambda client: client.call_entity(C, op, *input, **options)


def raise_event(*arguments: Any, **options: Any) -> Callable[[Client], Awaitable[Any]]:
    return lambda client: client.raise_event(*arguments, **options)


def unregistered(ctx: OrchestrationContext) -> None:
    return None


class Stranger:
    def add(self, amount: int) -> int:
        return amount


BAD_IDS: dict[str, Any] = {
    "empty": "",
    "too long": LONG,
    "a newline": "a\nb",
    "a null": "a\0b",
    "an escape": "\x1b[31m",
    "a del": "a\x7f",
    "a line separator": "a\u2028b",
    "a lone surrogate": "a\ud800",
    "no text": 7,
    "bytes": b"x",
}

CASES = [
    # Unknown names.
    Case("start: unknown name", UnknownNameError, start("nobody"), "nobody"),
    Case("start: unregistered function", UnknownNameError, start(unregistered), "unregistered"),
    Case("start: unknown version", UnknownNameError, start("sized", version="9"), "sized"),
    Case(
        "signal: unknown entity",
        UnknownNameError,
        lambda c: c.signal_entity(EntityId("nobody", "k"), "add", 1),
        "nobody",
    ),
    Case(
        "call: unknown entity",
        UnknownNameError,
        lambda c: c.call_entity(EntityId("nobody", "k"), "add", 1),
        "nobody",
    ),
    Case("signal: unknown operation", UnknownNameError, signal("fly"), "fly"),
    Case("call: unknown operation", UnknownNameError, call("fly"), "fly"),
    Case("call: hidden operation", UnknownNameError, call("_hidden"), "_hidden"),
    Case("call: a dunder method", UnknownNameError, call("__init__"), "__init__"),
    Case("start: a long unknown name", UnknownNameError, start("y" * 10**6), "'yyy"),
    Case(
        "start: a long unknown version",
        UnknownNameError,
        start("sized", version="9" * 10**6),
        "'999",
    ),
    Case("signal: a long unknown operation", UnknownNameError, signal("y" * 10**6), "'yyy"),
    Case(
        "call: a long operation of a function",
        UsageError,
        lambda c: c.call_entity(EntityId("free", "k"), "y" * 10**6),
        "'yyy",
    ),
    Case(
        "event: a long key of what is no JSON",
        PayloadError,
        raise_event("live", "end", {"y" * 10**6: Opaque()}),
        "$['yyy",
    ),
    Case("call: another class's method", UsageError, call(Stranger.add, 1)),
    Case("call: a field", UnknownNameError, call("value"), "value"),
    Case("signal: no entity id", UsageError, lambda c: c.signal_entity(NO_ID, "add", 1)),
    # Inputs of the wrong type.
    Case("start: missing input", UsageError, start("sized")),
    Case("start: wrong type", PayloadError, start("sized", 5)),
    Case("signal: text for a number", PayloadError, signal("add", "1")),
    Case("signal: a float for an int", PayloadError, signal("add", 1.5)),
    Case("signal: None for an int", PayloadError, signal("add", None)),
    Case("signal: missing input", UsageError, signal("add")),
    Case("signal: input to one that takes none", UsageError, signal("bare", 1)),
    Case("call: text for a number", PayloadError, call("add", "1")),
    Case("call: wrong item in a list", PayloadError, call("take", Order("x", TEXTS))),
    # What is not JSON.
    Case("event: NaN", PayloadError, raise_event("live", "end", float("nan")), "$"),
    Case(
        "event: infinity inside",
        PayloadError,
        raise_event("live", "end", {"a": [1, float("inf")]}),
        "$.a[1]",
    ),
    Case("event: an object", PayloadError, raise_event("live", "end", {"a": Opaque()}), "$.a"),
    Case("event: a function", PayloadError, raise_event("live", "end", print)),
    Case("event: a lone surrogate", PayloadError, raise_event("live", "end", ["\ud800"]), "$[0]"),
    *(
        Case(
            f"{action}: a lone surrogate",
            PayloadError,
            lambda c, action=action: getattr(c, action)("live", "\ud800"),  # type: ignore[misc]
        )
        for action in ("terminate", "cancel", "suspend", "resume", "rewind")
    ),
    Case("terminate: too large", PayloadTooLargeError, lambda c: c.terminate("live", "x" * LIMIT)),
    Case("event: a circle", PayloadError, raise_event("live", "end", circle())),
    Case("event: too deep", PayloadError, raise_event("live", "end", nested(2_000))),
    Case("signal: NaN", PayloadError, signal("any", float("nan"))),
    Case("call: an object", PayloadError, call("any", Opaque())),
    # What is too large.
    Case("start: too large", PayloadTooLargeError, start("sized", Order("x" * LIMIT, [])), "1,000"),
    Case("signal: too large", PayloadTooLargeError, signal("any", "x" * LIMIT), "1,000"),
    Case("call: too large", PayloadTooLargeError, call("any", "x" * LIMIT), "1,000"),
    Case(
        "event: too large", PayloadTooLargeError, raise_event("live", "end", "x" * LIMIT), "1,000"
    ),
    Case(
        "start: an id of a live instance",
        InstanceAlreadyExistsError,
        start("listen", instance_id="live"),
        "live",
    ),
    # Bad ids, wherever one may be given.
    *(
        Case(f"start: id that is {what}", InvalidIdError, start("listen", instance_id=id))
        for what, id in {**BAD_IDS, "an entity's": "@counter@c"}.items()
    ),
    *(
        Case(f"start: request id that is {what}", InvalidIdError, start("listen", request_id=id))
        for what, id in BAD_IDS.items()
    ),
    *(
        Case(f"signal: request id that is {what}", InvalidIdError, signal("bare", request_id=id))
        for what, id in BAD_IDS.items()
    ),
    *(
        Case(
            f"signal later: request id that is {what}",
            InvalidIdError,
            signal("bare", at=timedelta(1), request_id=id),
        )
        for what, id in BAD_IDS.items()
    ),
    *(
        Case(f"event: name that is {what}", InvalidIdError, raise_event("live", id, 1))
        for what, id in BAD_IDS.items()
    ),
    *(
        Case(f"event: id that is {what}", InvalidIdError, raise_event(id, "end", 1))
        for what, id in {**BAD_IDS, "an entity's": "@counter@c"}.items()
    ),
    *(
        Case(f"terminate: id that is {what}", InvalidIdError, lambda c, id=id: c.terminate(id))  # type: ignore[misc]
        for what, id in {**BAD_IDS, "an entity's": "@counter@c"}.items()
    ),
    # Bad times.
    Case("start: naive time", InvalidTimeError, start("listen", start_at=NAIVE), "aware"),
    Case("start: negative delay", InvalidTimeError, start("listen", start_at=timedelta(-1))),
    Case("signal: naive time", InvalidTimeError, signal("bare", at=NAIVE), "aware"),
    Case("signal: negative delay", InvalidTimeError, signal("bare", at=timedelta(seconds=-1))),
    # Instances that are not there, or not any more.
    Case("event: unknown instance", InstanceNotFoundError, raise_event("nobody", "end"), "nobody"),
    Case("event: finished instance", InstanceFinishedError, raise_event("ended", "end"), "ended"),
    Case("terminate: unknown", InstanceNotFoundError, lambda c: c.terminate("nobody")),
    Case("terminate: finished", InstanceFinishedError, lambda c: c.terminate("ended")),
    Case("cancel: unknown", InstanceNotFoundError, lambda c: c.cancel("nobody")),
    Case("cancel: finished", InstanceFinishedError, lambda c: c.cancel("ended")),
    Case("suspend: unknown", InstanceNotFoundError, lambda c: c.suspend("nobody")),
    Case("suspend: finished", InstanceFinishedError, lambda c: c.suspend("ended")),
    Case("resume: unknown", InstanceNotFoundError, lambda c: c.resume("nobody")),
    Case("resume: finished", InstanceFinishedError, lambda c: c.resume("ended")),
    Case("retry: unknown", InstanceNotFoundError, lambda c: c.retry("nobody")),
    Case("fork: unknown", InstanceNotFoundError, lambda c: c.fork("nobody", at=0)),
    Case("fork: no such event", ForkError, lambda c: c.fork("live", at=99)),
    Case("fork: itself", UsageError, lambda c: c.fork("live", at=0, new_instance_id="live")),
    Case("fork: no number", UsageError, lambda c: c.fork("live", at=cast(Any, "0"))),
    Case("rewind: unknown", InstanceNotFoundError, lambda c: c.rewind("nobody")),
    Case("rewind: live", InstanceNotFinishedError, lambda c: c.rewind("live")),
    Case("restart: unknown", InstanceNotFoundError, lambda c: c.restart("nobody")),
    Case(
        "restart: live, same id",
        InstanceAlreadyExistsError,
        lambda c: c.restart("live", with_new_instance_id=False),
    ),
    Case("purge: unknown", InstanceNotFoundError, lambda c: c.purge_instance("nobody")),
    Case("purge: live", InstanceNotFinishedError, lambda c: c.purge_instance("live")),
    Case("result: unknown", InstanceNotFoundError, lambda c: c.wait("nobody")),
    Case("history: unknown", InstanceNotFoundError, lambda c: c.get_history("nobody")),
    # Options that make no sense.
    Case("start: bad on_existing", UsageError, start("listen", on_existing="perhaps"), "perhaps"),
    Case("start: tags of numbers", UsageError, start("listen", tags={"a": 1})),
    Case("query: page of none", UsageError, lambda c: c.query_page(page_size=0)),
    Case("query: bad token", UsageError, lambda c: c.query_page(continuation_token="!")),
    Case("query: naive time", InvalidTimeError, lambda c: c.query_page(created_from=NAIVE)),
    Case(
        "signals: one of many is bad",
        PayloadError,
        lambda c: c.signal_entities([(C, "add", 1), (C, "add", "x"), (C, "bare", MISSING)]),
    ),
]


def hub_on(store: MemoryStore) -> Hub:
    settings = Settings(max_payload=LIMIT, drain_s=2)
    return Hub(app, store=store, partitions=2, clock=ManualClock(), settings=settings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_wrong_is_refused_and_nothing_is_stored(case: Case) -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        await hub.client.start_new(listen, instance_id="live")
        await hub.client.start_new(listen, instance_id="ended")
        await hub.client.raise_event("ended", "end")
        await hub.client.wait("ended")
        await settle()
        before = everything(store)

        with pytest.raises(case.error) as caught:
            await case.call(hub.client)

        await settle()
        assert everything(store) == before
        assert case.says in str(caught.value)
        assert len(str(caught.value)) < 1_000  # whatever was passed
        assert type(caught.value).__module__.startswith("perdure")

    # Not even at the next checkpoint, nor after a restart.
    async with within(), hub_on(store) as hub:
        await settle()
        assert [s.instance_id async for s in hub.client.query()] == ["ended", "live"]
        assert [s async for s in hub.client.query_entities(include_empty=True)] == []
        assert everything(store) == before


@pytest.mark.parametrize("key", BAD_IDS.values(), ids=BAD_IDS.keys())
def test_a_bad_entity_key_or_name_is_refused_when_the_id_is_made(key: Any) -> None:
    with pytest.raises(InvalidIdError):
        EntityId(Counter, key)
    if isinstance(key, str):
        with pytest.raises(InvalidIdError):
            EntityId(key, "k")


@pytest.mark.parametrize("text", ["", "counter", "@counter", "@counter@", "@@k", "counter@k", "@"])
def test_what_is_no_entity_id_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(InvalidIdError):
        EntityId.parse(text)


def app_of_two_variables(name: str) -> App:
    return App(context_vars=[ContextVar(name), ContextVar(name)])


@pytest.mark.parametrize(
    "look_up",
    [
        app.registry.find_activity,
        app.registry.find_orchestration,
        app.registry.find_entity,
        EntityId.parse,
        partial(app.registry.find_orchestration, sized),
        partial(app.registry.exact_orchestration, "sized"),
        app_of_two_variables,
    ],
    ids=range(7),
)
def test_a_name_is_cut_where_an_error_shows_it(look_up: Callable[[str], object]) -> None:
    with pytest.raises(UsageError) as raised:
        look_up("y" * 10**6)

    assert "'yyyyyyyy" in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "id", ["x" * 256, "ünïcödé 日本 🦀", "a b", "a/b?c=d&e", "::", "a::b", "'\"; --"]
)
async def test_ids_at_the_edge_are_taken(id: str) -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        await hub.client.start_new(listen, instance_id=id, request_id=id)
        await hub.client.raise_event(id, "end", id, request_id=f"{id[:250]}-2")
        entity = EntityId(Counter, id)
        assert await hub.client.call_entity(entity, Counter.add, 1) == 1
        assert EntityId.parse(str(entity)) == entity

        assert await hub.client.wait(id) == id


# The same doors inside orchestrations and operations: the code that calls is told, at the call.


@app.entity
class Clumsy:
    tried: int = 0

    def send(self, kind: str, ctx: EntityContext) -> None:
        self.tried += 1
        if kind == "unknown entity":
            ctx.signal_entity(EntityId("nobody", "k"), "add", 1)
        elif kind == "unknown operation":
            ctx.signal_entity(C, "fly")
        elif kind == "wrong type":
            ctx.signal_entity(C, "add", "x")
        elif kind == "too large":
            ctx.signal_entity(C, "any", "x" * LIMIT)
        elif kind == "naive time":
            ctx.signal_entity(C, "bare", at=NAIVE)
        elif kind == "negative delay":
            ctx.signal_entity(C, "bare", at=timedelta(-1))
        elif kind == "bad id":
            ctx.start_new("listen", instance_id="@x")
        elif kind == "unknown orchestration":
            ctx.start_new("nobody")


KINDS = {
    "unknown entity": "UnknownNameError",
    "unknown operation": "UnknownNameError",
    "wrong type": "PayloadError",
    "too large": "PayloadTooLargeError",
    "naive time": "InvalidTimeError",
    "negative delay": "InvalidTimeError",
    "bad id": "InvalidIdError",
    "unknown orchestration": "UnknownNameError",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_operation_that_sends_what_is_wrong_fails_and_sends_nothing(kind: str) -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        with pytest.raises(Exception, match=KINDS[kind]):
            await hub.client.call_entity(EntityId(Clumsy, "x"), Clumsy.send, kind)

        await settle()
        assert [s async for s in hub.client.query_entities(include_empty=True)] == []
        assert [s async for s in hub.client.query()] == []


@app.orchestration
async def clumsy(ctx: OrchestrationContext, kind: str) -> None:
    if kind == "unknown entity":
        ctx.signal_entity(EntityId("nobody", "k"), "add", 1)
    elif kind == "unknown operation":
        await ctx.call_entity(C, "fly")
    elif kind == "wrong type":
        await ctx.call_entity(C, "add", "x")
    elif kind == "too large":
        ctx.signal_entity(C, "any", "x" * LIMIT)
    elif kind == "naive time":
        await ctx.create_timer(NAIVE)
    elif kind == "negative delay":
        await ctx.create_timer(timedelta(-1))
    elif kind == "bad id":
        await ctx.call_sub_orchestrator("listen", instance_id="@x")
    elif kind == "unknown orchestration":
        await ctx.call_sub_orchestrator("nobody")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_orchestration_that_asks_for_what_is_wrong_is_told_at_the_call(kind: str) -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        handle = await hub.client.start_new(clumsy, kind)
        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result()
        history = await handle.history()

        assert caught.value.error_type == KINDS[kind]
        assert "in clumsy" in caught.value.stack_trace
        assert [event.event_type for event in history] == ["ExecutionStarted", "ExecutionCompleted"]
        assert [s async for s in hub.client.query_entities(include_empty=True)] == []
