from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import StoreDamagedError
from perdure.storage.mended import (
    DAMAGED,
    Garbled,
    MendedEntity,
    MendedInstance,
    check_places,
    is_count,
    is_time,
    mend_entity,
    mend_instance,
    read_text,
)
from perdure.storage.records import EntityRow, InstanceRecord

FILE = Path("hub/partition-00.sqlite")
INSTANCE = InstanceRecord(
    *(7, "i-1", "flow", None, 1, 5, None, 0, 0, b"{}", b"1", None),
    *("Running", 6, None, 0, 3, None, None, None, None, None, None),
)
ENTITY = EntityRow(8, "counter", "a", 5, b"1", None, None, None)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANY_ROW = st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.booleans()


def micros(when: datetime) -> int:
    return round((when - EPOCH).total_seconds()) * 1_000_000


def test_a_sound_row_comes_as_it_is() -> None:
    assert mend_instance([*INSTANCE], FILE) == INSTANCE
    assert type(mend_instance([*INSTANCE], FILE)) is InstanceRecord
    assert mend_entity([*ENTITY], FILE) == ENTITY
    assert type(mend_entity([*ENTITY], FILE)) is EntityRow


@pytest.mark.parametrize(
    ("field", "value", "neutral"),
    [
        ("id", "seven", 0),
        ("key", None, "?"),
        ("key", "", "?"),
        ("key", Garbled("i-\\xff"), "i-\\xff"),
        ("name", 5, "?"),
        ("version", 1, None),
        ("execution", -1, 0),
        ("created", True, 0),
        ("created", 2**60, 0),
        ("start_at", 0.5, None),
        ("tags", b"{", None),
        ("input", 5, None),
        ("status", "Singing", "Running"),
        ("status", None, "Running"),
        ("events", -1, 1 << 40),
        ("failure_type", b"x", None),
        ("output", b"", None),
        ("notes", b"\xff", None),
    ],
)
def test_an_instance_with_a_damaged_field_is_parked_with_the_field_named(
    field: str, value: Any, neutral: Any
) -> None:
    record = mend_instance([*INSTANCE._replace(**{field: value})], FILE)

    assert type(record) is MendedInstance
    assert getattr(record, field) == neutral
    assert record._replace(**{field: getattr(INSTANCE, field), "parked": None}) == INSTANCE
    parked = orjson.loads(record.parked or b"")
    assert parked["type"] == DAMAGED
    row = value if field == "id" else 7
    assert parked["reason"] == (f"{FILE}, table instance_row, row {row}: {field} is {value!r}")


@given(st.lists(ANY_ROW, min_size=25, max_size=25), st.lists(ANY_ROW, min_size=8, max_size=8))
def test_whatever_the_file_holds_a_row_has_fields_of_the_promised_types(
    instance: list[Any], entity: list[Any]
) -> None:
    for record in (mend_instance(instance, FILE), mend_entity(entity, FILE)):
        again = (mend_instance if type(record) is MendedInstance else mend_entity)([*record], FILE)
        assert again == record  # what was mended is sound
        assert record.parked is not None


def test_all_that_is_damaged_is_named_and_long_values_are_cut() -> None:
    record = mend_entity([8, "counter", b"a" * 99, -(2**60), b"1", None, None, b"{"], FILE)

    assert type(record) is MendedEntity
    assert (record.key, record.updated, record.state) == ("?", 0, b"1")
    reason = orjson.loads(record.parked or b"")["reason"]
    assert reason.startswith(f"{FILE}, table entity_row, row 8: key is b'aaaa")
    assert "..., updated is -1152921504606846976, parked is b'{'" in reason


@pytest.mark.parametrize(
    ("when", "sound"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), True),
        (datetime(1960, 1, 1, tzinfo=UTC), True),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), True),
    ],
)
def test_a_time_is_one_that_a_datetime_can_show(when: datetime, sound: bool) -> None:
    assert is_time(micros(when)) is sound


def test_beyond_the_years_that_a_datetime_has_there_is_no_time() -> None:
    assert not is_time(micros(datetime(1, 1, 1, tzinfo=UTC)) - 1)
    assert is_time(micros(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)) + 999_999)
    assert not is_time(micros(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)) + 1_000_000)
    assert not is_time(5.0)
    assert not is_time(True)


def test_an_instance_that_was_to_start_before_the_epoch_is_sound() -> None:
    row = INSTANCE._replace(start_at=micros(datetime(1960, 1, 1, tzinfo=UTC)))

    assert mend_instance([*row], FILE) == row


def test_what_counts_is_a_whole_number_from_zero_on() -> None:
    assert [is_count(value) for value in (0, 2**62, -1, True, 1.0, "1", None)] == [
        *(True, True),
        *[False] * 5,
    ]


def test_text_that_is_no_utf_8_can_be_shown_and_is_known_for_it() -> None:
    assert read_text("é".encode()) == "é"
    assert type(read_text("é".encode())) is str
    assert read_text(b"a\xff") == "a\\xff"
    assert type(read_text(b"a\xff")) is Garbled


def test_chunks_that_follow_one_another_are_a_history() -> None:
    rows = [(0, b"", 1, 2), (2, b"", 2, 3), (5, b"", 3, 1)]

    check_places(rows, [0, 2, 5, 6], FILE)  # the last is in the journal alone
    check_places(list(reversed(rows)), [5, 2, 0], FILE)
    check_places([(0, b"", 1, None), (9, b"", 2, 1)], [0, 9], FILE)  # unreadable, so of any length
    check_places([], [], FILE)


@pytest.mark.parametrize(
    ("rows", "chunks", "reason"),
    [
        ([("x", b"", 4, 1)], [], "row 4: seq is 'x', no place"),
        ([(-1, b"", 4, 1)], [-1], "row 4: seq is -1, no place"),
        ([(0, b"", 4, 2), (1, b"", 5, 1)], [0, 1], "row 5: seq is 1, not 2"),
        ([(0, b"", 4, 2), (3, b"", 5, 1)], [0, 3], "row 5: seq is 3, not 2"),
        ([(0, b"", 4, 2)], [0, 3], "row None: seq is 3, not 2"),
    ],
)
def test_a_chunk_that_is_not_where_the_one_before_it_ends_is_refused(
    rows: list[Any], chunks: list[int], reason: str
) -> None:
    with pytest.raises(StoreDamagedError, match=reason):
        check_places(rows, chunks, FILE)
