"""A hub on PostgreSQL beside one on SQLite: the same loads by turns, in one process each time."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anyio
from anyio import to_thread
from attrs import evolve, frozen

from perdure import EntityId, Hub

from .bench import Bench
from .commits import (
    ROWS,
    beside_folding,
    beside_old_snapshot,
    beside_sqlite,
    commit_cost,
    connect,
    spent,
)
from .figures import Fact, Load, Outcome, expect
from .workloads import Meter, app, completed, expect_meter, hello_request

GIVEN = "PERDURE_BENCH_POSTGRES"
"""Names a server to measure, which nobody else uses; else one is started here."""

ROUNDS = 3
ENTITIES = 1_000

#: What PostgreSQL should do of what SQLite does, and take of the processor for it at most.
HELLO, SIGNAL, CPU = 0.7, 0.8, 1.15
#: Microseconds of the server's processors for a row that is folded into the tables: a new one, and one that is there.
NEW_US, UPDATED_US = 6.0, 25.0

_IS_COUNTED = Path("/proc/self/schedstat").exists()
_CLOCK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@frozen
class Database:
    """A server to measure.

    Attributes:
        dsn: its address.
        process_id: of its first process; None where that is not known.
    """

    dsn: str
    process_id: int | None

    def place(self) -> str:
        """Give a place for a new hub."""
        mark = "&" if "?" in self.dsn else "?"
        return f"{self.dsn}{mark}schema=bench_{secrets.token_hex(8)}"

    def cpu_s(self) -> float:
        """Give the seconds of processors that it has taken; 0 where that is not known."""
        return 0.0 if self.process_id is None else cpu_of(self.process_id)


def cpu_of(first: int) -> float:
    """Give what a process and its children have taken, those that have ended included."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) == first:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == first:
            ticks += sum(map(int, fields[11:13]))
    return ticks / _CLOCK


@asynccontextmanager
async def database(bench: Bench) -> AsyncGenerator[Database | None]:
    """Give a server: one that syncs; None where there is none to start."""
    given = os.environ.get(GIVEN)
    if given:
        yield Database(given, None)
        return
    folder = Path("/tmp") if os.name == "posix" else Path.cwd()
    folder = folder / f"perdure-bench-{secrets.token_hex(6)}"
    command = [sys.executable, "-m", "perdure", "dev-postgres", str(folder)]
    process = await anyio.open_process(command, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            try:
                said += await process.stdout.receive()
            except anyio.EndOfStream:
                yield None
                return
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        yield Database(said.decode().strip(), pid)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await to_thread.run_sync(_remove, folder)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


async def measure_postgres(bench: Bench) -> Outcome:
    """Hellos and signals on both stores, by turns."""
    async with database(bench) as server:
        if server is None:
            return Outcome(
                verified=["nothing: there is no PostgreSQL on this machine, and no wheel of one"]
            )
        return await _Comparison(bench, server).run()


class _Comparison:
    """One run of both."""

    def __init__(self, bench: Bench, server: Database) -> None:
        self._bench = bench
        self._server = server
        self._other = "memory" if bench.folder is None else "sqlite"
        self._loads: dict[str, list[Load]] = {}
        self._database: list[Fact] = []
        self._durability = ""

    async def run(self) -> Outcome:
        hellos = signals = 0
        for number in range(-1, ROUNDS):
            for kind in ("postgres", self._other):
                # A server is slow until its log's files are made, and the first round is for that.
                done = await self._measure(kind, number)
                hellos += done[0]
                signals += done[1]
        rows = self._bench.n(40_000)
        if self._server.process_id is not None and _IS_COUNTED:
            place = self._server.place()
            async with self._bench.hub(app, "costs", store=place, partitions=1) as hub:
                self._database = await database_costs(hub, self._server.dsn, rows)
            self._database.append(await commit_cost(self._server, max(1, rows // ROWS)))
            self._database += await beside_folding(self._server, self._bench.n(10))
            self._database += await beside_sqlite(self._server, self._bench.n(5))
            self._database += await beside_old_snapshot(self._server, self._bench.n(100) / 10)
        loads = [_middle(runs) for runs in self._loads.values()]
        return Outcome(
            loads=loads,
            facts=self._facts(),
            verified=[
                f"every result of {hellos:,} hellos",
                f"count and sum at each entity, of {signals:,} signals",
                f"{rows:,} entities in the tables, where that is measured",
                f"commits on PostgreSQL: {self._durability}",
            ],
        )

    @asynccontextmanager
    async def _hub(self, kind: str, number: int) -> AsyncGenerator[Hub]:
        chosen: dict[str, Any] = {"store": self._server.place()} if kind == "postgres" else {}
        async with self._bench.hub(app, f"{kind}-{number}", **chosen) as hub:
            yield hub

    async def _measure(self, kind: str, number: int) -> tuple[int, int]:
        bench = self._bench
        n = bench.n(8_000)
        async with self._hub(kind, number) as hub:
            if kind == "postgres":
                self._durability = hub.durability
            client = hub.client
            await bench.unmeasured(f"hello on {kind}", hello_request(client, 0), n // 4)
            hello = await bench.closed_loop(
                hub, f"hello-{kind}", hello_request(client, 10**6), n, unit="orchestrations"
            )
            expect("completed instances", await completed(client, "hello"), n // 4 + n)

            async def signal(index: int) -> None:
                meter = EntityId(Meter, f"m{index % ENTITIES}")
                await client.signal_entity(meter, Meter.mark, index)

            spread = await bench.closed_loop(hub, f"signal-{kind}", signal, 5 * n, unit="signals")
            for index in range(min(ENTITIES, 5 * n)):
                numbers = range(index, 5 * n, ENTITIES)
                meter: EntityId[Meter] = EntityId(Meter, f"m{index}")
                await expect_meter(client, meter, len(numbers), sum(numbers))
        if number >= 0:
            for load in (hello, spread):
                self._loads.setdefault(load.name, []).append(load)
        return n // 4 + n, 5 * n

    def _facts(self) -> list[Fact]:
        facts: list[Fact] = []
        where = "in memory" if self._other == "memory" else "on SQLite"
        for what, target in (("hello", HELLO), ("signal", SIGNAL)):
            pairs = [
                *zip(
                    self._loads[f"{what}-postgres"],
                    self._loads[f"{what}-{self._other}"],
                    strict=True,
                )
            ]
            facts.append(
                Fact(
                    name=f"{what}: rate on PostgreSQL / {where}",
                    value=median(one.rate / other.rate for one, other in pairs),
                    unit="times",
                    better="higher",
                    target=target,
                    note="median of pairs; server, hub and load share the processors",
                )
            )
            facts.append(
                Fact(
                    name=f"{what}: processor time on PostgreSQL / {where}",
                    value=median(one.cpu_us / other.cpu_us for one, other in pairs),
                    unit="times",
                    target=CPU,
                    note="of the hub's process, folding included; the server's is not",
                )
            )
        return [*facts, *self._database]


async def database_costs(hub: Hub, dsn: str, rows: int) -> list[Fact]:
    """Find out what the server's processes take for commits, and for folding.

    Args:
        hub: has one partition, and nothing else to do.
        dsn: how to ask the server which processes these are.
        rows: how many entities are written, twice.

    Raises:
        WrongOutcomeError: something is lost.
    """
    client = hub.client
    batches = max(1, rows // ROWS)
    connection = await connect(dsn)
    try:
        turns: list[dict[str, float]] = []
        commits = 0
        for turn, count in enumerate((1, batches, batches)):  # the first for what is made once
            before, commits = await spent(connection), await _commits(hub)
            for batch in range(count):
                ids = [f"cost-{min(turn, 1)}-{batch * ROWS + n}" for n in range(ROWS)]
                await client.signal_entities((EntityId(Meter, id), Meter.mark, turn) for id in ids)
            commits = await _commits(hub) - commits
            # A page is of the tables alone, so what was committed is folded before.
            found = [one async for one in client.query_entities(key_prefix=f"cost-{min(turn, 1)}-")]
            expect("entities", len(found), count * ROWS)
            after = await spent(connection)
            turns.append({name: after[name] - before.get(name, 0.0) for name in after})
    finally:
        await connection.close()
    _, new, updated = turns  # these are in memory by now, so that each batch is one commit
    each = batches * ROWS
    figures = (
        (f"{ROWS} signals of one call", (new["commits"] + updated["commits"]) / 2 / batches, None),
        ("a new row that is folded", new["folds"] / each, NEW_US),
        ("a row that is folded over another", updated["folds"] / each, UPDATED_US),
    )
    return [
        Fact(
            name=f"processor time of the server for {what}",
            value=value,
            unit="us",
            target=target,
            note=f"of the process behind that connection; entities, {each / commits:,.0f} a commit",
        )
        for what, value, target in figures
    ]


async def _commits(hub: Hub) -> int:
    return sum(one.commits for one in (await hub.statistics()).partitions)


def _middle(runs: list[Load]) -> Load:
    return evolve(sorted(runs, key=lambda load: load.rate)[len(runs) // 2])
