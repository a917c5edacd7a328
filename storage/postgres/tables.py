"""From checkpoints to the tables: the statements of one portion, and the rows that they take.

Each statement takes one array for each column, whatever the number of rows, and may be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, cast

import orjson
from attrs import frozen

from ..encoding import pending
from ..records import Checkpoint, ProgressRow

BETWEEN: Final = "\x1e"
"""Stands between the words of a row; JSON has it in no text."""

WORD_MAX: Final = 300
"""Characters of a word; an index takes some 2,700 bytes."""


@frozen
class Statement:
    """What is done with some rows, and what it takes of each.

    Attributes:
        sql: the statement; ``{s}`` is the schema.
        columns: what gives the arrays.
    """

    sql: str
    columns: tuple[Callable[[Any], Any], ...]

    def values(self, rows: Sequence[Any]) -> list[list[Any]]:
        """Give the arrays of some rows."""
        return [[*map(column, rows)] for column in self.columns]


def _put(table: str, key: str, columns: str) -> Statement:
    """Make the statement that puts rows, over others with the same key.

    Args:
        table: where.
        key: the names of its key, behind the partition.
        columns: each with its type.
    """
    named = [column.split(":") for column in columns.split()]
    names = ", ".join(name for name, _ in named)
    arrays = ", ".join(f"${n}::{kind}[]" for n, (_, kind) in enumerate(named, 2))
    keys = key.split()
    rest = [name for name, _ in named if name not in keys]
    sets = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return Statement(
        f"INSERT INTO {{s}}.{table} (partition, {names}) SELECT $1::int, * FROM unnest({arrays})"
        f" ON CONFLICT (partition, {', '.join(keys)}) DO UPDATE SET {sets}",
        tuple(attrgetter(name) for name, _ in named),
    )


def _delete(table: str, column: str) -> str:
    return f"DELETE FROM {{s}}.{table} WHERE partition = $1 AND {column} = ANY($2::bigint[])"


_ORIGIN: Final = (
    "id:bigint key:text name:text version:text execution:bigint created:bigint parent:text"
    " parent_task:bigint parent_execution:bigint tags:json input:json start_at:bigint"
)
_PROGRESS: Final = (
    "status:text updated:bigint completed:bigint pending:bigint events:bigint output:json"
    " failure:json failure_type:text custom_status:json parked:json notes:json waits:json"
    " attempts:bigint"
)


def _names(columns: str) -> list[str]:
    return [column.split(":")[0] for column in columns.split()]


def _arrays(columns: str, first: int) -> str:
    kinds = [column.split(":")[1] for column in columns.split()]
    return ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(kinds, first))


def _create() -> str:
    columns = f"{_ORIGIN} {_PROGRESS} tagged:text waited:text"
    names = _names(columns)
    taken = ", ".join(
        f"string_to_array({name}, '{BETWEEN}')" if name in ("tagged", "waited") else name
        for name in names
    )
    sets = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    return (
        f"INSERT INTO {{s}}.instance_row (partition, {', '.join(names)}) SELECT $1::int, {taken}"
        f" FROM unnest({_arrays(columns, 2)}) AS u ({', '.join(names)})"
        f" ON CONFLICT (partition, id) DO UPDATE SET {sets}"
    )


def _progress() -> str:
    columns = f"id:bigint {_PROGRESS} waited:text"
    names = _names(columns)
    sets = ", ".join(f"{name} = u.{name}" for name in names[1:-1])
    return (
        f"UPDATE {{s}}.instance_row AS r SET {sets}, waited = string_to_array(u.waited,"
        f" '{BETWEEN}') FROM unnest({_arrays(columns, 2)}) AS u ({', '.join(names)})"
        " WHERE r.partition = $1::int AND r.id = u.id"
    )


CREATE: Final = _create()
PROGRESS: Final = _progress()
HISTORY: Final = _put("history_row", "instance seq", "instance:bigint seq:bigint body:json")
ENTITIES: Final = _put(
    "entity_row",
    "id",
    "id:bigint name:text key:text updated:bigint state:json lock:json failures:json parked:json",
)
MAIL: Final = _put("mail_row", "n", "n:bigint actor:text body:json")
TIMERS: Final = _put("timer_row", "n", "n:bigint due:bigint actor:text body:json")
OUTBOX: Final = _put("outbox_row", "target n", "n:bigint target:bigint last:bigint body:json")
PEERS: Final = _put("peer_row", "peer", "peer:bigint received:bigint sent:bigint")
REQUESTS: Final = _put("request_row", "request", "request:text at:bigint body:json")
ACTIVITIES: Final = _put("activity_row", "n", "n:bigint instance:bigint body:json")
EXPIRE: Final = "DELETE FROM {s}.request_row WHERE partition = $1 AND at < $2"

#: What a purge deletes, by the column that has the instance.
_OF_INSTANCE: Final = (
    ("instance_row", "id"),
    ("history_row", "instance"),
    ("activity_row", "instance"),
)

Step = tuple[str, list[Any]]
"""A statement, and what it takes behind the partition."""


def steps(c: Checkpoint) -> Iterable[Step]:
    """Give what brings a portion into the tables, in order."""
    if c.purged:
        for table, column in _OF_INSTANCE:
            yield _delete(table, column), [c.purged]
    if c.rewritten:
        yield _delete("history_row", "instance"), [c.rewritten]
    yield from _instances(c)
    # What deletes comes before what puts: names and keys are free then.
    for table, gone in (
        ("entity_row", c.entities_deleted),
        ("mail_row", c.mail_deleted),
        ("timer_row", c.timers_deleted),
        ("activity_row", c.activities_deleted),
        ("outbox_row", c.outbox_deleted),
    ):
        if gone:
            yield _delete(table, "id" if table == "entity_row" else "n"), [gone]
    if c.requests_deleted_before is not None:
        yield EXPIRE, [c.requests_deleted_before]
    for statement, rows in (
        (HISTORY, c.history),
        (ENTITIES, c.entities),
        (MAIL, c.mail),
        (TIMERS, c.timers),
        (OUTBOX, c.outbox),
        (PEERS, c.peers),
        (REQUESTS, c.requests),
        (ACTIVITIES, c.activities),
    ):
        if rows:
            yield statement.sql, statement.values(rows)


def _instances(c: Checkpoint) -> Iterable[Step]:
    latest: dict[int, ProgressRow | None] = {row.id: row for row in c.progress}
    if c.created:
        origins = [*{row.id: row for row in c.created}.values()]
        progress = [latest.pop(row.id, None) or pending(row) for row in origins]
        columns: list[list[Any]] = [*map(list, zip(*origins, strict=True))]
        columns += map(list, zip(*(row[1:] for row in progress), strict=True))
        columns += [[_tagged(row.tags) for row in origins], [_words(row.waits) for row in progress]]
        yield CREATE, columns
    rows = [row for row in latest.values() if row is not None]
    if rows:
        columns = [*map(list, zip(*rows, strict=True))]
        yield PROGRESS, [*columns, [_words(row.waits) for row in rows]]


def bindable(text: str) -> str:
    """Give a text that PostgreSQL can hold: it has neither NUL nor lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")


def _mended(value: Any) -> Any:
    return bindable(value) if isinstance(value, str) else value


def mended_values(values: Iterable[Any]) -> list[Any]:
    """Give what a statement takes, with texts that PostgreSQL can hold."""
    mended: list[Any] = []
    for value in values:
        if type(value) is list:
            some: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
            mended.append([*map(_mended, some)])
        else:
            mended.append(value)
    return mended


def tag_word(name: str, value: str) -> str:
    """Give a tag as one word."""
    return _word([name, value])


def wait_word(wait: str) -> str:
    """Give what is waited for as one word."""
    return _word(wait)


def _word(of: object) -> str:
    word = orjson.dumps(of)
    if len(word) > WORD_MAX:
        return f"#{hashlib.blake2b(word, digest_size=32).hexdigest()}"
    return word.decode()


def _tagged(tags: bytes | None) -> str | None:
    found: object = None if tags is None else orjson.loads(tags)
    if not isinstance(found, dict):
        return None
    named = cast("dict[str, Any]", found)
    words = [tag_word(name, value) for name, value in named.items() if isinstance(value, str)]
    return BETWEEN.join(words) or None


def _words(waits: bytes | None) -> str | None:
    found: object = None if waits is None else orjson.loads(waits)
    if not isinstance(found, list):
        return None
    words: list[Any] = found  # pyright: ignore[reportUnknownVariableType]
    return BETWEEN.join(wait_word(one) for one in words if isinstance(one, str)) or None
