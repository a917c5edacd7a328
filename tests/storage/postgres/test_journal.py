"""A checkpoint as the body of a journal's row, and back."""

from __future__ import annotations

import struct
from collections.abc import Callable

import orjson
import pytest
from attrs import asdict
from hypothesis import given, strategies as st

from perdure.storage import (
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
from perdure.storage.postgres.journal import pack, unpack
from perdure.storage.slices import at_once
from perdure.testing.store_conformance import created, entity, progress

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
bodies = st.one_of(st.none(), st.integers(0, 2**62), texts, st.lists(texts)).map(orjson.dumps)
optional = st.none() | bodies
numbers = st.integers(0, 2**62)


def begun(id: int, tags: bytes | None, input: bytes | None) -> CreatedRow:
    return created(id, tags=tags, input=input)


def gone_on(id: int, output: bytes | None, waits: bytes | None) -> ProgressRow:
    return progress(id, output=output, waits=waits)


def stored(id: int, state: bytes | None, lock: bytes | None) -> EntityRow:
    return entity(id, state=state, lock=lock)


def checkpoints() -> st.SearchStrategy[Checkpoint]:
    return st.builds(
        Checkpoint,
        sequence=numbers,
        epoch=numbers,
        purged=st.lists(numbers),
        created=st.lists(st.builds(begun, numbers, optional, optional)),
        progress=st.lists(st.builds(gone_on, numbers, optional, optional)),
        history=st.lists(st.builds(ChunkRow, numbers, numbers, bodies)),
        entities=st.lists(st.builds(stored, numbers, optional, optional)),
        mail=st.lists(st.builds(MailRow, numbers, texts, bodies)),
        timers=st.lists(st.builds(TimerRow, numbers, numbers, texts, bodies)),
        timers_deleted=st.lists(numbers),
        outbox=st.lists(st.builds(OutboxRow, numbers, numbers, numbers, bodies)),
        peers=st.lists(st.builds(PeerRow, numbers, numbers, numbers)),
        requests=st.lists(st.builds(RequestRow, texts, numbers, bodies)),
        requests_deleted_before=st.none() | numbers,
        activities=st.lists(st.builds(ActivityRow, numbers, numbers, bodies)),
    )


@given(checkpoints())
def test_a_checkpoint_comes_back_byte_for_byte(checkpoint: Checkpoint) -> None:
    body = at_once(pack(checkpoint))

    back = unpack(body, checkpoint.sequence, checkpoint.epoch)

    assert asdict(back, recurse=False) == asdict(checkpoint, recurse=False)


def test_a_large_one_is_made_with_pauses_and_comes_back() -> None:
    checkpoint = Checkpoint(1, 1, mail=[MailRow(n, "a", b"%d" % n) for n in range(2_000)])

    steps = pack(checkpoint)
    pauses = [next(steps) for _ in range(3)]
    with pytest.raises(StopIteration) as stop:
        next(steps)

    body: bytes = stop.value.value
    assert pauses == [None] * 3
    assert unpack(body, 1, 1).mail == checkpoint.mail


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut short": lambda body: body[:-1],
    "followed by something": lambda body: body + b"x",
    "shorter than it says": lambda body: struct.pack("<I", len(body) * 2) + body[4:],
    "no text": lambda body: body.replace(b"mail", b"m\xffil"),
    "no JSON": lambda body: body.replace(b"[7,", b"[7 "),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_body_that_is_none_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    body = at_once(pack(Checkpoint(1, 1, mail=[MailRow(7, "a", b'"x"')])))

    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        unpack(spoil(body), 1, 1)
