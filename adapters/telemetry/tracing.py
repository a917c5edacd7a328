"""Traces: one for each orchestration, across replays, restarts, workers and whom it calls.

Invariants:

* A span is made once, when its end is durable; no replay makes one.
* Its id follows from what is stored, so what is done again is the same span.
* What was not sampled when its trace began makes no spans, and has nothing kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import time_ns
from typing import Any

from opentelemetry.context import attach
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TracerProvider

from perdure import ActivityFacts, FailureDetails, OperationFacts, StartFacts, WorkFacts

from .context import (
    PARENT,
    SAMPLED,
    UNSAMPLED_END,
    Place,
    carry_current,
    new_context,
    read_place,
    remember,
    with_baggage,
    with_span,
    write_parent,
)
from .current import CurrentSpan, Said, enter_quietly, quiet
from .ids import LOW, new_ids, new_span_id, task_span_id
from .spans import UNSET, EndedSpan, SpanFacts, SpanMaker

#: Attempts whose code has begun and whose ends are not durable; more are not kept.
_RUNNING_MAX = 20_000

_Attempt = tuple[str, int, int]


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

    carry = staticmethod(carry_current)

    def begin_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """Give an execution its span, which all is part of that it sets going."""
        carried = start.carried
        if carried is not None:
            place = read_place(carried)
            if place is not None:
                return _own(carried, place, place.span_id)
        drawn = new_ids()
        header, bound = None, self._maker.bound
        if bound is not None:
            is_sampled = drawn >> 64 & LOW < bound
        elif self._maker.tracer is None:
            return carried
        else:
            is_sampled, header = self._maker.samples(drawn >> 64, start.name)
        if not is_sampled and not self._carry_unsampled:
            return carried
        digits = drawn.to_bytes(24, "big").hex()
        parent = f"00-{digits[:32]}-{digits[32:]}-{'01' if is_sampled else '00'}"
        own = {"traceparent": parent} if carried is None else {**carried, "traceparent": parent}
        if header is not None:
            own["tracestate"] = header
        if is_sampled:
            remember(parent, Place(drawn >> 64, drawn & LOW, SAMPLED, header))
        return own

    def continue_trace(self, start: StartFacts, /) -> Mapping[str, str] | None:
        """Give the execution its span that goes on from this one: part of the same as this."""
        place = read_place(start.carried)
        if place is None or start.carried is None:
            return start.carried
        kept = start.carried.get(PARENT)
        return _own(start.carried, place, int(kept, 16) if kept else place.span_id)

    def follows(self, carried: Mapping[str, str], /) -> bool:
        """Say whether what goes along is of a trace that is sampled."""
        return not carried.get("traceparent", UNSAMPLED_END).endswith(UNSAMPLED_END)

    def follow(self, start: StartFacts, /) -> Place | None:
        """Give the span of an execution; None where it is not sampled."""
        place = read_place(start.carried)
        return place if place is not None and place.is_sampled else None

    def enter_instance(self, carried: Mapping[str, str], /) -> None:
        """Have code of an orchestration know its trace, and record no spans: it is run again."""
        if "traceparent" in carried:
            enter_quietly(carried)
        elif "baggage" in carried:
            attach(with_baggage(carried))

    def enter_activity(self, carried: Mapping[str, str], /) -> bool:
        """Have code of an activity know its trace; says whether it has a span."""
        parent = carried.get("traceparent")
        if parent is None:
            if "baggage" in carried:
                attach(with_baggage(carried))
            return False
        if not parent.endswith(UNSAMPLED_END):
            return True
        context = quiet.get(parent)
        if context is None or "baggage" in carried:
            enter_quietly(carried)
        else:
            attach(context)  # as that does, which is a call more
        return False

    def begin_activity(self, activity: ActivityFacts, /) -> CurrentSpan | None:
        """Give an attempt its span, and have it be the current one."""
        _, instance_id, task, _, execution, carried = activity
        place = read_place(carried)
        if place is None or carried is None:
            return None
        span = CurrentSpan(place, activity)
        attach(with_span(span, carried))
        running = self._running
        if len(running) >= _RUNNING_MAX:
            running.pop(next(iter(running)), None)
        running[instance_id, execution, task] = span
        return span

    def end_activity(self, begun: CurrentSpan, failure: str | None, /) -> None:
        """Take no more to its span."""
        begun.ended = 1  # when that was is what the history says

    def begin_operation(self, operation: OperationFacts, /) -> CurrentSpan | None:
        """Give an operation its span, and have it be the current one."""
        carried = operation.carried
        if not self.enter_activity(carried):
            return None
        place = read_place(carried)
        if place is None:
            return None
        span = CurrentSpan(place, operation)
        attach(with_span(span, carried))
        return span

    def end_operation(self, begun: CurrentSpan, failure: FailureDetails | None, /) -> CurrentSpan:
        """Take no more to its span."""
        begun.ended = time_ns()
        begun.failure = failure
        return begun

    def tell(self, ended: Sequence[WorkFacts | CurrentSpan], /) -> None:
        """Make the spans of what has ended durably."""
        maker = self._maker
        takers = maker.takers()
        if takers is None:
            for one in ended:
                self._make(one)
            return
        origin, running = maker.origin(), self._running
        for one in ended:
            if isinstance(one, WorkFacts):
                kind, place, start, task, _, _, _, _, _, _, rewinds = one
                began = 0
                if kind == "activity":
                    code = running.pop((start.instance_id, start.execution, task), None)
                    if code is not None:
                        if code.said is not None:
                            self._make(one, code)
                            continue
                        began = code.began
                span_id = place.span_id
                if task or rewinds:
                    span_id = task_span_id(span_id, task, rewinds)
                ids = place.trace_id, span_id, False, place.flags, place.state
                span = EndedSpan(new_context(*ids), (origin, describe_work, (one, began)))
            elif one.said is None:
                span = EndedSpan(one.get_span_context(), (origin, describe_operation, one))
            else:
                self._make(one)
                continue
            for take in takers:
                take(span)

    def _make(self, one: WorkFacts | CurrentSpan, code: CurrentSpan | None = None) -> None:
        """Have the span of what has ended begun and ended, with what its code said of it."""
        if isinstance(one, CurrentSpan):
            facts, context, carried = describe_operation(one), one.get_span_context(), one.carried
            code = one
        else:
            start, place, carried = one.start, one.trace, one.start.carried
            if code is None and one.kind == "activity":
                attempt = start.instance_id, start.execution, one.task
                code = self._running.pop(attempt, None)
            facts = describe_work((one, 0 if code is None else code.began))
            context = place.context
            if one.task or one.rewinds:
                context = place.at(task_span_id(place.span_id, one.task, one.rewinds))
        if code is not None and code.said is not None:
            facts = _with_said(facts, code.said)
        self._maker.make(facts, context, with_baggage(carried))


def _own(carried: Mapping[str, str], place: Place, parent: int) -> dict[str, str]:
    """Give what goes along with what is part of an execution's own span."""
    span_id = new_span_id()
    own = write_parent(place.trace_id, span_id, place.flags)
    if place.is_sampled:
        remember(own, Place(place.trace_id, span_id, SAMPLED, place.header))
    return {**carried, "traceparent": own, PARENT: f"{parent:016x}"}


def describe_work(what: tuple[WorkFacts, int]) -> SpanFacts:
    """Say what the span of a piece of work says, whose code began then, if that is known."""
    work, code_began = what
    kind, place, start, task, name, attempt, began, ended, status, failure, rewinds = work
    parent: SpanContext | None = place.context
    attributes: dict[str, Any] = {"perdure.instance_id": start.instance_id}
    span_kind = SpanKind.INTERNAL
    if kind == "activity":
        title = f"activity {name}"
        attributes["perdure.activity"] = name
        attributes["perdure.task"] = task
        attributes["perdure.attempt"] = attempt
        if code_began:
            attributes["perdure.waited_s"] = max(0, code_began - began * 1000) / 1e9
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
        if not rewinds:
            above = None if start.carried is None else start.carried.get(PARENT)
            parent = place.at(int(above, 16), True) if above else None
    else:
        title = kind
        attributes["perdure.task"] = task
    attributes["perdure.status"] = status
    how = UNSET if failure is None else _status_of(status, failure, attributes)
    times = began * 1000, ended * 1000
    return SpanFacts(title, span_kind, parent, attributes, *times, how)


def _status_of(status: str, failure: FailureDetails, attributes: dict[str, Any]) -> Status:
    attributes["error.type"] = failure.error_type
    if status != "Failed":
        return UNSET  # it was asked to end
    return Status(StatusCode.ERROR, f"{failure.error_type}: {failure.message}")


def describe_operation(span: CurrentSpan) -> SpanFacts:
    """Say what the span of an operation says, but for what its code said."""
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
    failure = span.failure
    return SpanFacts(
        f"entity {name}.{operation.operation}",
        SpanKind.SERVER if operation.instance_id is None else SpanKind.INTERNAL,
        span.place.at(span.place.span_id, True),
        attributes,
        span.began,
        span.ended,
        UNSET if failure is None else _status_of("Failed", failure, attributes),
    )


def _with_said(facts: SpanFacts, said: Said) -> SpanFacts:
    """Add what users' code said of a span while it was the current one."""
    status = said.status
    is_said = status is not None and status.status_code is not StatusCode.UNSET
    return facts._replace(
        name=facts.name if said.name is None else said.name,
        attributes={**facts.attributes, **said.attributes},
        status=status if is_said and status is not None and facts.status is UNSET else facts.status,
        notes=tuple(said.notes),
        links=tuple(said.links),
    )
