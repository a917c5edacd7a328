"""What is looked at, as it crosses to the process that does."""

from __future__ import annotations

from typing import NamedTuple

from ...actors.ids import is_entity, split_entity
from ...storage.records import EntityRow, InstanceRecord


class StoredInstance(NamedTuple):
    """An instance, with the chunks of its history.

    ``damage`` says why these cannot be read. ``other_input`` may have been its input as well, where
    that is not known.
    """

    record: InstanceRecord
    chunks: list[bytes]
    damage: str | None = None
    other_input: bytes | None = None


class StoredEntity(NamedTuple):
    """An entity, of a hub with so many partitions."""

    row: EntityRow
    partitions: int


class StoredMessage(NamedTuple):
    """A message that waits for an actor, as JSON."""

    actor: str
    body: bytes


StoredRow = StoredInstance | StoredEntity | StoredMessage


def size_of(row: StoredRow) -> int:
    """Say how many bytes a row has, about."""
    if isinstance(row, StoredInstance):
        return 200 + len(row.record.input or b"") + sum(map(len, row.chunks))
    if isinstance(row, StoredEntity):
        return 200 + len(row.row.state or b"")
    return 100 + len(row.body)


def actor_of(row: StoredRow) -> str:
    """Give the id of the actor that a row is of."""
    if isinstance(row, StoredInstance):
        return row.record.key
    return f"@{row.row.name}@{row.row.key}" if isinstance(row, StoredEntity) else row.actor


def name_of(row: StoredRow) -> str:
    """Give the name of what a row is of: the orchestration or entity, if that is known."""
    if isinstance(row, StoredInstance):
        return row.record.name
    if isinstance(row, StoredEntity):
        return row.row.name
    return split_entity(row.actor)[0] if is_entity(row.actor) else row.actor
