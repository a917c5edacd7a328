"""Makes spans of what has ended, with its times, and with the ids that are its own.

A span of the SDK costs more than the work that most of a hub's spans are of. So where nothing can
tell the difference, because processors look at spans that have ended and samplers follow a trace's
first decision, spans are made as they are when they have ended. Else they are begun and ended through
the API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer as SdkTracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    ProxyTracerProvider,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    TraceState,
    set_span_in_context,
)

from perdure import __version__

from .ids import IdGenerator

_NAME = "perdure"
UNSET = Status(StatusCode.UNSET)


class Note(NamedTuple):
    """Something that users' code said of the current span: what, its attributes, and when."""

    name: str
    attributes: Any
    at: int


class SpanFacts(NamedTuple):
    """A span that has ended; times are nanoseconds since the epoch."""

    name: str
    kind: SpanKind
    context: SpanContext
    parent: SpanContext | None
    attributes: dict[str, Any]
    began: int
    ended: int
    status: Status = UNSET
    notes: Sequence[Note] = ()
    links: Sequence[Link] = ()


class SpanMaker:
    """Gives spans to a provider's processors.

    Args:
        provider: the provider; by default, the global one, once that is set.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer: trace.Tracer | None = None
        self._ids: IdGenerator | None = None
        self._scope = InstrumentationScope(_NAME, __version__)
        self._checked: object = None  # the processors that were looked at last
        self._is_plain = False  # whether these only look at spans that have ended
        self._sampler: Sampler | None = None  # the one that was looked at last
        self._constant: bool | None = None  # what it says of each new trace, if that is the same

    @property
    def tracer(self) -> trace.Tracer | None:
        """The tracer; None while the program has set no provider."""
        if self._tracer is not None:
            return self._tracer
        provider = self._provider or trace.get_tracer_provider()
        if isinstance(provider, ProxyTracerProvider):
            return None
        tracer = self._tracer = provider.get_tracer(_NAME, __version__)
        if isinstance(tracer, SdkTracer):
            found = tracer.id_generator
            if not isinstance(found, IdGenerator):
                # Of this tracer alone: the program's own spans are not made by it.
                found = tracer.id_generator = IdGenerator(found)
            self._ids = found
        return tracer

    def samples(self, trace_id: int, name: str) -> tuple[bool, TraceState | None]:
        """Decide whether a new trace is sampled, and with which state."""
        tracer = self.tracer
        if tracer is None:
            return False, None
        if not isinstance(tracer, SdkTracer):
            return True, None
        if tracer.sampler is not self._sampler:
            self._sampler = tracer.sampler
            is_by_parent = type(tracer.sampler) is ParentBased
            root = vars(tracer.sampler)["_root"] if is_by_parent else tracer.sampler
            self._constant = {id(ALWAYS_ON): True, id(ALWAYS_OFF): False}.get(id(root))
        if self._constant is not None:
            return self._constant, None
        result = tracer.sampler.should_sample(Context(), trace_id, name, SpanKind.SERVER)
        return result.decision is Decision.RECORD_AND_SAMPLE, result.trace_state

    def make(self, spans: Sequence[tuple[SpanFacts, Context]]) -> None:
        """Make spans, each with the context that goes along with it."""
        tracer = self.tracer
        if tracer is None:
            return
        if isinstance(tracer, SdkTracer) and self._takes_ended(tracer):
            resource, on_end = tracer.resource, tracer.span_processor.on_end
            for facts, _ in spans:
                on_end(self._ended(facts, resource))
            return
        for facts, context in spans:
            self._begin_and_end(tracer, facts, context)

    def _takes_ended(self, tracer: SdkTracer) -> bool:
        processors: Any = getattr(tracer.span_processor, "_span_processors", None)
        if processors is not self._checked or processors is None:
            self._checked = processors
            self._is_plain = (
                processors is not None
                and all(
                    type(one) in (BatchSpanProcessor, SimpleSpanProcessor) for one in processors
                )
                and _follows(tracer.sampler)
            )
        return self._is_plain

    def _ended(self, facts: SpanFacts, resource: Resource) -> ReadableSpan:
        name, kind, context, parent, attributes, began, ended, status, notes, links = facts
        return ReadableSpan(
            name,
            context,
            parent,
            resource,
            attributes,
            [Event(note.name, note.attributes, note.at) for note in notes] if notes else (),
            links,
            kind,
            status=status,
            start_time=began,
            end_time=ended,
            instrumentation_scope=self._scope,
        )

    def _begin_and_end(self, tracer: trace.Tracer, facts: SpanFacts, context: Context) -> None:
        if facts.parent is not None:
            context = set_span_in_context(NonRecordingSpan(facts.parent), context)
        elif self._ids is None:
            # Of a trace whose id cannot be chosen but by a parent.
            context = set_span_in_context(NonRecordingSpan(facts.context), context)
        if self._ids is None:
            span = _begin(tracer, facts, context)
        else:
            with self._ids.given(facts.context.trace_id, facts.context.span_id):
                span = _begin(tracer, facts, context)
        for note in facts.notes:
            span.add_event(note.name, note.attributes, note.at)
        if facts.status is not UNSET:
            span.set_status(facts.status)
        span.end(facts.ended)


def _begin(tracer: trace.Tracer, facts: SpanFacts, context: Context) -> trace.Span:
    return tracer.start_span(
        facts.name, context, facts.kind, facts.attributes, facts.links, facts.began
    )


def _follows(sampler: Sampler) -> bool:
    """Whether a sampler decides by a trace's first decision, which was asked of it."""
    if sampler is ALWAYS_ON or sampler is ALWAYS_OFF:
        return True
    return type(sampler) is ParentBased and all(
        vars(sampler).get(f"_{where}_parent_{how}") is what
        for where in ("remote", "local")
        for how, what in (("sampled", ALWAYS_ON), ("not_sampled", ALWAYS_OFF))
    )
