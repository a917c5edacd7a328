"""The plan of a rewind: which of a failed execution's history stands, and what is to be done again.

A history falls into segments: an incoming event, and the decisions that the code made when it
arrived. Failures are taken back with the decisions they led to, so the calls that failed are open
again while completed ones stay. Where the rest does not replay (the code had gone on differently
because of the failure), the history is cut before the segment in which the first call that failed
was made, and that segment's event is given to the code anew. What the code decided then, before
that call, is not to happen twice, so it stays as far as the code decides it again. What came
in later, the answers to calls that stand and external events, comes in once more behind that, and
so does what came in when the instance had failed already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from ..replay.execution import let_go
from ..replay.executor import GIVEN_UP
from ..replay.history import (
    ANSWERS,
    FAILURES,
    IDENTITY,
    KIND,
    NUMBER,
    SILENT,
    recorded_input,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ..errors import FailureDetails
    from ..replay.executor import Executor

Events = list[list[Any]]
Decision = tuple[str, int]
Replay = Callable[[Events], "tuple[Executor | None, int]"]

#: How often a history is replayed in search of what followed from its failures.
_TRIES_MAX = 20

_GIVEN_UP = orjson.loads(GIVEN_UP)


def _is_failure(event: list[Any]) -> bool:
    """Whether a call failed, and was not only given up by the code."""
    return event[KIND] in FAILURES and event[3] != _GIVEN_UP


def without_failures(
    events: Events, since: int = 0, undone: Iterable[Decision] = ()
) -> Events | None:
    """Give the history without its failures, from an index on, and what followed from them.

    None if it holds what cannot be opened again, a failed call of an entity from before inputs
    were recorded: then it has to be cut.

    Args:
        events: the history.
        since: the index.
        undone: decisions that followed from them as well, though not at once.
    """
    kept = events[:since]
    removed = set(undone)
    made = {event[NUMBER]: event for event in events if event[KIND] == "EntityOperationCalled"}
    dropping = False
    for event in events[since:]:
        kind = event[KIND]
        if kind in IDENTITY:
            if dropping or (kind, event[NUMBER]) in removed:
                removed.add((kind, event[NUMBER]))
            else:
                kept.append(event)
            continue
        failed = _is_failure(event)
        follows = kind in ANSWERS and (ANSWERS[kind], event[NUMBER]) in removed
        dropping = failed or follows
        if failed and not follows and kind == "EntityOperationFailed":
            call = made.get(event[NUMBER])
            if call is None or recorded_input(call) is None:
                return None
        if not dropping:
            kept.append(event)
    return kept


def cut(events: Events, refused: Collection[int], since: int = 0) -> tuple[Events, Events]:
    """Give the history before the segment with the first failed call, and what may stay of that.

    That is its event, and what was decided before the call. Only calls count that failed from the
    index ``since`` on; ``refused`` are the calls of entities that failed at all.
    """
    failed = {(ANSWERS[e[KIND]], e[NUMBER]) for e in events[since:] if _is_failure(e)}
    starts = _segment_starts(events)
    for at, event in enumerate(events):
        if event[KIND] in IDENTITY and (event[KIND], event[NUMBER]) in failed:
            start = starts[at]
            break
    else:
        # The code itself raised: what it saw last is given to it again.
        start = max(i for i, event in enumerate(events) if event[KIND] not in _NOT_SEEN)
        at = len(events)
    end = start + 1
    while end < at:
        kind, number = events[end][KIND], events[end][NUMBER]
        # These are made anew: a lock was given back, and a call that failed is called again.
        if kind == "EntityLockRequested" or (kind == "EntityOperationCalled" and number in refused):
            break
        end += 1
    return events[:start], events[start:end]


_NOT_SEEN = frozenset({*SILENT, *IDENTITY})


def _refused(events: Events) -> set[int]:
    return {event[NUMBER] for event in events if event[KIND] == "EntityOperationFailed"}


def _segment_starts(events: Events) -> list[int]:
    starts: list[int] = []
    start = 0
    for index, event in enumerate(events):
        if event[KIND] not in IDENTITY:
            start = index
        starts.append(start)
    return starts


#: What comes in once more if the history was cut before it.
_KEPT = frozenset(
    {"TaskCompleted", "SubOrchestrationInstanceCompleted", "EntityOperationCompleted"}
)


def _later(events: Events, known: Events) -> Events:
    """Give what came in behind the known part: answers to its calls, and external events."""
    seen = {id(event) for event in known}
    made = {(event[KIND], event[NUMBER]) for event in known if event[KIND] in IDENTITY}
    return [
        event
        for event in events
        if id(event) not in seen
        and (
            event[KIND] == "EventRaised"
            or (event[KIND] in _KEPT and (ANSWERS[event[KIND]], event[NUMBER]) in made)
        )
    ]


def _called_again(events: Events, known: Events) -> Events:
    """Find the calls of entities that are known, and failed in what is not."""
    seen = {id(event) for event in known}
    failed = {
        event[NUMBER]
        for event in events
        if event[KIND] == "EntityOperationFailed" and id(event) not in seen
    }
    return [
        event
        for event in known
        if event[KIND] == "EntityOperationCalled" and event[NUMBER] in failed
    ]


@frozen
class Rewind:
    """Where a failed instance can go on.

    Attributes:
        executor: live code that has been taken through what is kept.
        kept: the part of the history that stands.
        again: an event to give to the code anew, if the history had to be cut, and behind it
            what of its decisions then the code takes again.
        later: events that come in again, behind all of that.
        calls: the decisions, in what is kept, to call entities whose calls failed.
    """

    executor: Executor
    kept: Events
    again: Events
    later: Events
    calls: Events

    @property
    def known(self) -> Events:
        """What is known to have happened, the event to be given anew included."""
        return self.kept + self.again


def find_plan(
    events: Events, force: bool, failure: FailureDetails | None, replay: Replay
) -> Rewind | list[str] | None:
    """Find out, from the stored history, where a failed instance can go on.

    As many of its failures are taken back as can be without forgetting what completed after them;
    where not even the last can, the names of what would be lost are given instead. None if its
    code does not even match what comes before the failure.

    Args:
        events: the history.
        force: all failures are taken back, whatever is lost.
        failure: why the instance failed, if that is known.
        replay: takes the code through a history; gives none, and how far it went, where that fails.
    """
    end = next(
        (i for i, event in enumerate(events) if event[KIND] == "ExecutionCompleted"), len(events)
    )
    # What came in since it failed is not part of what the code did.
    lived, events = events[:end], events[:end] + events[end + 1 :]
    refused = _refused(events)
    lost: list[str] = []
    for since in [0] if force else _starts(lived, failure):
        plan = _take_back(replay, lived, since, events, force)
        if plan is not None:
            return plan
        kept, again = cut(lived, refused, since)
        if len(again) > 1:
            again = again[: _count_repeated(replay, kept, again)]
        lost = [] if force else forgotten(events, kept + again)
        if not lost:
            executor, _ = replay(kept)
            return None if executor is None else _plan(executor, kept, again, events)
    return lost


def _take_back(
    replay: Replay, lived: Events, since: int, events: Events, force: bool
) -> Rewind | None:
    """Find out whether the history replays without its failures from an index on.

    What followed from a failure may stand much later, where the code saw it: where the replay
    comes to decisions that the code does not take any more, these are taken back, too.
    """
    undone: set[Decision] = set()
    for _ in range(_TRIES_MAX):
        kept = without_failures(lived, since, undone)
        if kept is None or (not force and forgotten(events, kept)):
            return None
        executor, at = replay(kept)
        if executor is not None:
            return _plan(executor, kept, [], events)
        if not since <= at < len(kept) or kept[at][KIND] not in IDENTITY:
            return None
        while at < len(kept) and kept[at][KIND] in IDENTITY:
            undone.add((kept[at][KIND], kept[at][NUMBER]))
            at += 1
    return None


def _count_repeated(replay: Replay, kept: Events, again: Events) -> int:
    """Count of an event, and the decisions behind it, what the code takes again; 1 or more."""
    executor, at = replay(kept + again)
    if executor is not None:
        let_go(executor)
    return min(max(at - len(kept), 1), len(again))


def _plan(executor: Executor, kept: Events, again: Events, events: Events) -> Rewind:
    known = kept + again
    open_calls = [e for e in _called_again(events, known) if e[NUMBER] in executor.pending]
    return Rewind(executor, kept, again, _later(events, known), open_calls)


def _starts(events: Events, failure: FailureDetails | None) -> list[int]:
    """From where on failures may be taken back: each of them, or none if the code itself failed."""
    starts = [index for index, event in enumerate(events) if _is_failure(event)]
    if failure is None or not _is_of_a_call(failure):
        starts.append(len(events))
    return starts


def _is_of_a_call(failure: FailureDetails) -> bool:
    inner = (*failure.members, *(() if failure.cause is None else (failure.cause,)))
    name = failure.error_type
    return name in _OF_CALLS or "FailedError" in failure.bases or any(map(_is_of_a_call, inner))


_OF_CALLS = frozenset({"ActivityError", "SubOrchestrationError", "EntityOperationError"})

#: What has an effect outside, once it is asked for or has completed.
_DONE = frozenset(
    {
        "TaskCompleted",
        "SubOrchestrationInstanceCompleted",
        "EntityOperationCalled",
        "EntityOperationSignaled",
        "EventSent",
    }
)


def forgotten(events: Events, kept: Events) -> list[str]:
    """Name what was done and is neither in what is kept of the history, nor comes in again."""
    known = {id(event) for event in kept + _later(events, kept)}
    made = {(event[KIND], event[NUMBER]): event for event in events if event[KIND] in IDENTITY}
    refused = _refused(events)
    lost: list[str] = []
    for event in events:
        if event[KIND] == "EntityOperationCalled" and event[NUMBER] in refused:
            continue
        if event[KIND] in _DONE and id(event) not in known:
            lost.append(_in_words(made.get(_decision_of(event), event)))
    return lost


def _decision_of(event: list[Any]) -> tuple[Any, int]:
    """Name the decision that an event is, or answers."""
    return ANSWERS.get(event[KIND], event[KIND]), event[NUMBER]


def _in_words(decision: list[Any]) -> str:
    kind, name = decision[KIND], decision[3]
    if kind == "TaskScheduled":
        return f"activity {name!r}"
    if kind == "SubOrchestrationInstanceCreated":
        return f"sub-orchestration {name!r} ({decision[5]})"
    if kind == "EventSent":
        return f"event {decision[4]!r} to {name}"
    verb = "signal" if kind == "EntityOperationSignaled" else "call"
    return f"{verb} {name}.{decision[4]}"
