"""What is folded, and when, makes no difference to whoever reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from perdure.storage import MemoryStore
from perdure.storage.postgres import PostgresStore, folding
from perdure.testing.store_conformance import own
from tests.storage.sqlite.applier.looks import Chance, look, look_wide

RECOVERED = ("sequence", "next_id", "next_row", "mail", "timers", "outbox", "peers", "activities")


@pytest.fixture
async def store(newest_postgres: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(newest_postgres)
    yield store
    await store.close()


@pytest.mark.by_turns
@pytest.mark.parametrize(("gather_s", "portion"), [(60.0, 5_000), (0.001, 2)])
@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_folded_when_it_reads_like_a_store_without_a_journal(
    store: PostgresStore,
    gather_s: float,
    portion: int,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "GATHER_S", gather_s)
    monkeypatch.setattr(folding, "PORTION", portion)
    chance = Chance(seed)
    owner, model = await own(store), await own(MemoryStore())

    for _ in range(20):
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
            for name in RECOVERED:
                assert getattr(recovered, name) == getattr(again, name), name
            assert sorted(recovered.unanswered) == sorted(again.unanswered)
            assert sorted(recovered.parked) == sorted(again.parked)
    assert await look_wide(owner.partition) == await look_wide(model.partition)
