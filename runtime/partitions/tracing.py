"""How an instance of a partition came to where it stands: its history, stepped through aside."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ...actors.errors import StoreDamagedError, UnavailableError
from ...actors.orchestrations.looks import trace as steps_of
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.registry.outside import CodeLine
from ...actors.replay.history import ANSWERS, AT, IDENTITY, KIND, NUMBER
from ...actors.replay.stored import read_history
from ...actors.replay.trace import Step, Trace as Steps
from ...actors.replay.waits import PAUSE, OpenTask, decisions_of
from ...actors.times import to_datetime
from ...storage.slices import in_slices, let_go
from ..explanations import SourceFunction, Trace, TraceStep, Waited
from ..facts import in_parts
from .checkpoint import instance_state
from .explanation import CRASHED, TRIES, replayed_aside
from .open_work import branch_fact
from .sources import source_function, source_lines

if TYPE_CHECKING:
    from ...storage.records import InstanceRecord
    from .partition import Partition

_KINDS: dict[str, Any] = {
    "TaskScheduled": "activity",
    "TimerCreated": "timer",
    "SubOrchestrationInstanceCreated": "child",
    "EntityOperationCalled": "entity",
    "EntityLockRequested": "lock",
}


async def trace(partition: Partition, key: str, after: int, limit: int) -> dict[str, Any] | None:
    """Give a page of the steps of an instance, as JSON values; None where there is none.

    Raises:
        StorageError: it cannot be read.
        UnavailableError: it cannot be told now; safe to repeat.
    """
    before: tuple[int, int, int] | None = None
    for _ in range(TRIES):
        records = await partition.store.read_instances([key])
        if not records:
            return None
        stands = records[0].id, records[0].execution, records[0].events
        if stands == before:  # so it is not that it went on between two reads
            raise StoreDamagedError(
                f"{partition.store.place}, instance {records[0].id}: its history is not the one "
                "that it has by its row"
            )
        before = stands
        events = await _history(partition, records[0])
        if events is not None:
            told = await _trace(partition, records[0], events, after, limit)
            await in_slices(let_go(events))
            return told
    raise UnavailableError(f"{key!r} changes while it is looked at; repeat it")


async def _history(partition: Partition, record: InstanceRecord) -> list[list[Any]] | None:
    """Read the history of a record; None if it is another execution's by now."""
    store = partition.store
    try:
        events = await in_slices(read_history(await store.read_history(record.id), None))
    except ValueError as error:
        raise StoreDamagedError(f"{store.place}, instance {record.id}: {error}") from error
    is_its = not events or events[0][4:5] == [record.execution]
    return events if is_its and len(events) >= record.events else None


async def _trace(
    partition: Partition, record: InstanceRecord, events: list[list[Any]], after: int, limit: int
) -> dict[str, Any]:
    end = min(after + limit, len(events))
    page, found = _Page(events, after), Steps()
    if after < end:
        key = record.key
        actor = OrchestrationActor(record.id, key, partition.lookup)
        actor.load(instance_state(record))
        parked = actor.look().parked
        if key in partition.crashes.in_a_row or (parked is not None and parked[0] == "Crash"):
            found.trouble = CRASHED
        else:
            found = await replayed_aside(partition, key, steps_of(actor, events, after, end))
            end = max(min(end, found.end or end), after + 1)
        await in_slices(page.fill(found, end))
    told = Trace(
        instance_id=record.key,
        execution=record.execution,
        event_count=len(events),
        steps=(),
        next_after=end if end < len(events) else None,
        sources=tuple(page.sources.values()),
        code_trouble=found.trouble,
    )
    return {**await in_slices(in_parts(told)), "steps": page.steps}


class _Page:
    """The steps of one page, as they are told.

    Attributes:
        steps: the steps.
        sources: the functions in which they stand, by file and first line.
    """

    def __init__(self, events: list[list[Any]], after: int) -> None:
        self._events = events
        self._after = after
        self._decisions: dict[int, list[Any]] = {}
        self.steps: list[dict[str, Any]] = []  # as JSON values; as facts they are let go one by one
        self.sources: dict[tuple[str, int], SourceFunction] = {}

    def fill(self, found: Steps, end: int) -> Generator[None]:
        """Make a step of each event up to before ``end``; pauses behind each."""
        self._decisions = yield from decisions_of(self._events)
        looked = {step.position: step for step in found.steps}
        cause = self._after
        while cause > 0 and self._events[cause][KIND] in IDENTITY:
            cause -= 1
            if not cause % PAUSE:
                yield
        for position in range(self._after, end):
            if self._events[position][KIND] not in IDENTITY:
                cause = position
            made_at = found.made_at.get(position, [])
            self.steps.append(self._step(position, cause, looked.get(position), made_at).to_dict())
            yield

    def _step(
        self, position: int, cause: int, looked: Step | None, made_at: list[CodeLine]
    ) -> TraceStep:
        event = self._events[position]
        kind = event[KIND]
        is_numbered = kind in ANSWERS or kind in IDENTITY
        self._note(made_at)
        for branch in () if looked is None else looked.branches:
            self._note(branch.lines)
        opened: list[OpenTask | str] = []
        if looked is not None:
            opened += looked.open
            opened += looked.events
        return TraceStep(
            seq=position,
            event_type=kind,
            timestamp=to_datetime(event[AT]),
            task_id=event[NUMBER] if is_numbered else None,
            cause=cause,
            made_at=source_lines(made_at),
            decided=() if looked is None else tuple(range(position + 1, looked.decided)),
            branches=() if looked is None else tuple(map(branch_fact, looked.branches)),
            branch_count=0 if looked is None else looked.branch_count,
            open=tuple(map(self._waited, opened)),
            open_count=0 if looked is None else looked.open_count + len(looked.events),
        )

    def _note(self, lines: list[CodeLine]) -> None:
        for line in lines:
            where = line.file, line.first
            if where not in self.sources:
                self.sources[where] = source_function(line)

    def _waited(self, task: OpenTask | str) -> Waited:
        if isinstance(task, str):
            return _named("event", None, task)
        decision = self._decisions.get(task.number)
        if decision is None:
            return _named("task", task.number, "")
        return _named(_KINDS[decision[KIND]], task.number, _name_of(decision))


def _name_of(decision: list[Any]) -> str:
    kind = decision[KIND]
    if kind == "TaskScheduled":
        return str(decision[3])
    if kind == "SubOrchestrationInstanceCreated":
        return str(decision[5])
    if kind == "EntityOperationCalled":
        return f"{decision[3]}.{decision[4]}"
    return ", ".join(decision[3][:20]) if kind == "EntityLockRequested" else ""


def _named(kind: Any, number: int | None, name: str) -> Waited:
    return Waited(kind=kind, task_id=number, name=name, count=1, parts=(), branches=())
