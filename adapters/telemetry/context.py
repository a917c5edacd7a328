"""What goes along of a trace: W3C trace context and baggage, as texts by name.

A message carries ``traceparent``, ``tracestate`` and ``baggage`` as an HTTP request would: the span
that it says is the one that what it sets going is part of. What an orchestration sets going is part
of the orchestration, whose own parent is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

#: Where the parent of an orchestration's own span is kept.
PARENT = "perdure-parent"

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)

_BAGGAGE = W3CBaggagePropagator()
_NONE = Context()


class Place(NamedTuple):
    """A span that others are part of: its ids, whether it is sampled, and its trace's state."""

    trace_id: int
    span_id: int
    flags: TraceFlags
    state: TraceState

    @property
    def is_sampled(self) -> bool:
        """Whether it is recorded."""
        return self.flags is SAMPLED

    def at(self, span_id: int, is_remote: bool = False) -> SpanContext:
        """Give a span's context in the same trace."""
        return SpanContext(self.trace_id, span_id, is_remote, self.flags, self.state)


NO_STATE = TraceState()


def read_place(carried: Mapping[str, str] | None) -> Place | None:
    """Read the span that a message says; None if it says none."""
    if carried is None:
        return None
    parent = carried.get("traceparent")
    return None if parent is None else _parse(parent, carried.get("tracestate"))


# One trace is read where it begins, and at each of its pieces.
@lru_cache(maxsize=4_096)
def _parse(parent: str, state: str | None) -> Place | None:
    parts = parent.split("-")
    if len(parts) < 4:
        return None
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except ValueError:
        return None
    if not trace_id or not span_id:
        return None
    sampled = SAMPLED if flags & TraceFlags.SAMPLED else UNSAMPLED
    return Place(trace_id, span_id, sampled, TraceState.from_header([state]) if state else NO_STATE)


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
    return _BAGGAGE.extract(carried, Context())
