"""What of the memory store the conformance suite does not ask, since no other store promises it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import StorageError, UsageError
from perdure.storage import InstanceFilter, MailRow, MemoryStore, RequestRow, SetAside
from perdure.storage.mended import DAMAGED
from perdure.storage.slices import unsliced
from perdure.testing.store_conformance import created, entity, own, progress
from tests.storage.sqlite.applier.looks import Chance


@given(st.integers(0, 10_000), st.integers(1, 20))
def test_its_tables_of_names_and_waiting_mail_say_what_its_rows_say(seed: int, count: int) -> None:
    rows = MemoryStore()
    chance = Chance(seed)

    async def commit() -> None:
        owner = await own(rows)
        for sequence in range(1, count + 1):
            await owner.partition.commit(chance.checkpoint(sequence, owner.recovered.epoch))

    with unsliced(), pytest.raises(StopIteration):
        commit().send(None)

    [stored] = rows.rows
    assert stored.ids == {one.created.key: id for id, one in stored.instances.items()}
    assert stored.entity_ids == {(row.name, row.key): id for id, row in stored.entities.items()}
    actors = [row.actor for row in stored.mail.values()]
    assert stored.waiting == {actor: actors.count(actor) for actor in actors}
    assert stored.next_id > max([0, *stored.instances, *stored.entities])
    assert stored.next_row > max([0, *stored.mail, *stored.timers, *stored.outbox])


async def test_rows_outlive_the_owner_that_wrote_them_and_a_closed_partition_takes_nothing() -> (
    None
):
    store = MemoryStore()
    owner = await own(store)
    await owner.commit(created=[created(1)], mail=[MailRow(1, "i1", b"[]")])
    await store.close()

    for ask in (owner.commit, owner.partition.size, owner.partition.recover):
        with pytest.raises(StorageError, match="is closed; open it again"):
            await ask()
    again = await own(store)
    assert await again.keys() == ["i1"]
    assert (await again.partition.waiting(["i1"]), await again.partition.size()) == ({"i1": 1}, 0)
    assert again.recovered.epoch == owner.recovered.epoch + 1


async def test_a_store_without_partitions_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 partition, not 0"):
        await MemoryStore().open(0)


async def test_what_is_set_aside_marks_the_actors_that_are_there_and_keeps_the_rest() -> None:
    store = MemoryStore()
    owner = await own(store)
    await owner.commit(created=[created(1)], progress=[progress(1)], entities=[entity(2)])

    await owner.partition.set_aside(
        [
            SetAside("instance_row", 1, "i1", "it is bad"),
            SetAside("entity_row", 2, "@counter@e2", "it is bad"),
            SetAside("entity_row", 9, None, "nobody knows it"),
            SetAside("mail_row", 5, "i1", "it is no message"),
        ]
    )

    [instance] = await owner.partition.read_instances(["i1"])
    [counter] = await owner.partition.read_entities([("counter", "e2")])
    assert (
        instance.parked
        == counter.parked
        == b'{"type":"%b","reason":"it is bad"}' % (DAMAGED.encode())
    )
    assert [row.row for row in store.rows[0].set_aside] == [9, 5]


async def test_a_request_lives_as_long_as_it_is_not_older_than_what_is_deleted() -> None:
    owner = await own(MemoryStore())
    await owner.commit(requests=[RequestRow("a", 5, b"1"), RequestRow("b", 6, b"2")])

    await owner.commit(requests_deleted_before=6)

    assert await owner.partition.read_request("a") is None
    assert await owner.partition.read_request("b") == RequestRow("b", 6, b"2")


async def test_a_tag_is_matched_as_the_text_that_it_is() -> None:
    owner = await own(MemoryStore())
    tags = b'{"x":"1","y":2}'
    await owner.commit(created=[created(1, tags=tags), created(2)])

    found = [
        [row.key for row in await owner.partition.query_instances(InstanceFilter(tags=wanted))]
        for wanted in ((), (("x", "1"),), (("y", "2"),), (("x", "1"), ("z", "3")))
    ]

    assert found == [["i1", "i2"], ["i1"], [], []]
