from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from perdure import (
    EntityId,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    RuntimeStatus,
    UnavailableError,
)
from perdure.actors.messages import Message
from perdure.runtime.partitions.door import Door
from perdure.testing import TestHub
from tests.faults import within
from tests.testing.shop import Stock, app, approval, nap

BOOK, PEN = EntityId(Stock, "book"), EntityId(Stock, "pen")

Request = Callable[[TestHub], Awaitable[object]]


async def start(hub: TestHub) -> object:
    handle = await hub.client.start_new(nap, 60.0)
    return handle.instance_id, await hub.client.count()


async def start_named(hub: TestHub) -> object:
    await hub.client.start_new(nap, 60.0, instance_id="nap-2")
    return await hub.client.count()


async def start_with_request(hub: TestHub) -> object:
    await hub.client.start_new(nap, 60.0, request_id="request-1")
    await hub.client.start_new(nap, 60.0, request_id="request-1")
    return await hub.client.count()


async def call(hub: TestHub) -> object:
    return await hub.client.call_entity(BOOK, Stock.take, 2)


async def signal(hub: TestHub) -> object:
    await hub.client.signal_entity(BOOK, Stock.take, 2)
    await hub.quiet()
    return await hub.client.read_entity_state(BOOK)


async def signal_many(hub: TestHub) -> object:
    ids = [BOOK, PEN, BOOK, EntityId(Stock, "cup"), BOOK]
    await hub.client.signal_entities([(id, Stock.take, 1) for id in ids])
    await hub.quiet()
    states: list[object] = []
    for id in ids:
        state = await hub.client.read_entity_state(id)
        states.append(state)
    return states


async def signal_later(hub: TestHub) -> object:
    await hub.client.signal_entity(BOOK, Stock.take, 2, at=3600)
    await hub.advance(3600)
    return await hub.client.read_entity_state(BOOK)


async def tell(hub: TestHub) -> object:
    await hub.client.raise_event("approval-1", "approved", True)
    return await hub.client.wait("approval-1")


async def terminate(hub: TestHub) -> object:
    await hub.client.terminate("approval-1", "enough")
    status = await hub.client.get_status("approval-1")
    assert status is not None
    return status.runtime_status


async def suspend_and_resume(hub: TestHub) -> object:
    await hub.client.suspend("approval-1", "a while")
    await hub.client.resume("approval-1")
    status = await hub.client.get_status("approval-1")
    assert status is not None
    return status.runtime_status, status.history_length


async def purge(hub: TestHub) -> object:
    return await hub.client.purge(statuses=[RuntimeStatus.COMPLETED])


async def purge_one(hub: TestHub) -> object:
    return await hub.client.purge_instance("ended-1"), await hub.client.count()


async def purge_entity(hub: TestHub) -> object:
    await hub.client.purge_entity(PEN)
    return await hub.client.get_entity(PEN)


async def restart(hub: TestHub) -> object:
    handle = await hub.client.restart("ended-1")
    return handle.instance_id, await hub.client.count()


REQUESTS: list[Request] = [
    start,
    start_named,
    start_with_request,
    call,
    signal,
    signal_many,
    signal_later,
    tell,
    terminate,
    suspend_and_resume,
    purge,
    purge_one,
    purge_entity,
    restart,
]


async def outcome(request: Request, prepare: Callable[[TestHub], None]) -> object:
    """Give what comes of a request that something happens to."""
    async with within(), TestHub(app) as hub:
        await hub.client.start_new(approval, 48.0, instance_id="approval-1")
        for number in range(6):
            await hub.client.start_new(nap, 0.0, instance_id=f"ended-{number}")
        await hub.client.signal_entity(PEN, Stock.take)
        await hub.advance(1)
        prepare(hub)
        before = hub.faults.commits
        found = await request(hub)
        assert hub.faults.commits > before, "nothing was committed, so nothing happened to it"
        return found


@pytest.mark.by_turns
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_request_that_a_crash_cuts_off_is_done_once(
    request_: Request, when: Literal["before", "after"]
) -> None:
    undisturbed = await outcome(request_, lambda hub: None)

    for n in (1, 2, 3):
        disturbed = await outcome(
            request_,
            lambda hub, n=n: hub.faults.crash_commit(n, when=when),  # type: ignore[misc]
        )
        assert disturbed == undisturbed


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.__name__)
async def test_a_request_whose_answer_is_lost_is_done_once(request_: Request) -> None:
    undisturbed = await outcome(request_, lambda hub: None)

    disturbed = await outcome(request_, lambda hub: hub.faults.lose_answers(2))

    assert disturbed == undisturbed


async def test_what_was_refused_is_refused_across_a_crash() -> None:
    async with within(), TestHub(app) as hub:
        await hub.client.start_new(nap, 60.0, instance_id="nap-1")
        hub.faults.crash_commit(1)

        with pytest.raises(InstanceAlreadyExistsError):
            await hub.client.start_new(nap, 60.0, instance_id="nap-1")
        with pytest.raises(InstanceNotFoundError):
            await hub.client.terminate("no-1")


async def test_a_commit_that_fails_is_told_as_it_is_elsewhere() -> None:
    async with within(), TestHub(app) as hub:
        hub.faults.fail_commit(1)
        with pytest.raises(UnavailableError, match="repeat it"):
            await hub.client.call_entity(BOOK, Stock.take)

        # It was applied, and the hub finds that out.
        hub.faults.fail_commit(1, when="after")
        assert await hub.client.call_entity(BOOK, Stock.take) == 9
        assert await hub.client.call_entity(BOOK, Stock.take) == 8


async def test_a_request_with_an_id_is_repeated_by_who_gave_it() -> None:
    async with within(), TestHub(app) as hub:
        assert await hub.client.call_entity(BOOK, Stock.take, request_id="one") == 9
        hub.faults.fail_commit(1)
        hub.faults.fail_commit(2)  # the id has a partition of its own, where it is claimed first
        with pytest.raises(UnavailableError):
            await hub.client.call_entity(BOOK, Stock.take, request_id="two")

        again: list[Any] = [
            await hub.client.call_entity(BOOK, Stock.take, request_id=id) for id in ("one", "two")
        ]

        assert again == [9, 8]


async def test_what_is_asked_again_is_as_it_was_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as a life has left it, which wrote its own numbers on it."""
    asked: list[tuple[Message, int]] = []
    ask = Door.request_once

    async def request_once(door: Door, key: str, message: Message, request: str | None) -> Any:
        asked.append((message, message.row))
        answer = await ask(door, key, message, request)
        message.row = 7
        return answer

    monkeypatch.setattr(Door, "request_once", request_once)
    async with within(), TestHub(app) as hub:
        hub.faults.lose_answers(2)
        await hub.client.call_entity(BOOK, Stock.take)

    assert [row for _, row in asked] == [0, 0, 0]
    assert len({id(message) for message, _ in asked}) == 3


async def test_changes_are_followed_across_crashes() -> None:
    """What is promised is the last state of every instance, or a reset, behind which one asks."""
    seen: dict[str, RuntimeStatus] = {}
    async with within(), TestHub(app) as hub:

        async def follow() -> None:
            async for change in hub.client.changes():
                if change.kind == "reset":
                    async for status in hub.client.query():
                        seen[status.instance_id] = status.runtime_status
                elif change.status is not None and change.instance_id is not None:
                    seen[change.instance_id] = change.status.runtime_status

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for number in range(3):
                await hub.client.start_new(nap, 60.0, instance_id=f"nap-{number}")
                await hub.crash()
                await hub.advance(60)
            while [*seen.values()] != [RuntimeStatus.COMPLETED] * 3:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


@pytest.mark.by_turns
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_goes_wrong_all_is_done_once(seed: int) -> None:
    """Clients at work while the hub crashes at commits, and answers get lost."""
    draw = Random(seed)
    names = ["book", "pen", "cup"]
    taken = dict.fromkeys(names, 0)
    started: list[str] = []
    async with within(30), TestHub(app, start=datetime(2026, 1, 1, tzinfo=UTC)) as hub:

        async def work(number: int) -> None:
            for _ in range(10):
                name, count = draw.choice(names), draw.randrange(3)
                id = EntityId(Stock, name)
                taken[name] += count
                match draw.randrange(4):
                    case 0:
                        await hub.client.call_entity(id, Stock.give, count)
                    case 1:
                        await hub.client.signal_entity(id, Stock.give, count)
                    case 2:
                        await hub.client.signal_entities([(id, Stock.give, 1)] * count)
                    case _:
                        taken[name] -= count
                        handle = await hub.client.start_new(nap, 60.0 * count)
                        started.append(handle.instance_id)

        async def disturb() -> None:
            for _ in range(12):
                match draw.randrange(3):
                    case 0:
                        hub.faults.lose_answers(draw.randrange(1, 4))
                    case 1:
                        await hub.crash()
                    case _:
                        when: Literal["before", "after"] = draw.choice(["before", "after"])
                        hub.faults.crash_commit(draw.randrange(1, 4), when=when)
                for _ in range(draw.randrange(20)):
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(work, number)
            tasks.start_soon(disturb)
        await hub.advance(120)

        found = dict.fromkeys(names, 0)
        for name in names:
            state = await hub.client.read_entity_state(EntityId(Stock, name))
            found[name] = 0 if state is None else state.items - 10
        ended = [one.instance_id async for one in hub.client.query(statuses=["Completed"])]

    assert found == taken
    assert sorted(ended) == sorted(started)
