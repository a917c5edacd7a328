"""What is committed and not applied yet: folded into one, and the names that it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from typing import Any, TypeVar

import orjson
import pytest
from attrs import evolve
from hypothesis import given, strategies as st

from perdure.actors.errors import StorageError
from perdure.storage import (
    Checkpoint,
    ChunkRow,
    MailRow,
    MemoryStore,
    OutboxRow,
    PartitionStore,
)
from perdure.storage.encoding import encode_parts, next_numbers
from perdure.storage.slices import unsliced
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.applier import APPLY
from perdure.storage.sqlite.schema import SCRIPTS, read_scripts
from perdure.storage.unapplied import CHUNK_SIZE_MAX, Unapplied
from perdure.testing.store_conformance import Owner, created, entity, own
from tests.storage.sqlite.applier.conftest import folder as folder, never as never, store as store
from tests.storage.sqlite.applier.looks import KEYS, Chance, look

T = TypeVar("T")


def add(layer: Unapplied, checkpoint: Checkpoint) -> None:
    layer.add(checkpoint, next_numbers(checkpoint), 0)


def test_nothing_is_put_and_deleted_at_once() -> None:
    layer = Unapplied(0, 0)
    add(layer, Checkpoint(1, 1, entities=[entity(1)], mail=[MailRow(1, "a", b"1")]))
    add(layer, Checkpoint(2, 1, entities_deleted=[1], mail_deleted=[1]))
    add(layer, Checkpoint(3, 1, entities=[entity(1)], mail=[MailRow(1, "a", b"2")]))

    whole = layer.checkpoint(9)

    assert (whole.sequence, whole.epoch) == (3, 9)
    assert (whole.entities, whole.entities_deleted) == ([entity(1)], [])
    assert (whole.mail, whole.mail_deleted) == ([MailRow(1, "a", b"2")], [])
    assert (layer.follows, layer.next_id, layer.next_row) == (0, 2, 2)


def test_a_name_may_go_on_within_one_checkpoint() -> None:
    layer = Unapplied(0, 0)
    add(layer, Checkpoint(1, 1, entities=[entity(5)]))

    both = [entity(9, key="e5")]
    add(layer, Checkpoint(2, 1, entities=both, entities_deleted=[9, 5]))

    assert (layer.entities, layer.entity_ids) == ({}, {})


@pytest.mark.parametrize(
    "parts",
    [
        {"created": [created(2, key="i1")]},
        {"created": [created(3), created(4, key="i3")]},
        {"entities": [entity(7, key="e5")]},
    ],
    ids=["an instance's", "of two instances", "an entity's"],
)
@pytest.mark.usefixtures("never")
async def test_a_name_that_is_taken_is_refused_at_the_door(
    store: SqliteStore, parts: dict[str, Any]
) -> None:
    owner = await own(store)
    await owner.commit(created=[created(1)], entities=[entity(5)])

    with pytest.raises(StorageError, match="the same"):
        await owner.commit(**parts)

    assert (await owner.partition.recover()).sequence == 1
    await store.close()


def done(work: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends."""
    with unsliced():
        try:
            work.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
    raise AssertionError("it suspended")


def memory() -> Owner:
    return done(own(MemoryStore()))


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 12), st.integers(1, 6))
def test_portions_leave_what_the_whole_leaves(
    seed: int, before: int, folded: int, most: int
) -> None:
    chance, layer = Chance(seed), Unapplied(before, before)
    with closing(new_tables()) as whole, closing(new_tables()) as in_portions:
        for sequence in range(1, before + folded + 1):
            checkpoint = chance.checkpoint(sequence, 1)
            numbers = next_numbers(checkpoint)
            if sequence > before:
                layer.add(checkpoint, numbers, 1)
            else:
                apply(whole, sequence - 1, checkpoint, numbers)
                apply(in_portions, sequence - 1, checkpoint, numbers)
        numbers = layer.next_id, layer.next_row
        apply(whole, before, layer.checkpoint(1), numbers)
        *portions, last = layer.portions(1, most)
        for portion in portions:
            portion.sequence = before
            apply(in_portions, before, portion, numbers)
        apply(in_portions, before, last, numbers)

        assert content(in_portions) == content(whole)


def test_a_portion_has_no_more_rows_than_it_may_and_no_more_bytes_than_one_history_needs() -> None:
    layer = Unapplied(0, 0)
    many = range(1, 8)
    long = b"[%b]" % (b"1" * CHUNK_SIZE_MAX)
    history = [ChunkRow(n, 0, long if n == 5 else b"[1]") for n in many]
    add(layer, Checkpoint(1, 1, created=[created(n) for n in many], history=history))
    add(layer, Checkpoint(2, 1, mail=[MailRow(n, "a", b"1") for n in range(1, 6)]))

    portions = list(layer.portions(1, 3))

    assert [len(one.created) for one in portions] == [3, 2, 2, 0, 0]
    assert [len(one.history) for one in portions] == [3, 2, 2, 0, 0]
    assert [len(one.mail) for one in portions] == [0, 0, 0, 3, 2]
    assert [len(one.created) for one in layer.portions(1, 12)] == [7]


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 8), st.integers(0, 3))
def test_many_as_one_leave_what_they_leave_one_by_one(
    seed: int, before: int, folded: int, behind: int
) -> None:
    chance, layer = Chance(seed), Unapplied(before, before)
    with closing(new_tables()) as one_by_one, closing(new_tables()) as at_once:
        for sequence in range(1, before + folded + behind + 1):
            checkpoint = chance.checkpoint(sequence, 1)
            numbers = next_numbers(checkpoint)
            apply(one_by_one, sequence - 1, checkpoint, numbers)
            if before < sequence <= before + folded:
                layer.add(checkpoint, numbers, 1)
                if sequence == before + folded:
                    whole = layer.checkpoint(1)
                    apply(at_once, before, whole, (layer.next_id, layer.next_row))
            else:
                apply(at_once, sequence - 1, checkpoint, numbers)

        assert content(at_once) == content(one_by_one)
    assert (layer.follows, layer.sequence, layer.size) == (before, before + folded, folded)


def new_tables() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(read_scripts(SCRIPTS))
    connection.execute("INSERT INTO meta VALUES (1, 3, 'hub', 0, 1, 0, 'perdure', 0, 1, 1, 1)")
    return connection


def apply(
    tables: sqlite3.Connection, follows: int, checkpoint: Checkpoint, numbers: tuple[int, int]
) -> None:
    parts = encode_parts(checkpoint)
    tables.execute(APPLY, (follows, checkpoint.sequence, checkpoint.epoch, *numbers, *parts))


def content(tables: sqlite3.Connection) -> dict[str, list[Any]]:
    """All that is in the tables, however a history is cut, and whatever number a request has."""
    names = tables.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    found = {
        name: tables.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for (name,) in names
    }
    pieces = tables.execute("SELECT instance, body FROM history_row ORDER BY instance, seq")
    histories: dict[int, str] = {}
    for instance, body in pieces:
        histories[instance] = f"{histories.get(instance, '')}{body}".replace("][", ",")
    requests = tables.execute("SELECT request, at, body FROM request_row ORDER BY 1").fetchall()
    return {**found, "request_row": requests, "history_row": [*histories.items()]}


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 8))
def test_what_is_stored_is_read_as_if_all_were_applied(seed: int, before: int, folded: int) -> None:
    chance, plain, tables = Chance(seed), memory(), memory()
    layer = Unapplied(before, before)

    for sequence in range(1, before + folded + 1):
        checkpoint = chance.checkpoint(sequence, 1)
        done(plain.partition.commit(checkpoint))
        if sequence <= before:
            done(tables.partition.commit(checkpoint))
        else:
            layer.check(checkpoint)
            add(layer, checkpoint)

    ids = range(1, chance.next_id)
    assert done(corrected(layer, tables.partition, ids)) == done(look(plain.partition, ids))


async def corrected(layer: Unapplied, tables: PartitionStore, ids: range) -> dict[str, Any]:
    """Read as ``look`` does, what is stored brought up to date by what is not applied."""
    keys = [f"i{n}" for n in range(KEYS)]
    names = [("counter", f"k{n}") for n in range(4)]
    instances = {row.key: row for row in await tables.read_instances(keys)}
    layer.correct_instances(keys, instances)
    entities = {(row.name, row.key): row for row in await tables.read_entities(names)}
    layer.correct_entities(names, entities)
    histories: list[bytes] = []
    for id in ids:
        stored = b"".join(await tables.read_history(id))
        chunks = {0: stored} if stored else {}
        layer.correct_history(id, chunks)
        histories.append(b"".join(chunks[seq] for seq in sorted(chunks)).replace(b"][", b","))
    requests = [
        layer.correct_request(f"r{n}", await tables.read_request(f"r{n}")) for n in range(9)
    ]
    return {
        "instances": sorted(instances.values()),
        "entities": sorted(entities.values()),
        "histories": histories,
        "requests": requests,
    }


def test_mail_and_frames_are_brought_up_to_date_within_their_bounds() -> None:
    layer = Unapplied(0, 0)
    mail = [MailRow(n, f"a{n % 2}", b"%d" % n) for n in range(1, 7)]
    outbox = [OutboxRow(n, n % 2, n, b"[]") for n in range(1, 7)]
    add(layer, Checkpoint(1, 1, mail=mail[2:], outbox=outbox[2:]))
    add(layer, Checkpoint(2, 1, mail_deleted=[1, 4], outbox_deleted=[1, 4]))

    found = {row.n: row for row in mail[:2]}
    layer.correct_mail("a1", 0, 5, found)
    all_mail = {row.n: row for row in mail[:2]}
    layer.correct_mail(None, 3, 6, all_mail)
    frames = {row.n: row for row in outbox[:2]}
    layer.correct_outbox(1, 0, 5, frames)

    assert sorted(found) == [2, 3, 5]
    assert sorted(all_mail) == [2, 5, 6]
    assert sorted(frames) == [2, 3, 5]


def test_chunks_are_joined_as_long_as_none_gets_long_by_it() -> None:
    half = CHUNK_SIZE_MAX // 2
    bodies = [b'["%b"]' % (b"x" * (size - 4)) for size in (half, half, half, 3 * half, 9)]
    layer = Unapplied(0, 0)
    for n, body in enumerate(bodies):
        add(layer, Checkpoint(n + 1, 1, history=[ChunkRow(1, n * 2, body)]))

    chunks = layer.checkpoint(1).history

    assert [(row.seq, len(row.body)) for row in chunks] == [
        (0, 2 * half - 1),
        (4, half),
        (6, 3 * half),
        (8, 9),
    ]
    assert [one for row in chunks for one in orjson.loads(row.body)] == [
        one for body in bodies for one in orjson.loads(body)
    ]


def test_a_name_set_free_in_between_may_be_taken() -> None:
    layer, later = Unapplied(0, 0), Unapplied(1, 1)
    add(layer, Checkpoint(1, 1, created=[created(1)], entities=[entity(5)]))
    taking = Checkpoint(3, 1, created=[created(2, key="i1")], entities=[entity(7, key="e5")])

    with pytest.raises(StorageError, match=r"the same instance_row\.key"):
        layer.check(taking, [later])
    add(later, Checkpoint(2, 1, purged=[1]))
    with pytest.raises(StorageError, match=r"the same entity_row\.name"):
        layer.check(taking, [later])
    add(later, Checkpoint(2, 1, entities_deleted=[5]))
    layer.check(taking, [later])

    layer.check(evolve(taking, purged=[1], entities_deleted=[5]))
