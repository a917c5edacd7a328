"""Makes spans of what has ended, with its times, and with the ids that are its own.

A span of the SDK costs more than the work that most of a hub's spans are of. So where nothing can
tell the difference, because processors look at spans that have ended, samplers follow a trace's
first decision, and no limit cuts what we say of them, spans are given to the processors as
``EndedSpan``s. Else, and where users' code said something of one, they are begun and ended through
the API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, Tracer as SdkTracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
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
    set_span_in_context,
)

from perdure import __version__

from .ids import IdGenerator

_NAME = "perdure"
UNSET = Status(StatusCode.UNSET)

#: More attributes than this no span has that users' code said nothing of.
_ATTRIBUTES_MAX = 12


class Note(NamedTuple):
    """Something that users' code said of the current span: what, its attributes, and when."""

    name: str
    attributes: Any
    at: int


class SpanFacts(NamedTuple):
    """What a span says but for its own context; times are nanoseconds since the epoch."""

    name: str
    kind: SpanKind
    parent: SpanContext | None
    attributes: dict[str, Any]
    began: int
    ended: int
    status: Status = UNSET
    notes: tuple[Note, ...] = ()
    links: tuple[Link, ...] = ()


#: Takes a span that has ended.
Take = Callable[[ReadableSpan], None]


class Origin(NamedTuple):
    """What the spans of a tracer have in common."""

    resource: Resource
    scope: InstrumentationScope


#: What a span is of, which does not change any more, and what says of that what the span says.
Subject = tuple[Origin, Callable[[Any], SpanFacts], Any]


class EndedSpan(ReadableSpan):
    """A span as it is when it has ended.

    What it says is put together when somebody looks, which an exporter does in a thread of its own.

    Args:
        context: its context.
        subject: what it is of, and where from.
    """

    # What processors look at is no property here, which costs them a call each time.
    __slots__ = ("_subject", "context")

    def __init__(self, context: SpanContext, subject: Subject) -> None:
        # Not that of the class above, which costs what all the rest of a span does: that is called
        # when something is missing that it would have set.
        self.context = context  # type: ignore[misc] # pyright: ignore[reportIncompatibleMethodOverride, reportAttributeAccessIssue]
        self._subject: Subject | None = subject  # None once it is put together

    def get_span_context(self) -> SpanContext | None:
        """Give its context."""
        context: SpanContext | None = self.context
        return context

    def __getattr__(self, name: str) -> Any:
        if name in EndedSpan.__slots__ or name.startswith("__") or self._subject is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        (resource, scope), describe, what = self._subject
        facts: SpanFacts = describe(what)
        ReadableSpan.__init__(
            self,
            facts.name,
            self.context,
            facts.parent,
            resource,
            facts.attributes,
            kind=facts.kind,
            status=facts.status,
            start_time=facts.began,
            end_time=facts.ended,
            instrumentation_scope=scope,
        )
        self._subject = None
        return getattr(self, name)


class SpanMaker:
    """Gives spans to a provider's processors.

    Args:
        provider: the provider; by default, the global one, once that is set.

    Attributes:
        bound: a new trace is sampled if the lower part of its id is less; None where its sampler
            has to be asked, or is not known yet.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer: trace.Tracer | None = None
        self._ids: IdGenerator | None = None
        self._scope = InstrumentationScope(_NAME, __version__)
        self._origin: Origin | None = None
        self._checked: object = None  # what was looked at last, to take ended spans
        self._takers: list[Take] | None = None
        self.bound: int | None = None

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
            self.bound = _bound(tracer.sampler)
        return tracer

    def samples(self, trace_id: int, name: str) -> tuple[bool, str | None]:
        """Ask whether a new trace is sampled, and with which state."""
        tracer = self.tracer
        if not isinstance(tracer, SdkTracer):
            return tracer is not None, None
        sampler, called = tracer.sampler, f"orchestration {name}"
        result = sampler.should_sample(Context(), trace_id, called, SpanKind.SERVER)
        state = result.trace_state
        is_sampled = result.decision is Decision.RECORD_AND_SAMPLE
        return is_sampled, state.to_header() if state else None

    def takers(self) -> list[Take] | None:
        """Give what takes ended spans, as they are; None where each has to be begun and ended."""
        tracer = self.tracer
        if not isinstance(tracer, SdkTracer):
            return None
        processors: object = getattr(tracer.span_processor, "_span_processors", None)
        checked = processors, tracer.sampler, getattr(tracer, "_tracer_config", None)
        if checked != self._checked:
            self._takers = _takers(tracer, processors)
            self._checked = checked
        return self._takers

    def origin(self) -> Origin:
        """Give what ended spans have in common."""
        tracer, origin = self._tracer, self._origin
        assert isinstance(tracer, SdkTracer)
        if origin is None or origin.resource is not tracer.resource:
            origin = self._origin = Origin(tracer.resource, self._scope)
        return origin

    def make(self, facts: SpanFacts, own: SpanContext, context: Context) -> None:
        """Begin a span and end it, in a context that has what goes along with it."""
        tracer = self.tracer
        if tracer is None:
            return
        if facts.parent is not None:
            context = set_span_in_context(NonRecordingSpan(facts.parent), context)
        elif self._ids is None:
            # Of a trace whose id cannot be chosen but by a parent.
            context = set_span_in_context(NonRecordingSpan(own), context)
        if self._ids is None:
            span = _begin(tracer, facts, context)
        else:
            with self._ids.given(own.trace_id, own.span_id):
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


def _takers(tracer: SdkTracer, processors: object) -> list[Take] | None:
    """Give what takes ended spans where nothing can tell that they were not begun."""
    if type(processors) is not tuple:
        return None
    known = cast("tuple[SpanProcessor, ...]", processors)
    plain = (BatchSpanProcessor, SimpleSpanProcessor)
    is_plain = (
        all(type(one) in plain for one in known)
        and _follows(tracer.sampler)
        and _is_as_known(tracer)
        and are_spans_as_known()
    )
    return [_taker(one) for one in known] if is_plain else None


def _taker(processor: SpanProcessor) -> Take:
    """Give what takes a span that is sampled, and has ended."""
    if isinstance(processor, BatchSpanProcessor):
        code = getattr(BatchSpanProcessor.on_end, "__code__", None)
        emit: Take | None = getattr(getattr(processor, "_batch_processor", None), "emit", None)
        if emit is not None and code is not None and {*code.co_names} == _ON_END:
            return emit  # that is all that it does, once it has looked whether the span is sampled
    return processor.on_end


def _bound(sampler: Sampler) -> int | None:
    """Give below which part of a new trace's id a sampler takes it, if it is one of the SDK's."""
    root = vars(sampler).get("_root") if type(sampler) is ParentBased else sampler
    if root is ALWAYS_ON or root is ALWAYS_OFF:
        return TraceIdRatioBased.TRACE_ID_LIMIT + 1 if root is ALWAYS_ON else 0
    return root.bound if type(root) is TraceIdRatioBased else None


#: What the code of a processor names that looks whether a span is sampled, and then emits it.
_ON_END = {"context", "trace_flags", "sampled", "_batch_processor", "emit"}


def _follows(sampler: Sampler) -> bool:
    """Whether a sampler decides by a trace's first decision, which was asked of it."""
    if sampler is ALWAYS_ON or sampler is ALWAYS_OFF:
        return True
    return type(sampler) is ParentBased and all(
        vars(sampler).get(f"_{where}_parent_{how}") is what
        for where in ("remote", "local")
        for how, what in (("sampled", ALWAYS_ON), ("not_sampled", ALWAYS_OFF))
    )


def _is_as_known(tracer: SdkTracer) -> bool:
    """Whether a tracer is switched on, counts nothing of its own, and cuts nothing off."""
    limits: Any = getattr(tracer, "_span_limits", None)
    most: Any = getattr(limits, "max_span_attributes", 0)
    config, metrics = (
        getattr(tracer, name, None) for name in ("_tracer_config", "_tracer_metrics")
    )
    return (
        getattr(config, "is_enabled", True) is True
        and (metrics is None or type(metrics).__name__ == "NoOpTracerMetrics")
        and (most is None or most >= _ATTRIBUTES_MAX)
        and getattr(limits, "max_span_attribute_length", 0) is None
    )


def are_spans_as_known() -> bool:
    """Whether an ended span of ours says what one of the SDK's own does, by all that it has."""
    context, parent = (SpanContext(1, one, is_remote=False) for one in (2, 3))
    origin = Origin(Resource({"a": "b"}), InstrumentationScope(_NAME))
    facts = SpanFacts(
        "name", SpanKind.SERVER, parent, {"c": 1}, 4, 5, Status(StatusCode.ERROR, "e")
    )
    try:
        known = ReadableSpan(
            facts.name,
            context,
            parent,
            origin.resource,
            facts.attributes,
            kind=facts.kind,
            status=facts.status,
            start_time=4,
            end_time=5,
            instrumentation_scope=origin.scope,
        )
        for name in _SAID:
            ours = EndedSpan(context, (origin, lambda _: facts, None))
            if getattr(ours, name) != getattr(known, name):
                return False
        ours = EndedSpan(context, (origin, lambda _: facts, None))
        return ours.get_span_context() == context and ours.to_json() == known.to_json()
    except Exception:
        return False


_SAID = (
    *("name", "context", "kind", "parent", "start_time", "end_time", "status", "attributes"),
    *("events", "links", "resource", "instrumentation_scope"),
    *("dropped_attributes", "dropped_events", "dropped_links"),
)
