"""Rows that are not as the store wrote them: found when they are read, and given as damaged.

A reader gets rows whose fields are of the promised types, whatever the file holds. Where a field
is not, the row comes as a *mended* one: neutral values in such fields, and ``parked`` says which
file, table and row are damaged, and how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from ..actors.errors import StoreDamagedError
from .records import ENDED, LIVE, EntityRow, InstanceRecord

DAMAGED: Final = "StoreDamagedError"
"""The kind of trouble of a parked actor whose row is damaged."""

# From the first microsecond of the year 1 to that of the year 10000, which no time reaches.
_TIMES: Final = range(-62_135_596_800_000_000, 253_402_300_800_000_000)


class Garbled(str):
    """Text from the store whose bytes are no UTF-8."""

    __slots__ = ()


class MendedInstance(InstanceRecord):
    """An instance whose row is damaged; ``parked`` says how."""

    __slots__ = ()


class MendedEntity(EntityRow):
    """An entity whose row is damaged; ``parked`` says how."""

    __slots__ = ()


def read_text(data: bytes) -> str:
    """Read text of any bytes, as sqlite3's ``text_factory`` does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Garbled(data.decode("utf-8", "backslashreplace"))


def is_count(value: Any) -> bool:
    """Whether it is a number that counts something."""
    return type(value) is int and value >= 0


def is_time(value: Any) -> bool:
    """Whether it is a time that a datetime can show."""
    return type(value) is int and value in _TIMES


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def is_json(value: Any) -> bool:
    """Whether a column that has JSON has it."""
    try:
        orjson.loads(value)
    except (ValueError, TypeError):
        return False
    return True


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_Checks = dict[str, tuple[Callable[[Any], bool], Any]]

# For each column: what it must be, and what stands there where it is not.
_INSTANCE: Final[_Checks] = {
    "id": (is_count, 0),
    "key": (_is_name, "?"),
    "name": (_is_name, "?"),
    "version": (_or_none(_is_text), None),
    "execution": (is_count, 0),
    "created": (is_time, 0),
    "parent": (_or_none(_is_text), None),
    "parent_task": (is_count, 0),
    "parent_execution": (is_count, 0),
    "tags": (_or_none(is_json), None),
    "input": (_or_none(is_json), None),
    "start_at": (_or_none(is_time), None),
    "status": (frozenset((*LIVE, *ENDED)).__contains__, "Running"),
    "updated": (is_time, 0),
    "completed": (_or_none(is_time), None),
    "pending": (is_count, 0),
    # Behind every event there may be, so that none is written over.
    "events": (is_count, 1 << 40),
    "output": (_or_none(is_json), None),
    "failure": (_or_none(is_json), None),
    "failure_type": (_or_none(_is_text), None),
    "custom_status": (_or_none(is_json), None),
    "parked": (_or_none(is_json), None),
    "notes": (_or_none(is_json), None),
    "waits": (_or_none(is_json), None),
    "attempts": (_or_none(is_count), None),
}
_ENTITY: Final[_Checks] = {
    "id": (is_count, 0),
    "name": (_is_name, "?"),
    "key": (_is_name, "?"),
    "updated": (is_time, 0),
    "state": (_or_none(is_json), None),
    "lock": (_or_none(is_json), None),
    "failures": (_or_none(is_json), None),
    "parked": (_or_none(is_json), None),
}
_INSTANCE_CHECKS: Final = tuple(check for check, _ in _INSTANCE.values())
_ENTITY_CHECKS: Final = tuple(check for check, _ in _ENTITY.values())


def mend_instance(row: Sequence[Any], path: Path) -> InstanceRecord:
    """Make an instance's record of a row as it was read from a file."""
    for check, value in zip(_INSTANCE_CHECKS, row, strict=True):
        if not check(value):
            fields = _mend(_INSTANCE, row, path, "instance_row")
            return MendedInstance._make(fields)
    return InstanceRecord._make(row)


def mend_entity(row: Sequence[Any], path: Path) -> EntityRow:
    """Make an entity's row of one as it was read from a file."""
    for check, value in zip(_ENTITY_CHECKS, row, strict=True):
        if not check(value):
            return MendedEntity._make(_mend(_ENTITY, row, path, "entity_row"))
    return EntityRow._make(row)


def check_places(rows: Sequence[Any], chunks: Iterable[int], path: Path) -> None:
    """Refuse a history whose chunks are not each where the one before it ends.

    Args:
        rows: of each stored chunk its place, its text, its row and how many events it has.
        chunks: the places of all chunks.
        path: the file.

    Raises:
        StoreDamagedError: a place is none, or not the next one.
    """
    for place, _, row, _ in rows:
        if not is_count(place):
            raise _misplaced(path, row, place, "no place")
    ends = {place: (row, count) for place, _, row, count in rows}
    follows: int | None = None  # that the first is missing shows in the number of events
    for place in sorted(chunks):
        row, count = ends.get(place, (None, None))
        if follows is not None and place != follows:
            raise _misplaced(path, row, place, f"not {follows}")
        # How many events are in what is in the journal alone, or cannot be read, is not known.
        follows = place + count if count else None


def _misplaced(path: Path, row: object, place: object, why: str) -> StoreDamagedError:
    return StoreDamagedError(f"{path}, table history_row, row {row}: seq is {_show(place)}, {why}")


def _mend(checks: _Checks, row: Sequence[Any], path: Path, table: str) -> list[Any]:
    fields: list[Any] = []
    wrong: list[str] = []
    for (name, (check, neutral)), value in zip(checks.items(), row, strict=True):
        sound = check(value)
        if not sound:
            wrong.append(f"{name} is {_show(value)}")
            if type(value) is Garbled and neutral == "?":  # it may be shown, and finds nothing
                neutral = str(value)
        fields.append(value if sound else neutral)
    reason = f"{path}, table {table}, row {row[0]}: {', '.join(wrong)}"
    fields[list(checks).index("parked")] = why(reason)
    return fields


def why(reason: str) -> bytes:
    """Give the stored form of why an actor with a damaged row is parked."""
    return orjson.dumps({"type": DAMAGED, "reason": reason})


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
