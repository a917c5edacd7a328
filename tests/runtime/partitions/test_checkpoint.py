"""What actors tell, the rows it stands for, and all that is known of them where they are run."""

from __future__ import annotations

import ast
from pathlib import Path
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


#: What those who run actors know of them: what both have, then an entity's, then an instance's.
FACE = {
    *("changed", "combines", "folding", "held", "id", "is_blocked", "parked"),
    *("close", "give_back", "give_up", "handle", "hold", "load", "park", "release", "seal"),
    *("look", "stay_parked", "unpark"),
    "carried",  # an instance's, for who traces
    *("begin_fold", "combine", "define", "fail", "keep", "may_read", "read", "suspends"),
    *("bar", "check_code", "fail_mismatch", "is_live", "lie_idle", "open_tasks", "outcome"),
    *(
        "prepare_rewind",
        "refuse_rewind",
        "replay",
        "start_facts",
        "unconsumed_count",
        "unfinished",
        "write_ahead",
    ),
}


def uses_of_actors(source: str) -> list[tuple[str, bool]]:
    """The attributes of actors that a module names, and whether it writes them."""
    return [
        (node.attr, not isinstance(node.ctx, ast.Load))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "actor")
            or (isinstance(node.value, ast.Attribute) and node.value.attr == "actor")
        )
    ]


def test_what_runs_actors_writes_none_of_their_fields_and_knows_their_face_alone() -> None:
    root = Path(__file__).parents[3] / "runtime"
    uses = [use for path in root.rglob("*.py") for use in uses_of_actors(path.read_text("utf-8"))]

    assert not [name for name, is_written in uses if is_written]
    assert {name for name, _ in uses} == FACE


def test_a_field_of_an_actor_that_is_written_is_seen() -> None:
    assert uses_of_actors("activation.actor.state = actor.seq") == [
        ("state", True),
        ("seq", False),
    ]
