"""Why instances and entities wait: what they wait for, where their code stands, and no effect."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from perdure import (
    App,
    EntityId,
    Hub,
    InstanceExplanation,
    InstanceNotFoundError,
    InvalidIdError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationHandle,
    RuntimeStatus,
    Settings,
    UsageError,
    Waited,
)
from perdure.runtime.facts import read_fact
from perdure.testing.inside import partitions_of
from tests.features.explained import (
    S,
    Slow,
    T,
    app,
    counts,
    fans_out,
    in_a_thread,
    leaves,
    let_go,
    locks,
    queue,
    retried,
    shop,
    shop_by_yield,
    stands,
)
from tests.runtime.harness import FaultyStore, partition_here, until, until_true
from tests.runtime.orchestrating import EVICTED, event_types, evict, quiet, running


@pytest.fixture(autouse=True)
def _held() -> Iterator[None]:
    let_go.clear()
    yield
    let_go.set()


@asynccontextmanager
async def holding(hub: Hub) -> AsyncGenerator[None]:
    """Let what is held go at the end, so that the hub need not wait for it."""
    try:
        yield
    finally:
        let_go.set()


def put_away(hub: Hub) -> None:
    """Take what is idle out of memory, though activities run."""
    for partition in partitions_of(hub):
        partition.catalog.evict(1_000_000)
        partition.catalog.evict(1_000_000)


def places(explanation: InstanceExplanation) -> dict[str, Any]:
    """The line at which each branch waits, by its function's name."""
    return {one.function.rpartition(".")[2]: one.place for one in explanation.branches}


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'hub'}"


@EVICTED
async def test_all_that_an_instance_waits_for_is_named_with_the_line_of_each_branch(
    evicted: bool, store: str
) -> None:
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub, holding(hub):
        handle = await hub.client.start_new(shop, instance_id="x")

        async def runs() -> bool:
            explanation = await handle.explain()
            entity = await hub.client.explain(S)
            is_running = [one.state for one in explanation.activities] == ["running"]
            return is_running and bool(entity.running)

        await until(runs)
        clock.advance(5)
        if evicted:
            put_away(hub)
        found = await handle.explain()

        assert (found.instance_id, found.name, found.runtime_status) == ("x", "shop", "Running")
        assert found.is_in_memory is not evicted
        assert found.code_trouble is None
        [activity] = found.activities
        assert (activity.name, activity.summary) == ("fetch", "take the money")
        assert (activity.attempt, activity.max_attempts, activity.shard) == (1, 3, 0)
        assert activity.started_at == activity.scheduled_at
        assert [(one.purpose, (one.due - one.created_at).seconds) for one in found.timers] == [
            ("deadline", 3600),
            ("event_timeout", 1800),
            ("timer", 3600),
        ]
        [event] = found.events
        assert (event.name, event.since) == ("approve", activity.scheduled_at)
        assert event.times_out_at == found.timers[1].due
        assert [(one.instance_id, one.name) for one in found.children] == [("the child", "child")]
        assert [(one.entity_id, one.operation) for one in found.entity_calls] == [(S, "work")]
        kinds = {"activities": 1, "timers": 3, "children": 1, "entity_calls": 1, "events": 1}
        assert found.counts == {**kinds, "unconsumed_events": 0}
        lines = places(found)
        assert stands(lines["shop"], "the group")
        assert stands(lines["charge"] if "charge" in lines else lines["pay"], "the activity")
        assert stands(lines["ask"], "the event")
        assert stands(lines["ship"], "the child")


@EVICTED
async def test_a_branch_is_told_with_what_it_awaits_inside_and_what_for(evicted: bool) -> None:
    async with running(app) as hub, holding(hub):
        handle = await hub.client.start_new(shop, instance_id="x")
        if evicted:
            put_away(hub)
        root, pay, ask, ship = (await handle.explain()).branches

        assert [line.function.rpartition(".")[2] for line in pay.lines] == ["pay", "charge"]
        assert [(one.number, one.parent) for one in (root, pay, ask, ship)] == [
            (0, None),
            (1, 0),
            (2, 0),
            (3, 0),
        ]
        assert root.waits_for is not None
        assert (root.waits_for.kind, root.waits_for.branches) == ("branches", (1, 2, 3))
        assert pay.waits_for == waited("activity", 1, "fetch")
        assert ask.waits_for is not None
        assert ask.waits_for.kind == "any"
        assert ask.waits_for.parts == (waited("event", None, "approve"), waited("timer", 4, ""))
        assert (root.deadline, ask.deadline is not None) == (None, True)
        assert ship.waits_for is not None
        assert ship.waits_for.parts == (
            waited("child", 5, "the child"),
            waited("entity", 6, "@slow@s.work"),
        )


def waited(kind: Any, task_id: int | None, name: str) -> Waited:
    return Waited(kind=kind, task_id=task_id, name=name, count=1, parts=(), branches=())


@EVICTED
async def test_a_generator_is_told_with_what_it_delegates_to(evicted: bool, store: str) -> None:
    async with running(app, store) as hub:
        handle = await hub.client.start_new(shop_by_yield)
        await quiet(hub)
        if evicted:
            await evict(hub)
        found = await handle.explain()

        [branch] = found.branches
        assert stands(branch.lines[0], "the generator")
        assert stands(branch.lines[1], "inside of it")
        assert branch.waits_for == waited("event", None, "approve")
        assert found.is_in_memory is not evicted


@EVICTED
async def test_a_call_between_two_attempts_is_told_with_the_next_and_the_last_failure(
    evicted: bool,
) -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        handle = await hub.client.start_new(retried)
        await quiet(hub)
        clock.advance(60)
        await quiet(hub)
        if evicted:
            await evict(hub)
        found = await handle.explain()

        [activity] = found.activities
        assert (activity.state, activity.attempt, activity.max_attempts) == ("retrying", 2, 3)
        assert activity.last_failure is not None
        assert activity.last_failure.message == "it is broken"
        [timer] = found.timers
        assert (timer.purpose, timer.due) == ("retry", activity.next_attempt_at)
        [branch] = found.branches
        assert stands(branch.place, "the retries")
        assert branch.waits_for is not None
        assert (branch.waits_for.kind, branch.waits_for.name) == ("activity", "fails")


@EVICTED
async def test_what_an_instance_left_behind_is_told_when_it_has_ended(evicted: bool) -> None:
    async with running(app) as hub, holding(hub):
        handle = await hub.client.start_new(leaves)
        assert await handle.result(10) == "done"

        async def runs() -> bool:
            return [one.state for one in (await handle.explain()).activities] == ["running"]

        await until(runs)
        if evicted:
            put_away(hub)
        found = await handle.explain()

        [activity] = found.activities
        assert (activity.name, activity.scheduled_at) == ("fetch", None)
        assert found.runtime_status == RuntimeStatus.COMPLETED


async def test_code_that_has_crashed_its_turn_is_not_run_to_be_looked_at() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(shop_by_yield, instance_id="x")
        await quiet(hub)
        await evict(hub)
        partition_here(hub, "x").crashes.in_a_row["x"] = 1
        found, trace = await handle.explain(), await hub.client.trace("x")

        for trouble in (found.code_trouble, trace.code_trouble):
            assert trouble is not None
            assert "crashed" in trouble
        assert (found.branches, found.counts["activities"]) == ((), 0)


async def test_waiting_for_a_place_is_told_from_running() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub, holding(hub):
        first = await hub.client.start_new(queue)

        async def runs() -> bool:
            return (await first.explain()).activities[0].state == "running"

        await until(runs)
        clock.advance(7)
        second = await hub.client.start_new(queue)
        [runs_first], [waits] = [(await one.explain()).activities for one in (first, second)]

        assert (waits.state, waits.started_at, waits.shard) == ("waiting", None, 0)
        assert runs_first.started_at is not None
        assert waits.scheduled_at is not None
        assert (waits.scheduled_at - runs_first.started_at).seconds == 7


async def test_an_answer_says_when_its_attempt_began_and_where_it_ran() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        first = await hub.client.start_new(queue)
        second = await hub.client.start_new(queue)

        async def runs() -> bool:
            return (await first.explain()).activities[0].state == "running"

        await until(runs)
        clock.advance(7)
        let_go.set()
        await first.result(10)
        await second.result(10)
        fields = [(await one.history())[2].fields for one in (first, second)]

        assert [one["shard"] for one in fields] == [0, 0]
        assert (fields[1]["started"] - fields[0]["started"]).seconds == 7


async def test_an_answer_of_a_thread_says_when_it_began_and_one_of_no_wait_only_where() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub:
        threads = await hub.client.start_new(in_a_thread)
        at_once = await hub.client.start_new(counts, 1)
        await threads.result(10)
        await quiet(hub)
        [one, other] = [(await each.history())[2] for each in (threads, at_once)]

        assert (one.fields["started"], one.fields["shard"]) == (one.timestamp, 0)
        assert (other.fields["started"], other.fields["shard"]) == (None, 0)


@EVICTED
async def test_a_lock_that_is_asked_for_has_a_holder_and_a_place_in_the_queue(
    evicted: bool, store: str
) -> None:
    async with running(app, store) as hub:
        handles: list[OrchestrationHandle[None]] = []
        for name in ("first", "second", "third"):
            handles.append(await hub.client.start_new(locks, instance_id=name))
            await quiet(hub)
        if evicted:
            await evict(hub)
        found = [(await one.explain()).lock for one in handles]
        entity = await hub.client.explain(S)

        assert [one and (one.is_granted, one.waits_at, one.holder, one.place) for one in found] == [
            (True, None, None, None),
            (False, S, "first", 1),
            (False, S, "first", 2),
        ]
        assert found[0] is not None
        assert found[0].entities == (S, T)
        assert (entity.locked_by, entity.lock_waiters) == ("first", ("second", "third"))
        assert entity.lock_waiter_count == entity.backlog == 2
        [branch] = (await handles[1].explain()).branches
        assert stands(branch.place, "the lock")


async def test_an_entity_is_told_with_what_it_runs_and_what_waits() -> None:
    clock = ManualClock()
    async with running(app, clock=clock) as hub, holding(hub):
        await hub.client.signal_entity(S, Slow.work)
        for n in range(3):
            await hub.client.signal_entity(S, Slow.add, n)

        async def runs() -> bool:
            return bool((await hub.client.explain(S)).running)

        await until(runs)
        clock.advance(3)
        found = await hub.client.explain(S)
        none = await hub.client.explain(T)

        [operation] = found.running
        assert (operation.name, operation.is_readonly) == ("work", False)
        assert operation.since is not None
        assert (found.backlog, found.exists, found.is_in_memory) == (4, False, True)
        assert (none.backlog, none.exists, none.is_in_memory, none.running) == (0, False, False, ())


@EVICTED
async def test_why_an_instance_takes_no_turns_is_told_with_what_waits_for_it(
    evicted: bool, store: str
) -> None:
    clock = ManualClock()
    async with running(app, store, clock=clock) as hub:
        suspended = await hub.client.start_new(shop_by_yield)
        await quiet(hub)
        await suspended.suspend("for lunch")
        for _ in range(3):
            await suspended.raise_event("approve")
        scheduled = await hub.client.start_new(shop_by_yield, start_at=60)
        await quiet(hub)
        if evicted:
            put_away(hub)

        one, two = await suspended.explain(), await scheduled.explain()

        assert (one.runtime_status, one.suspended) == (RuntimeStatus.SUSPENDED, "for lunch")
        assert (one.backlog, one.counts["events"]) == (3, 1)
        assert stands(one.branches[0].place, "inside of it")
        assert two.runtime_status == RuntimeStatus.PENDING
        assert two.start_at is not None
        assert (two.branches, two.code_trouble) == ((), None)


@app.orchestration
async def names(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("PaymentDone")


@EVICTED
async def test_events_that_nothing_waits_for_are_named(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(shop_by_yield)
        await handle.raise_event("aprove")
        await handle.raise_event("aprove")
        await quiet(hub)
        if evicted:
            await evict(hub)
        found = await handle.explain()

        assert found.unconsumed_events == ("aprove", "aprove")
        assert found.counts["unconsumed_events"] == 2


@EVICTED
async def test_events_are_named_as_the_code_has_them(evicted: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(names)
        await quiet(hub)
        if evicted:
            await evict(hub)
        found = await handle.explain()
        trace = await hub.client.trace(handle.instance_id)
        await handle.raise_event("PAYMENTdone")

        await handle.result(10)
        assert [one.name for one in found.events] == ["PaymentDone"]
        assert found.branches[0].waits_for is not None
        assert found.branches[0].waits_for.name == "PaymentDone"
        assert [one.name for one in trace.steps[-1].open] == ["PaymentDone"]


async def test_what_has_ended_waits_for_nothing_and_what_is_not_there_is_not_found() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(counts, 2)
        await quiet(hub)
        await handle.raise_event("go")
        await handle.result(10)
        found = await handle.explain()

        assert found.runtime_status == RuntimeStatus.COMPLETED
        assert (found.branches, found.activities, found.events) == ((), (), ())
        with pytest.raises(InstanceNotFoundError):
            await hub.client.explain("nobody")
        with pytest.raises(InstanceNotFoundError):
            await hub.client.trace("nobody")
        with pytest.raises(InvalidIdError):
            await hub.client.explain("@slow@s")
        with pytest.raises(UsageError):
            await hub.client.explain(3)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


def changed(*, is_missing: bool) -> App:
    """The application with other code for the instances, or with none."""
    other = App()

    if not is_missing:

        @other.orchestration(name="counts")
        async def counts_otherwise(ctx: OrchestrationContext, n: int) -> None:
            await ctx.wait_for_external_event("other")
            ctx.create_timer(1)

    return other


@pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "other"])
async def test_where_the_code_is_missing_or_another_it_is_said_and_the_rest_is_told(
    is_missing: bool,
) -> None:
    store = MemoryStore()
    async with running(app, store) as hub, holding(hub):
        await hub.client.start_new(counts, 1, instance_id="x")
        await quiet(hub)

    async with running(changed(is_missing=is_missing), store) as hub:

        async def parked() -> bool:
            return (await hub.client.explain("x")).parked is not None or not is_missing

        await until(parked)
        found = await hub.client.explain("x")
        put_away(hub)
        aside = await hub.client.explain("x")
        trace = await hub.client.trace("x")

        for one in (found, aside):
            assert one.branches == ()
            assert one.code_trouble is not None
            words = "no orchestration" if is_missing else "recorded"
            assert words in one.code_trouble
        assert aside.is_in_memory is False
        assert trace.code_trouble is not None
        assert [step.event_type for step in trace.steps][:2] == [
            "ExecutionStarted",
            "TaskScheduled",
        ]


def contents(place: Path) -> str:
    """A digest of all that a store's folder holds."""
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.name.endswith("-shm"):  # marks of who reads
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def rows_of(store: MemoryStore) -> str:
    """All that a memory store holds."""
    return repr([vars(rows) if hasattr(rows, "__dict__") else rows for rows in store.rows])


@pytest.mark.by_turns
@EVICTED
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_to_explain_has_no_effect(evicted: bool, kind: str, tmp_path: Path) -> None:
    place = tmp_path / "hub"
    histories: list[Any] = []
    for looks in (False, True):
        store: Any = MemoryStore() if kind == "memory" else f"sqlite:{place}-{looks}"
        clock = ManualClock()
        async with running(app, store, clock=clock) as hub:
            let_go.clear()
            handle = await hub.client.start_new(shop, instance_id="x")
            other = await hub.client.start_new(counts, 5, instance_id="y")

            async def settled(other: OrchestrationHandle[int] = other) -> bool:
                answered = (await event_types(other)).count("TaskCompleted") == 5
                return answered and await hub.client.get_status("the child") is not None

            await until(settled)
            while any(not partition.is_quiet for partition in partitions_of(hub)):
                await anyio.sleep(0.001)
            if evicted:
                put_away(hub)
            before = await figures(hub)
            if looks:
                for _ in range(3):
                    await handle.explain()
                    await other.explain()
                    await hub.client.explain(S)
                    await hub.client.trace("x")
                    await hub.client.trace("y")
                assert await figures(hub) == before
            let_go.set()
            await handle.raise_event("approve", True)
            await hub.client.raise_event("the child", "grown up")
            await other.raise_event("go")
            await handle.result(10)
            assert await other.result(10) == 10
            kinds = [
                [(e.event_type, e.timestamp, e.fields) for e in await one.history()]
                for one in (handle, other)
            ]
            histories.append([sorted(map(repr, one)) for one in kinds])

    assert histories[0] == histories[1]


async def figures(hub: Hub) -> list[tuple[Any, ...]]:
    """What a hub counts, and who is in memory in it."""
    return [
        (
            one.commits,
            one.turns,
            one.messages,
            one.sequence,
            one.waiting,
            sorted(one.activations),
            {key: (each.used, each.taken) for key, each in one.activations.items()},
            one.batch.has_rows,
        )
        for one in partitions_of(hub)
    ]


@pytest.mark.by_turns
async def test_to_explain_writes_nothing_to_the_store(tmp_path: Path) -> None:
    place = tmp_path / "hub"
    async with running(app, f"sqlite:{place}") as hub:
        for n in range(5):
            await hub.client.start_new(shop_by_yield, instance_id=f"{n}")
        await quiet(hub)
        await evict(hub)
        # What was committed comes into the tables by and by, whoever looks.
        for partition in partitions_of(hub):
            await partition.store.apply()
            await partition.store.apply()
        before = contents(place)
        for n in range(5):
            await hub.client.explain(f"{n}")
            await hub.client.trace(f"{n}")
        await hub.client.explain(S)

        assert contents(place) == before
        assert not any(partition.activations for partition in partitions_of(hub))


async def test_a_memory_store_is_as_before() -> None:
    store = MemoryStore()
    async with running(app, store) as hub:
        await hub.client.start_new(shop_by_yield, instance_id="x")
        await quiet(hub)
        await evict(hub)
        before = rows_of(store)
        await hub.client.explain("x")
        await hub.client.trace("x")

        assert rows_of(store) == before


async def test_an_instance_whose_history_is_damaged_is_told_without_it() -> None:
    store = MemoryStore()
    async with running(app, store, partitions=1) as hub:
        handle = await hub.client.start_new(locks, instance_id="x")
        await quiet(hub)
        await evict(hub)
        [rows] = store.rows
        rows.history[rows.ids["x"]].clear()
        aside = await handle.explain()
        await handle.raise_event("go")  # which loads it, and has it parked
        await quiet(hub)
        parked = await handle.explain()

        for one in (aside, parked):
            assert one.code_trouble is not None
            assert "events" in one.code_trouble
            assert one.branches == ()
        assert parked.parked is not None
        assert (parked.parked.type, parked.backlog) == ("StoreDamagedError", 1)


async def test_what_is_told_is_durable() -> None:
    store, gate = FaultyStore(), anyio.Event()
    told: list[InstanceExplanation] = []
    before: list[InstanceExplanation] = []

    async def hold(_: object) -> None:
        await gate.wait()

    async with running(app, store) as hub, anyio.create_task_group() as tasks:
        handle = await hub.client.start_new(locks, instance_id="x")
        await quiet(hub)
        store.faults.before_commit = hold
        partition = partition_here(hub, "x")

        async def explain() -> None:
            told.append(await handle.explain())

        tasks.start_soon(handle.raise_event, "misspelt")
        await until_true(lambda: partition.activations["x"].events == 1)
        tasks.start_soon(explain)
        for _ in range(50):
            await checkpoint()
        before += told
        store.faults.before_commit = None
        gate.set()

    assert before == []
    assert [one.unconsumed_events for one in told] == [("misspelt",)]


@pytest.mark.by_turns
async def test_of_much_the_first_is_listed_and_all_is_counted() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(fans_out, 3_000)
        await quiet(hub)
        found = await handle.explain()
        await evict(hub)
        aside = await handle.explain()

        assert (len(found.timers), found.counts["timers"]) == (500, 3_000)
        assert found.branches[0].waits_for is not None
        assert (found.branches[0].waits_for.count, len(found.branches[0].waits_for.parts)) == (
            3_000,
            20,
        )
        assert aside.to_dict() == {**found.to_dict(), "is_in_memory": False}


async def test_an_explanation_comes_back_from_its_json_values() -> None:
    async with running(app) as hub, holding(hub):
        handle = await hub.client.start_new(shop)
        found = await handle.explain()

        assert read_fact(InstanceExplanation, found.to_dict()) == found


@pytest.mark.by_turns
@pytest.mark.parametrize("workers", [0, 1])
async def test_a_partition_elsewhere_is_asked_the_same(workers: int, tmp_path: Path) -> None:
    hub = Hub(
        "tests.features.explained:app",
        store=f"sqlite:{tmp_path / 'hub'}",
        partitions=2,
        workers=workers,
        shards=1 if workers else 2,
        settings=Settings(drain_s=0.2),
    )
    with anyio.fail_after(60):
        async with hub, holding(hub):
            handle = await hub.client.start_new(shop_by_yield)
            held = await hub.client.start_new("queue")

            async def waits() -> bool:
                found = await handle.explain()
                activities = (await held.explain()).activities
                return bool(found.events) and activities[0].state == "running"

            await until(waits)
            found = await handle.explain()
            trace = await hub.client.trace(handle.instance_id)
            entity = await hub.client.explain(EntityId("slow", "s"))

    assert stands(found.branches[0].place, "inside of it")
    assert stands(trace.steps[-1].branches[0].place, "inside of it")
    assert entity.exists is False
