"""Recorded histories: what is in their files, and how an instance is read to be recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
from attrs import frozen

from ...actors.arguments import is_a, refusal
from ...actors.codec import codec_for
from ...actors.errors import InstanceNotFoundError, UnavailableError, UsageError
from ...actors.printing import repr_of, text_of
from ...actors.replay.history import stored_event
from ...runtime.client.answers import read_event
from ...runtime.client.status import HistoryEvent, OrchestrationStatus
from ...storage.records import InstanceRecord
from .rows import StoredInstance

if TYPE_CHECKING:
    from ...runtime.client.client import Client

FORM = 1
"""The number of the form of these files; another form gets another."""

TAKEN = "a path, what a recorded file has in it, or what get_history gives"
"""What is taken for a history."""

_TRIES = 5
_PAGE = 1_000
_KEYS = (
    "perdure_history",
    "instance_id",
    "name",
    "version",
    "execution",
    "runtime_status",
    "parent_instance_id",
    "tags",
    "input",
    "events",
)


@frozen(kw_only=True)
class Recording:
    """A recorded history, and what else its code is made with."""

    instance_id: str
    name: str
    version: str | None
    execution: int
    status: str | None
    parent: str | None
    tags: Mapping[str, str]
    input: bytes | None
    events: list[HistoryEvent]

    @classmethod
    def of_status(cls, status: OrchestrationStatus, events: list[HistoryEvent]) -> Recording:
        """Give that of an instance."""
        return cls(
            instance_id=status.instance_id,
            name=status.name,
            version=status.version,
            execution=status.execution,
            status=status.runtime_status.value,
            parent=status.parent_instance_id,
            tags=status.tags,
            input=None if status.input is None else orjson.dumps(status.input),
            events=events,
        )

    @classmethod
    def of_events(cls, instance_id: str, input: object, events: list[HistoryEvent]) -> Recording:
        """Give that of a history alone, which says the rest itself.

        Raises:
            UsageError: it is none, or does not begin at its beginning.
        """
        if not all(is_a(one, HistoryEvent) for one in events):
            raise refusal("history", TAKEN, events)
        first = events[0] if events else None
        if first is None or first.event_type != "ExecutionStarted":
            raise UsageError("the history does not begin with the event ExecutionStarted")
        begun = first.fields
        return cls(
            instance_id=instance_id,
            name=begun["name"],
            version=begun.get("version"),
            execution=begun["execution"],
            status=None,
            parent=begun.get("parent_instance_id"),
            tags={},
            input=None if input is None else codec_for(Any).encode(input),
            events=events,
        )

    @classmethod
    def read(cls, told: Mapping[str, Any], what: str) -> Recording:
        """Read what ``to_dict`` gave.

        Raises:
            UsageError: it is none.
        """
        form = told.get("perdure_history")
        if form != FORM:
            raise UsageError(
                f"{what} is no recorded history of form {FORM} (perdure_history is {form!r})"
            )
        missing = ", ".join(key for key in _KEYS if key not in told and key != "input")
        if missing:
            raise UsageError(f"{what} is no recorded history: it has no {missing}")
        try:
            return cls(
                instance_id=_text(told, "instance_id"),
                name=_text(told, "name"),
                version=_text_or_none(told, "version"),
                execution=int(told["execution"]),
                status=_text_or_none(told, "runtime_status"),
                parent=_text_or_none(told, "parent_instance_id"),
                tags=dict(told["tags"]),
                input=orjson.dumps(told["input"]) if "input" in told else None,
                events=_one_execution([read_event(one) for one in told["events"]]),
            )
        except (ValueError, TypeError, LookupError) as error:
            raise UsageError(f"{what} is no recorded history: {text_of(error)}") from error

    def to_json(self) -> bytes:
        """Give it as the text of a file, one event to a line."""
        values: dict[str, Any] = {
            "perdure_history": FORM,
            "instance_id": self.instance_id,
            "name": self.name,
            "version": self.version,
            "execution": self.execution,
            "runtime_status": self.status,
            "parent_instance_id": self.parent,
            "tags": dict(self.tags),
        }
        if self.input is not None:
            values["input"] = orjson.Fragment(self.input)
        lines = [b" %b: %b" % (orjson.dumps(key), orjson.dumps(one)) for key, one in values.items()]
        events = b",\n".join(b"  " + orjson.dumps(one.to_dict()) for one in self.events)
        lines.append(b' "events": [\n%b\n ]' % events if events else b' "events": []')
        return b"{\n%b\n}\n" % b",\n".join(lines)

    def row(self) -> StoredInstance:
        """Give it as a store would have it.

        Raises:
            UsageError: its events are none of a history.
        """
        try:
            events = [
                stored_event(one.event_type, one.timestamp, one.fields) for one in self.events
            ]
            chunk = orjson.dumps(events)
        except (ValueError, TypeError) as error:
            raise UsageError(f"the history of {self.instance_id!r}: {text_of(error)}") from error
        status = "Running" if self.status is None else self.status
        record = InstanceRecord(
            id=0,
            key=self.instance_id,
            name=self.name,
            version=self.version,
            execution=self.execution,
            created=0,
            parent=self.parent,
            parent_task=0,
            parent_execution=0,
            tags=orjson.dumps(dict(self.tags)) if self.tags else None,
            input=self.input,
            start_at=None,
            status=status,
            updated=0,
            completed=None,
            pending=0,
            events=len(events),
            output=None,
            failure=None,
            failure_type=None,
            custom_status=None,
            parked=None,
        )
        # A status says None of an input that is null, and of none.
        other = b"null" if self.input is None else None
        return StoredInstance(record, [chunk] if events else [], other_input=other)


def _text(told: Mapping[str, Any], key: str) -> str:
    text = told[key]
    if not isinstance(text, str):
        raise TypeError(f"its {key} is {repr_of(text)}, and no text")
    return text


def _text_or_none(told: Mapping[str, Any], key: str) -> str | None:
    return None if told[key] is None else _text(told, key)


def _one_execution(events: list[HistoryEvent]) -> list[HistoryEvent]:
    """Refuse what begins a second time, as two files that were put together by a merge do."""
    for place, event in enumerate(events):
        if place and event.event_type == "ExecutionStarted":
            raise ValueError(f"event {place} is ExecutionStarted, which the first one is alone")
    return events


async def read_instance(
    client: Client, instance: str | OrchestrationStatus
) -> tuple[OrchestrationStatus, list[HistoryEvent]] | None:
    """Read an instance and its history, both of one moment, by pages; None where there is none.

    Raises:
        UnavailableError: it changes all the time while it is read.
    """
    status: OrchestrationStatus | None
    if isinstance(instance, str):
        status = await client.get_status(instance)
    else:
        status = instance
    for _ in range(_TRIES):
        if status is None:
            return None
        events: list[HistoryEvent] = []
        after: int | None = None
        pages = 0
        try:
            while True:
                page = await client.get_history_page(
                    status.instance_id, after=after, page_size=_PAGE
                )
                events += page.items
                pages += 1
                after = page.after
                if after is None:
                    break
        except InstanceNotFoundError:
            return None
        begun = events[0].fields.get("execution") if events else None
        if pages == 1 and (begun is None or begun == status.execution):
            return status, events
        again = await client.get_status(status.instance_id)
        if again is not None and again.execution == begun:
            return again, events
        status = again
    name = instance if isinstance(instance, str) else instance.instance_id
    raise UnavailableError(f"{name!r} changes while it is read; repeat it")


def read_recording(file: Path) -> Recording:
    """Read the file of a recorded history.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        told: object = orjson.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is no recorded history: {error}") from error
    if not isinstance(told, dict):
        raise UsageError(f"{file} is no recorded history, but a JSON {type(told).__name__}")
    return Recording.read(cast("dict[str, Any]", told), str(file))


def recordings_in(place: Path) -> Iterable[Path]:
    """Give the files of a folder that may be recorded histories, in order; or a file itself."""
    return [place] if place.is_file() else sorted(place.rglob("*.json"))
