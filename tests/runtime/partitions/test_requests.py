from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from perdure import App
from perdure.actors.errors import (
    RequestIdReusedError,
    StoreDamagedError,
    UnavailableError,
)
from perdure.actors.messages import Operation
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.partitions.ledger import Ledger
from perdure.runtime.partitions.requests import UNTRIED, Requests
from perdure.runtime.placement.claims import claim_of
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.storage.records import RequestRow

KEY = "@counter@a"


def claim(amount: int, request: str = "r") -> str:
    return claim_of(request, KEY, Operation("add", b"%d" % amount))


class Made:
    """The requests of a partition whose store is a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, RequestRow] = {}
        self.ledger = Ledger(0, waiter_factory())
        self.reads = 0
        self.before_read: Callable[[], Any] = lambda: None
        self.requests = Requests(
            "the file",
            read=self.read,
            ledger=self.ledger,
            lookup=Lookup(App(), 1_000_000),
            steady=lambda: 7,
            new_waiter=waiter_factory(),
        )

    async def read(self, request: str) -> RequestRow | None:
        self.reads += 1
        self.before_read()
        return self.stored.get(request)

    def store(self) -> None:
        """Make durable what gathered, and let it out."""
        for row in self.ledger.batch.requests:
            self.stored[row.request] = row
        for request, outcome in self.ledger.batch.answered:
            self.requests.tell(request, outcome)


async def test_the_first_of_an_id_is_to_be_tried_and_the_others_hear_what_it_hears() -> None:
    made, heard = Made(), list[Any]()

    async def repeat() -> None:
        heard.append(await made.requests.outcome_of_first("r", claim(1)))

    assert await made.requests.outcome_of_first("r", claim(1)) is UNTRIED
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(repeat)
        tasks.start_soon(repeat)
        await anyio.wait_all_tasks_blocked()
        made.requests.record(claim(1), b"ok", b"6", b"6")
        made.store()

    assert heard == [b"6", b"6"]
    assert made.requests.under_way == {}


async def test_an_id_under_way_is_not_for_another_request() -> None:
    made = Made()
    await made.requests.outcome_of_first("r", claim(1))

    with pytest.raises(RequestIdReusedError):
        await made.requests.outcome_of_first("r", claim(2))


async def test_what_was_answered_is_read_back_for_the_same_request_alone() -> None:
    made = Made()
    made.requests.record(claim(1), b"ok", b"6", b"6")
    made.store()

    recorded = await made.requests.recorded("r", claim(1))

    assert recorded is not None
    assert (recorded.is_answer, recorded.outcome) == (True, b"6")
    with pytest.raises(RequestIdReusedError):
        await made.requests.recorded("r", claim(2))
    assert await made.requests.recorded("other", claim(1, "other")) is None


async def test_what_nobody_can_read_is_damage() -> None:
    made = Made()
    made.stored["r"] = RequestRow("r", 7, b"none")

    with pytest.raises(StoreDamagedError, match="the file"):
        await made.requests.recorded("r", claim(1))


async def test_a_claim_is_stored_once_and_holds_before_it_is() -> None:
    made = Made()

    await made.requests.claim("r", claim(1), lambda: True)

    assert [row.request for row in made.ledger.batch.requests] == ["r"]
    with pytest.raises(RequestIdReusedError):
        await made.requests.claim("r", claim(2), lambda: True)
    with pytest.raises(RequestIdReusedError):
        await made.requests.outcome_of_first("r", claim(2))


async def test_a_claim_that_cannot_be_looked_up_holds_nothing() -> None:
    made = Made()

    def fail() -> None:
        raise UnavailableError("the disk fails")

    made.before_read = fail
    with pytest.raises(UnavailableError):
        await made.requests.claim("r", claim(1), lambda: True)
    made.before_read = lambda: None

    await made.requests.claim("r", claim(2), lambda: True)
    assert len(made.ledger.batch.requests) == 1


async def test_where_the_first_gives_up_one_of_the_others_takes_its_place() -> None:
    made, outcomes = Made(), list[Any]()

    async def repeat() -> None:
        outcomes.append(await made.requests.outcome_of_first("r", claim(1)))

    await made.requests.outcome_of_first("r", claim(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(repeat)
        await anyio.wait_all_tasks_blocked()
        made.requests.refuse("r", anyio.get_cancelled_exc_class().__new__(KeyboardInterrupt))
        await anyio.wait_all_tasks_blocked()

    assert outcomes == [UNTRIED]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MovedError("elsewhere"), MovedError),
        (StoreDamagedError("nobody can read it"), StoreDamagedError),
        (ValueError("a bug"), UnavailableError),
    ],
)
async def test_who_repeats_what_was_refused_is_told_that_nothing_happened(
    error: Exception, told: type[Exception]
) -> None:
    made, errors = Made(), list[Exception]()

    async def repeat() -> None:
        try:
            await made.requests.outcome_of_first("r", claim(1))
        except Exception as caught:
            errors.append(caught)

    await made.requests.outcome_of_first("r", claim(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(repeat)
        await anyio.wait_all_tasks_blocked()
        made.requests.refuse("r", error)

    assert [type(one) for one in errors] == [told]


async def test_a_recovery_fails_those_that_are_lost_and_keeps_the_others() -> None:
    made, errors = Made(), list[Any]()
    for request in ("kept", "lost"):
        await made.requests.outcome_of_first(request, claim(1, request))

    async def repeat(request: str) -> None:
        try:
            await made.requests.outcome_of_first(request, claim(1, request))
        except UnavailableError as error:
            errors.append((request, str(error)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(repeat, "kept")
        tasks.start_soon(repeat, "lost")
        await anyio.wait_all_tasks_blocked()
        made.requests.fail(UnavailableError("gone"), {"kept"})
        await anyio.wait_all_tasks_blocked()
        assert errors == [("lost", "gone")]
        assert made.requests.under_way.keys() == {"kept"}
        made.requests.fail(UnavailableError("stopped"))

    assert errors[1:] == [("kept", "stopped")]
