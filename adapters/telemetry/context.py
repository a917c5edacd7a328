"""What goes along of a trace: W3C trace context and baggage, as texts by name.

A message carries ``traceparent``, ``tracestate`` and ``baggage`` as an HTTP request would: the span
that it says is the one that what it sets going is part of. What an orchestration sets going is part
of the orchestration, whose own parent is kept beside it.

Invariant: a ``traceparent`` here was written here, so one that ends with ``UNSAMPLED_END`` is not
sampled, and need not be read to know that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

#: Where the parent of an orchestration's own span is kept.
PARENT = "perdure-parent"

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
UNSAMPLED_END = "-00"

NO_STATE = TraceState()

_BAGGAGE = W3CBaggagePropagator()
_NONE = Context()
#: Where contexts have the current span.
_SPAN = next(iter(set_span_in_context(INVALID_SPAN, Context())))

_MADE = (1, 2, False, SAMPLED, NO_STATE, True)


def _make_context(
    trace_id: int, span_id: int, is_remote: bool, flags: TraceFlags, state: TraceState
) -> SpanContext:
    made: SpanContext = _new(SpanContext, (trace_id, span_id, is_remote, flags, state, True))
    return made


_new = cast("Any", tuple).__new__
# Its own constructor takes a third of what else there is to a span, to see whether its ids are valid.
new_context = _make_context if tuple(SpanContext(*_MADE[:-1])) == _MADE else SpanContext

#: Places that are known by their texts; more are forgotten together, and read again.
_KNOWN_MAX = 4_096


class Place:
    """A span that others are part of: its ids, whether it is sampled, and its trace's state.

    Attributes:
        header: the state as it was carried; None where there is none.
    """

    __slots__ = ("_context", "flags", "header", "span_id", "state", "trace_id")

    def __init__(
        self, trace_id: int, span_id: int, flags: TraceFlags, header: str | None = None
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.header = header
        self.state = TraceState.from_header([header]) if header else NO_STATE
        self._context: SpanContext | None = None

    @property
    def is_sampled(self) -> bool:
        """Whether it is recorded."""
        return self.flags is SAMPLED

    @property
    def context(self) -> SpanContext:
        """Its own context."""
        if self._context is None:
            self._context = self.at(self.span_id)
        return self._context

    def at(self, span_id: int, is_remote: bool = False) -> SpanContext:
        """Give a span's context in the same trace."""
        return new_context(self.trace_id, span_id, is_remote, self.flags, self.state)


# One trace is read where it begins, and at each of its pieces.
_known: dict[str, Place] = {}


def remember(parent: str, place: Place) -> None:
    """Know a place by its text."""
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    _known[parent] = place


def read_place(carried: Mapping[str, str] | None) -> Place | None:
    """Read the span that a message says; None if it says none."""
    if carried is None:
        return None
    parent = carried.get("traceparent")
    if parent is None:
        return None
    header = carried.get("tracestate")
    place = _known.get(parent)
    if place is None or place.header != header:
        place = _parse(parent, header)
        if place is not None:
            remember(parent, place)
    return place


def _parse(parent: str, header: str | None) -> Place | None:
    parts = parent.split("-")
    if len(parts) < 4:
        return None
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except ValueError:
        return None
    if not trace_id or not span_id:
        return None
    return Place(trace_id, span_id, SAMPLED if flags & TraceFlags.SAMPLED else UNSAMPLED, header)


def write_parent(trace_id: int, span_id: int, flags: TraceFlags) -> str:
    """Give the ``traceparent`` of a span."""
    return f"00-{trace_id:032x}-{span_id:016x}-0{flags:d}"


def carry_current() -> dict[str, str] | None:
    """Give what of the current span and the baggage goes along; None for nothing."""
    if not get_current():
        return None  # neither is there, nor anything else: nearly always, outside of requests
    carried: dict[str, str] = {}
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        flags = SAMPLED if context.trace_flags.sampled else UNSAMPLED
        carried["traceparent"] = write_parent(context.trace_id, context.span_id, flags)
        if context.trace_state:
            carried["tracestate"] = context.trace_state.to_header()
    if baggage.get_all():
        _BAGGAGE.inject(carried)
    return carried or None


def with_baggage(carried: Mapping[str, str] | None) -> Context:
    """Give a context that has the baggage that came along, and nothing else."""
    if carried is None or "baggage" not in carried:
        return _NONE
    return _read_baggage(carried["baggage"])


@lru_cache(maxsize=512)
def _read_baggage(text: str) -> Context:
    return _BAGGAGE.extract({"baggage": text}, Context())


def with_span(span: Span, carried: Mapping[str, str]) -> Context:
    """Give a context that has a span, and the baggage that came along."""
    if "baggage" in carried:
        return set_span_in_context(span, with_baggage(carried))
    # Nearly always: as set_span_in_context() does, without two copies of nothing.
    return Context({_SPAN: span})
