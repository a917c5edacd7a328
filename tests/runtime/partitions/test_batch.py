from __future__ import annotations

from typing import Any

import pytest

from perdure import App
from perdure.actors.errors import UnavailableError
from perdure.actors.messages import ActivityCall, Caller, Operation
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.partitions.batch import MESSAGES_MAX, SIZE_MAX, Batch
from perdure.runtime.partitions.ledger import Ledger
from perdure.runtime.partitions.requests import Requests
from perdure.runtime.placement.claims import claim_of
from perdure.storage.records import RequestRow
from perdure.storage.slices import STEPS, at_once
from tests.runtime.told import Told

ACTIVATION: Any = object()
TIMER: Any = object()
CALL = ActivityCall(Caller("i", 1, 1), "work", None, None, 1, None, 1)


def requests() -> Requests:
    async def read(request: str) -> None:
        raise AssertionError("nothing is read to tell who waits")

    return Requests(
        "the store",
        read=read,
        ledger=Ledger(0, Told),
        lookup=Lookup(App(), 1_000),
        steady=lambda: 0,
        new_waiter=Told,
    )


@pytest.mark.parametrize(
    ("messages", "size", "is_full"),
    [
        (0, 0, False),
        (MESSAGES_MAX - 1, SIZE_MAX - 1, False),
        (MESSAGES_MAX, 0, True),
        (0, SIZE_MAX, True),
    ],
)
def test_a_batch_is_full_by_its_messages_or_by_its_bytes(
    messages: int, size: int, is_full: bool
) -> None:
    batch = Batch()

    batch.messages, batch.size = messages, size

    assert batch.is_full is is_full


@pytest.mark.parametrize(
    ("part", "gathered"),
    [
        ("dirty", [ACTIVATION]),
        ("touched", [ACTIVATION]),
        ("mail_deleted", [1]),
        ("timers", [TIMER]),
        ("timers_deleted", [1]),
        ("outbox", {1: [("x", Operation("add", None))]}),
        ("peers", {1}),
        ("requests", [RequestRow("r", 0, b"")]),
        ("left_deleted", [1]),
        ("purged", {"x": 1}),
    ],
)
def test_what_must_become_durable_makes_rows(part: str, gathered: Any) -> None:
    batch = Batch()

    setattr(batch, part, gathered)

    assert batch.has_rows
    assert not batch.has_output


@pytest.mark.parametrize(
    ("part", "gathered"),
    [
        ("replies", [(Told(), None, None)]),
        ("answered", [("r", None)]),
        ("activities", [CALL]),
        ("finished", ["i"]),
    ],
)
def test_what_somebody_waits_for_is_output_and_no_row(part: str, gathered: Any) -> None:
    batch = Batch()

    setattr(batch, part, gathered)

    assert batch.has_output
    assert not batch.has_rows


def test_an_empty_batch_has_nothing_to_store_and_nobody_to_tell() -> None:
    batch = Batch()

    assert (batch.has_rows, batch.has_output, batch.is_full) == (False, False, False)


def test_answers_are_given_in_order_and_errors_are_raised() -> None:
    batch, order = Batch(), list[Any]()
    error = ValueError("refused")

    class Noted(Told):
        def set(self, value: Any) -> None:
            order.append(("set", value))

        def fail(self, error: BaseException) -> None:
            order.append(("failed", error))

    batch.replies = [(Noted(), b"1", None), (Noted(), error, None), (Noted(), b"2", None)]

    at_once(batch.release_replies(requests()))

    assert order == [("set", b"1"), ("failed", error), ("set", b"2")]


def test_a_long_release_pauses_and_those_behind_the_pause_wait_till_it_goes_on() -> None:
    batch, told = Batch(), [Told() for _ in range(2 * STEPS)]
    batch.replies = [(one, None, None) for one in told]
    steps = batch.release_replies(requests())

    next(steps)
    assert sum(len(one.told) for one in told) == STEPS
    at_once(steps)

    assert [one.told for one in told] == [[None]] * len(told)


async def test_who_repeats_a_request_is_told_with_the_batch_that_answers_it() -> None:
    batch, asked = Batch(), requests()
    told: list[Told] = []
    for request in ("done", "failed", "other"):
        claim = claim_of(request, "@counter@a", Operation("add", b"1"))
        await asked.outcome_of_first(request, claim)
        told.append(Told())
        asked.under_way[request].append(told[-1])
    error = ValueError("failed")
    batch.answered = [("done", b"6"), ("failed", error), ("nobody repeats it", b"7")]

    at_once(batch.release_replies(asked))

    assert [one.told for one in told] == [[b"6"], [], []]
    assert [one.errors for one in told] == [[], [error], []]
    assert asked.under_way.keys() == {"other"}


def test_those_that_go_on_waiting_are_not_failed_with_the_others() -> None:
    batch, spared, failed = Batch(), Told(), Told()
    batch.replies = [(spared, None, None), (failed, None, None)]
    error = UnavailableError("nothing happened")

    batch.fail_replies(error, [spared])

    assert (spared.errors, failed.errors) == ([], [error])


@pytest.mark.parametrize(
    ("task", "left"),
    [(1, [("i", 2), ("j", 1)]), (0, [("j", 1)]), (5, [("i", 1), ("i", 2), ("j", 1)])],
)
def test_a_call_that_is_cancelled_before_its_batch_is_durable_is_not_made(
    task: int, left: list[tuple[str, int]]
) -> None:
    batch = Batch()
    batch.activities = [
        ActivityCall(Caller(key, 1, number), "work", None, None, 1, None, number)
        for key, number in (("i", 1), ("i", 2), ("j", 1))
    ]

    batch.cancel("i", 1, {task} if task else None)

    assert [(call.caller.instance_id, call.caller.task) for call in batch.wanted()] == left
