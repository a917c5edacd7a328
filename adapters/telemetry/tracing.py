"""Traces: one for each orchestration, across replays, restarts, workers and whom it calls.

Invariants:

* A span is made once, when its end is durable; no replay makes one.
* Its id follows from what it is of, so what is done again is the same span.
* What was not sampled when its trace began makes no spans, and has nothing kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import getrandbits
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry import context as current
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    TraceState,
    set_span_in_context,
)

from perdure import (
    ActivityFacts,
    CheckpointFacts,
    FailureDetails,
    OperationFacts,
    StartFacts,
    TurnFacts,
    WorkFacts,
)

from .context import PARENT, Place, carry_current, parent_of, read_place, with_baggage, write_parent
from .current import CurrentSpan
from .ids import span_id_of, trace_id_of
from .spans import SpanFacts, SpanMaker

#: Attempts whose code has begun and whose ends are not durable; more are not kept.
_RUNNING_MAX = 20_000

_UNSET = Status(StatusCode.UNSET)

_Attempt = tuple[str, int, int]


class _Trace(NamedTuple):
    """What an execution is part of: its own span, and the parent of that."""

    place: Place
    parent: int | None
    context: Context  # with the baggage that came along


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
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._maker = SpanMaker(tracer_provider)
        self._running: dict[_Attempt, CurrentSpan] = {}

    def begin_turn(self, turn: TurnFacts, /) -> None:
        """Take no note: turns are no part of a trace."""

    def end_turn(self, begun: None, error: BaseException | None, /) -> None:
        """Take no note."""

    def begin_checkpoint(self, checkpoint: CheckpointFacts, /) -> None:
        """Take no note: checkpoints are of many traces."""

    def end_checkpoint(self, begun: None, error: BaseException | None, /) -> None:
        """Take no note."""

    def carry(self) -> Mapping[str, str] | None:
        """Give the current span and the baggage."""
        return carry_current()

    def begin_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """Give an execution its span, which all is part of that it sets going."""
        place = read_place(start.carried)
        carried = dict(start.carried or {})
        if place is None:
            if self._maker.tracer is None:
                return start.carried
            trace_id = trace_id_of(start.instance_id, start.execution, start.created)
            sampled, state = self._maker.samples(trace_id, _name_of(start))
            place = Place(trace_id, 0, sampled, state or TraceState())
            carried.pop(PARENT, None)
            if state:
                carried["tracestate"] = state.to_header()
        else:
            carried[PARENT] = f"{parent_of(start, place):016x}"
        own = span_id_of(place.trace_id, start.instance_id, start.execution, 0)
        carried["traceparent"] = write_parent(place._replace(span_id=own))
        return carried

    def follow(self, start: StartFacts, /) -> _Trace | None:
        """Give what an execution is part of; None where that is not sampled."""
        place = read_place(start.carried)
        if place is None or not place.is_sampled or start.carried is None:
            return None
        parent = start.carried.get(PARENT)
        return _Trace(place, int(parent, 16) if parent else None, with_baggage(start.carried))

    def enter_instance(self, start: StartFacts, /) -> None:
        """Have code of an orchestration know its trace, and record no spans: it is run again."""
        place = read_place(start.carried)
        if place is not None:
            own = place._replace(is_sampled=False).at(place.span_id)
            _enter(NonRecordingSpan(own), start.carried)

    def begin_activity(self, activity: ActivityFacts, /) -> CurrentSpan | None:
        """Give an attempt its span."""
        place = read_place(activity.carried)
        if place is None:
            return None
        _, instance_id, task, _, execution, _ = activity
        span = CurrentSpan(
            place, span_id_of(place.trace_id, instance_id, execution, task), activity
        )
        if place.is_sampled:
            if len(self._running) >= _RUNNING_MAX:
                self._running.pop(next(iter(self._running)), None)
            self._running[instance_id, execution, task] = span
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
        instance_id, execution, task = operation.instance_id, operation.execution, operation.task
        span_id = (
            getrandbits(64) or 1
            if instance_id is None
            else span_id_of(place.trace_id, instance_id, execution, task)
        )
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
        place, parent, context = trace
        attributes: dict[str, Any] = {"perdure.instance_id": start.instance_id}
        said: CurrentSpan | None = None
        span_kind = SpanKind.INTERNAL
        span_id = place.span_id
        if kind == "orchestration":
            title = f"orchestration {name}"
            attributes["perdure.orchestration"] = name
            attributes["perdure.execution"] = start.execution
            if start.version is not None:
                attributes["perdure.version"] = start.version
            if start.parent_instance_id is None:
                span_kind = SpanKind.SERVER
            else:
                attributes["perdure.parent_instance_id"] = start.parent_instance_id
            if rewinds:
                parent = span_id
                span_id = span_id_of(place.trace_id, start.instance_id, start.execution, 0, rewinds)
        else:
            parent = span_id
            span_id = span_id_of(place.trace_id, start.instance_id, start.execution, task, rewinds)
            attributes["perdure.task"] = task
            title = kind
            if kind == "activity":
                title = f"activity {name}"
                attributes["perdure.activity"] = name
                attributes["perdure.attempt"] = attempt
                said = self._running.pop((start.instance_id, start.execution, task), None)
        attributes["perdure.status"] = status
        facts = SpanFacts(
            title,
            span_kind,
            place.at(span_id),
            None if parent is None else place.at(parent, is_remote=kind == "orchestration"),
            attributes,
            began * 1000,
            ended * 1000,
            _status_of(status, failure, attributes),
        )
        if said is not None:
            attributes["perdure.waited_s"] = max(0, said.began - began * 1000) / 1e9
            facts = _with_said(facts, said)
        return facts, context


def _enter(span: CurrentSpan | NonRecordingSpan, carried: Mapping[str, str] | None) -> None:
    """Have a span be the current one, for the rest of the running context."""
    current.attach(set_span_in_context(span, with_baggage(carried)))


def _name_of(start: StartFacts) -> str:
    return f"orchestration {start.name}"


def _status_of(status: str, failure: FailureDetails | None, attributes: dict[str, Any]) -> Status:
    if failure is not None:
        attributes["error.type"] = failure.error_type
    if status != "Failed":
        return _UNSET
    return Status(
        StatusCode.ERROR,
        None if failure is None else f"{failure.error_type}: {failure.message}",
    )


def _operation_span(span: CurrentSpan) -> tuple[SpanFacts, Context]:
    operation: OperationFacts = span.facts
    name = operation.entity_id[1:].partition("@")[0]
    attributes: dict[str, Any] = {
        "perdure.entity_id": operation.entity_id,
        "perdure.operation": operation.operation,
        "perdure.signal": not operation.is_call,
    }
    if operation.instance_id is not None:
        attributes["perdure.instance_id"] = operation.instance_id
        attributes["perdure.task"] = operation.task
    status = "Completed" if span.failure is None else "Failed"
    facts = SpanFacts(
        f"entity {name}.{operation.operation}",
        SpanKind.SERVER if operation.instance_id is None else SpanKind.INTERNAL,
        span.get_span_context(),
        span.place.at(span.place.span_id, is_remote=True),
        attributes,
        span.began,
        span.ended,
        _status_of(status, span.failure, attributes),
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
        status=status
        if is_said and status is not None and facts.status is _UNSET
        else facts.status,
        notes=tuple(said.notes),
        links=tuple(said.links),
    )
