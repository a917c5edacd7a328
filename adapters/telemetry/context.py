"""What goes along of a trace: W3C trace context and baggage, as texts by name.

A message carries ``traceparent``, ``tracestate`` and ``baggage`` as an HTTP request would: the span
that it says is the one that what it sets going is part of. What an orchestration sets going is part
of the orchestration, whose own parent is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from perdure import StartFacts

from .ids import span_id_of

#: Where the parent of an orchestration's own span is kept.
PARENT = "perdure-parent"

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)

_BAGGAGE = W3CBaggagePropagator()


class Place(NamedTuple):
    """A span that others are part of: its ids, whether it is sampled, and its state."""

    trace_id: int
    span_id: int
    is_sampled: bool
    state: TraceState

    def at(self, span_id: int, *, is_remote: bool = False) -> SpanContext:
        """Give a span's context in the same trace."""
        flags = SAMPLED if self.is_sampled else UNSAMPLED
        return SpanContext(self.trace_id, span_id, is_remote, flags, self.state)


_NO_STATE = TraceState()


def read_place(carried: Mapping[str, str] | None) -> Place | None:
    """Read the span that a message says; None if it says none."""
    parent = None if carried is None else carried.get("traceparent")
    if carried is None or parent is None:
        return None
    parts = parent.split("-")
    if len(parts) < 4:
        return None
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except ValueError:
        return None
    if not trace_id or not span_id:
        return None
    state = carried.get("tracestate")
    return Place(
        trace_id,
        span_id,
        bool(flags & TraceFlags.SAMPLED),
        TraceState.from_header([state]) if state else _NO_STATE,
    )


def write_parent(place: Place) -> str:
    """Give the ``traceparent`` of a span."""
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-0{int(place.is_sampled)}"


def carry_current() -> dict[str, str] | None:
    """Give what of the current span and the baggage goes along; None for nothing."""
    carried: dict[str, str] = {}
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        place = Place(
            context.trace_id, context.span_id, context.trace_flags.sampled, context.trace_state
        )
        carried["traceparent"] = write_parent(place)
        if context.trace_state:
            carried["tracestate"] = context.trace_state.to_header()
    if baggage.get_all():
        _BAGGAGE.inject(carried)
    return carried or None


def with_baggage(carried: Mapping[str, str] | None) -> Context:
    """Give a context that has the baggage that came along, and nothing else."""
    if carried is None or "baggage" not in carried:
        return Context()
    return _BAGGAGE.extract(carried, Context())


def parent_of(start: StartFacts, place: Place) -> int:
    """Give the id of the span that an execution is part of, where a message's says ``place``."""
    before = span_id_of(place.trace_id, start.instance_id, start.execution - 1, 0)
    if place.span_id == before and start.carried is not None:
        # It goes on from an execution that has ended, as a new one: part of the same.
        kept = start.carried.get(PARENT)
        return int(kept, 16) if kept else before
    return place.span_id
