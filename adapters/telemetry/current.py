"""The current span in users' code: it takes what that says of it until its end is durable."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode

from perdure import ActivityFacts, OperationFacts

from .context import UNSAMPLED
from .spans import Note

if TYPE_CHECKING:
    from .context import Place

#: More is not kept of what code says of one span.
_NOTES_MAX = 128


class QuietSpan(NonRecordingSpan):
    """The span of an orchestration, while its code runs: nothing inside of it is recorded.

    Args:
        place: the span.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def get_span_context(self) -> SpanContext:
        """Give its ids."""
        return self._place._replace(flags=UNSAMPLED).at(self._place.span_id)


class CurrentSpan(Span):
    """The span of an activity's attempt or an entity's operation, while its code runs.

    It is made when its end is durable, of what was said of it here.

    Args:
        place: the span that it is part of.
        span_id: its own id.
        facts: what it is of: an activity's attempt, or an operation.
    """

    __slots__ = (
        "_context",
        "attributes",
        "began",
        "ended",
        "facts",
        "failure",
        "links",
        "name",
        "notes",
        "place",
        "span_id",
        "status",
    )

    def __init__(self, place: Place, span_id: int, facts: ActivityFacts | OperationFacts) -> None:
        self.place = place
        self.span_id = span_id
        self.facts = facts
        self.began = time_ns()
        self.ended = 0
        self.name: str | None = None
        self.failure: Any = None
        self.status: Status | None = None
        self.attributes: dict[str, Any] | None = None
        self.notes: list[Note] | None = None
        self.links: list[Link] | None = None
        self._context: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """Give its ids."""
        if self._context is None:
            self._context = self.place.at(self.span_id)
        return self._context

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
        return not self.ended and self.place.is_sampled

    @property
    def is_said(self) -> bool:
        """Whether anything was said of it."""
        return bool(
            self.attributes or self.notes or self.links or self.name or self.status is not None
        )

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: it ends with what it is of."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Say something of it."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Say several things of it."""
        if not self.ended:
            if self.attributes is None:
                self.attributes = {}
            self.attributes.update(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Say that something happened."""
        if self.notes is None:
            self.notes = []
        if not self.ended and len(self.notes) < _NOTES_MAX:
            self.notes.append(Note(name, attributes, timestamp or time_ns()))

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Say that it has to do with another span."""
        if self.links is None:
            self.links = []
        if not self.ended and len(self.links) < _NOTES_MAX:
            self.links.append(Link(context, attributes))

    def update_name(self, name: str) -> None:
        """Give it another name."""
        self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went."""
        if not self.ended:
            self.status = status if isinstance(status, Status) else Status(status, description)

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
