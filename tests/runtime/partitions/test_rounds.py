from __future__ import annotations

import anyio
import pytest
from anyio import create_task_group, fail_after
from anyio.lowlevel import checkpoint

from perdure import App, EntityId, Hub, MemoryStore
from perdure.runtime.partitions import rounds
from perdure.runtime.partitions.rounds import Rounds
from perdure.runtime.placement.hashing import partition_of
from perdure.runtime.scheduling.waiter import waiter_factory
from tests.faults import FaultyStore

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


def in_partition(number: int, partitions: int) -> EntityId[Counter]:
    for n in range(1000):
        entity = EntityId(Counter, str(n))
        if partition_of(str(entity), partitions) == number:
            return entity
    raise AssertionError("no key of a thousand is there")


@pytest.fixture
async def shared() -> Rounds:
    return Rounds(waiter_factory())


async def turns() -> None:
    for _ in range(20):
        await checkpoint()


async def test_who_is_alone_waits_for_nobody(
    shared: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_S", 1000.0)

    with fail_after(10):
        for _ in range(3):
            await shared.join()
            shared.begin().end()


async def test_what_gathers_during_a_round_goes_together_once_all_of_it_has_ended(
    shared: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_S", 1000.0)
    begun: list[int] = []

    async def commit(number: int) -> None:
        await shared.join()
        begun.append(number)

    first, second = shared.begin(), shared.begin()
    async with create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(commit, number)
        await turns()
        first.end()
        await turns()
        assert begun == []
        second.end()

    assert sorted(begun) == [0, 1, 2]


async def test_a_commit_that_takes_long_is_waited_for_once(
    shared: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = shared.begin()
    with fail_after(10):
        await shared.join()
    monkeypatch.setattr(rounds, "PATIENCE_S", 1000.0)

    with fail_after(10):
        await shared.join()
    other = shared.begin()
    stuck.end()  # ends nothing of the round that it is not of

    begun: list[bool] = []

    async def commit() -> None:
        await shared.join()
        begun.append(True)

    async with create_task_group() as tasks:
        tasks.start_soon(commit)
        await turns()
        assert not begun
        other.end()


async def test_who_waits_and_is_cancelled_keeps_no_other(
    shared: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_S", 1000.0)
    shared.begin()

    with fail_after(10):
        async with create_task_group() as tasks, create_task_group() as gone:
            gone.start_soon(shared.join)
            await turns()
            tasks.start_soon(shared.join)
            await turns()
            gone.cancel_scope.cancel()


async def test_partitions_commit_together_what_came_while_one_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_S", 1000.0)
    store = FaultyStore(MemoryStore())
    async with Hub(app, store=store, partitions=3) as hub:
        keys = [in_partition(number, 3) for number in range(3)]
        gate = store.hold("commit", 0)
        before = store.commits
        async with create_task_group() as tasks:
            tasks.start_soon(hub.client.call_entity, keys[0], Counter.add)
            await gate.arrived.wait()
            for key in keys[1:]:
                for _ in range(5):
                    tasks.start_soon(hub.client.call_entity, key, Counter.add)
            await turns()
            assert store.commits == before + 1
            gate.open()

        assert store.commits == before + 3


async def test_partitions_go_on_beside_one_whose_commit_hangs() -> None:
    store = FaultyStore(MemoryStore())
    async with Hub(app, store=store, partitions=2) as hub:
        gate = store.hold("commit", 0)
        async with create_task_group() as tasks:
            tasks.start_soon(hub.client.call_entity, in_partition(0, 2), Counter.add)
            await gate.arrived.wait()
            with fail_after(10):
                for n in range(1, 20):
                    key = in_partition(1, 2)
                    assert await hub.client.call_entity(key, Counter.add) == n
            gate.open()


async def test_a_failed_commit_fails_no_other_of_its_round() -> None:
    store = FaultyStore(MemoryStore())
    async with Hub(app, store=store, partitions=2) as hub:
        keys = [in_partition(number, 2) for number in range(2)]
        store.fail_next("before", 0)
        outcomes: dict[EntityId[Counter], object] = {}

        async def call(key: EntityId[Counter]) -> None:
            try:
                outcomes[key] = await hub.client.call_entity(key, Counter.add)
            except Exception as error:
                outcomes[key] = type(error).__name__

        async with create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(call, key)

        assert outcomes[keys[1]] == 1
        assert outcomes[keys[0]] == "UnavailableError"
        with anyio.fail_after(10):
            assert await hub.client.call_entity(keys[1], Counter.add) == 2
