"""Spans that are given to processors as they have ended: what nobody can tell from the SDK's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry import baggage, context as contexts, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased

from perdure import App, EntityId, Hub, OrchestrationContext
from perdure.adapters.telemetry import Tracing
from perdure.adapters.telemetry.spans import EndedSpan, SpanMaker, are_spans_as_known
from tests.adapters.telemetry.tracing import Traces, trace_id

app = App()


@app.activity
async def says_nothing(n: int) -> int:
    return n


@app.activity
async def says(n: int) -> int:
    span = trace.get_current_span()
    said: dict[str, Any] = {"n": n, "long": "x" * 100, "wrong": object()}
    span.set_attributes(said)
    return n


@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> int:
    await ctx.call_activity(says, n)
    return await ctx.call_activity(says_nothing, n)


async def run(observer: Tracing, times: int = 1) -> None:
    async with Hub(app, observer=observer) as hub:
        for n in range(times):
            assert await (await hub.client.start_new(flow, n)).result(10) == n


def content(span: ReadableSpan) -> dict[str, Any]:
    """Give what a span says, but for ids and times."""
    attributes = dict(span.attributes or {})
    for changing in ("perdure.instance_id", "perdure.waited_s", "noted"):
        attributes.pop(changing, None)
    scope = span.instrumentation_scope
    return {
        "name": span.name,
        "kind": span.kind,
        "attributes": attributes,
        "status": span.status.status_code,
        "resource": span.resource,
        "scope": scope and (scope.name, scope.version),
        "events": [event.name for event in span.events],
        "is root": span.parent is None,
    }


def test_the_installed_sdk_takes_them() -> None:
    assert are_spans_as_known()


async def test_they_say_what_those_that_are_begun_and_ended_do() -> None:
    ended, begun = Traces(), Traces(plain=False)

    await run(ended.observer)
    await run(begun.observer)

    assert [type(span) for span in ended.named("activity says_nothing")] == [EndedSpan]
    assert EndedSpan not in {type(span) for span in begun.spans}
    by_name: Callable[[dict[str, Any]], str] = lambda said: said["name"]  # noqa: E731
    assert sorted(map(content, ended.spans), key=by_name) == sorted(
        map(content, begun.spans), key=by_name
    )
    [span] = ended.named("activity says_nothing")
    waited: Any = (span.attributes or {})["perdure.waited_s"]
    assert waited >= 0


async def test_what_code_says_of_its_span_is_cut_and_cleaned_as_the_providers_limits_say() -> None:
    traces = Traces(span_limits=SpanLimits(max_attribute_length=10))
    plain = Traces()

    await run(traces.observer)
    await run(plain.observer)

    attributes = traces.one("activity says").attributes or {}
    assert attributes["long"] == "x" * 10
    assert attributes["perdure.activity"] == "says"
    assert (traces.one("activity says_nothing").attributes or {})[
        "perdure.activity"
    ] == "says_nothi"
    wrong = (plain.one("activity says").attributes or {}).get("wrong")
    assert wrong is None or type(wrong) is str
    assert (plain.one("activity says").attributes or {})["long"] == "x" * 100


@pytest.mark.parametrize(
    "limits", [SpanLimits(max_span_attributes=3), SpanLimits(max_span_attribute_length=5)]
)
def test_a_provider_that_limits_attributes_has_its_spans_begun_and_ended(
    limits: SpanLimits,
) -> None:
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))

    assert SpanMaker(provider).takers() is None
    assert SpanMaker(Traces().provider).takers() is not None


async def test_a_tracer_that_is_switched_off_makes_none() -> None:
    traces = Traces()
    tracer: Any = traces.provider.get_tracer("perdure", perdure_version())
    config: Any = getattr(tracer, "_tracer_config", None)
    if config is None:
        pytest.skip("the SDK has no such switch")
    tracer._set_tracer_config(type(config)(is_enabled=False))

    await run(traces.observer)

    assert traces.spans == []


def perdure_version() -> str:
    import perdure

    return perdure.__version__


async def test_a_batch_processor_takes_them_and_its_exporter_reads_all() -> None:
    class Kept(SpanExporter):
        lines: list[str] = []

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.lines += [span.to_json() for span in spans]
            return SpanExportResult.SUCCESS

    exporter = Kept()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))

    await run(Tracing(provider), 5)
    provider.force_flush()

    assert len(exporter.lines) == 15
    assert sum('"name": "activity says_nothing"' in line for line in exporter.lines) == 5
    provider.shutdown()


async def test_they_can_be_changed_copied_and_have_no_more_than_others() -> None:
    traces = Traces()
    await run(traces.observer)
    span: Any = traces.one("activity says_nothing")
    [other, *_] = traces.named("activity says_nothing")

    assert not hasattr(span, "no_such")
    span.mark = 1
    assert (span.mark, span.name) == (1, "activity says_nothing")
    again = copy.copy(other)
    assert again.attributes == other.attributes
    assert again.context == other.context


@pytest.mark.by_turns
async def test_a_ratio_takes_the_traces_that_the_sdks_sampler_does() -> None:
    sampler = TraceIdRatioBased(0.5)
    traces = Traces(sampler=ParentBased(sampler))
    everything = Traces()

    await run(traces.observer, 40)
    await run(everything.observer, 40)

    for span in traces.spans:
        assert (
            sampler.should_sample(None, trace_id(span), span.name).decision
            is Decision.RECORD_AND_SAMPLE
        )
    taken = {
        trace_id(span)
        for span in everything.spans
        if sampler.should_sample(None, trace_id(span), span.name).decision
        is Decision.RECORD_AND_SAMPLE
    }
    assert 0 < len(taken) < 40
    assert 0 < len({trace_id(span) for span in traces.spans}) < 40


@pytest.mark.parametrize("carry", [True, False])
async def test_baggage_without_a_span_comes_along_to_activities(carry: bool) -> None:
    own, seen = App(), list[object]()

    @own.activity
    async def look() -> None:
        seen.append(baggage.get_baggage("tenant"))

    @own.orchestration
    async def looks(ctx: OrchestrationContext) -> None:
        seen.append(baggage.get_baggage("tenant"))
        await ctx.call_activity(look)

    traces = Traces(sampler=ParentBased(TraceIdRatioBased(0.0)))
    async with Hub(own, observer=Tracing(traces.provider, carry_unsampled=carry)) as hub:
        token = contexts.attach(baggage.set_baggage("tenant", "t"))
        await (await hub.client.start_new(looks)).result(10)
        contexts.detach(token)

    assert seen == ["t", "t"]


async def test_baggage_of_one_request_is_not_that_of_another_of_the_same_unsampled_span() -> None:
    own, seen = App(), list[object]()

    @own.entity
    class Look:
        times: int = 0

        def look(self) -> None:
            seen.append(baggage.get_baggage("tenant"))

    unsampled = trace.NonRecordingSpan(trace.SpanContext(7, 8, False))
    async with Hub(own, observer=Traces().observer) as hub:
        for tenant in (None, "t", None):
            context = trace.set_span_in_context(unsampled)
            if tenant is not None:
                context = baggage.set_baggage("tenant", tenant, context)
            token = contexts.attach(context)
            await hub.client.call_entity(EntityId(Look, "x"), Look.look)
            contexts.detach(token)

    assert seen == [None, "t", None]
