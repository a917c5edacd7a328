from __future__ import annotations

from time import perf_counter
from typing import Any

import anyio
import pytest

from perdure import EntityId, MemoryStore, UnavailableError, UsageError
from perdure.storage import Checkpoint
from perdure.testing import TestHub
from perdure.testing.store import CrashedError, Faults, FaultyStore
from tests.faults import content, within
from tests.testing.shop import Stock, app

BOOK = EntityId(Stock, "book")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_commit_that_is_named_fails(when: Any) -> None:
    async with within(), TestHub(app) as hub:
        hub.faults.fail_commit(2, when=when)
        answers: list[object] = []
        for _ in range(3):
            try:
                answers.append(await hub.client.call_entity(BOOK, Stock.take))
            except UnavailableError:
                answers.append("nothing happened")

        assert answers == [9, "nothing happened", 8] if when == "before" else [9, 8, 7]


async def test_several_faults_come_each_at_its_commit() -> None:
    async with within(), TestHub(app) as hub:
        hub.faults.fail_commit(1)
        hub.faults.crash_commit(3)
        failed = 0
        for _ in range(4):
            try:
                await hub.client.call_entity(BOOK, Stock.take)
            except UnavailableError:
                failed += 1

        state = await hub.client.read_entity_state(BOOK)
        assert failed == 1
        assert state is not None
        assert state.items == 7


async def test_slow_commits_take_their_time() -> None:
    async with within(), TestHub(app) as hub:
        await hub.client.call_entity(BOOK, Stock.take)
        hub.faults.slow_commits(0.05)
        began = perf_counter()

        await hub.client.call_entity(BOOK, Stock.take)
        slow = perf_counter() - began
        await hub.client.signal_entity(BOOK, Stock.take)
        hub.faults.slow_commits(0)

    assert slow >= 0.05


async def test_quiet_waits_for_a_slow_commit() -> None:
    async with within(), TestHub(app) as hub:
        hub.faults.slow_commits(0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.client.signal_entity, BOOK, Stock.take)
            await anyio.lowlevel.checkpoint()
            await hub.quiet()
            state = await hub.client.read_entity_state(BOOK)
            assert state is not None
            assert state.items == 9


async def test_a_crash_in_a_slow_commit_leaves_it_undone_or_done() -> None:
    for delay in (0.0, 0.005, 0.02):
        async with within(), TestHub(app) as hub:
            hub.faults.slow_commits(0.01)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.client.call_entity, BOOK, Stock.take)
                await anyio.sleep(delay)
                await hub.crash()
            state = await hub.client.read_entity_state(BOOK)
            assert state is not None
            assert state.items == 9


async def test_a_life_that_has_ended_reaches_the_rows_no_more() -> None:
    inner, faults = MemoryStore(), Faults()
    store = FaultyStore(inner, faults)
    first = (await store.open(1))[0]
    recovered = await first.recover()
    second = (await store.open(1))[0]
    checkpoint = Checkpoint(recovered.sequence + 1, recovered.epoch)

    with pytest.raises(CrashedError):
        await first.commit(checkpoint)
    with pytest.raises(CrashedError):
        await first.read_instances(["a"])

    assert content(inner).sequences == [0]
    assert (await second.recover()).sequence == 0
    await store.close()


async def test_a_store_is_opened_again_when_the_last_life_stores_nothing_more() -> None:
    class SlowStore(MemoryStore):
        async def open(self, partitions: int) -> Any:
            order.append("opened")
            opened = await super().open(partitions)
            inner = opened[0]
            commit = inner.commit

            async def slow(checkpoint: Checkpoint) -> None:
                await going_on.wait()
                await commit(checkpoint)
                order.append("committed")

            inner.commit = slow  # type: ignore[method-assign]
            return opened

    order: list[str] = []
    going_on = anyio.Event()
    store = FaultyStore(SlowStore(), Faults())
    first = (await store.open(1))[0]
    recovered = await first.recover()

    async def commit() -> None:
        with pytest.raises(CrashedError):
            await first.commit(Checkpoint(recovered.sequence + 1, recovered.epoch))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commit)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(store.open, 1)
        await anyio.wait_all_tasks_blocked()
        going_on.set()

    assert order == ["opened", "committed", "opened"]
    await store.close()


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("fail_commit", {"n": 0}),
        ("fail_commit", {"n": "1"}),
        ("fail_commit", {"when": "during"}),
        ("crash_commit", {"n": -1}),
        ("lose_answers", {"n": 0}),
        ("slow_commits", {"seconds": -1}),
    ],
)
def test_a_fault_that_cannot_be_is_refused(method: str, given: dict[str, Any]) -> None:
    faults = Faults()

    with pytest.raises(UsageError):
        getattr(faults, method)(**given)
    assert faults.begin_commit() is None
    assert not faults.takes_answer()
