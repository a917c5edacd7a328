"""What a commit takes on PostgreSQL, by the store alone: on its own, beside folding, beside an old snapshot."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio import to_thread

from perdure import PostgresStore

from ..storage.postgres.journal import COMMIT, COMMIT_SEVERAL, pack
from ..storage.postgres.store import PLANS
from ..storage.records import Checkpoint, EntityRow
from ..storage.slices import at_once
from .figures import Fact, expect, percentile

if TYPE_CHECKING:
    from .postgres import Database

ROWS = 200
#: Microseconds of the server's processors for a commit of ``ROWS`` rows, one behind another, at most.
COMMIT_US = 250.0
#: Commits that come first, for what is made once.
WARM_UP = 20

#: Rows of a commit beside others' work, and over how many they go in turn: many for one round of folding.
FEW, FOLDED = 20, 15_000
#: How much longer the longest of a hundred commits may take while a round of folding is made.
BESIDE = 3.0
#: Seconds that commits gather for, in a store, before they are folded; and of commits before that.
GATHER_S, QUIET_S = 1.0, 0.8

#: Seconds between two commits beside an old snapshot, and how much a table may grow there: of the
#: journal beside the bodies of all commits, of which the rows are dead and cannot be removed.
PAUSE_S, GROWTH = 0.01, 2.0

#: Partitions that commit at once, beside as many files of SQLite, and at what part of its rate.
LANES, LANES_RATIO = (1, 4), (0.9, 1.0)
LANES_S = 1.0

_STATE = b'{"count":1,"total":0,"last":0,"disordered":0}'


class _Owner:
    """A partition of a new hub that somebody commits to, one checkpoint behind another."""

    def __init__(self, store: PostgresStore, partition: Any, epoch: int) -> None:
        self.store = store
        self.partition = partition  # any, since pyright knows it by two names here
        self._epoch = epoch
        self.number = 0
        self.rounds = 0

    async def commit(self, rows: int, of: int) -> float:
        """Commit so many rows, the next ones of so many in all; gives the seconds that it took."""
        number = self.number = self.number + 1
        first = (number - 1) * rows
        entities = [
            EntityRow(n, "meter", f"cost-{n}", number, _STATE, None, None, None)
            for n in (n % of for n in range(first, first + rows))
        ]
        began = perf_counter()
        await self.partition.commit(Checkpoint(number, self._epoch, entities=entities))
        return perf_counter() - began

    async def fold(self) -> None:
        """Bring all that was committed by now into the tables."""
        await self.partition.apply()
        self.rounds += 1

    async def check(self, connection: Any, rows: int, of: int) -> None:
        """See that the tables have the last of each row, and the journal has none.

        Raises:
            WrongOutcomeError: something is lost.
        """
        await self.partition.apply()
        last: dict[int, int] = {}
        for number in range(1, self.number + 1):
            last.update((n % of, number) for n in range((number - 1) * rows, number * rows))
        found = await connection.fetch(self.store.sql("SELECT id, updated FROM {s}.entity_row"))
        expect("rows with the commit that wrote them last", dict(found), last)
        left = await connection.fetchval(self.store.sql("SELECT count(*) FROM {s}.journal"))
        expect("rows in the journal", left, 0)


@asynccontextmanager
async def _owner(server: Database) -> AsyncGenerator[tuple[_Owner, Any]]:
    store = PostgresStore(server.place())
    [partition] = await store.open(1)
    connection = await connect(server.dsn)
    try:
        yield _Owner(store, partition, (await partition.recover()).epoch), connection
    finally:
        await connection.close()
        await store.close()


async def commit_cost(server: Database, count: int) -> Fact:
    """Find out what the server's process takes for a commit, where one comes behind another.

    Args:
        server: is on this machine.
        count: how many commits.

    Raises:
        WrongOutcomeError: something is lost.
    """
    async with _owner(server) as (owner, connection):
        for _ in range(WARM_UP):
            await owner.commit(ROWS, ROWS)
        before = (await spent(connection))["commits"]
        for _ in range(count):
            await owner.commit(ROWS, ROWS)
        taken = (await spent(connection))["commits"] - before
        await owner.check(connection, ROWS, ROWS)
    return Fact(
        name=f"processor time of the server for a commit of {ROWS} rows",
        value=taken / count,
        unit="us",
        target=COMMIT_US,
        note="of the process behind that connection; by the store alone, one behind another",
    )


async def beside_folding(server: Database, rounds: int) -> list[Fact]:
    """Find out how much longer a commit takes while a round of folding is made, of many rows.

    Args:
        server: a database.
        rounds: of folding; one more comes first, for what is made once.

    Raises:
        WrongOutcomeError: something is lost.
    """
    alone: list[float] = []
    beside: list[float] = []
    folds: list[float] = []
    async with _owner(server) as (owner, connection):
        for number in range(-1, rounds):
            if number == 0:
                alone, beside, folds = [], [], []
            until = perf_counter() + QUIET_S
            while perf_counter() < until:
                alone.append(await owner.commit(FEW, FOLDED))
            began, rounds_before = perf_counter(), owner.rounds
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(owner.fold)
                while owner.rounds == rounds_before:
                    beside.append(await owner.commit(FEW, FOLDED))
            folds.append(perf_counter() - began)
            await owner.partition.apply()
            await anyio.sleep(GATHER_S)  # and no round of the store's own is left over
        await owner.check(connection, FEW, FOLDED)
    quiet, busy = percentile(sorted(alone), 99), percentile(sorted(beside), 99)
    rows = min(FOLDED, len(alone) // max(1, rounds) * FEW)
    return [
        Fact(
            name="commit while rows are folded / while none are, 99th percentiles",
            value=busy / quiet,
            unit="times",
            target=BESIDE,
            note=f"{busy * 1e3:.2f} ms of {len(beside):,} commits, {quiet * 1e3:.2f} ms of "
            f"{len(alone):,}; one partition, {FEW} rows a commit, {rows:,} rows a round",
        ),
        Fact(
            name="longest commit while rows are folded",
            value=max(beside) * 1e3,
            unit="ms",
            note=f"a round of folding took {median(folds) * 1e3:.0f} ms; the longest commit while "
            f"none was made, {max(alone) * 1e3:.1f} ms",
        ),
    ]


async def beside_old_snapshot(server: Database, seconds: float) -> list[Fact]:
    """Find out what a transaction that somebody leaves open does to commits and to tables.

    Args:
        server: is on this machine.
        seconds: for how long it is open; first there are commits for half of that without it.

    Raises:
        WrongOutcomeError: something is lost.
    """
    costs: list[float] = []
    counts: list[int] = []
    bodies: list[float] = []
    sizes: list[Sequence[int]] = []
    async with _owner(server) as (owner, connection):
        size = owner.store.sql(
            "SELECT pg_relation_size('{s}.partition'), pg_relation_size('{s}.folded'),"
            " pg_total_relation_size('{s}.journal')"
        )
        body = owner.store.sql("SELECT avg(pg_column_size(body))::float8 FROM {s}.journal")

        async def commit(for_s: float) -> None:
            before, first = (await spent(connection))["commits"], owner.number
            until = perf_counter() + for_s
            while perf_counter() < until or owner.number == first:
                await owner.commit(ROWS, FOLDED)
                await anyio.sleep(PAUSE_S)
            counts.append(owner.number - first)
            costs.append(((await spent(connection))["commits"] - before) / counts[-1])
            await owner.commit(ROWS, FOLDED)  # of which the journal has the body for a while
            bodies.append(await connection.fetchval(body))
            await owner.partition.apply()
            sizes.append(await connection.fetchrow(size))

        for _ in range(WARM_UP):
            await owner.commit(ROWS, FOLDED)
        await commit(seconds / 2)
        other = await connect(server.dsn)
        try:
            async with other.transaction(isolation="repeatable_read"):
                await other.fetch(owner.store.sql("SELECT FROM {s}.journal"))
                await commit(seconds)
        finally:
            await other.close()
        await owner.check(connection, ROWS, FOLDED)
    [(partition, folded, journal)] = [
        [(was, now) for was, now in zip(*both, strict=True)] for both in pairwise(sizes)
    ]
    held = f"{seconds:,.0f} s with an old snapshot open"
    return [
        Fact(
            name="table partition after an old snapshot was open / before",
            value=partition[1] / partition[0],
            unit="times",
            target=GROWTH,
            note=f"{held}, {counts[1]:,} commits of {ROWS} rows; folded, of which one row is "
            f"written a second, {folded[0] / 1024:.0f} kB before and {folded[1] / 1024:.0f} kB after",
        ),
        Fact(
            name="growth of the journal beside an old snapshot / bodies of commits",
            value=(journal[1] - journal[0]) / (counts[1] * bodies[1]),
            unit="times",
            target=GROWTH,
            note=f"dead rows, which nobody may remove while that is open: {journal[0] / 1e6:.1f} MB "
            f"before and {journal[1] / 1e6:.1f} MB after",
        ),
        Fact(
            name="processor time of the server for a commit beside an old snapshot / without",
            value=costs[1] / costs[0],
            unit="times",
            note=f"{costs[1]:.0f} us and {costs[0]:.0f} us, {PAUSE_S * 1e3:.0f} ms between two",
        ),
    ]


async def beside_sqlite(server: Database, rounds: int) -> list[Fact]:
    """Commit bodies of ``ROWS`` rows to the journal, and to plain SQLite, in turn.

    Nothing is packed, folded or awaited by anybody: what is compared is the statement and its sync.

    Args:
        server: a database.
        rounds: how often.

    Raises:
        WrongOutcomeError: something is lost.
    """
    facts: list[Fact] = []
    for count, target in zip(LANES, LANES_RATIO, strict=True):
        ratios: list[float] = []
        rates: list[float] = []
        with TemporaryDirectory(
            prefix="perdure-bench-", dir="/tmp" if os.name == "posix" else None
        ) as folder:
            async with _journals(server, count) as journals:
                for number in range(rounds):
                    files = [_Plain(Path(folder) / f"{number}-{lane}") for lane in range(count)]
                    plain = await _rate([file.run for file in files], LANES_S)
                    rates.append(await _rate([journals.run], LANES_S))
                    ratios.append(rates[-1] / plain)
                await journals.check()
        facts.append(
            Fact(
                name=f"commits of {ROWS} rows to the journals of {count} / to as many files of SQLite",
                value=median(ratios),
                unit="times",
                target=target,
                better="higher",
                note=f"median of {rounds} pairs; {median(rates):,.0f} a second; the statement alone, "
                "one for all of them; SQLite with WAL and synchronous=FULL, each file in a thread, "
                "to which the event loop hands every commit",
            )
        )
    return facts


async def _rate(lanes: Sequence[Callable[[float], Awaitable[int]]], seconds: float) -> float:
    """Have lanes commit for so long; gives how many commits a second that made."""
    counts: list[int] = []
    began = perf_counter()

    async def run(lane: Callable[[float], Awaitable[int]]) -> None:
        counts.append(await lane(began + seconds))

    async with anyio.create_task_group() as tasks:
        for lane in lanes:
            tasks.start_soon(run, lane)
    return sum(counts) / (perf_counter() - began)


def _bodies() -> list[bytes]:
    """Make some bodies of ``ROWS`` rows each."""
    return [
        at_once(
            pack(
                Checkpoint(
                    1,
                    1,
                    entities=[
                        EntityRow(n, "meter", f"cost-{n}", number, _STATE, None, None, None)
                        for n in range(ROWS)
                    ],
                )
            )
        )
        for number in range(20)
    ]


class _Plain:
    """A file of SQLite, of one table, to which a thread of its own commits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bodies = _bodies()

    async def run(self, until: float) -> int:
        """Commit until then; gives how often."""
        loop, count = asyncio.get_running_loop(), 0
        with ThreadPoolExecutor(1) as thread:
            database = await loop.run_in_executor(thread, self._open)
            while not count or perf_counter() < until:
                count += 1
                await loop.run_in_executor(thread, self._put, database, count)
            found = await loop.run_in_executor(thread, self._close, database)
        expect("rows in the file", found, count % 100)
        return count

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE entry (sequence INTEGER PRIMARY KEY, epoch INT, body BLOB)")
        return database

    def _put(self, database: sqlite3.Connection, number: int) -> None:
        body = self._bodies[number % len(self._bodies)]
        database.execute("INSERT INTO entry VALUES (?, 7, ?)", (number, body))
        if number % 100 == 0:
            database.execute("DELETE FROM entry WHERE sequence <= ?", (number,))

    def _close(self, database: sqlite3.Connection) -> int:
        [found] = database.execute("SELECT count(*) FROM entry").fetchone()
        database.close()
        return int(found)


class _Journals:
    """The journals of some partitions, to which one connection commits for all of them at once.

    So does a process for what its partitions have to commit: by one statement.
    """

    def __init__(self, store: PostgresStore, epochs: list[int], connection: Any) -> None:
        self._store = store
        self._epochs = epochs
        self._connection = connection
        self._bodies = _bodies()
        self._number = 0

    async def run(self, until: float) -> int:
        """Commit until then; gives how often, each partition's for itself."""
        first, bodies, count = self._number, self._bodies, len(self._epochs)
        partitions, ones = [*range(count)], [1] * count
        one = await self._connection.prepare(self._store.sql(COMMIT))
        several = await self._connection.prepare(self._store.sql(COMMIT_SEVERAL))
        while self._number == first or perf_counter() < until:
            self._number = number = self._number + 1
            body = bodies[number % len(bodies)]
            if count == 1:
                stored = [await one.fetchval(0, number, self._epochs[0], 1, 1, body)]
            else:
                numbers = [number] * count
                rows = await several.fetch(
                    partitions, numbers, self._epochs, ones, ones, [body] * count
                )
                stored = sorted(row[0] for row in rows)
            expect("the partitions of a commit", stored, partitions)
        return (self._number - first) * count

    async def check(self) -> None:
        """See that all is there."""
        found = await self._connection.fetchval(self._store.sql("SELECT count(*) FROM {s}.journal"))
        expect("rows in the journal", found, self._number * len(self._epochs))


@asynccontextmanager
async def _journals(server: Database, count: int) -> AsyncGenerator[_Journals]:
    store = PostgresStore(server.place())
    partitions = await store.open(count)
    connection = await connect(server.dsn)
    try:
        await connection.execute(PLANS)
        epochs = [(await partition.recover()).epoch for partition in partitions]
        yield _Journals(store, epochs, connection)
    finally:
        await connection.close()
        await store.close()


async def connect(dsn: str) -> Any:
    """Open a connection of one's own."""
    import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

    return await cast("Any", asyncpg).connect(dsn)


async def spent(connection: Any) -> dict[str, float]:
    """Say what the server's processes behind a hub's connections have taken, in microseconds."""
    found = await connection.fetch(
        "SELECT application_name, pid FROM pg_stat_activity WHERE application_name LIKE 'perdure %'"
    )
    return {
        str(name).removeprefix("perdure "): await to_thread.run_sync(_taken_us, int(pid))
        for name, pid in found
    }


def _taken_us(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1_000
