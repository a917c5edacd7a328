"""One trace for each orchestration, across replays, restarts and whom it calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import baggage, context as contexts, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from perdure import (
    ActivityContext,
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    Settings,
    Store,
)
from perdure.adapters.telemetry import IdGenerator, Tracing
from perdure.storage.records import Checkpoint
from tests.adapters.telemetry.tracing import Traces, span_id, trace_id
from tests.runtime.harness import FaultyStore, disk_error
from tests.runtime.orchestrating import advance, evict, quiet

app = App()
seen: dict[str, Any] = {}


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        seen["operation"] = trace.get_current_span().get_span_context()
        if amount < 0:
            raise ValueError("no less")
        self.value += amount
        return self.value

    async def add_slowly(self, amount: int, ctx: EntityContext) -> int:
        await anyio.lowlevel.checkpoint()
        seen["slow"] = trace.get_current_span().get_span_context()
        ctx.signal_entity(EntityId("other", "y"), "note")
        self.value += amount
        return self.value


@app.entity
class Other:
    notes: int = 0

    def note(self) -> None:
        self.notes += 1


@app.activity
async def work(ctx: ActivityContext, key: str) -> str:
    span = trace.get_current_span()
    span.set_attribute("key", key)
    seen["activity"] = span.get_span_context(), baggage.get_baggage("tenant")
    if ctx.attempt == 1:
        raise ValueError("once")
    return key


@app.activity
def in_a_thread(n: int) -> int:
    with trace.get_tracer_provider().get_tracer("x").start_as_current_span("none"):
        pass
    seen["thread"] = trace.get_current_span().get_span_context()
    return n


@app.orchestration
async def child(ctx: OrchestrationContext, n: int) -> int:
    seen["baggage"] = baggage.get_baggage("tenant")
    return await ctx.call_activity(in_a_thread, n)


@app.orchestration
async def whole(ctx: OrchestrationContext, key: str) -> int:
    await ctx.call_activity(work, key, retry=RetryPolicy(first_interval=1.0, max_attempts=2))
    await ctx.create_timer(timedelta(seconds=5))
    await ctx.call_sub_orchestrator(child, 1)
    return await ctx.call_entity(EntityId(Counter, key), Counter.add, 2)


@app.orchestration
async def plain(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(in_a_thread, 1)


@app.orchestration
async def fails(ctx: OrchestrationContext) -> None:
    await ctx.call_entity(EntityId(Counter, "f"), Counter.add, -1)


@app.orchestration
async def rounds(ctx: OrchestrationContext, left: int) -> int:
    await ctx.call_activity(in_a_thread, left)
    if left:
        ctx.continue_as_new(left - 1)
    return left


@app.orchestration
async def waits(ctx: OrchestrationContext) -> int:
    first = await ctx.call_activity(in_a_thread, 1)
    await ctx.wait_for_external_event("go")
    return first + await ctx.call_activity(in_a_thread, 2)


@pytest.fixture(params=["memory", "sqlite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store | str]:
    """Give stores with the same content, one after another."""
    if request.param == "sqlite":
        return lambda: f"sqlite:{tmp_path / 'hub'}"
    kept = MemoryStore()
    return lambda: kept


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


@pytest.fixture(params=["made ended", "begun and ended"])
def traces(request: pytest.FixtureRequest) -> Traces:
    """Spans by either way in which they are made."""
    return Traces(plain=request.param == "made ended")


WHOLE = [
    (
        "orchestration whole",
        [
            "activity work",
            "timer",
            "activity work",
            "timer",
            ("orchestration child", ["activity in_a_thread"]),
            "entity counter.add",
        ],
    )
]


async def run_whole(hub: Hub, clock: ManualClock, key: str, id: str) -> None:
    handle = await hub.client.start_new(whole, key, instance_id=id)
    await quiet(hub)
    await advance(hub, clock, 1)
    await advance(hub, clock, 5)
    assert await handle.result(10) == 2


@pytest.mark.by_turns
async def test_a_trace_has_a_span_for_each_piece_of_an_orchestrations_work(
    new_store: Callable[[], Store | str], traces: Traces
) -> None:
    clock = ManualClock()

    async with Hub(app, store=new_store(), clock=clock, observer=traces.observer) as hub:
        await run_whole(hub, clock, "a", "i")

    assert traces.shape() == WHOLE
    assert len({trace_id(span) for span in traces.spans}) == 1
    first, second = traces.named("activity work")
    assert (first.attributes or {})["perdure.attempt"] == 1
    assert (first.attributes or {})["error.type"] == "ValueError"
    assert (first.attributes or {})["key"] == "a"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "ValueError: once"
    assert (second.attributes or {})["perdure.attempt"] == 2
    assert second.status.is_ok
    root = traces.one("orchestration whole")
    assert root.parent is None
    assert root.kind is SpanKind.SERVER
    assert (root.attributes or {})["perdure.instance_id"] == "i"
    operation = traces.one("entity counter.add")
    assert (operation.attributes or {})["perdure.entity_id"] == "@counter@a"
    assert (operation.attributes or {})["perdure.operation"] == "add"


async def test_spans_have_the_times_of_the_history() -> None:
    traces, clock = Traces(), ManualClock()

    async with Hub(app, clock=clock, observer=traces.observer) as hub:
        began = clock.now()
        await run_whole(hub, clock, "a", "i")
        history = await hub.client.get_handle("i").history()

    timers = sorted(traces.named("timer"), key=lambda span: span.start_time or 0)
    assert [(span.end_time or 0) - (span.start_time or 0) for span in timers] == [10**9, 5 * 10**9]
    root = traces.one("orchestration whole")
    assert root.start_time == began * 1000
    assert (root.end_time or 0) // 1000 == history[-1].timestamp.timestamp() * 1_000_000


async def test_a_trace_begins_with_the_span_that_is_current_where_the_client_starts_it(
    traces: Traces,
) -> None:
    clock = ManualClock()

    async with Hub(app, clock=clock, observer=traces.observer) as hub:
        with traces.tracer.start_as_current_span("request"):
            await run_whole(hub, clock, "a", "i")

    assert traces.shape() == [("request", WHOLE)]
    assert len({trace_id(span) for span in traces.spans}) == 1


async def test_baggage_and_the_current_span_are_there_in_activities_children_and_operations() -> (
    None
):
    traces, clock = Traces(), ManualClock()

    async with Hub(app, clock=clock, observer=traces.observer) as hub:
        token = contexts.attach(baggage.set_baggage("tenant", "ä b"))
        await run_whole(hub, clock, "a", "i")
        contexts.detach(token)

    current, tenant = seen["activity"]
    assert tenant == seen["baggage"] == "ä b"
    assert current.span_id == span_id(traces.named("activity work")[1])
    assert seen["thread"] == traces.one("activity in_a_thread").context
    assert seen["operation"] == traces.one("entity counter.add").context
    assert {span.parent for span in traces.named("orchestration whole")} == {None}


async def test_spans_of_users_code_are_part_of_the_activity(traces: Traces) -> None:
    own = App()

    @own.activity
    async def spans() -> None:
        with traces.tracer.start_as_current_span("inner"):
            await anyio.lowlevel.checkpoint()

    @own.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        with traces.tracer.start_as_current_span("in replayed code"):
            await ctx.call_activity(spans)

    async with Hub(own, observer=traces.observer) as hub:
        await (await hub.client.start_new(flow)).result(10)

    assert traces.shape() == [("orchestration flow", [("activity spans", ["inner"])])]


async def test_what_code_says_of_the_current_span_is_on_it(traces: Traces) -> None:
    own = App()

    @own.activity
    def says() -> None:
        span = trace.get_current_span()
        assert span.is_recording()
        span.add_event("noticed", {"n": 1})
        span.record_exception(KeyError("k"))
        span.update_name("said")
        span.set_status(StatusCode.ERROR, "by itself")
        span.end()
        seen["span"] = span

    @own.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(says)

    async with Hub(own, observer=traces.observer) as hub:
        await (await hub.client.start_new(flow)).result(10)

    span = traces.one("said")
    assert [
        (event.name, dict(event.attributes or {}).get("exception.type")) for event in span.events
    ] == [
        ("noticed", None),
        ("exception", "KeyError"),
    ]
    assert span.status.description == "by itself"
    assert not seen["span"].is_recording()


async def test_a_failed_operation_is_an_error_and_its_orchestration_too(traces: Traces) -> None:
    async with Hub(app, observer=traces.observer) as hub:
        with pytest.raises(OrchestrationFailedError):
            await (await hub.client.start_new(fails)).result(10)

    assert traces.shape() == [("orchestration fails", ["entity counter.add"])]
    assert traces.one("entity counter.add").status.description == "ValueError: no less"
    root = traces.one("orchestration fails")
    assert (root.attributes or {})["error.type"] == "EntityOperationError"
    assert root.status.status_code is StatusCode.ERROR


async def test_operations_that_clients_call_are_part_of_the_current_span_and_of_no_trace_without(
    traces: Traces,
) -> None:
    counter = EntityId(Counter, "x")

    async with Hub(app, observer=traces.observer) as hub:
        await hub.client.call_entity(counter, Counter.add, 1)
        with traces.tracer.start_as_current_span("request"):
            await hub.client.call_entity(counter, Counter.add_slowly, 1)
            with pytest.raises(EntityOperationError):
                await hub.client.call_entity(counter, Counter.add, -1)
            await hub.client.signal_entity(counter, Counter.add, 1)
        await hub.client.call_entity(EntityId(Other, "y"), "note")

    [(name, inside)] = traces.shape()
    assert name == "request"
    assert sorted(inside) == [
        "entity counter.add",
        "entity counter.add",
        "entity counter.add_slowly",
        "entity other.note",
    ]
    assert seen["slow"].trace_id == trace_id(traces.one("request"))


async def test_each_execution_of_one_that_continues_as_new_is_part_of_its_trace(
    traces: Traces,
) -> None:
    async with Hub(app, observer=traces.observer) as hub:
        assert await (await hub.client.start_new(rounds, 2, instance_id="i")).result(10) == 0

    assert len({trace_id(span) for span in traces.spans}) == 1
    again = ("orchestration rounds", ["activity in_a_thread"])
    assert traces.shape() == [("orchestration rounds", ["activity in_a_thread", again, again])]
    found = [
        (span.attributes or {})["perdure.status"] for span in traces.named("orchestration rounds")
    ]
    assert found == ["ContinuedAsNew", "ContinuedAsNew", "Completed"]


@pytest.mark.by_turns
async def test_a_replay_makes_no_span_again_and_the_trace_goes_on(
    new_store: Callable[[], Store | str], traces: Traces
) -> None:
    async with Hub(app, store=new_store(), observer=traces.observer) as hub:
        with traces.tracer.start_as_current_span("request"):
            handle = await hub.client.start_new(waits, instance_id="i")
        await quiet(hub)
        assert await evict(hub) == 1
        await handle.raise_event("go")
        assert await handle.result(10) == 3

    inside = ["activity in_a_thread", "activity in_a_thread"]
    assert traces.shape() == [("request", [("orchestration waits", inside)])]


@pytest.mark.by_turns
async def test_a_hub_that_opens_the_store_again_goes_on_with_the_trace(
    new_store: Callable[[], Store | str], traces: Traces
) -> None:
    async with Hub(app, store=new_store(), observer=traces.observer) as hub:
        await hub.client.start_new(waits, instance_id="i")
        await quiet(hub)
    assert traces.shape() == ["activity in_a_thread"]

    again = Traces()
    async with Hub(app, store=new_store(), observer=again.observer) as hub:
        handle = hub.client.get_handle("i")
        await handle.raise_event("go")
        assert await handle.result(10) == 3

    assert again.shape() == [("orchestration waits", ["activity in_a_thread"])]
    assert (
        span_id(again.one("orchestration waits"))
        == (traces.spans[0].parent or trace.INVALID_SPAN_CONTEXT).span_id
    )
    assert {trace_id(span) for span in [*again.spans, *traces.spans]} == {trace_id(again.spans[0])}


@pytest.mark.by_turns
async def test_an_attempt_that_runs_again_after_a_crash_is_the_same_span(
    new_store: Callable[[], Store | str],
) -> None:
    own, traces = App(), Traces()
    stuck = anyio.Event()

    @own.activity
    async def hangs() -> None:
        with traces.tracer.start_as_current_span("inner"):
            if not stuck.is_set():
                stuck.set()
                await anyio.sleep_forever()

    @own.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(hangs)

    store = new_store()
    settings = Settings(drain_s=0.01)
    async with Hub(own, store=store, observer=traces.observer, settings=settings) as hub:
        await hub.client.start_new(flow, instance_id="i")
        await stuck.wait()
    assert [span.name for span in traces.spans] == ["inner"]

    async with Hub(own, store=new_store(), observer=traces.observer) as hub:
        await hub.client.get_handle("i").result(10)

    assert traces.shape() == [("orchestration flow", [("activity hangs", ["inner", "inner"])])]


@pytest.mark.parametrize("fault", ["commit", "lost_commit"])
async def test_a_commit_that_fails_makes_each_span_once_whether_it_was_stored_or_not(
    fault: str,
) -> None:
    traces, clock, store = Traces(), ManualClock(), FaultyStore()

    async def fail_once_in_a_while(checkpoint: Checkpoint) -> None:
        failing = store.faults.commits % 2 == 0
        setattr(store.faults, fault, disk_error() if failing else None)

    async with Hub(app, store=store, clock=clock, observer=traces.observer, partitions=1) as hub:
        store.faults.before_commit = fail_once_in_a_while
        handle = await hub.client.start_new(whole, "a", instance_id="i", request_id="once")
        for seconds in (0, 1, 5, 5):
            await quiet(hub)
            await advance(hub, clock, seconds)
        assert await handle.result(10) == 2

    assert traces.shape() == WHOLE


async def test_what_is_not_sampled_makes_no_spans_and_says_so_to_what_is_inside() -> None:
    traces = Traces(sampler=ParentBased(ALWAYS_OFF))

    async with Hub(app, observer=traces.observer) as hub:
        await (await hub.client.start_new(plain)).result(10)

    assert traces.spans == []
    assert seen["thread"].is_valid
    assert not seen["thread"].trace_flags.sampled


async def test_what_is_not_sampled_may_be_left_out_altogether() -> None:
    traces = Traces(sampler=ParentBased(ALWAYS_OFF))
    observer = Tracing(traces.provider, carry_unsampled=False)

    async with Hub(app, observer=observer) as hub:
        handle = await hub.client.start_new(plain)
        await handle.result(10)
        [started, *_] = await handle.history()
        unsampled = trace.NonRecordingSpan(trace.SpanContext(7, 8, False))
        with trace.use_span(unsampled):
            inside = await hub.client.start_new(plain)
        await inside.result(10)

    assert traces.spans == []
    assert "context_vars" not in started.fields
    assert seen["thread"].trace_id == 7  # it came from outside, so it goes along


@pytest.mark.parametrize("kept", [0.0, 1.0])
async def test_a_ratio_decides_once_for_a_trace(kept: float) -> None:
    traces = Traces(sampler=ParentBased(TraceIdRatioBased(kept)))

    async with Hub(app, observer=traces.observer) as hub:
        await (await hub.client.start_new(plain)).result(10)

    assert len(traces.spans) == (2 if kept else 0)


async def test_the_programs_own_generator_of_ids_is_used_for_its_own_spans() -> None:
    traces = Traces(plain=False, id_generator=IdGenerator())

    async with Hub(app, observer=traces.observer) as hub:
        with traces.tracer.start_as_current_span("request") as request:
            await (await hub.client.start_new(plain, instance_id="i")).result(10)

    assert traces.shape() == [("request", [("orchestration plain", ["activity in_a_thread"])])]
    assert request.get_span_context().span_id != span_id(traces.one("orchestration plain"))


async def test_a_rewound_orchestration_goes_on_in_its_trace(traces: Traces) -> None:
    own, broken = App(), True

    @own.activity
    async def ready() -> None: ...

    @own.activity
    async def breaks() -> None:
        if broken:
            raise ValueError("broken")

    @own.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(ready)
        await ctx.call_activity(breaks)

    async with Hub(own, observer=traces.observer) as hub:
        handle = await hub.client.start_new(flow)
        with pytest.raises(OrchestrationFailedError):
            await handle.result(10)
        broken = False
        await handle.rewind("repaired")
        await handle.result(10)

    assert traces.shape() == [
        (
            "orchestration flow",
            ["activity ready", "activity breaks", "activity breaks", "orchestration flow"],
        )
    ]


async def test_a_fork_stands_below_the_other_with_what_it_does_itself(traces: Traces) -> None:
    own = App()

    @own.activity
    async def first() -> None: ...

    @own.activity
    async def second() -> None: ...

    @own.orchestration
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(first)
        await ctx.call_activity(second)

    async with Hub(own, observer=traces.observer) as hub:
        handle = await hub.client.start_new(flow)
        await handle.result(10)
        fork = await handle.fork(at=3)
        await fork.result(10)

    (itself,) = traces.shape()
    assert itself == (
        "orchestration flow",
        ["activity first", "activity second", ("orchestration flow", ["activity second"])],
    )


async def test_without_a_provider_nothing_is_made_or_carried() -> None:
    async with Hub(app, observer=Tracing()) as hub:
        handle = await hub.client.start_new(plain, instance_id="i")
        await handle.result(10)
        [started, *_] = await handle.history()

    assert "context_vars" not in started.fields


async def test_one_that_is_replaced_has_its_span_and_the_new_one_a_trace_of_its_own(
    traces: Traces,
) -> None:
    async with Hub(app, observer=traces.observer) as hub:
        await hub.client.start_new(waits, instance_id="i")
        await quiet(hub)
        handle = await hub.client.start_new(plain, instance_id="i", on_existing="replace")
        await handle.result(10)

    [old], [new] = traces.named("orchestration waits"), traces.named("orchestration plain")
    assert (old.attributes or {})["perdure.status"] == "Terminated"
    assert old.status.status_code is StatusCode.UNSET
    assert (new.attributes or {})["perdure.execution"] == 2
    assert trace_id(old) != trace_id(new)
    assert traces.shape() == [
        ("orchestration waits", ["activity in_a_thread"]),
        ("orchestration plain", ["activity in_a_thread"]),
    ]
