"""The workbook of a partition: what of its instances' work has begun, and what has ended durably.

It reads the events that go into their histories, and pairs what ends with what it began by. It is
there only where an observer traces; what an instance has begun lies with its activation, and is
read off its history when it is loaded.

Invariant: each piece of work is told once, when the checkpoint with its end is durable. What the
history had when an instance was loaded was told by whoever stored it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from ...actors.carried import Carried
from ...actors.changes import make
from ...actors.failures import read_failure
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.replay.history import AT, FAILURES, KIND, NUMBER, carried_by
from ...actors.tracing import Passed
from ..observer import WorkFacts

if TYPE_CHECKING:
    from ...actors.errors import FailureDetails
    from ...actors.tracing import StartFacts
    from ...storage.records import Checkpoint
    from ..observer import WorkKind
    from ..scheduling.watch import Watch
    from .activation import Activation
    from .batch import Batch
    from .partition import Partition

#: What begun work is: its kind, when it began, its name, and which attempt it is.
_Begun = tuple["WorkKind", int, str, int]

#: How a chunk begins that has the history from its start.
_STARTED = b'[["ExecutionStarted"'

#: What a history has that was rewound, or begins with another's.
_REWOUND, _FORKED = b'["ExecutionRewound"', b'["ExecutionForked"'
_AGAIN = frozenset({"ExecutionRewound", "ExecutionForked"})

_TASK_ENDS = frozenset({"TaskCompleted", "TaskFailed", "TimerFired"})


class InstanceWork:
    """What of one execution has begun.

    Attributes:
        start: whose, and which, it is.
        trace: what the observer calls it.
        began: when the execution did.
        begun: the work that has not ended, by the numbers of its tasks.
        rewinds: how often the execution was rewound.
    """

    __slots__ = ("began", "begun", "rewinds", "start", "trace")

    def __init__(self, start: StartFacts, trace: Any) -> None:
        self.start = start
        self.trace = trace
        self.began = 0
        self.begun: dict[int, _Begun] = {}
        self.rewinds = 0

    def read(
        self, events: list[list[Any]], failure: bytes | None, ended: list[WorkFacts] | None
    ) -> None:
        """Take events in, the next of the history; what ends by them comes to ``ended``."""
        for event in events:
            kind: str = event[KIND]
            if kind == "TaskScheduled":
                self.begun[event[NUMBER]] = ("activity", event[AT], event[3], event[7])
            elif kind == "TimerCreated":
                self.begun[event[NUMBER]] = ("timer", event[AT], "", 1)
            elif kind in _TASK_ENDS:
                begun = self.begun.pop(event[NUMBER], None)
                if begun is not None and ended is not None:
                    failed = read_failure(event[3]) if kind in FAILURES else None
                    status = "Completed" if failed is None else "Failed"
                    ended.append(self._ended(event[NUMBER], begun, event[AT], failed, status))
            elif kind == "ExecutionStarted" or kind == "ExecutionForked":
                self.began = event[AT]
            elif kind == "ExecutionRewound":
                self.rewinds += 1
                self.began = event[AT]
            elif kind == "ExecutionCompleted":
                self.end(event[2], event[AT], failure, ended)

    def end(
        self, status: str, at: int, failure: bytes | None, ended: list[WorkFacts] | None
    ) -> None:
        """Take note that the execution has ended, and all that it had begun is left."""
        begun, self.begun = self.begun, {}
        if ended is None:
            return
        ended += [self._ended(number, one, at, None, "Canceled") for number, one in begun.items()]
        failed = None if failure is None else read_failure(orjson.loads(failure))
        itself: _Begun = ("orchestration", self.began or at, self.start.name, 1)
        ended.append(self._ended(0, itself, at, failed, status))

    def _ended(
        self, task: int, begun: _Begun, at: int, failure: FailureDetails | None, status: str
    ) -> WorkFacts:
        kind, since, name, attempt = begun
        what = (kind, self.trace, self.start, task, name, attempt, since, at, status, failure)
        facts: WorkFacts = make(WorkFacts, (*what, self.rewinds))
        return facts


#: What an instance has begun; where it is not followed, what came along with it.
Work = InstanceWork | Carried | None


class Workbook:
    """What of the instances in one partition's memory has begun.

    Args:
        partition: which.
        watch: knows which traces the observer follows.
    """

    def __init__(self, partition: Partition, watch: Watch) -> None:
        self._partition = partition
        self._watch = watch

    def load(self, activation: Activation, actor: OrchestrationActor, events: Any) -> None:
        """Take in the history with which an instance comes into memory."""
        carried = carried_by(events)
        work = activation.work = self._open(actor.start_facts()._replace(carried=carried))
        if isinstance(work, InstanceWork):
            work.read(events, None, None)

    def tell(self, batch: Batch) -> None:
        """Tell what ends with a batch, which is durable."""
        if batch.told:
            self._watch.tell(batch.told)

    def gather(self, batch: Batch, checkpoint: Checkpoint) -> None:
        """Have a batch that is sealed know what ends with it; call it before any other turn."""
        ended: list[Any] = []
        for told in batch.told:
            if isinstance(told, Passed):
                self._take_passed(told, ended)
            else:
                ended.append(told)
        watch = self._watch
        bodies: dict[int, list[bytes]] | None = None
        for activation in batch.dirty:
            actor = activation.actor
            if not isinstance(actor, OrchestrationActor):
                continue
            carried = actor.carried
            if activation.work is carried:
                continue  # it is not followed, which most are not where few traces are sampled
            if activation.work is None and carried is not None and not watch.follows(carried):
                activation.work = carried
                continue
            if bodies is None:
                bodies = _bodies(checkpoint)
            found = bodies.get(actor.id)
            if found is not None:
                self._take(activation, actor, found, ended)
        batch.told = ended

    def _open(self, start: StartFacts) -> Work:
        carried = start.carried
        follows = carried is not None and self._watch.follows(carried)
        trace = self._watch.follow(start) if follows else None
        return carried if trace is None else InstanceWork(start, trace)

    def _take(
        self,
        activation: Activation,
        actor: OrchestrationActor,
        bodies: list[bytes],
        ended: list[Any],
    ) -> None:
        is_begun = bodies[0].startswith(_STARTED)  # or rewound, which writes all of it anew
        work = activation.work
        if work is None or is_begun:
            work = activation.work = self._open(actor.start_facts())
        if not isinstance(work, InstanceWork):
            return
        events: list[list[Any]] = orjson.loads(bodies[0])
        for body in bodies[1:]:
            events += orjson.loads(body)
        if is_begun and any(_REWOUND in body or _FORKED in body for body in bodies):
            again = [n for n, event in enumerate(events) if event[KIND] in _AGAIN]
            if again:
                # What stands before it was told when it happened, or is another's.
                work.read(events[: again[-1] + 1], None, None)
                events = events[again[-1] + 1 :]
        outcome = actor.outcome
        work.read(events, None if outcome is None else outcome[2], ended)

    def _take_passed(self, passed: Passed, ended: list[Any]) -> None:
        """Take in what an execution recorded in this batch, before another took its place."""
        activation = self._partition.activations.get(passed.start.instance_id)
        work = None if activation is None else activation.work
        if not isinstance(work, InstanceWork) or work.start.execution != passed.start.execution:
            work = self._open(passed.start)
        if not isinstance(work, InstanceWork):
            return
        events = [event for chunk in passed.chunks for event in orjson.loads(chunk)]
        work.read(events, passed.failure, ended)
        if passed.continued is not None:
            work.end("ContinuedAsNew", passed.continued, None, ended)


def _bodies(checkpoint: Checkpoint) -> dict[int, list[bytes]]:
    """Give the chunks of histories in a checkpoint, by the numbers of instances."""
    bodies: dict[int, list[bytes]] = {}
    for instance, _, body in checkpoint.history:
        if instance in bodies:
            bodies[instance].append(body)
        else:
            bodies[instance] = [body]
    return bodies
