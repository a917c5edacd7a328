"""The doctor says what is wrong with a server, and nothing where nothing is."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from time import time

import anyio
import pytest

from perdure.actors.errors import UsageError
from perdure.storage.membership import Newcomer
from perdure.storage.postgres import PostgresStore, doctor
from perdure.storage.postgres.doctor import Finding, examine
from perdure.storage.postgres.place import read_place
from perdure.storage.postgres.server import Server

from ...postgres import new_server
from .sessions import Session

ME = Newcomer(
    address="127.0.0.1:1", host="here", pid=1, software="0", app="shop", app_hash="a", ttl_s=60.0
)


@pytest.fixture
async def session(postgres: str) -> AsyncIterator[Session]:
    made = Session(read_place(postgres))
    yield made
    await made.close()


@pytest.fixture
async def store(postgres: str) -> AsyncIterator[PostgresStore]:
    """A hub that is there."""
    made = PostgresStore(postgres)
    await made.open(3)
    yield made
    await made.close()


def of(findings: list[Finding], text: str) -> Finding:
    """Give the one finding that says so."""
    found = [finding for finding in findings if text in finding.what]
    assert len(found) == 1, findings
    return found[0]


async def found_in(spec: str, text: str) -> Finding:
    return of(await examine(spec), text)


@pytest.mark.by_turns
async def test_a_well_server_lacks_only_a_standby() -> None:
    with new_server(fsync="on", full_page_writes="on") as server:
        spec = server.dsn
        assert [(f.severity, f.what) for f in await examine(spec)] == [
            ("warning", "there is no synchronous standby: a failover may lose the last commits"),
            ("note", "there is no hub in schema perdure yet"),
        ]
        store = PostgresStore(spec)
        await store.open(3)
        member = await store.join(ME)
        view = await member.look()
        for lease in view.leases:
            await member.take(lease.partition, lease)
        assert [f.what for f in await examine(spec)] == [
            "there is no synchronous standby: a failover may lose the last commits"
        ]
        await member.leave()
        await store.close()


async def test_the_worst_comes_first(postgres: str) -> None:
    strict = postgres.replace("durability=relaxed", "durability=full")
    severities = [finding.severity for finding in await examine(strict)]
    assert severities == sorted(severities, key=doctor.SEVERITIES.index)
    assert severities[0] == "error"


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("options", "text", "severity"),
    [
        ("", "fsync is off", "warning"),
        ("&synchronous_commit=off", "synchronous_commit is off", "warning"),
        ("&default_transaction_read_only=on", "takes no writes", "error"),
        ("&statement_timeout=60000", "statement_timeout is 1min", "warning"),
        ("&lock_timeout=500", "lock_timeout is 500ms", "warning"),
        ("&idle_session_timeout=60000", "idle_session_timeout is 1min", "warning"),
        (
            "&default_transaction_isolation=serializable",
            "default_transaction_isolation is serializable",
            "warning",
        ),
    ],
)
async def test_what_a_session_is_given_is_seen(
    postgres: str, options: str, text: str, severity: str
) -> None:
    assert (await found_in(postgres + options, text)).severity == severity
    if options:
        assert not [f for f in await examine(postgres) if text in f.what]


async def test_what_may_lose_commits_is_an_error_where_nobody_agreed(postgres: str) -> None:
    strict = postgres.replace("durability=relaxed", "durability=full")
    finding = await found_in(f"{strict}&synchronous_commit=off", "synchronous_commit is off")
    assert finding.severity == "error"
    assert (await found_in(strict, "fsync is off")).severity == "error"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_whole_server_is_set_to_is_seen() -> None:
    with new_server(
        synchronous_standby_names="nobody",
        fsync="on",
        full_page_writes="off",
        autovacuum="off",
        track_counts="off",
        max_connections=13,
        superuser_reserved_connections=3,
        max_prepared_transactions=2,
    ) as server:
        spec = server.dsn + "?synchronous_commit=local"
        session = Session(read_place(spec))
        await session.do("SELECT pg_create_physical_replication_slot('gone', true)")
        findings = await examine(server.dsn)
        assert of(findings, "none of the synchronous standbys (nobody)").severity == "error"
        assert of(findings, "full_page_writes is off").severity == "warning"
        assert of(findings, "autovacuum is off").severity == "error"
        assert of(findings, "track_counts is off").severity == "error"
        few = of(findings, "max_connections leaves room for")
        assert "for 9 connections, and 0 members and one that starts need 16" in few.what
        assert of(findings, "'gone' is not in use").severity == "warning"
        assert "'local', so a standby" not in str(findings)
        assert (await found_in(spec, "synchronous_commit is local")).severity == "warning"

        await session.do("ALTER ROLE perdure CONNECTION LIMIT 5")
        assert (await found_in(spec, "the user's connection limit leaves room for 5")).advice
        await session.close()


def start_receiver(server: Server, folder: str) -> subprocess.Popen[bytes]:
    """Have what a standby is to the server: somebody who takes its WAL, and says how far he is."""
    program = str(server.binaries.folder / "pg_receivewal")
    command = [program, "-D", folder, "-d", server.dsn]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_standby_that_is_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LAG_S", 0.2)
    with new_server() as server, tempfile.TemporaryDirectory() as folder:
        receiver = start_receiver(server, folder)
        session = Session(read_place(server.dsn))
        try:
            with anyio.fail_after(20):
                while not await session.do("SELECT FROM pg_stat_replication"):
                    await anyio.sleep(0.02)
                os.kill(receiver.pid, signal.SIGSTOP)
                await session.do("SELECT pg_logical_emit_message(false, 'x', 'y')")
                await session.do("SELECT pg_switch_wal()")
                while not [f for f in await examine(server.dsn) if "seconds behind" in f.what]:
                    await anyio.sleep(0.05)
        finally:
            receiver.kill()
            receiver.wait()
            await session.close()


@pytest.mark.by_turns
async def test_a_long_transaction_is_seen(
    postgres: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.do("BEGIN ISOLATION LEVEL REPEATABLE READ")
    [(pid,)] = await session.do("SELECT pg_backend_pid()")
    assert f"process {pid}" not in str(await examine(postgres))  # it is young
    monkeypatch.setattr(doctor, "HELD_S", 0.0)
    finding = await found_in(postgres, f"process {pid}")
    assert finding.severity == "warning"
    assert f"pg_terminate_backend({pid})" in finding.advice


@pytest.mark.by_turns
async def test_a_table_without_vacuum_is_seen(
    postgres: str, store: PostgresStore, session: Session
) -> None:
    await session.do("ALTER TABLE {s}.journal SET (autovacuum_enabled = off)")
    finding = await found_in(postgres, "autovacuum is off for table journal")
    assert finding.severity == "error"
    await session.do(finding.advice)
    assert "table journal" not in str(await examine(postgres))


@pytest.mark.by_turns
async def test_dead_rows_and_what_has_grown_are_seen(
    postgres: str, store: PostgresStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.do("ALTER TABLE {s}.journal SET (autovacuum_enabled = false)")
    await session.do(
        "INSERT INTO {s}.journal SELECT 0, n, 1, 1, 1, '' FROM generate_series(1, 20) AS n"
    )
    await session.do("DELETE FROM {s}.journal")
    await session.do("SELECT pg_stat_force_next_flush()")
    assert "dead rows" not in str(await examine(postgres))
    monkeypatch.setattr(doctor, "DEAD_ROWS", 10)
    monkeypatch.setattr(doctor, "SMALL_BYTES", 0)
    with anyio.fail_after(10):
        while "table journal has 20 dead rows" not in str(await examine(postgres)):
            await anyio.sleep(0.05)
    assert (await found_in(postgres, "table partition has grown to 8 kB")).severity == "warning"


@pytest.mark.by_turns
async def test_clocks_that_differ_are_seen(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "clock" not in str(await examine(postgres))
    monkeypatch.setattr(doctor, "time", lambda: time() - 100)
    await found_in(postgres, "clock is 100.0 seconds ahead of this host's")
    monkeypatch.setattr(doctor, "time", lambda: time() + 100)
    await found_in(postgres, "clock is 100.0 seconds behind this host's")


@pytest.mark.by_turns
async def test_a_hub_of_a_newer_version_is_seen(
    postgres: str, store: PostgresStore, session: Session
) -> None:
    await session.do("UPDATE {s}.hub SET schema_version = 99")
    finding = await found_in(postgres, "schema version 99, and this Perdure knows")
    assert (finding.severity, finding.advice) == ("error", "upgrade Perdure")


async def test_a_schema_of_something_else_is_seen(postgres: str, session: Session) -> None:
    await session.do("CREATE SCHEMA {s}")
    await session.do("CREATE TABLE {s}.other ()")
    assert (await found_in(postgres, "has something else in it")).severity == "error"


@pytest.mark.by_turns
async def test_partitions_that_nobody_has_are_seen(postgres: str, store: PostgresStore) -> None:
    assert "no owner" not in str(await examine(postgres))
    assert (await found_in(postgres, "no process serves the hub")).severity == "note"
    member = await store.join(ME)
    [seen, *_] = (await member.look()).leases
    await member.take(0, seen)
    await found_in(postgres, "2 of 3 partitions have no owner that lives")
    await member.drain(member.number, True)
    assert (await found_in(postgres, "all members drain")).severity == "warning"
    await member.leave()


@pytest.mark.by_turns
async def test_a_journal_that_is_not_folded_is_seen(
    postgres: str, store: PostgresStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "BACKLOG", 19)
    await session.do(
        "INSERT INTO {s}.journal SELECT 1, n, 1, 1, 1, '' FROM generate_series(1, 20) AS n"
    )
    await found_in(postgres, "20 checkpoints of partition 1, 0 bytes, are not folded")
    monkeypatch.setattr(doctor, "BACKLOG", 20)
    assert not [one for one in await examine(postgres) if "not folded" in one.what]
    await session.do("UPDATE {s}.journal SET body = 'abcde'")
    monkeypatch.setattr(doctor, "BACKLOG_BYTES", 99)
    await found_in(postgres, "20 checkpoints of partition 1, 100 bytes, are not folded")
    await session.do("DELETE FROM {s}.journal")


@pytest.mark.by_turns
async def test_damaged_rows_are_counted(
    postgres: str, store: PostgresStore, session: Session
) -> None:
    await session.do(
        "INSERT INTO {s}.damaged_row (partition, of_table, row, reason)"
        " VALUES (0, 'mail_row', 1, 'torn')"
    )
    await found_in(postgres, "1 rows that nobody can read")


def _nowhere(_: str) -> str:
    return "postgresql://nobody@127.0.0.1:1/x"


def _without_database(spec: str) -> str:
    return read_place(spec).dsn + "_not_there"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_nowhere, "cannot be reached"),
        (_without_database, "not_there"),
    ],
)
async def test_what_cannot_be_reached_is_a_finding(
    postgres: str, change: Callable[[str], str], text: str
) -> None:
    [finding] = await examine(change(postgres))
    assert finding.severity == "error"
    assert text in finding.what


async def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="pooled must be 0 or 1"):
        await examine("postgresql://x/y?pooled=yes")


async def test_who_may_not_see_others_is_told_so(postgres: str, session: Session) -> None:
    schema = read_place(postgres).schema
    await session.do(f'CREATE ROLE "{schema}" LOGIN')
    try:
        findings = await examine(postgres.replace("//perdure@", f"//{schema}@"))
        assert of(findings, "transactions of other users cannot be seen").severity == "note"
        assert of(findings, "the user may not make it").severity == "error"
    finally:
        await session.do(f'DROP ROLE "{schema}"')
