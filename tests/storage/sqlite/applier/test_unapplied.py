"""What is committed and not applied yet: folded into one, and the names that it holds."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.errors import StorageError
from perdure.storage import Checkpoint, MailRow
from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.encoding import next_numbers
from perdure.storage.sqlite.unapplied import Unapplied
from tests.storage.test_conformance import created, entity, own


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
