"""What clients saw of a hub that was hurt meanwhile, and whether that can be.

Each check takes what was recorded, or what was found at the end, and raises ``Anomaly`` with what
does not fit. They know nothing of how it was made: nodes, threads, or a list in a test.

A call that failed with nobody knowing what became of it is *unknown*: it may have been applied at
any moment since it began, or never.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Literal

from attrs import define, frozen

from perdure.storage.postgres.links import connect
from perdure.storage.postgres.place import read_place

Outcome = Literal["open", "answer", "error", "unknown"]


class Anomaly(AssertionError):
    """Something was seen that no hub that keeps its word can show."""


@define
class Call:
    """One call of a client, over all its repetitions under one request id.

    Attributes:
        client: who made it.
        key: the actor that it was for.
        operation: what it asked.
        input: with what.
        request: its request id; "" for a read, which has none.
        begun: when it was made first.
        ended: when the outcome came.
        outcome: what came; ``error`` where certainly nothing was done.
        result: the answer.
        tries: how often it was made.
    """

    client: int
    key: str
    operation: str
    input: Any
    request: str
    begun: float
    ended: float = inf
    outcome: Outcome = "open"
    result: Any = None
    tries: int = 1

    def answer(self, result: Any) -> None:
        """Note its answer."""
        self.ended, self.outcome, self.result = time.monotonic(), "answer", result

    def fail(self, outcome: Literal["error", "unknown"]) -> None:
        """Note that it has failed, for good."""
        self.ended, self.outcome = time.monotonic(), outcome


class History:
    """All calls of a run, by clients of any threads."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.errors: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, client: int, key: str, operation: str, input: Any, request: str = "") -> Call:
        """Note that a call begins."""
        call = Call(client, key, operation, input, request, time.monotonic())
        with self._lock:
            self.calls.append(call)
        return call

    def note_error(self, kind: str) -> None:
        """Count an error that a client got, whether it repeated its call or not."""
        with self._lock:
            self.errors[kind] += 1

    def of(self, *operations: str) -> list[Call]:
        """Give the calls of some operations."""
        return [call for call in self.calls if call.operation in operations]


def requests_of(calls: Iterable[Call], *outcomes: Outcome) -> set[str]:
    """Give the ids of those requests that had one of some outcomes."""
    return {call.request for call in calls if call.outcome in outcomes}


def check_sum(total: int, calls: Sequence[Call]) -> None:
    """Check the sum of all that was added, by calls whose input was added each.

    Raises:
        Anomaly: something that was acknowledged is missing, or something is there twice.
    """
    acked = sum(call.input for call in calls if call.outcome == "answer")
    unknown = sum(call.input for call in calls if call.outcome in ("unknown", "open"))
    if not acked <= total <= acked + unknown:
        raise Anomaly(f"the sum is {total}, of {acked} that was acknowledged and {unknown} unknown")


def check_applied(applied: Mapping[str, int], calls: Sequence[Call]) -> None:
    """Check how often each request was applied.

    Raises:
        Anomaly: one was so twice, or not at all though it was acknowledged, or though it failed.
    """
    for request, times in applied.items():
        if times != 1:
            raise Anomaly(f"request {request} was applied {times} times")
    if lost := requests_of(calls, "answer") - applied.keys():
        raise Anomaly(f"acknowledged, and not applied: {sorted(lost)}")
    if extra := applied.keys() - requests_of(calls, "answer", "unknown", "open"):
        raise Anomaly(f"applied, and nobody was told that it may have been: {sorted(extra)}")


def check_order(lines: Iterable[tuple[int, int]], sent: Mapping[int, int]) -> None:
    """Check what senders that numbered their messages from 1 sent to one actor.

    Args:
        lines: of each message its sender and its number, in the order of their coming.
        sent: how many each sender has sent.

    Raises:
        Anomaly: one is missing, is there twice, or has come out of order.
    """
    came: dict[int, list[int]] = {}
    for sender, number in lines:
        came.setdefault(sender, []).append(number)
    for sender in came.keys() | sent.keys():
        numbers, count = came.get(sender, []), sent.get(sender, 0)
        if numbers != [*range(1, count + 1)]:
            raise Anomaly(f"of sender {sender}, who sent {count}, there came {numbers}")


def check_bank(balances: Mapping[str, int], opening: int) -> None:
    """Check that money was moved only.

    Raises:
        Anomaly: there is more of it, or less.
    """
    total = sum(balances.values())
    if total != opening * len(balances):
        raise Anomaly(f"{len(balances)} accounts have {total}: {dict(balances)}")


def check_locks(lock: str, entries: Sequence[tuple[str, str]]) -> None:
    """Check who held a lock, by what he wrote into what it guards: that he came, and that he goes.

    Args:
        lock: its name.
        entries: ``("in", who)`` and ``("out", who)``, in their order.

    Raises:
        Anomaly: two held it at a time, one did so twice, or somebody still does.
    """
    holder: str | None = None
    done = set[str]()
    for way, who in entries:
        if way == "in" and holder is not None:
            raise Anomaly(f"{who} got the lock {lock} while {holder} held it")
        if way == "in" and who in done:
            raise Anomaly(f"{who} got the lock {lock} once more")
        if way == "out" and holder != who:
            raise Anomaly(f"{who} gave the lock {lock} back, which {holder} held")
        holder = who if way == "in" else None
        if way == "out":
            done.add(who)
    if holder is not None:
        raise Anomaly(f"{holder} still holds the lock {lock}")


def check_ended(instance: str, status: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Check the history of an instance, of which all have an end.

    Raises:
        Anomaly: it has not ended, or began or ended more than once, or something is done in it
            twice.
    """
    kinds = Counter(str(event["event_type"]) for event in history)
    if status != "Completed":
        raise Anomaly(f"{instance} is {status}: {dict(kinds)}")
    for kind in ("ExecutionStarted", "ExecutionCompleted"):
        if kinds[kind] != 1:
            raise Anomaly(f"{instance} has {kinds[kind]} times {kind}: {dict(kinds)}")
    if history[-1]["event_type"] != "ExecutionCompleted":
        raise Anomaly(f"{instance} went on behind its end: {list(kinds)}")
    done = Counter(
        (str(event["event_type"]), event["fields"]["task_id"])
        for event in history
        if "task_id" in event["fields"]
    )
    if twice := [what for what, times in done.items() if times > 1]:
        raise Anomaly(f"{instance} has twice: {twice}")


# Linearizability.


@frozen
class _State:
    """A register as it may be: its value, and which of the open calls have taken effect already."""

    value: Any
    done: frozenset[int]


def check_register(calls: Sequence[Call], initial: Any) -> None:
    """Check that the calls to a register might have happened one after another.

    A ``write`` answers with what was there before, a ``read`` with what is there. Each call takes
    effect at one moment between its beginning and its end; one of unknown outcome at any moment
    from its beginning on, or never.

    This is the search of J. M. Wing and C. Gong, "Testing and verifying concurrent objects"
    (Journal of Parallel and Distributed Computing 17, 1993), breadth first: all states that the
    register may have are carried from one end of a call to the next, as G. Lowe does it in "Testing
    for linearizability" (Concurrency and Computation 29, 2017). So a window is no wider than the
    calls that are open at one moment. Keys are independent, and each is checked for itself.

    Raises:
        Anomaly: they cannot have.
    """
    moments: list[tuple[float, int, int]] = []  # ends before beginnings where they are one
    for number, call in enumerate(calls):
        if call.outcome == "error" or (call.operation == "read" and call.outcome != "answer"):
            continue  # had no effect, or none that anybody saw
        moments.append((call.begun, 1, number))
        if call.outcome == "answer":
            moments.append((call.ended, 0, number))
    pending = set[int]()
    states = {_State(initial, frozenset())}
    for _, begins, number in sorted(moments):
        if begins:
            pending.add(number)
            continue
        reached = _reach(states, pending, calls)
        states = {
            _State(state.value, state.done - {number}) for state in reached if number in state.done
        }
        pending.discard(number)
        if not states:
            raise Anomaly(_tell(calls, number, {state.value for state in reached}))


def _reach(
    states: Collection[_State], pending: Collection[int], calls: Sequence[Call]
) -> set[_State]:
    """Give all states that open calls may lead to, in each order of them that fits their answers."""
    reached = set(states)
    left = list(states)
    while left:
        state = left.pop()
        for number in pending:
            if number in state.done:
                continue
            call = calls[number]
            if call.outcome == "answer" and call.result != state.value:
                continue
            value = call.input if call.operation == "write" else state.value
            after = _State(value, state.done | {number})
            if after not in reached:
                reached.add(after)
                left.append(after)
    return reached


def _tell(calls: Sequence[Call], number: int, values: Collection[Any]) -> str:
    bad = calls[number]
    around = [
        f"\n  {one.begun:.4f} to {one.ended:.4f}: client {one.client} {one.operation}"
        f"({'' if one.input is None else one.input}) -> {one.result} ({one.outcome})"
        for one in sorted(calls, key=lambda one: one.begun)
        if one.begun <= bad.ended and one.ended >= bad.begun - 1.0
    ]
    return (
        f"register {bad.key}: client {bad.client} was told {bad.result} by {bad.operation}"
        f"({bad.input}), and it can have been {sorted(values)} alone; about then:{''.join(around)}"
    )


# What is stored.

STORED = """
SELECT 'partition ' || partition || ': a gap in the journal before ' || sequence FROM (
  SELECT partition, sequence, lag(sequence) OVER w AS before FROM {s}.journal
  WINDOW w AS (PARTITION BY partition ORDER BY sequence)) AS j
WHERE sequence <> before + 1
UNION ALL
SELECT 'partition ' || partition || ': an older epoch in the journal at ' || sequence FROM (
  SELECT partition, sequence, epoch, lag(epoch) OVER w AS before FROM {s}.journal
  WINDOW w AS (PARTITION BY partition ORDER BY sequence)) AS j
WHERE epoch < before
UNION ALL
SELECT 'partition ' || partition || ': nothing behind what is folded, up to ' || settled
FROM {s}.journal JOIN {s}.folded USING (partition)
GROUP BY partition, settled HAVING min(sequence) > settled + 1
UNION ALL
SELECT 'partition ' || j.partition || ': an epoch of the future at ' || sequence
FROM {s}.journal j JOIN {s}.partition p USING (partition) WHERE j.epoch > p.epoch
"""
"""What holds at any moment, however much is under way; a row for each breach."""

AT_REST = """
SELECT 'partition ' || partition || ': not all is folded' FROM {s}.journal GROUP BY partition
UNION ALL
SELECT 'partition ' || partition || ': an undelivered message to ' || target FROM {s}.outbox_row
UNION ALL
SELECT 'partition ' || partition || ': undelivered mail of ' || actor FROM {s}.mail_row
UNION ALL
SELECT 'partition ' || s.partition || ' has sent ' || s.sent || ' to ' || s.peer || ', which has had '
  || coalesce(r.received, 0)
FROM {s}.peer_row s LEFT JOIN {s}.peer_row r ON r.partition = s.peer AND r.peer = s.partition
WHERE coalesce(r.received, 0) <> s.sent
UNION ALL
SELECT 'partition ' || r.partition || ' has had ' || r.received || ' from ' || r.peer || ', which has sent '
  || coalesce(s.sent, 0)
FROM {s}.peer_row r LEFT JOIN {s}.peer_row s ON s.partition = r.peer AND s.peer = r.partition
WHERE r.received > coalesce(s.sent, 0)
UNION ALL
SELECT 'partition ' || partition || ' is member ' || owner || '''s still' FROM {s}.partition
WHERE owner IS NOT NULL
"""
"""What holds besides when all nodes have stopped in order with nothing left to do."""


LEFT = """
SELECT count(*) FROM {s}.outbox_row UNION ALL SELECT count(*) FROM {s}.journal
UNION ALL SELECT count(*) FROM {s}.partition WHERE owner IS NOT NULL
"""


async def breaches(place: str, *, at_rest: bool) -> list[str]:
    """Look at what is stored; give what may not be."""
    statements = (STORED, AT_REST) if at_rest else (STORED,)
    return [row[0] for row in await _rows(place, *statements)]


async def left_undone(place: str) -> int:
    """Count what a node may leave to the next one, where it has no more time to stop.

    That is what is not folded, what is not known to have come where it was sent, and partitions.
    """
    return sum(row[0] for row in await _rows(place, LEFT))


async def _rows(place: str, *statements: str) -> list[Any]:
    """Read what is stored at one moment."""
    parsed = read_place(place)
    connection = await connect(parsed)
    rows = list[Any]()
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for statement in statements:
                rows += await connection.fetch(statement.replace("{s}", parsed.quoted))
    finally:
        await connection.close()
    return rows
