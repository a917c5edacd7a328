"""Nothing of ours holds a loop where a store holds much: pages, purges, retention, recovery, replay."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint

from perdure import (
    App,
    EntityId,
    Hub,
    MemoryStore,
    OrchestrationContext,
    Settings,
    SqliteStore,
    Store,
)
from perdure.actors.messages import Operation, encode_message
from perdure.storage import Checkpoint
from perdure.storage.records import ChunkRow, CreatedRow, EntityRow, MailRow, ProgressRow
from tests.runtime.stretches import BOUND_S, MEASURED, Stretches, measured

pytestmark = MEASURED

COUNT = 20_000
STATE = b'{"value":1}'

app = App()


class Measure:
    """The stretches of the test that runs."""

    stretches: Stretches


measure = Measure()


@app.orchestration
async def wait(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def fan_out_and_wait(ctx: OrchestrationContext, count: int) -> int:
    theirs = measure.stretches.theirs
    with theirs():
        tasks = ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    numbers = await tasks
    with theirs():
        total = sum(numbers)
    await ctx.wait_for_external_event("go")
    return total


@app.orchestration
async def fan_out(ctx: OrchestrationContext, count: int) -> int:
    theirs = measure.stretches.theirs
    with theirs():
        tasks = ctx.task_all([ctx.call_activity(work, number) for number in range(count)])
    numbers = await tasks
    with theirs():
        return sum(numbers)


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> None:
        self.value += amount


@pytest.fixture
async def stretches() -> AsyncGenerator[Stretches]:
    """What is measured of the loop that the test runs on."""
    with measured() as measure.stretches:
        yield measure.stretches


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of one partition."""
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path)


async def fill(store: Store, **rows: Any) -> None:
    """Have the store hold some rows."""
    await fill_each(store, [rows])


async def fill_each(store: Store, rows: list[dict[str, Any]]) -> None:
    """Have each partition of a store hold some rows."""
    for partition, some in zip(await store.open(len(rows)), rows, strict=True):
        recovered = await partition.recover()
        await partition.commit(Checkpoint(sequence=1, epoch=recovered.epoch, **some))
        await partition.apply()
    await store.close()


def instances(status: str, count: int = COUNT) -> dict[str, Any]:
    """The rows of many instances, which did nothing yet, or have ended."""
    ended = None if status == "Pending" else 1
    numbers = range(1, count + 1)
    created = [
        CreatedRow(n, f"i{n:06}", "wait", None, 1, n, None, 0, 0, None, None, None) for n in numbers
    ]
    progress = [
        ProgressRow(n, status, n, ended, 0, 0, None, None, None, None, None) for n in numbers
    ]
    return {"created": created, "progress": progress}


def hub_of(store: Store, **options: Any) -> Hub:
    return Hub(app, store=store, partitions=1, rebalance=None, **options)


@pytest.mark.by_turns
async def test_neither_a_page_nor_a_count_of_many_instances_holds_its_loop(
    store: Store, stretches: Stretches
) -> None:
    await fill(store, **instances("Completed"))
    async with hub_of(store) as hub:
        stretches.begin_anew()

        page = await hub.client.query_page(page_size=10_000)
        newest = await hub.client.query_page(page_size=10_000, order="newest")
        count = await hub.client.count(statuses=["Completed"])

        assert [one.instance_id for one in page.items] == [f"i{n:06}" for n in range(1, 10_001)]
        assert newest.items[0].instance_id == f"i{COUNT:06}"
        assert count == COUNT
        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("store", "many"),
    [
        ("memory", COUNT),
        pytest.param("memory", 160_000, marks=pytest.mark.slow),
        pytest.param("sqlite", 100_000, marks=pytest.mark.slow),
    ],
    indirect=["store"],
)
async def test_a_page_that_many_partitions_have_parts_of_does_not_hold_its_loop(
    store: Store, many: int, stretches: Stretches
) -> None:
    parts: list[dict[str, Any]] = [
        {"entities": [], "created": [], "progress": []} for _ in range(16)
    ]
    for n in range(1, many + 1):
        rows = parts[n % 16]
        rows["entities"].append(EntityRow(n, "counter", f"{n:06}", n, STATE, None, None, None))
        made = CreatedRow(n, f"i{n:06}", "wait", None, 1, n, None, 0, 0, b'{"a":"b"}', None, None)
        rows["created"].append(made)
        rows["progress"].append(
            ProgressRow(n, "Completed", n, 1, 0, 0, None, None, None, None, None)
        )
    await fill_each(store, parts)
    with stretches.theirs():
        del parts
    async with Hub(app, store=store, partitions=16, rebalance=None) as hub:
        stretches.begin_anew()

        entities = await hub.client.query_entities_page(page_size=10_000)
        stateless = await hub.client.query_entities_page(page_size=10_000, states=False)
        newest = await hub.client.query_page(page_size=10_000, order="newest", tags={"a": "b"})
        count = await hub.client.count(tags={"a": "b"})
        await checkpoint()  # the stretch ends with the turn of the loop

        assert stretches.longest_s < stretches.bound_s
        assert [one.entity_id.key for one in entities.items] == [
            f"{n:06}" for n in range(1, 10_001)
        ]
        assert len(stateless.items) == 10_000
        assert [one.instance_id for one in newest.items] == [
            f"i{many - n:06}" for n in range(10_000)
        ]
        assert count == many


@pytest.mark.by_turns
async def test_a_purge_of_many_instances_does_not_hold_its_loop(
    store: Store, stretches: Stretches
) -> None:
    await fill(store, **instances("Completed"))
    async with hub_of(store) as hub:
        stretches.begin_anew()

        assert await hub.client.purge(statuses=["Completed"]) == COUNT

        assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns("trio")
async def test_retention_of_many_instances_does_not_hold_its_loop(stretches: Stretches) -> None:
    store = MemoryStore()
    await fill(store, **instances("Completed"))
    stretches.begin_anew()

    async with hub_of(store, retention={"Completed": 0}) as hub:
        with anyio.fail_after(60):
            while await hub.client.count():
                await anyio.sleep(0.02)

    assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns
async def test_many_live_instances_do_not_hold_the_loop_of_a_hub_that_starts(
    store: Store, stretches: Stretches
) -> None:
    await fill(store, **instances("Pending", 2 * COUNT))
    stretches.begin_anew()

    async with hub_of(store) as hub:
        assert await hub.client.count(statuses=["Pending"]) == 2 * COUNT

    assert stretches.longest_s < stretches.bound_s


@pytest.mark.by_turns("trio")
@pytest.mark.parametrize("count", [COUNT, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_stored_messages_do_not_hold_the_loop_of_a_hub_that_starts(
    store: Store, stretches: Stretches, count: int
) -> None:
    body = encode_message(Operation("add", b"1"))
    mail = [MailRow(n, f"@counter@{n % 100}", body) for n in range(1, count + 1)]
    await fill(store, mail=mail)
    del mail
    stretches.begin_anew()

    async with hub_of(store) as hub:
        with anyio.fail_after(60):
            while (await value(hub, 0), await value(hub, 99)) != (count // 100, count // 100):
                await anyio.sleep(0.02)

    assert stretches.longest_s < stretches.bound_s


async def value(hub: Hub, number: int) -> int:
    counter = await hub.client.read_entity_state(EntityId(Counter, str(number)))
    return 0 if counter is None else counter.value


@pytest.mark.by_turns
@pytest.mark.parametrize("count", [COUNT, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_the_replay_of_a_long_history_does_not_hold_its_loop(
    tmp_path: Path, stretches: Stretches, count: int
) -> None:
    store = SqliteStore(tmp_path)
    async with hub_of(store) as hub:
        handle = await hub.client.start_new(fan_out_and_wait, count, instance_id="long")
        with anyio.fail_after(60):
            while len(await handle.history()) < 2 * count + 1:
                await anyio.sleep(0.1)
    longest: list[float] = []

    # Twice, since what is freed here may be of the pages that a busy machine is short of.
    for event in ("other", "go"):
        stretches.begin_anew()
        async with hub_of(store) as hub:
            await hub.client.raise_event("long", event)
            events = await hub.client.get_history("long")
            with stretches.theirs():  # it takes long to free what the test has asked for
                assert len(events) > 2 * count + 1
                del events
        longest.append(stretches.longest_s)

    assert min(longest) < BOUND_S


def long_history(count: int, end: str = "Running") -> dict[str, Any]:
    """The rows of an instance that called so many activities, all of which have answered."""
    events: list[list[Any]] = [["ExecutionStarted", 1, "fan_out_and_wait", None, 1, None]]
    for number in range(1, count + 1):
        given = crc32(orjson.dumps(number - 1))
        called = ["TaskScheduled", 1, number, "work", given, [number - 1], None, 1, None, number]
        events.append(called)
    events += [["TaskCompleted", 2, number, number - 1] for number in range(1, count + 1)]
    chunks = [
        ChunkRow(1, start, orjson.dumps(events[start : start + 1_000]))
        for start in range(0, len(events), 1_000)
    ]
    created = CreatedRow(
        1, "long", "fan_out_and_wait", None, 1, 1, None, 0, 0, None, b"%d" % count, None
    )
    progress = ProgressRow(1, end, 1, None, 0, len(events), None, None, None, None, None)
    return {"created": [created], "progress": [progress], "history": chunks}


@pytest.mark.by_turns
@pytest.mark.parametrize("count", [COUNT, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_reading_all_of_a_long_history_does_not_hold_the_loop(
    count: int, stretches: Stretches
) -> None:
    store = MemoryStore()
    await fill(store, **long_history(count, "Completed"))
    async with hub_of(store) as hub:
        await hub.client.get_history("long")
        stretches.begin_anew()

        events = await hub.client.get_history("long")
        await checkpoint()  # the stretch ends with the turn of the loop

        assert stretches.longest_s < stretches.bound_s
        assert len(events) == 2 * count + 1


@pytest.mark.by_turns
async def test_activities_of_a_long_history_that_run_again_do_not_hold_the_loop(
    stretches: Stretches,
) -> None:
    store = MemoryStore()
    events: list[list[Any]] = [["ExecutionStarted", 1, "fan_out", None, 1, None]]
    for number in range(1, COUNT + 1):
        given = crc32(orjson.dumps(number - 1))
        events.append(
            ["TaskScheduled", 1, number, "work", given, [number - 1], None, 1, None, number]
        )
    chunks = [
        ChunkRow(1, start, orjson.dumps(events[start : start + 1_000]))
        for start in range(0, len(events), 1_000)
    ]
    created = CreatedRow(1, "long", "fan_out", None, 1, 1, None, 0, 0, None, b"%d" % COUNT, None)
    progress = ProgressRow(1, "Running", 1, None, COUNT, len(events), None, None, None, None, None)
    await fill(store, created=[created], progress=[progress], history=chunks)
    del events, chunks
    stretches.begin_anew()

    async with hub_of(store) as hub:
        assert await hub.client.get_handle("long").result() == COUNT * (COUNT - 1) // 2

    assert stretches.longest_s < stretches.bound_s


@app.activity
async def rest(number: int) -> None:
    await anyio.sleep_forever()


@app.orchestration
async def rest_once(ctx: OrchestrationContext, number: int) -> None:
    await ctx.call_activity(rest, number)


@pytest.mark.by_turns
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_instances_with_an_activity_each_do_not_hold_the_loop_of_a_hub_that_starts(
    stretches: Stretches, count: int
) -> None:
    store = MemoryStore()
    called = ["TaskScheduled", 1, 1, "rest", crc32(b"1"), [1], None, 1, None, 1]
    events = orjson.dumps([["ExecutionStarted", 1, "rest_once", None, 1, None], called])
    numbers = range(1, count + 1)
    created = [
        CreatedRow(n, f"i{n:06}", "rest_once", None, 1, n, None, 0, 0, None, b"1", None)
        for n in numbers
    ]
    progress = [
        ProgressRow(n, "Running", n, None, 1, 2, None, None, None, None, None) for n in numbers
    ]
    history = [ChunkRow(n, 0, events) for n in numbers]
    await fill(store, created=created, progress=progress, history=history)
    with stretches.theirs():
        del created, progress, history
    stretches.begin_anew()

    async with hub_of(store, settings=Settings(drain_s=0.1)) as hub:
        found = await hub.client.explain("i000001")
        assert found.counts["activities"] == 1

        assert stretches.longest_s < stretches.bound_s
