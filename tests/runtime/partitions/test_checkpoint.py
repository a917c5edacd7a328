"""What actors tell, and the rows it stands for."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.changes import EntityState, InstanceEvents, InstanceOrigin, InstanceProgress
from perdure.runtime.partitions.checkpoint import entity_state, instance_state
from perdure.storage.records import ChunkRow, CreatedRow, EntityRow, InstanceRecord, ProgressRow


@pytest.mark.parametrize(
    ("told", "row"),
    [
        (EntityState, EntityRow),
        (InstanceOrigin, CreatedRow),
        (InstanceProgress, ProgressRow),
        (InstanceEvents, ChunkRow),
    ],
)
def test_what_is_told_has_the_columns_of_its_row(told: Any, row: Any) -> None:
    assert told._fields == row._fields


def test_an_instance_is_given_back_what_it_told() -> None:
    origin = InstanceOrigin(7, "i", "flow", "2", 3, 4, "p", 5, 6, b"{}", b"1", 8)
    progress = InstanceProgress(7, "Failed", 9, 10, 1, 2, b"1", b"[]", "E", b"2", b"{}", b"{}")
    record = InstanceRecord._make((*origin, *progress[1:]))

    assert instance_state(record) == (origin, progress)


def test_an_entity_is_given_back_what_it_told() -> None:
    told = EntityState(1, "counter", "x", 2, b"{}", b"[]", b"[1,[]]", b"{}")
    row: Any = told

    assert entity_state(EntityRow._make(row)) == told
