"""The SQL of reads. PostgreSQL chooses the index; pages are ordered by (created, key)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import Factory, define, evolve

from ..layered import Reads
from ..records import EntityFilter, InstanceFilter, behind_prefix
from .tables import bindable, tag_word, wait_word

INSTANCE: Final = (
    "id, key, name, version, execution, created, parent, parent_task, parent_execution, tags,"
    " {input}, start_at, status, updated, completed, pending, events, {output}, failure,"
    " failure_type, custom_status, parked, notes, waits, attempts"
)
WITH_PAYLOADS: Final = INSTANCE.format(input="input", output="output")
WITHOUT_PAYLOADS: Final = INSTANCE.format(input="NULL::json", output="NULL::json")
ENTITY: Final = "id, name, key, updated, {state}, lock, failures, parked"
WITH_STATES: Final = ENTITY.format(state="state")
WITHOUT_STATES: Final = ENTITY.format(state="NULL::json")

_ENDED: Final = "status IN ('Completed', 'Failed', 'Canceled', 'Terminated')"

READ_INSTANCES: Final = (
    f"SELECT {WITH_PAYLOADS} FROM {{s}}.instance_row WHERE partition = $1 AND key = ANY($2::text[])"
)
READ_STATUSES: Final = (
    f"SELECT {WITHOUT_PAYLOADS} FROM {{s}}.instance_row"
    " WHERE partition = $1 AND key = ANY($2::text[])"
)
INSTANCES_BY_ID: Final = f"SELECT {WITH_PAYLOADS} FROM {{s}}.instance_row WHERE partition = $1 AND id = ANY($2::bigint[])"
STATUSES_BY_ID: Final = (
    f"SELECT {WITHOUT_PAYLOADS} FROM {{s}}.instance_row"
    " WHERE partition = $1 AND id = ANY($2::bigint[])"
)
READ_ENTITIES: Final = (
    f"SELECT {WITH_STATES} FROM {{s}}.entity_row WHERE partition = $1 AND (name, key) IN"
    " (SELECT n, k FROM unnest($2::text[], $3::text[]) AS u (n, k))"
)
READ_HISTORY: Final = (
    "SELECT seq, body, seq, CASE json_typeof(body) WHEN 'array' THEN json_array_length(body) END"
    " FROM {s}.history_row WHERE partition = $1 AND instance = $2"
)
READ_HISTORIES: Final = (
    "SELECT seq, body, seq, CASE json_typeof(body) WHEN 'array' THEN json_array_length(body) END,"
    " instance FROM {s}.history_row WHERE partition = $1 AND instance = ANY($2::bigint[])"
)
READ_TIMERS: Final = (
    "SELECT n, due, actor, body FROM {s}.timer_row WHERE partition = $1 AND n > $2"
    " AND n <> ALL($4::bigint[]) ORDER BY n LIMIT $3"
)
READ_HISTORY_PART: Final = (
    "SELECT seq, body FROM {s}.history_row WHERE partition = $1 AND instance = $2 AND seq < $4"
    " AND seq >= (SELECT coalesce(max(seq), 0) FROM {s}.history_row WHERE partition = $1"
    " AND instance = $2 AND seq <= $3)"
)
READ_REQUEST: Final = (
    "SELECT request, at, body FROM {s}.request_row WHERE partition = $1 AND request = $2"
)
# Lengths are summed up first, so that no more bodies are read than a slice may have.
_SLICE: Final = (
    "WITH page AS (SELECT n, sum(size) OVER (ORDER BY n) - size AS before FROM"
    " (SELECT n, octet_length(body::text) AS size FROM {{s}}.{table} WHERE partition = $1 AND"
    " {where} ORDER BY n LIMIT {limit}) AS found)"
    " SELECT t.n, {columns}, t.body FROM page JOIN {{s}}.{table} t"
    " ON t.partition = $1 AND t.n = page.n WHERE page.before < {size} ORDER BY t.n"
)
READ_MAIL: Final = _SLICE.format(
    table="mail_row",
    where="actor = $2 AND n > $3 AND n <= $4",
    limit="$5",
    size="$6",
    columns="t.actor",
)
READ_ALL_MAIL: Final = _SLICE.format(
    table="mail_row", where="n > $2 AND n <= $3", limit="$4", size="$5", columns="t.actor"
)
READ_OUTBOX: Final = _SLICE.format(
    table="outbox_row",
    where="target = $2 AND n > $3",
    limit="$4",
    size="$5",
    columns="t.target, t.last",
)
READ_ALL_OUTBOX: Final = _SLICE.format(
    table="outbox_row", where="n > $2", limit="$3", size="$4", columns="t.target, t.last"
)
READS: Final = Reads(
    instances=READ_INSTANCES,
    statuses=READ_STATUSES,
    entities=READ_ENTITIES,
    history=READ_HISTORY,
    history_part=READ_HISTORY_PART,
    request=READ_REQUEST,
    mail=READ_MAIL,
    all_mail=READ_ALL_MAIL,
    outbox=READ_OUTBOX,
)
TIMERS: Final = "SELECT n, due, actor, body FROM {s}.timer_row WHERE partition = $1 ORDER BY n"
PEERS: Final = "SELECT peer, received, sent FROM {s}.peer_row WHERE partition = $1 ORDER BY peer"
ACTIVITIES: Final = "SELECT n, instance, body FROM {s}.activity_row WHERE partition = $1 ORDER BY n"
UNANSWERED: Final = (
    f"SELECT key FROM {{s}}.instance_row WHERE partition = $1 AND pending > 0 AND NOT {_ENDED}"
)
PARKED: Final = (
    "SELECT key FROM {s}.instance_row WHERE partition = $1 AND parked IS NOT NULL UNION ALL"
    " SELECT '@' || name || '@' || key FROM {s}.entity_row WHERE partition = $1"
    " AND parked IS NOT NULL"
)
GREATEST: Final = (
    "SELECT greatest((SELECT max(id) FROM {s}.instance_row WHERE partition = $1),"
    " (SELECT max(id) FROM {s}.entity_row WHERE partition = $1), 0), greatest("
    "(SELECT max(n) FROM {s}.mail_row WHERE partition = $1),"
    " (SELECT max(n) FROM {s}.timer_row WHERE partition = $1),"
    " (SELECT max(n) FROM {s}.outbox_row WHERE partition = $1),"
    " (SELECT max(n) FROM {s}.activity_row WHERE partition = $1), 0)"
)
UNKNOWN: Final = (
    f"SELECT key FROM {{s}}.instance_row AS r WHERE partition = $1 AND NOT {_ENDED} AND NOT EXISTS"
    " (SELECT FROM unnest($2::text[], $3::text[]) AS u (n, v) WHERE u.n = r.name"
    " AND u.v IS NOT DISTINCT FROM r.version)"
)
WAITING: Final = (
    "SELECT actor, count(*) FROM {s}.mail_row WHERE partition = $1 AND actor = ANY($2::text[])"
    " GROUP BY actor"
)
WAITING_BUT: Final = (
    "SELECT actor, count(*) FROM {s}.mail_row WHERE partition = $1 AND actor = ANY($2::text[])"
    " AND n <> ALL($3::bigint[]) GROUP BY actor"
)

#: For each table of messages, what a copy of its row has.
COPIED: Final = {
    "mail_row": "actor",
    "timer_row": "due, actor",
    "outbox_row": "target, last",
}


def copy(table: str) -> str:
    """Make the statement that keeps a copy of a row that nobody can read."""
    return (
        "INSERT INTO {s}.damaged_row (partition, of_table, row, reason, content)"
        f" SELECT $1, '{table}', n, $3, row_to_json(t) FROM {{s}}.{table} t"
        " WHERE partition = $1 AND n = $2"
    )


def park(table: str) -> str:
    """Make the statement that marks an actor whose row nobody can read."""
    return f"UPDATE {{s}}.{table} SET parked = $3 WHERE partition = $1 AND id = $2"


@define
class _Where:
    """Conditions that must all hold, and their parameters."""

    values: list[Any]
    terms: list[str] = Factory(lambda: ["partition = $1"])

    def add(self, term: str, *values: Any) -> None:
        """Add one; each ``?`` is the next value."""
        for value in values:
            self.values.append(_bindable(value))
            term = term.replace("?", f"${len(self.values)}", 1)
        self.terms.append(term)

    def range(self, column: str, first: Any, behind: Any) -> None:
        if first is not None:
            self.add(f"{column} >= ?", first)
        if behind is not None:
            self.add(f"{column} < ?", behind)

    def presence(self, column: str, wanted: bool | None) -> None:
        if wanted is not None:
            self.add(f"{column} IS {'NOT ' if wanted else ''}NULL")

    def without(self, ids: Sequence[int]) -> None:
        if ids:
            self.add("id <> ALL(?::bigint[])", [*ids])

    @property
    def text(self) -> str:
        return " AND ".join(self.terms)


def _bindable(value: Any) -> Any:
    if isinstance(value, str):
        return bindable(value)
    if type(value) is list:
        some: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return [*map(_bindable, some)]
    return value


def instance_page(
    partition: int, filter: InstanceFilter, without: Sequence[int] = ()
) -> tuple[str, list[Any]]:
    """Make the statement of a page of instances, all but some."""
    where = _instance_where(partition, filter)
    where.without(without)
    down = " DESC" if filter.newest else ""
    columns = WITH_PAYLOADS if filter.payloads else WITHOUT_PAYLOADS
    where.values.append(max(0, filter.limit))
    sql = (
        f"SELECT {columns} FROM {{s}}.instance_row WHERE {where.text}"
        f" ORDER BY created{down}, key{down} LIMIT ${len(where.values)}"
    )
    return sql, where.values


def instance_count(
    partition: int, filter: InstanceFilter, without: Sequence[int] = ()
) -> tuple[str, list[Any]]:
    """Make the statement that counts the instances on all pages, all but some."""
    where = _instance_where(partition, evolve(filter, after=None))
    where.without(without)
    return f"SELECT count(*) FROM {{s}}.instance_row WHERE {where.text}", where.values


def _instance_where(partition: int, filter: InstanceFilter) -> _Where:
    where = _Where([partition])
    if filter.statuses:
        where.add("status = ANY(?::text[])", [*filter.statuses])
    if filter.parents:
        where.add("parent = ANY(?::text[])", [*filter.parents])
    if filter.failure_type is not None:  # what the index has of it
        where.add("left(failure_type, 200) = ?", filter.failure_type[:200])
    for column in ("name", "parent", "failure_type"):
        value = getattr(filter, column)
        if value is not None:
            where.add(f"{column} = ?", value)
    if filter.prefix:
        where.range("key", filter.prefix, behind_prefix(filter.prefix))
    where.range("created", filter.created_from, filter.created_to)
    where.range("updated", filter.updated_from, filter.updated_to)
    where.range("completed", filter.completed_from, filter.completed_to)
    where.presence("parked", filter.parked)
    if filter.attempts is not None:
        where.add("attempts > 1 AND attempts >= ?", filter.attempts)
    if filter.waits is not None:
        where.add("waited @> ARRAY[?::text]", wait_word(filter.waits))
    for tag, value in filter.tags:
        where.add("tagged @> ARRAY[?::text]", tag_word(tag, value))
    if filter.after is not None:
        order = "<" if filter.newest else ">"
        where.add(f"(created, key) {order} (?::bigint, ?::text)", *filter.after)
    return where


def entity_page(
    partition: int, filter: EntityFilter, without: Sequence[int] = ()
) -> tuple[str, list[Any]]:
    """Make the statement of a page of entities, all but some."""
    where = _Where([partition])
    where.without(without)
    if filter.name is not None:
        where.add("name = ?", filter.name)
    if filter.prefix:
        where.range("key", filter.prefix, behind_prefix(filter.prefix))
    where.range("updated", filter.updated_from, filter.updated_to)
    where.presence("lock", filter.locked)
    where.presence("parked", filter.parked)
    if not filter.include_empty:
        where.add("state IS NOT NULL")
    if filter.after is not None:
        where.add("(name, key) > (?::text, ?::text)", *filter.after)
    columns = WITH_STATES if filter.states else WITHOUT_STATES
    where.values.append(max(0, filter.limit))
    sql = (
        f"SELECT {columns} FROM {{s}}.entity_row WHERE {where.text}"
        f" ORDER BY name, key LIMIT ${len(where.values)}"
    )
    return sql, where.values
