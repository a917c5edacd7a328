"""What is wrong, or may become so, with the server of a hub: looked at, and nothing changed.

Each examination asks the server something, and gives what a person should know of the answer. What
the user may not see is said to be so, and the others go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import Any, Final, Literal

from anyio import CancelScope, to_thread
from attrs import frozen

from ...actors.errors import PerdureError
from ..bridge import AsyncioBridge
from ..marks import HERE, MOVING
from .faults import explain
from .folding import TOO_LARGE
from .links import Connection, Link, driver
from .place import Place, read_place
from .schema import OLDEST, VERSION, read_mark
from .store import TAKERS_MAX

Severity = Literal["error", "warning", "note"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""The worst first: it loses work or does not run; it will hurt; it is good to know."""

HELD_S: float = 300.0
"""Seconds after which a transaction is long: until it ends, nothing that died since is removed."""
APART_S: float = 1.0
"""Seconds that the clocks of the server and of this host may differ."""
LAG_S: float = 10.0
"""Seconds that a standby may be behind."""
FAR_S: float = 0.005
"""Seconds of a round trip from which on it is worth a word."""
DEAD_ROWS: int = 100_000
"""Dead rows of the journal beyond which vacuum is behind: it does them by the 2,000."""
SMALL_BYTES: int = 4 * 1024 * 1024
"""Bytes that the tables may take which have a row for a partition, or for a member."""
BACKLOG: int = 10_000
"""Checkpoints of a partition that may wait to be folded."""
BACKLOG_BYTES: int = 2 * TOO_LARGE
"""Their bytes: at half of it its owner commits no more until something is folded."""
PINGS: Final = 5

OF_ALL: Final = 8
"""Connections of a member: control, leases, beats, two to read, one to fold, and two to commit."""


@frozen
class Finding:
    """Something about a server that a person should know.

    Attributes:
        severity: how bad it is.
        what: what was found.
        advice: what to do; empty where nothing needs to be done.
    """

    severity: Severity
    what: str
    advice: str = ""


@frozen
class _Patient:
    connection: Connection
    place: Place
    hub: Any  # the row, None where there is none

    def sql(self, statement: str) -> str:
        return statement.replace("{s}", self.place.quoted)

    async def row(self, statement: str, *values: Any) -> Any:
        return await self.connection.fetchrow(self.sql(statement), *values)

    async def rows(self, statement: str, *values: Any) -> list[Any]:
        return list(await self.connection.fetch(self.sql(statement), *values))

    async def settings(self, *names: str) -> dict[str, str | None]:
        """Give settings as this session has them; None for those that the server does not know."""
        sql = "SELECT name, current_setting(name, true) FROM unnest($1::text[]) AS name"
        return dict(map(tuple, await self.rows(sql, [*names])))


async def examine(spec: str) -> list[Finding]:
    """Say what is wrong, or may become so, with a hub's server; the worst first.

    Args:
        spec: where the hub is, as ``open_store`` takes it. There need not be one yet.

    Raises:
        UsageError: it is no address of a database, or asyncpg is not installed.
    """
    place = read_place(spec)
    driver()
    bridge = AsyncioBridge()

    async def run() -> list[Finding]:
        link = Link(place, "perdure doctor")
        try:
            return await link.use(lambda connection: _examined(connection, place))
        finally:
            await link.close()

    try:
        found = await bridge.run(run)
    except PerdureError as error:
        found = [Finding("error", str(error))]
    except Exception as error:
        found = [Finding("error", str(explain(error, place.location)))]
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(bridge.close)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


async def _examined(connection: Connection, place: Place) -> list[Finding]:
    hub = None
    if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{place.quoted}.hub"):
        hub = await connection.fetchrow(f"SELECT * FROM {place.quoted}.hub")
    patient = _Patient(connection, place, hub)
    found: list[Finding] = []
    for name, examination in EXAMINATIONS.items():
        try:
            found += await examination(patient)
        except (driver().InsufficientPrivilegeError, driver().UndefinedObjectError) as error:
            found.append(
                Finding("note", f"{name} could not be looked at: {error}", "ask as another user")
            )
    return found


# The server's settings.


async def _version(patient: _Patient) -> list[Finding]:
    row = await patient.row(
        "SELECT current_setting('server_version_num')::int / 10000 AS major,"
        " current_setting('server_version') AS version,"
        " pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only"
    )
    version = row["version"].partition(" ")[0]
    found: list[Finding] = []
    if row["major"] < OLDEST:
        what = f"the server is PostgreSQL {version}, and a hub needs {OLDEST} or newer"
        found.append(Finding("error", what, "upgrade the server"))
    if row["read_only"]:
        what = "the server takes no writes: it is a standby, or set to read only"
        found.append(Finding("error", what, "give the address of the primary"))
    return found


async def _durability(patient: _Patient) -> list[Finding]:
    s = await patient.settings("fsync", "full_page_writes", "synchronous_commit")
    off: Severity = "warning" if patient.place.relaxed else "error"
    found: list[Finding] = []
    if s["fsync"] == "off":
        what = "fsync is off: a crash of the machine loses or damages everything"
        found.append(Finding(off, what, "set fsync = on, and reload"))
    if s["full_page_writes"] == "off":
        what = "full_page_writes is off: a crash of the machine may damage pages"
        advice = "set full_page_writes = on, unless the file system never tears a page (ZFS)"
        found.append(Finding("warning", what, advice))
    if s["synchronous_commit"] == "off":
        what = "synchronous_commit is off: a crash loses what was acknowledged last"
        found.append(Finding(off, what, "set synchronous_commit = on for the hub's user"))
    return found


async def _standbys(patient: _Patient) -> list[Finding]:
    s = await patient.settings("synchronous_standby_names", "synchronous_commit")
    names, commit = (s["synchronous_standby_names"] or "").strip(), s["synchronous_commit"]
    if not names:
        what = "there is no synchronous standby: a failover may lose the last commits"
        return [Finding("warning", what, "name one in synchronous_standby_names")]
    if commit in ("local", "remote_write"):
        what = f"synchronous_commit is {commit}, so a standby need not have what is acknowledged"
        return [Finding("warning", what, "set synchronous_commit = on for the hub's user")]
    if commit == "off":
        return []
    row = await patient.row(
        "SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) AS there,"
        " pg_has_role('pg_read_all_stats', 'USAGE') AS sees FROM pg_stat_replication"
    )
    if row["there"] or not row["sees"]:
        return []
    what = f"none of the synchronous standbys ({names}) is connected, so every commit waits"
    advice = "start one, or change synchronous_standby_names; do not cancel commits that wait"
    return [Finding("error", what, advice)]


async def _lag(patient: _Patient) -> list[Finding]:
    rows = await patient.rows(
        "SELECT application_name, sync_state, state,"
        " extract(epoch FROM greatest(write_lag, flush_lag, replay_lag, CASE"
        " WHEN pg_is_in_recovery() OR flush_lsn >= pg_current_wal_lsn() THEN NULL"
        " ELSE clock_timestamp() - coalesce(reply_time, backend_start) END))::float8 AS lag FROM pg_stat_replication"
    )
    found: list[Finding] = []
    for row in rows:
        if (row["lag"] or 0.0) > LAG_S:
            what = (
                f"standby {row['application_name']!r} ({row['sync_state']}) is "
                f"{row['lag']:.0f} seconds behind"
            )
            advice = "see its disk and its network: it holds commits up, or a failover is long"
            found.append(Finding("warning", what, advice))
        elif row["state"] not in (None, "streaming", "backup"):
            what = f"standby {row['application_name']!r} is {row['state']}, and not streaming yet"
            found.append(Finding("note", what))
    return found


_TIMEOUTS: Final = {
    "statement_timeout": "folds and take-overs that take longer are stopped",
    "lock_timeout": "take-overs that wait for a commit are stopped",
    "idle_session_timeout": "sessions by which members see each other's end are closed",
    "transaction_timeout": "folds and take-overs that take longer are stopped",
}


async def _sessions(patient: _Patient) -> list[Finding]:
    s = await patient.settings(*_TIMEOUTS, "default_transaction_isolation")
    found = [
        Finding(
            "warning",
            f"{name} is {s[name]} for this user: {why}",
            f"ALTER ROLE ... SET {name} = 0 for the hub's user",
        )
        for name, why in _TIMEOUTS.items()
        if s[name] not in (None, "0")
    ]
    level = s["default_transaction_isolation"]
    if level != "read committed":
        what = f"default_transaction_isolation is {level}: commits that meet a move fail"
        advice = "ALTER ROLE ... SET default_transaction_isolation = 'read committed'"
        found.append(Finding("warning", what, advice))
    return found


async def _connections(patient: _Patient) -> list[Finding]:
    row = await patient.row(
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - coalesce(current_setting('reserved_connections', true)::int, 0) AS most,"
        " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS of_database,"
        " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS of_user,"
        " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        "  AND application_name NOT LIKE 'perdure %') AS others"
    )
    members = 0
    if patient.hub is not None:
        [(members,)] = await patient.rows(
            "SELECT count(*) FROM {s}.member WHERE expires > clock_timestamp()"
        )
    partitions = 64 if patient.hub is None else patient.hub["partitions"]
    each = OF_ALL + min(TAKERS_MAX, partitions)
    need = each * (members + 1)
    # Those of the database and the user count the hub's own only, as far as one can tell.
    room = {
        "max_connections": row["most"] - row["others"],
        "the database's connection limit": row["of_database"],
        "the user's connection limit": row["of_user"],
    }
    return [
        Finding(
            "warning",
            f"{name} leaves room for {left} connections, and {members} members and one that "
            f"starts need {need}",
            f"raise it by {need - left} or more: {each} for each member",
        )
        for name, left in room.items()
        if 0 <= left < need or (name == "max_connections" and left < 0)
    ]


# What keeps vacuum from its work.


async def _transactions(patient: _Patient) -> list[Finding]:
    found = [
        Finding(
            "warning",
            f"a transaction of {row['usename']} ({row['application_name'] or 'unnamed'}, process "
            f"{row['pid']}, {row['state']}) is {row['age'] / 60:.0f} minutes old: no row that died "
            "since is removed",
            f"end it; if nobody needs it: SELECT pg_terminate_backend({row['pid']})",
        )
        for row in await patient.rows(
            "SELECT pid, usename, application_name, state,"
            " extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age"
            " FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
            " AND xact_start < clock_timestamp() - make_interval(secs => $1)"
            " ORDER BY xact_start",
            HELD_S,
        )
    ]
    found += [
        Finding(
            "warning",
            f"transaction {row['gid']!r} is prepared, and neither committed nor rolled back, for "
            f"{row['age'] / 60:.0f} minutes: no row that died since is removed",
            f"COMMIT PREPARED or ROLLBACK PREPARED '{row['gid']}'",
        )
        for row in await patient.rows(
            "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age"
            " FROM pg_prepared_xacts WHERE prepared < clock_timestamp() -"
            " make_interval(secs => $1)",
            HELD_S,
        )
    ]
    [(sees,)] = await patient.rows("SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
    if not sees:
        what = "transactions of other users cannot be seen, nor standbys"
        found.append(Finding("note", what, "GRANT pg_read_all_stats to the user, or ask another"))
    return found


async def _slots(patient: _Patient) -> list[Finding]:
    return [
        Finding(
            "warning",
            f"replication slot {row['slot_name']!r} is not in use, and keeps "
            f"{(row['kept'] or 0) // 2**20} MB of WAL"
            + (" and every row that died since" if row["holds"] else ""),
            f"bring its reader back, or SELECT pg_drop_replication_slot('{row['slot_name']}')",
        )
        for row in await patient.rows(
            "SELECT slot_name, xmin IS NOT NULL AS holds,"
            " CASE WHEN pg_is_in_recovery() THEN 0"
            " ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS kept"
            " FROM pg_replication_slots WHERE NOT active AND NOT temporary"
            " AND (restart_lsn IS NOT NULL OR xmin IS NOT NULL)"
        )
    ]


async def _vacuum(patient: _Patient) -> list[Finding]:
    s = await patient.settings("autovacuum", "track_counts")
    found = [
        Finding(
            "error",
            f"{name} is off, so nothing that died is ever removed",
            f"set {name} = on, and reload",
        )
        for name in ("autovacuum", "track_counts")
        if s[name] == "off"
    ]
    found += [
        Finding(
            "error",
            f"autovacuum is off for table {table}",
            f"ALTER TABLE {patient.place.quoted}.{table} RESET (autovacuum_enabled)",
        )
        for (table,) in await patient.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1)"
            " AND relkind = 'r' AND reloptions && ARRAY['autovacuum_enabled=false',"
            " 'autovacuum_enabled=off', 'autovacuum_enabled=0', 'autovacuum_enabled=no']"
            " ORDER BY relname",
            patient.place.quoted,
        )
    ]
    return found


async def _bloat(patient: _Patient) -> list[Finding]:
    if patient.hub is None:
        return []
    vacuum = "see that autovacuum keeps up, and what of the above keeps it from that"
    found: list[Finding] = []
    for row in await patient.rows(
        "SELECT relname, n_live_tup AS live, n_dead_tup AS dead, pg_relation_size(relid) AS bytes"
        " FROM pg_stat_user_tables WHERE schemaname = $1 ORDER BY relname",
        patient.place.schema,
    ):
        table, live, dead, size = tuple(row)
        if table in ("partition", "folded", "member", "relay"):
            if size > SMALL_BYTES:
                what = f"table {table} has grown to {size // 2**10} kB, with {dead} dead rows"
                advice = f"{vacuum}; then VACUUM FULL {patient.place.quoted}.{table}"
                found.append(Finding("warning", what, advice))
        elif dead > max(DEAD_ROWS, live):
            what = f"table {table} has {dead} dead rows beside {live} live ones"
            found.append(Finding("warning", what, vacuum))
    return found


# Between the server and here.


async def _clocks(patient: _Patient) -> list[Finding]:
    trips: list[tuple[float, float]] = []
    for _ in range(PINGS):
        began, asked = perf_counter(), time()
        [(server,)] = await patient.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
        took = perf_counter() - began
        trips.append((took, server - asked - took / 2))
    took, apart = min(trips)
    found: list[Finding] = []
    if abs(apart) > APART_S + took / 2:
        which = "ahead of" if apart > 0 else "behind"
        what = f"the server's clock is {abs(apart):.1f} seconds {which} this host's"
        advice = "see that both follow a time server: timers are by the hosts' clocks"
        found.append(Finding("warning", what, advice))
    if took > FAR_S:
        what = f"a round trip to the server takes {took * 1e3:.1f} ms, and a commit one at least"
        found.append(Finding("note", what, "run the hub nearer to the server"))
    return found


async def _pooler(patient: _Patient) -> list[Finding]:
    [(pid,)] = await patient.rows("SELECT pg_backend_pid()")
    # A pooler greets its clients with a number of its own making.
    lies_between = pid != patient.connection.get_server_pid()
    place = patient.place
    if lies_between and not place.pooled:
        what = "a pooler lies between, and the address does not say so"
        advice = "say pooled=1 in it (and control_dsn=..., which goes around the pooler)"
        return [Finding("error", what, advice)]
    if place.pooled and place.control_dsn is None:
        what = "there is no control_dsn, so that a member is gone is seen when its lease expires"
        return [Finding("note", what, "give one that goes around the pooler, percent-encoded")]
    if place.pooled and not lies_between:
        what = "the address says pooled=1, and no pooler is seen: statements are not prepared"
        return [Finding("note", what, "leave pooled=1 out if there is none")]
    return []


# The hub.


async def _schema(patient: _Patient) -> list[Finding]:
    place, hub = patient.place, patient.hub
    if hub is None:
        [(tables, may)] = await patient.rows(
            "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)),"
            " has_database_privilege(current_database(), 'CREATE')",
            place.quoted,
        )
        if tables:
            what = f"schema {place.schema} has something else in it"
            return [Finding("error", what, "name another, as in ?schema=shop")]
        if not may:
            what = f"there is no hub in schema {place.schema}, and the user may not make it"
            return [Finding("error", what, "GRANT CREATE ON DATABASE ... to the user")]
        return [Finding("note", f"there is no hub in schema {place.schema} yet")]
    if hub["schema_version"] > VERSION:
        what = (
            f"the hub has schema version {hub['schema_version']}, and this Perdure knows {VERSION}"
        )
        return [Finding("error", what, "upgrade Perdure")]
    return []


async def _members(patient: _Patient) -> list[Finding]:
    if patient.hub is None:
        return []
    row = await patient.row(
        "SELECT count(*) FILTER (WHERE m.member IS NULL OR m.expires <= clock_timestamp()) AS free,"
        " (SELECT count(*) FROM {s}.member WHERE expires > clock_timestamp()) AS members,"
        " (SELECT count(DISTINCT app_hash) FROM {s}.member WHERE expires > clock_timestamp())"
        " AS versions, (SELECT coalesce(bool_and(draining), false) FROM {s}.member"
        " WHERE expires > clock_timestamp()) AS drain"
        " FROM {s}.partition p LEFT JOIN {s}.member m ON m.member = p.owner"
    )
    found: list[Finding] = []
    mark = await read_mark(patient.connection, patient.place)
    if mark is not None and mark.state not in (HERE, MOVING):
        found.append(Finding("note", mark.words(patient.place.location)))
    elif not row["members"]:
        found.append(Finding("note", "no process serves the hub", "start one with perdure serve"))
    elif row["drain"]:
        what = "all members drain, so nobody takes the partitions that they let go"
        found.append(
            Finding("warning", what, "perdure nodes undrain one of them, or start another")
        )
    elif row["free"]:
        what = f"{row['free']} of {patient.hub['partitions']} partitions have no owner that lives"
        advice = "nothing, if members have just come or gone; else see their logs"
        found.append(Finding("warning", what, advice))
    if row["versions"] > 1:
        what = f"members run {row['versions']} versions of the application"
        found.append(Finding("note", what, "nothing, while one replaces another"))
    return found


async def _backlog(patient: _Patient) -> list[Finding]:
    if patient.hub is None:
        return []
    return [
        Finding(
            "warning",
            f"{lag} checkpoints of partition {partition}, {size:,} bytes, are not folded into the "
            "tables",
            "see the log of its owner, and what holds locks on the tables",
        )
        for partition, lag, size in await patient.rows(
            # The length of a body is known without reading it.
            "SELECT j.partition, count(*), sum(octet_length(j.body))::bigint FROM {s}.folded f"
            " JOIN {s}.journal j ON j.partition = f.partition AND j.sequence > f.settled"
            " GROUP BY j.partition HAVING count(*) > $1 OR sum(octet_length(j.body)) > $2"
            " ORDER BY 3 DESC, 2 DESC LIMIT 5",
            BACKLOG,
            BACKLOG_BYTES,
        )
    ]


async def _damage(patient: _Patient) -> list[Finding]:
    if patient.hub is None:
        return []
    [(rows,)] = await patient.rows("SELECT count(*) FROM {s}.damaged_row")
    if not rows:
        return []
    what = f"{rows} rows that nobody can read are set aside, in table damaged_row"
    return [Finding("warning", what, "mend them, as docs/storage.md says")]


EXAMINATIONS: Final[dict[str, Callable[[_Patient], Awaitable[list[Finding]]]]] = {
    "the version": _version,
    "durability": _durability,
    "standbys": _standbys,
    "the lag of standbys": _lag,
    "settings of sessions": _sessions,
    "connections": _connections,
    "transactions": _transactions,
    "replication slots": _slots,
    "autovacuum": _vacuum,
    "dead rows": _bloat,
    "clocks": _clocks,
    "poolers": _pooler,
    "the schema": _schema,
    "members": _members,
    "the journal": _backlog,
    "damaged rows": _damage,
}
"""All that is looked at, by what it is called where it cannot be."""
