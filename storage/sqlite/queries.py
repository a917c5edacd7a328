"""The SQL of pages: which index serves a filter, and the statement that uses it.

A page is ordered by (created, key). An index that ends in ``created`` gives that order for free,
so it stops after a page however much matches. A range (of keys, of ``updated``) does not: all that
matches must be sorted. So the matches are counted first, up to ``NARROW``: what matches little
drives the page, else the order does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import Factory, define, evolve, frozen

from ..records import EntityFilter, InstanceFilter, behind_prefix

#: Tables of what instances have several of, by that and by when the instance was created.
_WAITS, _TAGS = "wait_row", "tag_row"
_ASIDE = (_WAITS, _TAGS)

NARROW = 10_000
"""Sorting this many rows takes some tens of milliseconds, so what matches fewer may drive."""

INSTANCE_COLUMNS = (
    "r.id, r.key, r.name, r.version, r.execution, r.created, r.parent, r.parent_task,"
    " r.parent_execution, CAST(r.tags AS BLOB), {input}, r.start_at, r.status, r.updated,"
    " r.completed, r.pending, r.events, {output}, CAST(r.failure AS BLOB), r.failure_type,"
    " CAST(r.custom_status AS BLOB), CAST(r.parked AS BLOB), CAST(r.notes AS BLOB), CAST(r.waits AS BLOB),"
    " r.attempts"
)
WITH_PAYLOADS = INSTANCE_COLUMNS.format(
    input="CAST(i.body AS BLOB)", output="CAST(r.output AS BLOB)"
)
WITHOUT_PAYLOADS = INSTANCE_COLUMNS.format(input="NULL", output="NULL")
ENTITY_COLUMNS = (
    "e.id, e.name, e.key, e.updated, {state}, CAST(e.lock AS BLOB), CAST(e.failures AS BLOB),"
    " CAST(e.parked AS BLOB)"
)
WITH_STATES = ENTITY_COLUMNS.format(state="CAST(e.state AS BLOB)")
WITHOUT_STATES = ENTITY_COLUMNS.format(state="NULL")


@define
class _Where:
    """Conditions that must all hold, and their parameters."""

    terms: list[str] = Factory(list[str])
    values: list[object] = Factory(list[object])

    def add(self, term: str, *values: object) -> None:
        self.terms.append(term)
        self.values += values

    def range(self, column: str, first: object, behind: object) -> None:
        if first is not None:
            self.add(f"{column} >= ?", first)
        if behind is not None:
            self.add(f"{column} < ?", behind)

    def text(self) -> str:
        return " AND ".join(self.terms) or "true"


@frozen
class Candidate:
    """An index that could drive a page, and the conditions that it serves by itself."""

    index: str
    where: _Where
    ordered: bool  # gives rows by `created`
    tag: tuple[str, str] | None = None

    @property
    def source(self) -> str:
        """What rows come from, by this index."""
        if self.index in _ASIDE:
            return f"{self.index} CROSS JOIN instance_row ON id = instance"
        return self.entries

    @property
    def entries(self) -> str:
        """What has its conditions, which is enough to count by."""
        return self.index if self.index in _ASIDE else f"instance_row INDEXED BY {self.index}"


def instance_candidates(filter: InstanceFilter) -> list[Candidate]:
    """Name the indexes that could drive this page; the first is the best among wide ones."""
    found: list[Candidate] = []

    def offer(index: str, term: str, *values: object) -> None:
        where = _Where([term], list(values))
        where.range("created", filter.created_from, filter.created_to)
        found.append(Candidate(index, where, ordered=True))

    if filter.parent is not None:
        offer("instance_parent", "parent = ?", filter.parent)
    if filter.parents:
        offer("instance_parent", f"parent IN ({_marks(filter.parents)})", *filter.parents)
    if filter.failure_type is not None:
        offer("instance_failure", "failure_type = ?", filter.failure_type)
    if filter.parked:
        offer("instance_parked", "parked IS NOT NULL")
    if filter.attempts is not None:
        offer("instance_attempts", "attempts > 1 AND attempts >= ?", filter.attempts)
    if filter.waits is not None:
        where = _Where(["wait = ?"], [filter.waits])
        where.range("begun", filter.created_from, filter.created_to)
        found.append(Candidate(_WAITS, where, ordered=True))
    for tag in filter.tags:
        where = _Where(["tag = ? AND value = ?"], [*tag])
        where.range("begun", filter.created_from, filter.created_to)
        found.append(Candidate(_TAGS, where, ordered=True, tag=tag))
    if filter.statuses:
        offer("instance_status", f"status IN ({_marks(filter.statuses)})", *filter.statuses)
    if filter.name is not None:
        offer("instance_name", "name = ?", filter.name)
    if not found:  # what matches something else and is as much in order is never more
        offer("instance_created", "true")
    return found + list(_ranges(filter))


def _ranges(filter: InstanceFilter) -> Iterable[Candidate]:
    bounds = (
        ("instance_updated", "updated", filter.updated_from, filter.updated_to),
        ("instance_completed", "completed", filter.completed_from, filter.completed_to),
        ("instance_key", "key", filter.prefix or None, behind_prefix(filter.prefix or "")),
    )
    for index, column, first, behind in bounds:
        where = _Where()
        where.range(column, first, behind)
        if where.terms:
            yield Candidate(index, where, ordered=False)


def count_matches(candidates: list[Candidate]) -> tuple[str, list[object]]:
    """Make the statement that counts what each candidate matches, up to ``NARROW``."""
    counts = [
        f"(SELECT count(*) FROM (SELECT 1 FROM {candidate.entries}"
        f" WHERE {candidate.where.text()} LIMIT {NARROW}))"
        for candidate in candidates
    ]
    values = [value for candidate in candidates for value in candidate.where.values]
    return "SELECT " + ", ".join(counts), values


def choose(candidates: list[Candidate], counts: Iterable[int]) -> Candidate:
    """Give the candidate that matches least, if that is little; else the best ordered one."""
    least, number = min((count, number) for number, count in enumerate(counts))
    return candidates[number] if least < NARROW else candidates[0]


def instance_page(filter: InstanceFilter, driver: Candidate) -> tuple[str, list[object]]:
    """Make the statement of a page of instances.

    Ids are found first, and columns read only for those of the page. Several wide statuses are
    merged from one page of each, since an index on status gives the order within one status.
    """
    statuses = filter.statuses
    if driver.index == "instance_status" and len(statuses) > 1:
        arms = [_arm(filter, driver, (status,)) for status in dict.fromkeys(statuses)]
    else:
        arms = [_arm(filter, driver, statuses)]
    ids = " UNION ALL ".join(f"SELECT * FROM ({sql})" for sql, _ in arms)
    down = " DESC" if filter.newest else ""
    columns = WITH_PAYLOADS if filter.payloads else WITHOUT_PAYLOADS
    join = " LEFT JOIN input_row i ON i.id = r.id" if filter.payloads else ""
    sql = (
        f"SELECT {columns} FROM ({ids} ORDER BY created{down}, key{down} LIMIT ?) AS page"
        f" CROSS JOIN instance_row r ON r.id = page.id{join}"
        f" ORDER BY r.created{down}, r.key{down}"
    )
    return sql, [*(value for _, values in arms for value in values), max(0, filter.limit)]


def instance_count(filter: InstanceFilter, driver: Candidate) -> tuple[str, list[object]]:
    """Make the statement that counts the instances on all pages."""
    where = _instance_where(evolve(filter, after=None), filter.statuses, driver)
    sql = f"SELECT count(*) FROM {driver.source} WHERE {where.text()}"
    return sql, where.values


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _arm(
    filter: InstanceFilter, driver: Candidate, statuses: tuple[str, ...]
) -> tuple[str, list[object]]:
    where = _instance_where(filter, statuses, driver)
    created = "begun" if driver.index in _ASIDE else "created"
    down = " DESC" if filter.newest else ""
    sql = (
        f"SELECT id, created, key FROM {driver.source}"
        f" WHERE {where.text()} ORDER BY {created}{down}, key{down} LIMIT ?"
    )
    return sql, [*where.values, max(0, filter.limit)]


def _instance_where(filter: InstanceFilter, statuses: tuple[str, ...], driver: Candidate) -> _Where:
    # Rows whose place in the order cannot be read are left out: no page could go on behind them.
    where = _Where(["typeof(created) = 'integer'"])
    if statuses:
        where.add(f"status IN ({_marks(statuses)})", *statuses)
    if filter.parents:
        where.add(f"parent IN ({_marks(filter.parents)})", *filter.parents)
    for column, value in (
        ("name", filter.name),
        ("parent", filter.parent),
        ("failure_type", filter.failure_type),
    ):
        if value is not None:
            where.add(f"{column} = ?", value)
    if filter.prefix:
        where.range("key", filter.prefix, behind_prefix(filter.prefix))
    where.range("created", filter.created_from, filter.created_to)
    where.range("updated", filter.updated_from, filter.updated_to)
    where.range("completed", filter.completed_from, filter.completed_to)
    _add_presence(where, "parked", filter.parked)
    if filter.attempts is not None:
        where.add("attempts > 1 AND attempts >= ?", filter.attempts)
    if filter.waits is not None:
        _add_wait(where, filter, driver)
    if filter.after is not None:
        # The first term repeats the second for the indexes, which have no key behind `created`.
        behind = "created <= ? AND (created, key) < (?, ?)"
        if not filter.newest:
            behind = "created >= ? AND (created, key) > (?, ?)"
        where.add(behind, filter.after[0], *filter.after)
    for tag, value in filter.tags:
        if (tag, value) == driver.tag:
            where.add("tag = ? AND value = ?", tag, value)
            _add_place(where, filter)
            continue
        where.add(
            "EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(tags) THEN tags END) AS t"
            " WHERE t.key = ? AND t.value = ? AND t.type = 'text')",
            tag,
            value,
        )
    return where


def _add_wait(where: _Where, filter: InstanceFilter, driver: Candidate) -> None:
    if driver.index != _WAITS:
        found = "wait = ? AND begun = created AND instance = id"
        where.add(f"EXISTS (SELECT 1 FROM wait_row WHERE {found})", filter.waits)
        return
    where.add("wait = ?", filter.waits)
    _add_place(where, filter)


def _add_place(where: _Where, filter: InstanceFilter) -> None:
    """Repeat for the table aside where in the order its rows may stand."""
    where.range("begun", filter.created_from, filter.created_to)
    if filter.after is not None:
        where.add(f"begun {'<' if filter.newest else '>'}= ?", filter.after[0])


def _add_presence(where: _Where, column: str, wanted: bool | None) -> None:
    if wanted is not None:
        where.add(f"{column} IS {'NOT ' if wanted else ''}NULL")


def entity_page(filter: EntityFilter) -> tuple[str, list[object]]:
    """Make the statement of a page of entities."""
    where = _Where()
    if filter.name is not None:
        where.add("e.name = ?", filter.name)
    if filter.prefix:
        where.range("e.key", filter.prefix, behind_prefix(filter.prefix))
    where.range("e.updated", filter.updated_from, filter.updated_to)
    _add_presence(where, "e.lock", filter.locked)
    _add_presence(where, "e.parked", filter.parked)
    if not filter.include_empty:
        where.add("e.state IS NOT NULL")
    if filter.after is not None:
        where.add("(e.name, e.key) > (?, ?)", *filter.after)
    columns = WITH_STATES if filter.states else WITHOUT_STATES
    sql = (
        f"SELECT {columns} FROM {_entity_source(filter)} WHERE {where.text()}"
        " ORDER BY e.name, e.key LIMIT ?"
    )
    return sql, [*where.values, max(0, filter.limit)]


def _entity_source(filter: EntityFilter) -> str:
    if filter.locked:
        return "entity_row e INDEXED BY entity_locked"
    if filter.parked:
        return "entity_row e INDEXED BY entity_parked"
    if filter.prefix and filter.name is None:
        # Names are few: step from one to the next, and look the prefix up under each.
        return (
            "(WITH RECURSIVE names(name) AS (SELECT min(name) FROM entity_row UNION ALL"
            " SELECT (SELECT min(name) FROM entity_row WHERE name > names.name)"
            " FROM names WHERE name IS NOT NULL) SELECT name FROM names) AS n"
            " CROSS JOIN entity_row e INDEXED BY entity_name ON e.name = n.name"
        )
    return "entity_row e INDEXED BY entity_name"
