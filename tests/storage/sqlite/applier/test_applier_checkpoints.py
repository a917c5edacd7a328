"""What is left of many checkpoints."""

from __future__ import annotations

from weakref import ref

import pytest
from anyio import to_thread

from perdure.storage import MemoryStore
from perdure.storage.sqlite import SqliteStore
from perdure.testing.store_conformance import created, own
from tests.storage.sqlite.applier.looks import Chance, applier_of, look, look_wide


@pytest.mark.by_turns
@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_applied_when_it_reads_like_a_store_without_a_journal(
    store: SqliteStore, seed: int
) -> None:
    chance = Chance(seed)
    owner, model = await own(store), await own(MemoryStore())

    for _ in range(25):
        checkpoint = chance.checkpoint(owner.sequence + 1, owner.recovered.epoch)
        await owner.partition.commit(checkpoint)
        checkpoint.epoch = model.recovered.epoch
        await model.partition.commit(checkpoint)
        owner.sequence += 1
        ids = range(1, chance.next_id)
        assert await look(owner.partition, ids) == await look(model.partition, ids)
        event = chance.random.random()
        if event < 0.15:
            await owner.partition.apply()
        elif event < 0.25:
            assert await look_wide(owner.partition) == await look_wide(model.partition)
        elif event < 0.35:
            recovered = await owner.partition.recover()
            again = await model.partition.recover()
            owner.recovered, model.recovered = recovered, again
            names = "sequence next_id next_row mail timers outbox peers activities"
            for name in names.split():
                assert getattr(recovered, name) == getattr(again, name), name
            assert sorted(recovered.unanswered) == sorted(again.unanswered)
            assert sorted(recovered.parked) == sorted(again.parked)
    assert await look_wide(owner.partition) == await look_wide(model.partition)
    await store.close()


@pytest.mark.usefixtures("never")
async def test_what_was_applied_has_left_memory_when_who_waits_for_that_hears(
    store: SqliteStore,
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)])
    applier = applier_of(owner)
    left = ref(applier.layers.now()[1][-1])
    seen: list[object] = []

    applied = applier.apply()
    applied.add_done_callback(lambda _: seen.append(left()))  # in the applier's own thread
    await to_thread.run_sync(applied.result)
    await store.close()

    assert seen == [None]
