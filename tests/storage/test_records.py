from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from perdure.storage.records import (
    SLICE_ROWS,
    SLICE_SIZE,
    ChunkRow,
    MailRow,
    cut,
    is_whole,
    part_of,
)

ROWS = st.lists(st.integers(0, SLICE_SIZE + 1), max_size=6).map(
    lambda sizes: [MailRow(n, "a", bytes(size)) for n, size in enumerate(sizes)]
)


@given(ROWS, st.integers(1, 5))
def test_a_slice_ends_with_the_row_that_reaches_its_size_or_its_limit(
    rows: list[MailRow], limit: int
) -> None:
    some = cut(iter(rows), limit)
    before = sum(len(row.body) for row in some[:-1])

    assert some == rows[: len(some)]
    assert bool(some) == bool(rows)
    assert len(some) <= limit
    assert before < SLICE_SIZE
    if len(some) < min(limit, len(rows)):
        assert before + len(some[-1].body) >= SLICE_SIZE


@given(ROWS)
def test_a_recovered_slice_with_room_for_more_is_all_there_is(rows: list[MailRow]) -> None:
    some = cut(rows, SLICE_ROWS)

    if is_whole(some):
        assert some == rows


def test_a_slice_that_is_full_may_have_more_behind_it() -> None:
    many = [MailRow(n, "a", b"1") for n in range(SLICE_ROWS)]

    assert is_whole(many[1:])
    assert not is_whole(many)
    assert is_whole([MailRow(1, "a", bytes(SLICE_SIZE - 1))])
    assert not is_whole([MailRow(1, "a", bytes(SLICE_SIZE))])


@pytest.mark.parametrize(
    ("first", "end", "found"),
    [
        (0, 1, [0]),
        (1, 3, [0, 2]),
        (2, 3, [2]),
        (4, 9, [3]),
        (9, 10, [3]),
    ],
)
def test_a_part_of_a_history_is_no_more_than_the_chunks_that_it_lies_in(
    first: int, end: int, found: list[int]
) -> None:
    chunks = {3: b"[3,4,5]", 0: b"[0,1]", 2: b"[2]"}

    assert part_of(7, chunks, first, end) == [ChunkRow(7, seq, chunks[seq]) for seq in found]
