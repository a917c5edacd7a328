"""Each check of a history finds what it is for, and passes what may be."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

import pytest

from perdure.storage.postgres import PostgresStore
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.place import read_place
from tests.cluster.histories import (
    Anomaly,
    Call,
    Outcome,
    breaches,
    check_applied,
    check_bank,
    check_ended,
    check_locks,
    check_order,
    check_register,
    check_sum,
)


def call(
    operation: str,
    begun: float,
    ended: float,
    result: Any = None,
    *,
    put: Any = None,
    outcome: Outcome = "answer",
    request: str = "",
) -> Call:
    return Call(0, "x", operation, put, request, begun, ended, outcome, result)


def write(
    begun: float, ended: float, put: int, before: int = 0, outcome: Outcome = "answer"
) -> Call:
    return call("write", begun, ended, before, put=put, outcome=outcome)


def read(begun: float, ended: float, result: int) -> Call:
    return call("read", begun, ended, result)


# Sums, and requests.


@pytest.mark.parametrize("total", [5, 7])
def test_a_sum_has_what_was_acknowledged_and_may_have_what_is_unknown(total: int) -> None:
    check_sum(
        total,
        [
            call("add", 0, 1, put=5),
            call("add", 0, 1, put=2, outcome="unknown"),
            call("add", 0, 1, put=9, outcome="error"),
        ],
    )


@pytest.mark.parametrize("total", [4, 8, 16])
def test_a_sum_that_lacks_something_or_has_it_twice_is_found(total: int) -> None:
    with pytest.raises(Anomaly, match=f"the sum is {total}"):
        check_sum(total, [call("add", 0, 1, put=5), call("add", 0, 1, put=2, outcome="unknown")])


def test_each_request_is_applied_once_if_it_was_acknowledged() -> None:
    calls = [
        call("note", 0, 1, request="a"),
        call("note", 0, 1, request="b", outcome="unknown"),
        call("note", 0, 1, request="c", outcome="error"),
    ]
    check_applied({"a": 1}, calls)
    check_applied({"a": 1, "b": 1}, calls)
    with pytest.raises(Anomaly, match=r"not applied: \['a'\]"):
        check_applied({"b": 1}, calls)
    with pytest.raises(Anomaly, match="a was applied 2 times"):
        check_applied({"a": 2}, calls)
    with pytest.raises(Anomaly, match=r"nobody was told .*\['c'\]"):
        check_applied({"a": 1, "c": 1}, calls)


# Order, money, locks, ends.


def test_messages_come_in_the_order_of_each_sender() -> None:
    check_order([(1, 1), (2, 1), (2, 2), (1, 2)], {1: 2, 2: 2})


@pytest.mark.parametrize(
    "lines", [[(1, 2), (1, 1)], [(1, 1)], [(1, 1), (1, 2), (1, 2)], [(1, 1), (1, 2), (3, 1)]]
)
def test_messages_that_change_places_are_lost_or_repeated_are_found(
    lines: list[tuple[int, int]],
) -> None:
    with pytest.raises(Anomaly, match="there came"):
        check_order(lines, {1: 2})


def test_money_that_is_made_or_lost_is_found() -> None:
    check_bank({"a": 900, "b": 1_100}, 1_000)
    with pytest.raises(Anomaly, match="have 1999"):
        check_bank({"a": 899, "b": 1_100}, 1_000)


def test_one_after_another_may_hold_a_lock() -> None:
    check_locks("x", [("in", "a"), ("out", "a"), ("in", "b"), ("out", "b")])


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([("in", "a"), ("in", "b"), ("out", "a"), ("out", "b")], "b got the lock x while a"),
        ([("in", "a"), ("out", "a"), ("in", "a"), ("out", "a")], "once more"),
        ([("in", "a"), ("out", "b")], "b gave the lock x back"),
        ([("in", "a")], "a still holds"),
    ],
)
def test_a_lock_that_is_held_twice_is_found(entries: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(Anomaly, match=told):
        check_locks("x", entries)


def events(*kinds: str) -> list[dict[str, Any]]:
    return [{"event_type": kind, "fields": {}} for kind in kinds]


@pytest.mark.parametrize(
    ("status", "kinds", "told"),
    [
        ("Running", ["ExecutionStarted"], "is Running"),
        ("Completed", ["ExecutionStarted", "ExecutionStarted", "ExecutionCompleted"], "2 times"),
        ("Completed", ["ExecutionStarted", "ExecutionCompleted", "ExecutionCompleted"], "2 times"),
        ("Completed", ["ExecutionStarted", "ExecutionCompleted", "EntityAnswered"], "behind its"),
    ],
)
def test_an_instance_that_ends_twice_or_not_is_found(
    status: str, kinds: list[str], told: str
) -> None:
    check_ended("i", "Completed", events("ExecutionStarted", "ExecutionCompleted"))
    with pytest.raises(Anomaly, match=told):
        check_ended("i", status, events(*kinds))


def test_an_instance_that_has_done_something_twice_is_found() -> None:
    history = events("ExecutionStarted", "TaskCompleted", "TaskCompleted", "ExecutionCompleted")
    for number in (1, 2):
        history[number]["fields"] = {"task_id": number}
    check_ended("i", "Completed", history)
    history[2]["fields"] = {"task_id": 1}
    with pytest.raises(Anomaly, match=r"twice.*TaskCompleted.*1"):
        check_ended("i", "Completed", history)


# Registers.


def test_what_follows_upon_another_must_see_it() -> None:
    check_register([write(0, 1, 5), read(2, 3, 5)], 0)
    with pytest.raises(Anomaly, match=r"was told 0 .*\[5\] alone"):
        check_register([write(0, 1, 5), read(2, 3, 0)], 0)


def test_what_is_open_at_the_same_time_may_see_it_or_not() -> None:
    for seen in (0, 5):
        check_register([write(0, 3, 5), read(1, 2, seen)], 0)
    with pytest.raises(Anomaly):
        check_register([write(0, 3, 5), read(1, 2, 7)], 0)


def test_what_was_seen_once_is_not_unseen() -> None:
    with pytest.raises(Anomaly):
        check_register([write(0, 9, 5), read(1, 2, 5), read(3, 4, 0)], 0)


def test_a_write_answers_with_what_was_there() -> None:
    check_register([write(0, 2, 5, 6), write(1, 3, 6, 0)], 0)
    with pytest.raises(Anomaly):
        check_register([write(0, 2, 5, 0), write(1, 3, 6, 0)], 0)


def test_a_write_of_which_nobody_knows_may_come_late_or_never_and_once() -> None:
    lost = write(0, 1, 5, outcome="unknown")
    check_register([lost, read(2, 3, 0)], 0)
    check_register([lost, read(2, 3, 0), read(4, 5, 5)], 0)
    with pytest.raises(Anomaly):
        check_register([lost, read(2, 3, 5), read(4, 5, 0)], 0)
    with pytest.raises(Anomaly):
        check_register([lost, read(2, 3, 5), write(4, 5, 6, 5), read(6, 7, 5)], 0)


def test_a_write_that_was_refused_is_never_seen() -> None:
    with pytest.raises(Anomaly):
        check_register([write(0, 1, 5, outcome="error"), read(2, 3, 5)], 0)


def test_a_read_that_never_ended_says_nothing() -> None:
    check_register([write(0, 1, 5), call("read", 0, inf, outcome="open")], 0)


def run_of(random: Random) -> list[Call]:
    """Make what clients see of a register that is well: calls of some length around moments."""
    value, calls = 0, list[Call]()
    for number in range(60):
        begun, ended = number - random.uniform(0.1, 4), number + random.uniform(0.1, 4)
        if random.random() < 0.5:
            if random.random() < 0.1:
                calls.append(write(begun, ended, number + 1, outcome="unknown"))
                value = random.choice((value, number + 1))
                continue
            calls.append(write(begun, ended, number + 1, value))
            value = number + 1
        else:
            calls.append(read(begun, ended, value))
    return calls


def test_registers_that_are_well_pass_and_those_with_a_stale_read_do_not() -> None:
    found = 0
    for seed in range(20):
        random = Random(seed)
        calls = run_of(random)
        check_register(calls, 0)
        last = max((one for one in calls if one.operation == "read"), key=lambda one: one.begun)
        written = [one for one in calls if one.operation == "write" and one.outcome == "answer"]
        if not any(one.input == last.result for one in written[3:]):
            continue
        last.result = written[2].input
        with pytest.raises(Anomaly):
            check_register(calls, 0)
        found += 1
    assert found > 8


# What is stored.


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("INSERT INTO {s}.journal VALUES (0, 1, 0, 1, 1, ''), (0, 3, 0, 1, 1, '')", "a gap"),
        (
            "UPDATE {s}.partition SET epoch = 2; INSERT INTO {s}.journal VALUES (0, 1, 2, 1, 1, ''),"
            " (0, 2, 1, 1, 1, '')",
            "older epoch",
        ),
        ("INSERT INTO {s}.journal VALUES (0, 2, 0, 1, 1, '')", "nothing behind"),
        ("INSERT INTO {s}.journal VALUES (0, 1, 9, 1, 1, '')", "of the future"),
        ("INSERT INTO {s}.journal VALUES (0, 1, 0, 1, 1, '')", "not all is folded"),
        ("INSERT INTO {s}.outbox_row VALUES (0, 1, 1, 1, '[]')", "undelivered message"),
        ("INSERT INTO {s}.mail_row VALUES (0, 1, 'x', '[]')", "undelivered mail"),
        ("INSERT INTO {s}.peer_row VALUES (0, 1, 3, 0), (1, 0, 0, 2)", "has had 3 from 1"),
        ("INSERT INTO {s}.peer_row VALUES (0, 1, 1, 0), (1, 0, 0, 2)", "has sent 2 to 0"),
        ("UPDATE {s}.partition SET owner = 7 WHERE partition = 0", "member 7's still"),
    ],
)
async def test_a_breach_in_what_is_stored_is_found(
    newest_postgres: str, sql: str, told: str
) -> None:
    store = PostgresStore(newest_postgres)
    await store.open(2)
    await store.close()
    assert await breaches(newest_postgres, at_rest=True) == []
    place = read_place(newest_postgres)
    connection = await driver().connect(place.dsn)
    await connection.execute(sql.replace("{s}", place.quoted))
    await connection.close()

    found = await breaches(newest_postgres, at_rest=True)

    assert any(told in breach for breach in found), found
