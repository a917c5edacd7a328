"""Activities that are carried out although no turn will take their answer.

Their orchestration returned, or continued as new, while they were under way. Each has a row in
the store, from the checkpoint in which that happened until its answer comes or its instance is
purged, so that a restart runs it again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Protocol

from ...actors.failures import read_failure
from ...actors.logs import Log
from ...actors.messages import ActivityCall, Caller, Completion, encode_call
from ...actors.replay.stored import read_call
from ...storage.records import ActivityRow
from ...storage.slices import each

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

    def cancel_activity(self, caller: Caller, /) -> None:
        """Tell an activity to stop."""
        ...

    def failed_call(self, instance_id: str, what: str, failure: FailureDetails, /) -> None:
        """A call failed, and nobody looked at its outcome."""
        ...


class Leftovers:
    """The left activities of one partition.

    Attributes:
        rows: the number of the row, and the call, by instance, and by who called.
    """

    def __init__(self, partition: Owner) -> None:
        self._partition = partition
        self.rows: dict[str, dict[Caller, tuple[int, ActivityCall]]] = {}

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
        caller = Caller(instance_id, answer.execution, answer.task)
        if own is None or caller not in own:
            return False
        n, call = own.pop(caller)
        if not own:
            del self.rows[instance_id]
        partition = self._partition
        partition.batch.left_deleted.append(n)
        if answer.event == "TaskFailed":
            partition.failed_call(instance_id, call.name, read_failure(answer.body))
        partition.gathered()
        return True

    def forget(self, instance_id: str) -> None:
        """Let go of those of an instance, and tell them to stop."""
        for caller, (n, _) in self.rows.pop(instance_id, {}).items():
            self._partition.batch.left_deleted.append(n)
            self._partition.cancel_activity(caller)

    def clear(self) -> None:
        """Forget all, as memory is dropped."""
        self.rows.clear()

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
        calls = [call for own in self.rows.values() for _, call in own.values()]
        for call in calls:
            if is_wanted(call.caller):
                self._partition.dispatch(call)
