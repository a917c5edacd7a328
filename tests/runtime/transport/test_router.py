from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    Hub,
    HubStoppingError,
    MemoryStore,
    OutcomeUnknownError,
    Settings,
    UnavailableError,
)
from perdure.actors.messages import Completion, Operation, Start
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.partition import Partition
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.hidden_tasks import TaskGroup
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.runtime.transport import router as routing
from perdure.runtime.transport.channels import Channel
from perdure.runtime.transport.router import Elsewhere, Router
from perdure.runtime.transport.wire import Item
from perdure.testing.inside import partitions_of
from tests.runtime.harness import until_true
from tests.runtime.transport.test_lines import FakeChannel

ANSWER = Completion("TaskCompleted", 1, 1, b"5")


class Network:
    """The shards that a router dials, played by the test."""

    def __init__(self) -> None:
        self.channels: dict[int, FakeChannel] = {}
        self.unreachable: set[int] = set()

    async def dial(self, shard: int) -> Channel:
        if shard in self.unreachable:
            raise ConnectionRefusedError("not yet")
        self.channels[shard] = FakeChannel()
        return self.channels[shard]

    def posted(self, shard: int, kind: str) -> list[Item]:
        channel = self.channels.get(shard)
        return [] if channel is None else [item for item in channel.posted if item[0] == kind]

    async def request(self, shard: int, count: int = 1) -> Item:
        """Give the last of so many requests, once it has come."""
        await until_true(lambda: len(self.posted(shard, "ask")) >= count)
        return self.posted(shard, "ask")[-1]


@asynccontextmanager
async def routing_to(
    network: Network, owners: list[int], me: int | None = None
) -> AsyncGenerator[Router]:
    router = Router(len(owners), me, waiter_factory(), network.dial)
    router.owners[:] = owners
    with anyio.fail_after(10):
        async with TaskGroup() as tasks:
            router.start(tasks)
            try:
                yield router
            finally:
                router.close()


class Outcome:
    """What became of a call that runs beside the test."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: Exception | None = None
        self.ended = anyio.Event()

    async def of(self, call: Any, *arguments: Any) -> None:
        try:
            self.value = await call(*arguments)
        except Exception as error:
            self.error = error
        self.ended.set()


def place(router: Router, number: int = 0) -> Elsewhere:
    found = router.places[number]
    assert isinstance(found, Elsewhere)
    return found


async def test_a_request_follows_a_partition_that_has_moved() -> None:
    network, outcome = Network(), Outcome()
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).wait_durable)
        asked = await network.request(1)
        router.place([2])
        network.channels[1].answer(asked[1], MovedError("gone"))
        asked = await network.request(2)
        network.channels[2].answer(asked[1], None)
        await outcome.ended.wait()

    assert outcome.error is None


async def test_a_request_without_an_id_is_not_repeated_when_its_shard_dies() -> None:
    network, outcome = Network(), Outcome()
    message = Operation("add", b"1", True)
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).request_once, "@counter@a", message, None)
        await network.request(1)
        lost = network.channels[1]
        lost.close()
        await outcome.ended.wait()
        await until_true(lambda: network.channels[1] is not lost)
        await router.wait_moved()

        assert network.posted(1, "ask") == []

    assert isinstance(outcome.error, OutcomeUnknownError)


async def test_a_request_with_an_id_is_repeated_when_its_shard_dies() -> None:
    network, outcome = Network(), Outcome()
    message = Operation("add", b"1", True)
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).request_once, "@counter@a", message, "once")
        await network.request(1)
        lost = network.channels[1]
        lost.close()
        await until_true(lambda: network.channels[1] is not lost)
        asked = await network.request(1)
        network.channels[1].answer(asked[1], b"1")
        await outcome.ended.wait()

    assert (outcome.error, outcome.value) == (None, b"1")


@pytest.mark.parametrize("found", ["in its mailbox", "as an instance", "nowhere"])
async def test_a_new_instance_is_looked_up_when_its_shard_dies(found: str) -> None:
    answers: list[tuple[str, Any]] = [
        ("wait_durable", None),
        ("waiting", found == "in its mailbox"),
    ]
    if found != "in its mailbox":
        answers.append(("read_instances", ["a record"] if found == "as an instance" else []))
    if found == "nowhere":
        answers.append(("request_new", None))
    network, outcome = Network(), Outcome()
    message = Start("flow", None, None)
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).request_new, "new", message)
        await network.request(1)
        lost = network.channels[1]
        lost.close()
        await until_true(lambda: network.channels[1] is not lost)
        channel = network.channels[1]
        for count, (verb, answer) in enumerate(answers, 1):
            asked = await network.request(1, count)
            assert asked[2] == verb
            channel.answer(asked[1], answer)
        await outcome.ended.wait()

    assert outcome.error is None


async def test_an_instance_whose_start_nobody_can_look_up_is_not_said_to_be_absent() -> None:
    network, outcome = Network(), Outcome()
    message = Start("flow", None, None)
    async with anyio.create_task_group() as tasks:
        async with routing_to(network, [1]) as router:
            tasks.start_soon(outcome.of, place(router).request_new, "new", message)
            await network.request(1)
        await outcome.ended.wait()

    assert isinstance(outcome.error, OutcomeUnknownError)


async def test_a_closing_router_tells_what_may_have_been_applied_from_what_was_not() -> None:
    network, sent, read, waiting, named = Network(), Outcome(), Outcome(), Outcome(), Outcome()
    message = Operation("add", b"1", True)
    async with anyio.create_task_group() as tasks:
        async with routing_to(network, [1, 2]) as router:
            network.unreachable.add(2)
            tasks.start_soon(sent.of, place(router).request_once, "@counter@a", message, None)
            await network.request(1)
            tasks.start_soon(read.of, place(router).wait_durable)
            await network.request(1, 2)
            tasks.start_soon(waiting.of, place(router, 1).request_once, "@counter@b", message, None)
            tasks.start_soon(named.of, place(router).request_once, "@counter@a", message, "id")
            await network.request(1, 3)
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5):
            for outcome in (sent, read, waiting, named):
                await outcome.ended.wait()

    assert isinstance(sent.error, OutcomeUnknownError)
    assert isinstance(named.error, OutcomeUnknownError)
    assert isinstance(read.error, HubStoppingError)
    assert isinstance(waiting.error, HubStoppingError)


@pytest.mark.by_turns
async def test_patience_with_a_shard_that_nobody_reaches_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "PATIENCE_S", 0.2)
    network = Network()
    network.unreachable.add(1)
    async with routing_to(network, [1]) as router:
        with pytest.raises(UnavailableError, match="partition 0"):
            await place(router).wait_durable()


@pytest.mark.by_turns
async def test_a_claim_waits_for_a_shard_that_is_dialled_and_hardly_for_one_that_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "PATIENCE_S", 1_000.0)
    network, first, second, third = Network(), Outcome(), Outcome(), Outcome()
    network.unreachable.add(1)
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(first.of, place(router).claim, "id", "claim")
        await anyio.sleep(2 * routing.CLAIM_PATIENCE_S)
        assert not first.ended.is_set()
        network.unreachable.clear()
        asked = await network.request(1)
        network.channels[1].answer(asked[1], None)
        await first.ended.wait()

        network.unreachable.add(1)
        network.channels[1].close()
        await until_true(lambda: not router.line(1).is_up)
        tasks.start_soon(second.of, place(router).claim, "id", "claim")
        await second.ended.wait()
        router.place([-1])
        tasks.start_soon(third.of, place(router).claim, "id", "claim")
        await third.ended.wait()

    assert first.error is None
    assert isinstance(second.error, UnavailableError)
    assert isinstance(third.error, UnavailableError)


@pytest.mark.by_turns
async def test_a_request_that_was_lost_on_its_way_is_not_said_to_be_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "PATIENCE_S", 0.2)
    network, outcome = Network(), Outcome()
    message = Operation("add", b"1", True)
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).request_once, "@counter@a", message, "once")
        await network.request(1)
        network.unreachable.add(1)
        network.channels[1].close()
        await outcome.ended.wait()

    assert isinstance(outcome.error, OutcomeUnknownError)


@pytest.mark.by_turns
async def test_the_time_that_an_answer_took_does_not_count_as_not_being_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "PATIENCE_S", 2.0)
    network, outcome = Network(), Outcome()
    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).wait_durable)
        asked = await network.request(1)
        network.channels[1].answer(asked[1], MovedError("not yet"))
        await network.request(1, 2)
        began = anyio.current_time()
        await until_true(lambda: anyio.current_time() > began + 2.1)
        lost = network.channels[1]
        lost.close()
        await until_true(lambda: network.channels[1] is not lost)
        asked = await network.request(1)
        network.channels[1].answer(asked[1], None)
        await outcome.ended.wait()

    assert outcome.error is None


async def test_an_activity_s_answer_waits_until_its_partition_is_somewhere() -> None:
    network = Network()
    async with routing_to(network, [0, 0], me=0) as router:
        place(router).post_answer("x", ANSWER)
        router.place([1, 0])
        router.line(1)
        await until_true(lambda: bool(network.posted(1, "completion")))

        assert network.posted(1, "completion") == [("completion", 0, "x", ANSWER)]


async def test_an_activity_s_answer_waits_for_a_line_that_is_down_and_goes_once() -> None:
    network = Network()
    network.unreachable.add(1)
    async with routing_to(network, [1], me=0) as router:
        place(router).post_answer("x", ANSWER)
        router.line(1)
        await anyio.lowlevel.checkpoint()
        network.unreachable.clear()
        await until_true(lambda: bool(network.posted(1, "completion")))
        router.place([1])

        assert network.posted(1, "completion") == [("completion", 0, "x", ANSWER)]


async def test_a_reply_waits_for_a_line_that_is_down() -> None:
    network = Network()
    network.unreachable.add(1)
    async with routing_to(network, [1], me=0) as router:
        router.post_surely(1, ("reply", 3, b"5"))
        await anyio.lowlevel.checkpoint()
        network.unreachable.clear()
        await until_true(lambda: bool(network.posted(1, "reply")))


async def test_a_read_goes_on_here_where_the_partition_has_come() -> None:
    app = App()
    network, outcome = Network(), Outcome()
    store = MemoryStore()
    async with Hub(app, store=store, partitions=1, settings=Settings()) as hub:
        local = partitions_of(hub)[0]
        async with routing_to(network, [1], me=0) as router, anyio.create_task_group() as tasks:
            tasks.start_soon(outcome.of, place(router).read_instances, ["x"])
            asked = await network.request(1)
            router.hosted[0] = router.places[0] = Door(local)
            network.channels[1].answer(asked[1], MovedError("gone"))
            await outcome.ended.wait()

    assert isinstance(local, Partition)
    assert (outcome.error, outcome.value) == (None, [])


async def test_a_placement_offers_what_both_sides_may_have_missed() -> None:
    app = App()
    network = Network()
    async with Hub(app, partitions=2) as hub:
        local = partitions_of(hub)[0]
        async with routing_to(network, [0, 1], me=0) as router:
            router.hosted[0] = router.places[0] = Door(local)
            local.places = router.places
            router.line(2)
            await until_true(lambda: router.line(2).is_up)
            router.place([0, 2])

            # What they have for it, and what it has of them, which leaves with a batch.
            assert network.posted(2, "resend") == [("resend", 1, 0)]
            await until_true(lambda: network.posted(2, "ack") == [("ack", 1, 0, 0)])


async def test_nobody_is_asked_for_a_partition_that_is_nowhere() -> None:
    network, outcome = Network(), Outcome()
    async with routing_to(network, [-1], me=0) as router, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome.of, place(router).wait_durable)
        place(router).acknowledge(0, 1)
        await router.wait_moved()
        assert network.channels == {}
        router.place([1])
        asked = await network.request(1)
        network.channels[1].answer(asked[1], None)
        await outcome.ended.wait()

    assert outcome.error is None
