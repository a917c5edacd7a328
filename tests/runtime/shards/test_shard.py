from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    HubStoppingError,
    ManualClock,
    OrchestrationContext,
    OutcomeUnknownError,
    Settings,
    UnavailableError,
)
from perdure.actors.messages import Caller, Completion, Event, Operation, Start
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.partitions.door import Door
from perdure.runtime.partitions.recovery import resume
from perdure.runtime.placement.hashing import name_in
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.hidden_tasks import TaskGroup
from perdure.runtime.scheduling.waiter import Waiter, waiter_factory
from perdure.runtime.shards import shard as sharding
from perdure.runtime.shards.shard import Shard, count_partition
from perdure.runtime.transport.router import Elsewhere, Router
from tests.runtime.harness import FaultyStore, disk_error, until_true
from tests.runtime.told import Told

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


@app.activity
async def hang(number: int) -> int:
    await anyio.sleep_forever()
    return number


@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> Any:
    if name == "hang":
        return await ctx.call_activity(hang, 7)
    return await ctx.wait_for_external_event(name)


A = f"@counter@{name_in(0, 2)}"
X = name_in(0, 2)


class Made:
    """A shard with the partitions of a memory store."""

    def __init__(self, store: FaultyStore, partitions: list[Any], **settings: Any) -> None:
        self.store, self.inner = store, partitions
        self.released: list[Any] = []
        self.fatal: list[Exception] = []
        self.posted: list[tuple[int, Any]] = []
        given = Settings(**settings)
        self.router = Router(len(partitions), 0, waiter_factory())
        posting: Any = self.router
        posting.post_surely = self.post
        self.shard = Shard(
            0,
            self.router,
            lookup=Lookup(app, given.max_payload),
            settings=given,
            clock=ManualClock(),
            store_of=lambda number: self.inner[number],
            release=self.release,
            on_fatal=self.fatal.append,
        )

    def post(self, shard: int, item: Any) -> None:
        self.posted.append((shard, item))

    async def release(self, partition: Any) -> None:
        self.released.append(partition)

    def door(self, number: int = 0) -> Door:
        return self.shard.hosted[number]

    async def call(self, key: str, amount: int = 1) -> Any:
        operation = Operation("add", b"%d" % amount, call=True)
        return await self.router.places[0].request_once(key, operation, None)

    async def begin(self, key: str, name: str) -> None:
        message = Start("flow", None, b'"%b"' % name.encode())
        await self.router.places[0].request_once(key, message, None)


@asynccontextmanager
async def made(
    store: FaultyStore | None = None, *, hosted: tuple[int, ...] = (0, 1), **settings: Any
) -> AsyncGenerator[Made]:
    used = FaultyStore() if store is None else store
    one = Made(used, [*await used.open(2)], **settings)
    one.shard.start()
    with anyio.fail_after(20):
        async with TaskGroup() as tasks:
            tasks.start_soon(one.shard.run)
            await until_true(lambda: one.shard.keeper.is_running)
            try:
                for number in hosted:
                    await one.shard.host(number)
                yield one
            finally:
                one.router.close()
                tasks.cancel_scope.cancel()
    await used.close()


async def test_a_partition_that_is_hosted_is_served_and_found_here() -> None:
    async with made(hosted=(0,)) as one:
        assert one.router.places[0] is one.door()
        assert isinstance(one.router.places[1], Elsewhere)
        assert await one.call(A, 5) == b"5"
        assert [partition.index for partition in one.shard.partitions] == [0]

        await one.shard.host(0)  # it is there already

        assert one.router.places[0] is one.door()
        assert await one.call(A) == b"6"


async def test_what_cannot_be_brought_back_is_not_served() -> None:
    async with made(hosted=()) as one:
        one.store.faults.recover = disk_error()
        with pytest.raises(Exception, match="the disk fails"):
            await one.shard.host(0)
        one.store.faults.recover = None
        assert one.shard.hosted == {}

        await one.shard.host(0)

        assert await one.call(A) == b"1"


async def test_what_breaks_down_as_it_is_restored_is_not_served_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Awaitable[None]:
        raise disk_error()

    async with made(hosted=()) as one:
        with monkeypatch.context() as patched:
            patched.setattr(sharding, "resume", fail)
            with pytest.raises(Exception, match="the disk fails"):
                await one.shard.host(0)
        assert one.shard.hosted == {}
        assert isinstance(one.router.places[0], Elsewhere)


async def test_a_hub_that_stops_brings_no_partition_back() -> None:
    async with made(hosted=()) as one:
        one.router.close()

        with pytest.raises(HubStoppingError):
            await one.shard.host(0)

        assert one.store.faults.recoveries == 0


async def test_what_is_not_here_is_not_let_go() -> None:
    async with made(hosted=(0,)) as one:
        with pytest.raises(MovedError, match="partition 1 is not on shard 0"):
            await one.shard.let_go(1, 1)


async def test_a_partition_that_is_let_go_is_durable_and_closed_and_served_no_more() -> None:
    async with made() as one:
        await one.call(A, 5)
        door = one.door()

        handover = await one.shard.let_go(0, 1)

        assert handover == {"shard": 0, "replies": [], "abroad": []}
        assert isinstance(one.router.places[0], Elsewhere)
        with pytest.raises(MovedError):
            door.request(A, Operation("add", b"1"))
        await until_true(lambda: len(one.released) == 1)
        assert one.released[0] is one.inner[0]


async def test_what_cannot_be_made_durable_stays() -> None:
    async with made() as one:
        one.store.faults.commit = disk_error()

        with pytest.raises(Exception, match="the disk fails"):
            await one.shard.let_go(0, 1)
        one.store.faults.commit = None
        await until_true(lambda: one.door().partition.gate.reason is None)

        assert await one.call(A) == b"1"


async def test_whose_activities_run_here_is_told_to_the_next_host_and_the_answers_follow() -> None:
    async with made() as one:
        await one.begin(X, "hang")
        await until_true(lambda: len(one.shard.activities.begun) == 1)
        elsewhere: list[Any] = []

        handover = await one.shard.let_go(0, 1)

        def post_answer(*given: Any) -> None:
            elsewhere.append(given)

        place: Any = SimpleNamespace(post_answer=post_answer)
        one.router.places[0] = place
        [running] = one.shard.activities.begun
        one.shard.activities.report(running, "TaskCompleted", b"7")

        assert handover["abroad"] == [(0, [(X, 1, 1)])]
        await until_true(lambda: len(elsewhere) == 1)
        assert elsewhere[0][0] == X


async def test_an_activity_of_another_shard_is_told_to_stop_there() -> None:
    async with made(hosted=()) as one:
        caller = Caller(X, 1, 1)
        await one.shard.host(0, {"shard": 3, "replies": [], "abroad": [(3, [tuple(caller)])]})

        one.door().partition.calls.cancel(caller)

        assert one.posted == [(3, ("cancel", caller))]


async def test_activities_of_a_shard_that_died_run_here() -> None:
    store = FaultyStore()
    async with made(store) as one:
        await one.begin(X, "hang")
        await until_true(lambda: len(one.shard.activities.begun) == 1)
    callers = [(3, [(X, 1, 1)])]

    async with made(store, hosted=()) as one:
        await one.shard.host(0, {"shard": 3, "replies": [], "abroad": callers})
        assert one.shard.activities.count == 0  # it runs there

        await one.shard.died(3)

        await until_true(lambda: len(one.shard.activities.begun) == 1)
        assert one.door().partition.calls.abroad == {}


async def test_who_waits_for_a_shard_that_died_is_told_that_nobody_knows() -> None:
    async with made() as one:
        told = Told()
        one.shard.replies.expect(3, told)

        await one.shard.died(3)

        assert [type(error) for error in told.errors] == [OutcomeUnknownError]


async def test_who_waits_for_a_stored_message_is_answered_through_the_shard_that_was_left() -> None:
    store = FaultyStore()
    async with made(store) as one:
        await one.begin(X, "go")
        event = Event("go", b"7")
        event.keep = True
        partition = one.door().partition
        partition.activations[X].queued = True  # it takes no turn, so the event is stored
        partition.post(X, event)
        partition.batch.mail_deleted.append(0)
        await one.door().wait_durable()
        row = event.row
        assert row

    async with made(store, hosted=()) as one:
        await one.shard.host(0, {"shard": 3, "replies": [(row, 9)], "abroad": []})

        await until_true(lambda: len(one.posted) == 1)

        assert one.posted == [(3, ("reply", 9, None))]


async def test_actors_at_fault_are_parked_where_they_are_and_nowhere_else() -> None:
    async with made(hosted=(), crashes_max=3) as one:
        one.shard.at_fault = {A}
        for number in (0, 1):
            await one.shard.host(number)

        assert one.door(0).partition.crashes.in_a_row == {A: 3}
        assert one.door(1).partition.crashes.in_a_row == {}


async def test_the_parked_get_one_new_try_when_the_hub_starts() -> None:
    store = FaultyStore()
    async with made(store, crashes_max=1) as one:
        await one.call(A, 5)
        one.door().partition.crashes.bar(A)
        one.door().partition.catalog.drop(one.door().partition.activations[A])
        with pytest.raises(Exception, match="parked"):
            await one.call(A)

    async with made(store) as one:
        assert await one.call(A) == b"6"


async def test_the_hottest_and_the_fullest_actors_are_counted() -> None:
    async with made() as one:
        for _ in range(3):
            await one.call(A)
        await one.begin(X, "go")
        await one.router.places[0].request_once(X, Event("other", b"1"), None)

        counted = await count_partition(one.door().partition, 0, 1)
        none = await count_partition(one.door().partition, 0, 0)

        assert counted.hottest == ((A, 3),)
        assert counted.fullest == ((X, 1),)
        assert (counted.activations, counted.waiting) == (2, 1)
        assert (none.hottest, none.fullest) == ((), ())
        assert (await one.shard.count())["shard"]["partitions"] == (0, 1)
        _, loads = await one.shard.load()
        assert loads == [(0, counted.messages), (1, 0)]


async def test_a_shard_drains_until_all_is_quiet_and_durable() -> None:
    async with made() as one:
        waiters = [one.door().request(A, Operation("add", b"1")) for _ in range(5)]

        await one.shard.drain()

        commits = one.store.faults.commits
        for waiter in waiters:
            await waiter
        assert one.store.faults.commits == commits
        assert one.door().partition.activations[A].taken == 5


async def test_a_partition_may_leave_while_its_shard_drains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with made() as one:
        first, others, waits = one.door(), dict[int, Door](), Door.wait_durable

        def wait_and_leave(door: Door) -> Waiter:
            if door is first:
                others[1] = one.shard.hosted.pop(1)
            return waits(door)

        monkeypatch.setattr(Door, "wait_durable", wait_and_leave)
        await one.shard.drain()

        one.shard.hosted.update(others)
        assert others


async def test_what_does_not_end_in_time_is_named_and_takes_no_time_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with made(drain_s=0.02) as one:
        await one.begin(X, "hang")
        await until_true(lambda: len(one.shard.activities.begun) == 1)

        await one.shard.drain()
        began = anyio.current_time()
        await one.shard.drain()

        assert "1 activities and 0 operations did not end in time" in caplog.text
        assert "did not end in time: activity hang" in caplog.text
        assert caplog.text.count("did not end in time") == 2
        assert anyio.current_time() - began < 10


async def test_a_shard_that_ends_tells_everybody_who_waits() -> None:
    async with made() as one:
        await one.begin(X, "go")
        told, moved = Told(), Told()
        one.door().watch_with(X, told)
        one.shard.replies.expect(3, moved)

    assert [type(error) for error in told.errors] == [HubStoppingError]
    assert [type(error) for error in moved.errors] == [OutcomeUnknownError]


async def test_a_partition_that_was_lost_ends_the_hub_and_no_drain_waits_for_it() -> None:
    async with made() as one:
        error = UnavailableError("another has it")

        one.door().partition.stop(error)
        await one.shard.drain()

        assert one.fatal == [error]


async def test_answers_that_come_while_a_partition_comes_are_taken_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = FaultyStore()
    async with made(store) as one:
        await one.begin(X, "hang")

    async with made(store, hosted=()) as one:

        async def answer(partition: Any, *given: Any) -> None:
            partition.post_answer(X, Completion("TaskCompleted", 1, 1, b"7"))
            await resume(partition, *given)

        monkeypatch.setattr(sharding, "resume", answer)
        await one.shard.host(0)

        assert await one.router.places[0].wait_for_end(X) == ("Completed", b"7", None)
