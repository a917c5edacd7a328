"""Rewinding a failed execution: which of its history stands, and what has to be done again.

A history falls into segments: an incoming event, and the decisions that the code made when it
arrived. Failures are taken back with the decisions they led to, so the calls that failed are open
again while completed ones stay. Where the rest does not replay (the code had gone on differently
because of the failure), or holds what cannot be opened again (a call of an entity, a lock), the
history is cut before the segment in which the first such call was made, and that segment's event
is given to the code anew.
"""

from __future__ import annotations

from typing import Any

from .history import ANSWERS, FAILURES, IDENTITY

Events = list[list[Any]]

_REOPENED = frozenset({"TaskFailed", "SubOrchestrationInstanceFailed"})


def without_failures(events: Events) -> Events | None:
    """Give the history without its failures and what followed from them.

    None if it holds what cannot be opened again: then it has to be cut.
    """
    kept: Events = []
    removed: set[tuple[str, int]] = set()
    dropping = False
    for event in events:
        kind = event[0]
        if kind in IDENTITY:
            if dropping:
                removed.add((kind, event[2]))
            else:
                kept.append(event)
            continue
        answered = ANSWERS.get(kind)
        dropping = kind in FAILURES or (answered is not None and (answered, event[2]) in removed)
        if kind in FAILURES and kind not in _REOPENED and (answered, event[2]) not in removed:
            return None
        if not dropping and kind != "ExecutionCompleted":
            kept.append(event)
    return None if _unanswered_entities(kept) else kept


def cut(events: Events) -> tuple[Events, list[Any]]:
    """Give the history before the segment with the first failed call, and that segment's event."""
    failed = {(ANSWERS[e[0]], e[2]) for e in events if e[0] in FAILURES}
    starts = _segment_starts(events)
    at = len(events)
    for index, event in enumerate(events):
        if event[0] in IDENTITY and (event[0], event[2]) in failed:
            at = index
            break
    if at == len(events):
        # The code itself raised: what it saw last is given to it again.
        at = max(i for i, event in enumerate(events) if event[0] not in _ENDINGS)
    while True:
        start = starts[at]
        lost = _unanswered_entities(events[:start])
        if not lost:
            return events[:start], events[start]
        at = lost[0]


_ENDINGS = frozenset({"ExecutionCompleted", "ExecutionRewound", *IDENTITY})


def _segment_starts(events: Events) -> list[int]:
    starts: list[int] = []
    start = 0
    for index, event in enumerate(events):
        if event[0] not in IDENTITY:
            start = index
        starts.append(start)
    return starts


def _unanswered_entities(events: Events) -> list[int]:
    """Find entity calls without answer, and locks that are held or asked for, by position."""
    open_: dict[tuple[str, int], int] = {}
    for index, event in enumerate(events):
        kind = event[0]
        if kind in ("EntityOperationCalled", "EntityLockRequested"):
            open_[kind, event[2]] = index
        elif kind in ("EntityOperationCompleted", "EntityOperationFailed"):
            open_.pop(("EntityOperationCalled", event[2]), None)
        elif kind == "EntityLockReleased":
            open_.pop(("EntityLockRequested", event[2]), None)
    return sorted(open_.values())
