"""Says of a stored row whether the code at hand can go on with it.

Nothing that the code asks for happens: its activities are not run and nothing is sent or stored.
But the code itself does run, so what it must not do in an orchestration, it does here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from ...actors.changes import read_parked
from ...actors.entities.entity import EntityActor
from ...actors.errors import NondeterminismError, PayloadError, UnknownNameError, UsageError
from ...actors.ids import is_entity, split_entity
from ...actors.messages import Operation, Start
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.printing import one_line, text_of, type_name
from ...actors.registry.outside import raising_line
from ...actors.replay.history import KIND, NUMBER, carried_by, describe, open_activities
from ...actors.replay.stored import read_history, read_message
from ...runtime.partitions.checkpoint import entity_state, instance_state
from ...storage import MendedEntity, MendedInstance
from ...storage.slices import at_once
from .findings import FindingKind, ReplayFinding, read_place
from .rows import StoredEntity, StoredInstance, StoredMessage, StoredRow

if TYPE_CHECKING:
    from ...actors.registry.definitions import ActivityDefinition
    from ...actors.registry.lookup import Lookup

_TEXT_MAX = 1_000


def rerun(
    lookup: Lookup, row: StoredInstance, note: Callable[[int], None] | None = None
) -> list[list[Any]]:
    """Take an instance's code through its history, which may be at its end; nothing comes of it.

    Args:
        lookup: the door to the application.
        row: the instance.
        note: is told the place of each event that the code is about to hear of.

    Returns:
        The events.

    Raises:
        NondeterminismError: the code does something else than the history says.
        UsageError: the input cannot be read, or the code is not registered.
        ValueError: the history is damaged.
    """
    record = row.record
    events = at_once(read_history(row.chunks, record.events))
    definition = lookup.registry.exact_orchestration(record.name, record.version)
    if not events:
        definition.decode_input(record.input)
        return events
    actor = OrchestrationActor(record.id, record.key, lookup)
    actor.load(instance_state(record))
    actor.carried = carried_by(events)
    execution = actor.new_rerun()
    try:
        execution.follow(events, actor.input, note)
    finally:
        execution.close()
    return events


def readings(lookup: Lookup, row: StoredInstance) -> list[StoredInstance]:
    """Give a row with each input that it may have had, the likelier first."""
    if row.other_input is None:
        return [row]
    other = row._replace(record=row.record._replace(input=row.other_input), other_input=None)
    versions = lookup.registry.orchestrations.get(row.record.name, {})
    definition = versions.get(row.record.version)
    return [other] if definition is not None and definition.required else [row, other]


class Judge:
    """Judges rows by one application.

    Args:
        lookup: the door to it.
        note: is told which event of a history its code is about to hear of.
    """

    def __init__(self, lookup: Lookup, note: Callable[[int], None] | None = None) -> None:
        self._lookup = lookup
        self._note = note
        self._registry = lookup.registry

    def judge(self, row: StoredRow) -> Iterator[ReplayFinding]:
        """Give what is wrong with a row; nothing where nothing is."""
        if isinstance(row, StoredInstance):
            return self._instance(row)
        if isinstance(row, StoredEntity):
            return self._entity(row)
        return self._message(row)

    # Instances.

    def _instance(self, one: StoredInstance) -> Iterator[ReplayFinding]:
        first, *others = readings(self._lookup, one)
        found = list(self._replay(first))
        if found and any(not list(self._replay(other)) for other in others):
            return
        yield from found

    def _replay(self, one: StoredInstance) -> Iterator[ReplayFinding]:
        of = _OfInstance(one)
        if isinstance(one.record, MendedInstance) or one.damage is not None:
            yield of.finding("damaged", one.damage or of.parked or "its row is damaged")
            return
        try:
            events = rerun(self._lookup, one, self._note)
        except NondeterminismError as error:
            yield of.difference(error)
        except UnknownNameError as error:
            yield of.finding("unregistered", str(error))
        except UsageError as error:
            yield of.unreadable(str(error), _line_behind(error) or self._place(one))
        except ValueError as error:
            yield of.finding("damaged", str(error))
        except BaseException as error:
            yield of.raised(error, self._place(one))
        else:
            yield from self._open_activities(of, events)

    def _place(self, one: StoredInstance) -> str:
        """Give the line of the code that is taken through the history, which is registered."""
        return self._registry.exact_orchestration(one.record.name, one.record.version).place

    def _open_activities(self, of: _OfInstance, events: list[list[Any]]) -> Iterator[ReplayFinding]:
        """Look at the activities under way, which the next hub calls once more."""
        record = of.one.record
        for call in open_activities(events, record.key, record.execution):
            definition: ActivityDefinition | None = None
            try:
                definition = self._registry.find_activity(call.name)
                definition.decode_input(call.input)
            except UnknownNameError as error:
                wrong: FindingKind = "unregistered"
                why = str(error)
            except UsageError as error:
                wrong, why = "unreadable", str(error)
            except BaseException as error:
                wrong, why = "raised", _words(error)
            else:
                continue
            position = next(
                place
                for place, event in enumerate(events)
                if event[KIND] == "TaskScheduled" and event[NUMBER] == call.caller.task
            )
            said = f"activity {call.name!r}, which is under way, cannot be called again: {why}"
            place = None if definition is None else definition.place
            yield of.finding(
                wrong,
                said,
                place,
                position=position,
                recorded=describe(events[position]),
            )

    # Entities.

    def _entity(self, one: StoredEntity) -> Iterator[ReplayFinding]:
        row = one.row
        key = f"@{row.name}@{row.key}"
        parked = _parked(row.parked)
        place: str | None = None
        try:
            if isinstance(row, MendedEntity):
                raise LookupError(parked or "its row is damaged")
            unknown: Any = None
            actor = EntityActor(row.id, row.name, row.key, unknown, self._lookup, str)
            definition = self._registry.find_entity(row.name)
            place = definition.place
            actor.define(definition, one.partitions)
            actor.load(entity_state(row))
            return
        except UnknownNameError as error:
            kind: FindingKind = "unregistered"
            why = str(error)
        except UsageError as error:
            kind, why = "unreadable", f"its state cannot be read: {error}"
            place = _line_behind(error) or place
        except BaseException as error:
            # What is damaged shows as these where it is read; but users' code raises them, too.
            place_of_code = raising_line(error)
            damaged = place_of_code is None and isinstance(
                error, (ValueError, TypeError, LookupError)
            )
            kind, why = ("damaged", text_of(error)) if damaged else ("raised", _words(error))
            place = place_of_code or place
        file, line, text = read_place(place)
        yield ReplayFinding(
            kind=kind,
            actor=key,
            name=row.name,
            file=file,
            line=line,
            text=text,
            message=one_line(why)[:_TEXT_MAX],
            parked=parked,
        )

    # Messages.

    def _message(self, one: StoredMessage) -> Iterator[ReplayFinding]:
        name = split_entity(one.actor)[0] if is_entity(one.actor) else one.actor
        version: str | None = None
        place: str | None = None
        what = "a message"
        try:
            message = read_message(one.body)
            if isinstance(message, Operation):
                what = f"operation {message.name!r}"
                entity = self._registry.find_entity(name)
                place = entity.place
                operation = entity.operation(message.name)
                place = operation.place or place
                operation.decode_input(message.input)
            elif isinstance(message, Start):
                what = f"the start of {message.name!r}"
                name, version = message.name, message.version
                started = self._registry.exact_orchestration(name, version)
                place = started.place
                started.decode_input(message.input)
            return
        except UnknownNameError as error:
            kind: FindingKind = "unregistered"
            why = str(error)
        except UsageError as error:
            kind, why = "unreadable", str(error)
            place = _line_behind(error) or place
        except ValueError as error:
            is_damage = raising_line(error) is None
            kind, why = ("damaged", str(error)) if is_damage else ("raised", _words(error))
        except BaseException as error:
            kind, why = "raised", _words(error)
        file, line, text = read_place(place)
        yield ReplayFinding(
            kind=kind,
            actor=one.actor,
            name=name,
            version=version,
            file=file,
            line=line,
            text=text,
            message=one_line(f"{what}, which waits for it, cannot be taken: {why}")[:_TEXT_MAX],
        )


class _OfInstance:
    """Words findings of one instance."""

    def __init__(self, one: StoredInstance) -> None:
        self.one = one
        self.parked = _parked(one.record.parked)

    def finding(
        self,
        kind: FindingKind,
        message: str,
        place: str | None = None,
        *,
        position: int | None = None,
        recorded: str | None = None,
        done: str | None = None,
    ) -> ReplayFinding:
        record = self.one.record
        file, line, text = read_place(place)
        return ReplayFinding(
            kind=kind,
            actor=record.key,
            name=record.name,
            version=record.version,
            position=position,
            recorded=None if recorded is None else one_line(recorded)[:_TEXT_MAX],
            done=None if done is None else one_line(done)[:_TEXT_MAX],
            file=file,
            line=line,
            text=text,
            message=one_line(message)[:_TEXT_MAX],
            parked=self.parked,
        )

    def difference(self, error: NondeterminismError) -> ReplayFinding:
        first = f"{error.cause}; so " if error.cause else ""
        found = self.finding(
            "differs",
            f"{first}it no longer matches its history at event {error.position}: recorded "
            f"{error.recorded}, but the code did {error.produced}",
            error.source,
            position=error.position,
            recorded=error.recorded,
            done=error.produced,
        )
        notes: list[str] = getattr(error, "__notes__", [])
        return attrs.evolve(found, note=one_line(notes[0])) if notes else found

    def unreadable(self, why: str, place: str) -> ReplayFinding:
        if not self.one.record.events:
            return self.finding("unreadable", why, place)
        started = f"ExecutionStarted({self.one.record.name!r})"
        return self.finding("unreadable", why, place, position=0, recorded=started)

    def raised(self, error: BaseException, place: str) -> ReplayFinding:
        return self.finding("raised", _words(error), raising_line(error) or place)


def _line_behind(error: BaseException) -> str | None:
    """Give the line of users' code that a refusal comes from: of an upgrade, or a class's own."""
    behind = error.__cause__ or error.__context__
    line = None if behind is None else raising_line(behind)
    return None if line is None or line.startswith("<") else line


def _words(error: BaseException) -> str:
    if isinstance(error, PayloadError):
        return str(error)
    return f"{type_name(error)}: {text_of(error)}"


def _parked(data: bytes | None) -> str | None:
    return None if data is None else ": ".join(read_parked(data))
