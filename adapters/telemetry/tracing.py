"""Traces: one for each orchestration, across replays, restarts, workers and whom it calls.

Invariants:

* A span is made once, when its end is durable; no replay makes one.
* Its id follows from what is stored, so what is done again is the same span.
* What was not sampled when its trace began makes no spans, and has nothing kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry import context as current
from opentelemetry.context import Context
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
    set_span_in_context,
)

from perdure import (
    ActivityFacts,
    FailureDetails,
    OperationFacts,
    StartFacts,
    WorkFacts,
)

from .context import (
    PARENT,
    SAMPLED,
    UNSAMPLED,
    Place,
    carry_current,
    read_place,
    with_baggage,
    write_parent,
)
from .current import CurrentSpan, QuietSpan
from .ids import new_span_id, new_trace_id, task_span_id
from .spans import UNSET, SpanFacts, SpanMaker

#: Attempts whose code has begun and whose ends are not durable; more are not kept.
_RUNNING_MAX = 20_000

_Attempt = tuple[str, int, int]


class _Trace(NamedTuple):
    """What an execution is part of: its own span, and the parent of that."""

    place: Place
    own: SpanContext
    parent: SpanContext | None
    baggage: Context


class Tracing:
    """An observer that makes OpenTelemetry spans: ``Hub(app, observer=Tracing())``.

    One trace has an orchestration, its activities (a span for each attempt), its timers, the
    operations of entities that it calls, and its children, whatever process they run in, and
    however often it is replayed. It begins with the span that is current where a client starts the
    orchestration, or calls the entity, and with the orchestration if there is none. Baggage goes
    along. In activities and operations the current span is theirs, so that other spans are part
    of it; in the code of orchestrations, which is run again and again, no span is recorded.

    With ``workers``, name it: ``Hub(app, observer="shop.telemetry:Tracing", workers=2)``, in a
    module that sets the provider up.

    Args:
        tracer_provider: where the spans go; by default the global provider, once that is set.
        carry_unsampled: whether an orchestration that begins a trace which is not sampled has
            one all the same: it goes along, is in logs, and has nothing inside of it sampled
            either. Without, that costs nothing, and a span in one of its activities is a trace of
            its own, which the sampler decides about.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, *, carry_unsampled: bool = True
    ) -> None:
        self._maker = SpanMaker(tracer_provider)
        self._carry_unsampled = carry_unsampled
        self._running: dict[_Attempt, CurrentSpan] = {}

    def carry(self) -> Mapping[str, str] | None:
        """Give the current span and the baggage."""
        return carry_current()

    def begin_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """Give an execution its span, which all is part of that it sets going."""
        place = read_place(start.carried)
        if place is not None:
            return _own(start, place.trace_id, place.flags, place.span_id)
        if self._maker.tracer is None:
            return start.carried
        trace_id = new_trace_id()
        is_sampled, state = self._maker.samples(trace_id, f"orchestration {start.name}")
        if not is_sampled and not self._carry_unsampled:
            return start.carried
        flags = SAMPLED if is_sampled else UNSAMPLED
        carried = _own(start, trace_id, flags, None)
        if state:
            carried["tracestate"] = state.to_header()
        return carried

    def continue_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """Give the execution its span that goes on from this one: part of the same as this."""
        place = read_place(start.carried)
        if place is None or start.carried is None:
            return start.carried
        kept = start.carried.get(PARENT)
        parent = int(kept, 16) if kept else place.span_id
        return _own(start, place.trace_id, place.flags, parent)

    def follow(self, start: StartFacts, /) -> _Trace | None:
        """Give what an execution is part of; None where that is not sampled."""
        place = read_place(start.carried)
        if place is None or not place.is_sampled or start.carried is None:
            return None
        parent = start.carried.get(PARENT)
        return _Trace(
            place,
            place.at(place.span_id),
            place.at(int(parent, 16), True) if parent else None,
            with_baggage(start.carried),
        )

    def enter_instance(self, start: StartFacts, /) -> None:
        """Have code of an orchestration know its trace, and record no spans: it is run again."""
        place = read_place(start.carried)
        if place is not None:
            _enter(QuietSpan(place), start.carried)

    def begin_activity(self, activity: ActivityFacts, /) -> CurrentSpan | None:
        """Give an attempt its span."""
        _, instance_id, task, _, execution, carried = activity
        place = read_place(carried)
        if place is None:
            return None
        span = CurrentSpan(place, task_span_id(place.span_id, task), activity)
        if place.flags is SAMPLED:
            running = self._running
            if len(running) >= _RUNNING_MAX:
                running.pop(next(iter(running)), None)
            running[instance_id, execution, task] = span
        return span

    def end_activity(self, begun: CurrentSpan | None, failure: str | None, /) -> None:
        """Take no more to its span."""
        if begun is not None:
            begun.ended = time_ns()

    def enter_activity(self, begun: CurrentSpan | None, /) -> None:
        """Have the span of an attempt be the current one."""
        if begun is not None:
            _enter(begun, begun.facts.carried)

    def begin_operation(self, operation: OperationFacts, /) -> CurrentSpan | None:
        """Give an operation its span, and have it be the current one."""
        place = read_place(operation.carried)
        if place is None:
            if "baggage" in operation.carried:
                current.attach(with_baggage(operation.carried))
            return None
        is_task = operation.instance_id is not None
        span_id = task_span_id(place.span_id, operation.task) if is_task else new_span_id()
        span = CurrentSpan(place, span_id, operation)
        _enter(span, operation.carried)
        return span

    def end_operation(self, begun: CurrentSpan, failure: FailureDetails | None, /) -> CurrentSpan:
        """Take no more to its span."""
        begun.ended = time_ns()
        begun.failure = failure
        return begun

    def tell(self, ended: Sequence[WorkFacts | CurrentSpan], /) -> None:
        """Make the spans of what has ended durably."""
        spans: list[tuple[SpanFacts, Context]] = []
        for one in ended:
            if isinstance(one, CurrentSpan):
                if one.place.is_sampled:
                    spans.append(_operation_span(one))
            else:
                spans.append(self._work_span(one))
        if spans:
            self._maker.make(spans)

    def _work_span(self, work: WorkFacts) -> tuple[SpanFacts, Context]:
        kind, trace, start, task, name, attempt, began, ended, status, failure, rewinds = work
        place, own, above, baggage = trace
        context, parent = own, above
        attributes: dict[str, Any] = {"perdure.instance_id": start.instance_id}
        said: CurrentSpan | None = None
        span_kind = SpanKind.INTERNAL
        if kind == "activity":
            title = f"activity {name}"
            attributes["perdure.activity"] = name
            attributes["perdure.task"] = task
            attributes["perdure.attempt"] = attempt
            said = self._running.pop((start.instance_id, start.execution, task), None)
        elif kind == "orchestration":
            title = f"orchestration {name}"
            attributes["perdure.orchestration"] = name
            attributes["perdure.execution"] = start.execution
            if start.version is not None:
                attributes["perdure.version"] = start.version
            if start.parent_instance_id is None:
                span_kind = SpanKind.SERVER
            else:
                attributes["perdure.parent_instance_id"] = start.parent_instance_id
        else:
            title = kind
            attributes["perdure.task"] = task
        if task or rewinds:
            context, parent = place.at(task_span_id(place.span_id, task, rewinds)), own
        attributes["perdure.status"] = status
        how = UNSET if failure is None else _status_of(status, failure, attributes)
        facts = SpanFacts(
            title, span_kind, context, parent, attributes, began * 1000, ended * 1000, how
        )
        if said is not None:
            attributes["perdure.waited_s"] = max(0, said.began - began * 1000) / 1e9
            if said.is_said:
                facts = _with_said(facts, said)
        return facts, baggage


def _own(start: StartFacts, trace_id: int, flags: TraceFlags, parent: int | None) -> dict[str, str]:
    """Give what goes along with what is part of an execution's own span."""
    own = write_parent(trace_id, new_span_id(), flags)
    carried = {"traceparent": own} if start.carried is None else {**start.carried}
    carried["traceparent"] = own
    if parent is None:
        carried.pop(PARENT, None)
    else:
        carried[PARENT] = f"{parent:016x}"
    return carried


def _enter(span: CurrentSpan | QuietSpan, carried: Mapping[str, str] | None) -> None:
    """Have a span be the current one, for the rest of the running context."""
    current.attach(set_span_in_context(span, with_baggage(carried)))


def _status_of(status: str, failure: FailureDetails, attributes: dict[str, Any]) -> Status:
    attributes["error.type"] = failure.error_type
    if status != "Failed":
        return UNSET  # it was asked to end
    return Status(StatusCode.ERROR, f"{failure.error_type}: {failure.message}")


def _operation_span(span: CurrentSpan) -> tuple[SpanFacts, Context]:
    operation = span.facts
    assert isinstance(operation, OperationFacts)
    name = operation.entity_id[1:].partition("@")[0]
    attributes: dict[str, Any] = {
        "perdure.entity_id": operation.entity_id,
        "perdure.operation": operation.operation,
        "perdure.signal": not operation.is_call,
    }
    if operation.instance_id is not None:
        attributes["perdure.instance_id"] = operation.instance_id
        attributes["perdure.task"] = operation.task
    failure: FailureDetails | None = span.failure
    facts = SpanFacts(
        f"entity {name}.{operation.operation}",
        SpanKind.SERVER if operation.instance_id is None else SpanKind.INTERNAL,
        span.get_span_context(),
        span.place.at(span.place.span_id, True),
        attributes,
        span.began,
        span.ended,
        UNSET if failure is None else _status_of("Failed", failure, attributes),
    )
    return _with_said(facts, span), with_baggage(operation.carried)


def _with_said(facts: SpanFacts, said: CurrentSpan) -> SpanFacts:
    """Add what users' code said of a span while it was the current one."""
    if said.attributes is not None:
        facts.attributes.update(said.attributes)
    status = said.status
    is_said = status is not None and status.status_code is not StatusCode.UNSET
    return facts._replace(
        name=facts.name if said.name is None else said.name,
        status=status if is_said and status is not None and facts.status is UNSET else facts.status,
        notes=tuple(said.notes or ()),
        links=tuple(said.links or ()),
    )
