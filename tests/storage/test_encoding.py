from __future__ import annotations

import pytest
from attrs import asdict

from perdure.storage.encoding import encode_in_steps, encode_parts, next_numbers
from perdure.storage.pieces import pieces
from perdure.storage.records import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityRow,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    RequestRow,
    TimerRow,
)
from perdure.storage.slices import at_once
from perdure.storage.unapplied import Unapplied


def created(id: int) -> CreatedRow:
    return CreatedRow(id, f"i{id}", "f", None, 1, 5, None, 0, 0, None, b"[1]", None)


def progress(id: int) -> ProgressRow:
    return ProgressRow(id, "Running", 7, None, 0, 2, None, None, None, None, None)


def entity(id: int) -> EntityRow:
    return EntityRow(id, "counter", str(id), 5, b"%d" % id, None, None, None)


LARGE = Checkpoint(
    sequence=4,
    epoch=2,
    purged=[90, 91],
    rewritten=[3],
    created=[created(id) for id in range(1, 8)],
    progress=[progress(id) for id in (9, 2, 3, 8, 5)],
    history=[ChunkRow(id, 0, b"[%d]" % id) for id in range(1, 8)],
    entities=[entity(id) for id in range(20, 27)],
    entities_deleted=[21, 40],
    mail=[MailRow(n, "a", b"[%d]" % n) for n in range(100, 107)],
    mail_deleted=[101, 50],
    timers=[TimerRow(n, 9, "a", b"[%d]" % n) for n in range(110, 117)],
    timers_deleted=[111, 51],
    outbox=[OutboxRow(120, 1, 7, b"[]")],
    outbox_deleted=[52],
    peers=[PeerRow(1, 2, 3)],
    requests=[RequestRow(f"r{n}", n, b"{}") for n in range(7)],
    requests_deleted_before=2,
    activities=[ActivityRow(n, 1, b"[%d]" % n) for n in range(130, 137)],
    activities_deleted=[131],
)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.storage.pieces.PIECE", 3)


def test_a_large_checkpoint_is_encoded_in_steps_as_it_is_at_once() -> None:
    assert at_once(encode_in_steps(LARGE)) == encode_parts(LARGE)


def test_an_empty_checkpoint_is_too() -> None:
    empty = Checkpoint(sequence=1, epoch=1)

    assert at_once(encode_in_steps(empty)) == encode_parts(empty)


def test_the_pieces_of_a_checkpoint_leave_what_it_leaves() -> None:
    whole, pieced = Unapplied(3, 3), Unapplied(3, 3)

    whole.add(LARGE, next_numbers(LARGE), 10)
    for piece in pieces(LARGE):
        pieced.add(piece, next_numbers(LARGE), 0)

    one, other = (
        asdict(layer.checkpoint(2), recurse=False) | {"progress": layer.progress}
        for layer in (whole, pieced)
    )
    assert other == one
