"""Activities that are carried out although no turn will take their answer.

Their orchestration returned, or continued as new, while they were under way. Each has a row in
the store, from the checkpoint in which that happened until its answer comes or its instance is
purged, so that a restart runs it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from ...actors.failures import read_failure
from ...actors.logs import Log
from ...actors.messages import ActivityCall, Caller, Completion, encode_call
from ...actors.replay.stored import read_call
from ...storage.records import ActivityRow
from ...storage.slices import STEPS, at_once, each

if TYPE_CHECKING:
    from ...actors.errors import FailureDetails
    from .batch import Batch
    from .guarded_store import GuardedStore


_log = Log("perdure.partition")


class Owner(Protocol):
    """What the leftovers need of the partition whose they are."""

    batch: Batch
    store: GuardedStore

    def new_row(self) -> int:
        """The next number for a row."""
        ...

    def gathered(self) -> None:
        """Say that there is something to commit."""
        ...

    def dispatch(self, call: ActivityCall, /) -> None:
        """Run an activity (again) that is durable already."""
        ...

    def cancel_activities(
        self, instance_id: str, execution: int, tasks: Collection[int], /
    ) -> None:
        """Tell some activities of an execution to stop."""
        ...

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails, /) -> None:
        """A call failed, and nobody looked at its outcome."""
        ...


class Leftovers:
    """The left activities of one partition.

    Attributes:
        rows: the number of the row, and the call, by instance, and by who called.
        unwritten: of many at once, those that have no row until they are written down: the
            instance's number, and the calls by their tasks, by instance and execution.
        forgotten: instances with many that were forgotten, of which nothing is written down yet.
    """

    def __init__(self, partition: Owner) -> None:
        self._partition = partition
        self.rows: dict[str, dict[Caller, tuple[int, ActivityCall]]] = {}
        self.unwritten: dict[tuple[str, int], tuple[int, dict[int, ActivityCall]]] = {}
        self.forgotten: list[
            tuple[str, dict[Caller, tuple[int, ActivityCall]], dict[int, dict[int, ActivityCall]]]
        ] = []

    def keep_all(
        self, instance: int, instance_id: str, execution: int, calls: dict[int, ActivityCall]
    ) -> None:
        """Give activities rows, in the batch that gathers, or when it is written down."""
        if len(calls) <= STEPS:
            for call in calls.values():
                self.keep(instance, call)
            return
        self.rows.setdefault(instance_id, {})
        self.unwritten[instance_id, execution] = instance, calls

    def write_down(self) -> Generator[None]:
        """Give rows to those that have none, in the batch that gathers; pauses now and then.

        What is answered meanwhile needs none.
        """
        while self.unwritten or self.forgotten:
            yield from self._forget()
            if not self.unwritten:
                continue
            key, these = next(iter(self.unwritten.items()))
            instance, calls = these
            for place, task in enumerate([*calls], 1):
                if self.unwritten.get(key) is not these:
                    break  # they were forgotten
                call = calls.pop(task, None)
                if call is not None:
                    self.keep(instance, call)
                if not place % STEPS:
                    yield
            if self.unwritten.get(key) is these:
                del self.unwritten[key]
                self._forget_if_empty(key[0])

    def calls_of(self, instance_id: str) -> Iterator[ActivityCall]:
        """Give what an instance has left now."""
        some = [[*self.rows.get(instance_id, {}).values()]]
        for (owner, _), (_, calls) in self.unwritten.items():
            if owner == instance_id:
                some.append([(0, call) for call in calls.values()])
        return (call for one in some for _, call in one)

    def _forget_if_empty(self, instance_id: str) -> None:
        if not self.rows[instance_id] and not any(
            instance_id == owner for owner, _ in self.unwritten
        ):
            del self.rows[instance_id]

    def keep(self, instance: int, call: ActivityCall) -> None:
        """Give an activity a row, in the batch that gathers."""
        n = self._partition.new_row()
        self._know(n, call)
        self._partition.batch.left.append(ActivityRow(n, instance, encode_call(call)))

    def _know(self, n: int, call: ActivityCall) -> None:
        self.rows.setdefault(call.caller.instance_id, {})[call.caller] = n, call

    def take(self, instance_id: str, answer: Completion) -> bool:
        """Take an answer, and drop the row; False if it is not for one of these."""
        own = self.rows.get(instance_id)
        if own is None:
            return False
        partition = self._partition
        n, call = own.pop(Caller(instance_id, answer.execution, answer.task), (0, None))
        if call is None:
            _, calls = self.unwritten.get((instance_id, answer.execution), (0, {}))
            call = calls.pop(answer.task, None)
            if call is None:
                return False
        if not own:
            self._forget_if_empty(instance_id)
        if n:
            partition.batch.left_deleted.append(n)
        if answer.event == "TaskFailed":
            partition.failed_call(instance_id, call.name, read_failure(answer.body))
        partition.gathered()
        return True

    def forget(self, instance_id: str) -> None:
        """Let go of those of an instance, and tell them to stop; many when it is written down."""
        rows = self.rows.pop(instance_id, {})
        unwritten = {
            execution: self.unwritten.pop((owner, execution))[1]
            for owner, execution in [*self.unwritten]
            if owner == instance_id
        }
        self.forgotten.append((instance_id, rows, unwritten))
        if len(rows) + sum(map(len, unwritten.values())) <= STEPS:
            at_once(self._forget())

    def _forget(self) -> Generator[None]:
        while self.forgotten:
            instance_id, rows, unwritten = self.forgotten.pop()
            tasks = {execution: {*calls} for execution, calls in unwritten.items()}
            for place, caller in enumerate([*rows], 1):
                self._partition.batch.left_deleted.append(rows.pop(caller)[0])
                tasks.setdefault(caller.execution, set()).add(caller.task)
                if not place % STEPS:
                    yield
            for execution, some in tasks.items():
                self._partition.cancel_activities(instance_id, execution, some)
            for calls in unwritten.values():
                while calls:
                    calls.popitem()
                    yield

    def clear(self) -> None:
        """Forget all, as memory is dropped."""
        self.rows.clear()
        self.forgotten.clear()
        for _, calls in self.unwritten.values():
            calls.clear()
        self.unwritten.clear()

    def restore(self, rows: Iterable[ActivityRow]) -> Generator[None]:
        """Know those that are stored again; pauses now and then."""
        return each(rows, self._read)

    def _read(self, row: ActivityRow) -> None:
        try:
            call = read_call(row.body)
        except ValueError as error:
            # It stays where it is, for somebody to look at; nobody waits for its answer.
            place, n = self._partition.store.place, row.n
            _log.error("%s, table activity_row, row %d cannot be read: %s", place, n, error)
            return
        self._know(row.n, call)

    def dispatch(self, is_wanted: Callable[[Caller], bool]) -> None:
        """Run the activities again that are wanted."""
        calls = [call for instance_id in self.rows for call in self.calls_of(instance_id)]
        for call in calls:
            if is_wanted(call.caller):
                self._partition.dispatch(call)
