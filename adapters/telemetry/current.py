"""The current span in users' code: it takes what that says of it until its end is durable."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from time import time_ns
from typing import Any

from opentelemetry.context import Context, attach
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
)

from perdure import ActivityFacts, FailureDetails, OperationFacts

from .context import UNSAMPLED, Place, read_place, with_span
from .ids import new_span_id, task_span_id
from .spans import Note

#: More is not kept of what code says of one span.
_NOTES_MAX = 128

_Facts = ActivityFacts | OperationFacts


class QuietSpan(NonRecordingSpan):
    """The span of an orchestration while code runs of which nothing is recorded, nor inside of it.

    That is the orchestration's own code, which runs again and again, and all of what it sets going
    where its trace is not sampled.

    Args:
        carried: what came along.
    """

    def __init__(self, carried: Mapping[str, str]) -> None:
        self._carried = carried

    def get_span_context(self) -> SpanContext:
        """Give its ids."""
        # Read when somebody asks for them, which hardly anybody does.
        place = read_place(self._carried)
        if place is None:
            return INVALID_SPAN_CONTEXT
        return SpanContext(place.trace_id, place.span_id, False, UNSAMPLED, place.state)


#: The contexts with quiet spans of late, by their texts; more are forgotten together.
_QUIET_MAX = 4_096
quiet: dict[str, Context] = {}


def enter_quietly(carried: Mapping[str, str]) -> None:
    """Have nothing recorded for the rest of the running context; what came along says its ids."""
    if "baggage" in carried:  # which another that came from the same span may not have
        attach(with_span(QuietSpan(carried), carried))
        return
    parent = carried["traceparent"]
    context = quiet.get(parent)
    if context is None:
        context = with_span(QuietSpan(carried), carried)
        if len(quiet) >= _QUIET_MAX:
            quiet.clear()
        quiet[parent] = context
    attach(context)


class CurrentSpan(Span):
    """The span of an activity's attempt or an entity's operation, while its code runs.

    It is made when its end is durable, of what was said of it here.

    Args:
        place: the span that it is part of, which is sampled.
        facts: what it is of: an activity's attempt, or an operation.
    """

    __slots__ = ("_context", "began", "ended", "facts", "failure", "place", "said")

    def __init__(self, place: Place, facts: _Facts) -> None:
        self.place = place
        self.facts = facts
        self.began = time_ns()
        self.ended = 0
        self.failure: FailureDetails | None = None
        self.said: Said | None = None
        self._context: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """Give its ids."""
        if self._context is None:
            facts, place = self.facts, self.place
            is_task = isinstance(facts, ActivityFacts) or facts.instance_id is not None
            span_id = task_span_id(place.span_id, facts.task) if is_task else new_span_id()
            self._context = place.at(span_id)
        return self._context

    @property
    def carried(self) -> Mapping[str, str] | None:
        """What came along with what it is of."""
        return self.facts.carried

    @property
    def ids(self) -> dict[str, Any]:
        """Say what it is of, for logs."""
        facts = self.facts
        if isinstance(facts, ActivityFacts):
            return {
                "instance_id": facts.instance_id,
                "activity": facts.activity,
                "task_id": facts.task,
                "attempt": facts.attempt,
            }
        return {"entity_id": facts.entity_id, "operation": facts.operation}

    def is_recording(self) -> bool:
        """Whether what is said of it is kept."""
        return not self.ended

    def _say(self) -> Said:
        if self.said is None:
            self.said = Said()
        return self.said

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: it ends with what it is of."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Say something of it."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Say several things of it."""
        if not self.ended:
            self._say().attributes.update(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Say that something happened."""
        if not self.ended and len(notes := self._say().notes) < _NOTES_MAX:
            notes.append(Note(name, attributes, timestamp or time_ns()))

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Say that it has to do with another span."""
        if not self.ended and len(links := self._say().links) < _NOTES_MAX:
            links.append(Link(context, attributes))

    def update_name(self, name: str) -> None:
        """Give it another name."""
        if not self.ended:
            self._say().name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went."""
        if not self.ended:
            self._say().status = (
                status if isinstance(status, Status) else Status(status, description)
            )

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Say that something was raised."""
        kind = type(exception)
        said = {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}"
            if kind.__module__ != "builtins"
            else kind.__qualname__,
            "exception.message": _text_of(exception),
            "exception.stacktrace": _trace_of(exception),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**said, **(attributes or {})}, timestamp)


class Said:
    """What code said of its span; most says nothing."""

    __slots__ = ("attributes", "links", "name", "notes", "status")

    def __init__(self) -> None:
        self.name: str | None = None
        self.status: Status | None = None
        self.attributes: dict[str, Any] = {}
        self.notes: list[Note] = []
        self.links: list[Link] = []


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:
        return "?"


def _trace_of(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exception))
    except Exception:
        return "?"
