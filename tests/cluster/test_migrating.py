"""A hub goes from a folder to PostgreSQL, or back, while it serves, whatever dies on the way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from attrs import evolve, frozen

import perdure
from perdure import (
    Hub,
    LeaseLostError,
    MigrationStatus,
    PerdureError,
    Settings,
    StorageError,
    StoreInUseError,
    StoreMovedError,
    UnavailableError,
    UsageError,
)
from perdure.adapters.telemetry import metrics_text
from perdure.runtime.cluster.nodes import ClusterCrew
from perdure.runtime.cluster.supervisor import MemberSupervisor
from perdure.storage import Checkpoint, migration, open_store
from perdure.storage.bridge import AsyncioBridge
from perdure.storage.marks import COMING, Mark
from perdure.storage.membership import ClusterStore, Membership, Newcomer, View
from perdure.storage.migrating import Live, MigratingStore
from perdure.storage.migration import Found, open_end
from perdure.storage.postgres.doctor import examine
from perdure.storage.postgres.links import connect
from perdure.storage.postgres.migration import MovablePostgres
from perdure.storage.postgres.server import Server
from perdure.storage.postgres.store import PostgresPartition, PostgresStore
from perdure.storage.sqlite.migration import MovableSqlite
from perdure.storage.sqlite.store import SqlitePartition
from tests.cluster.errands import Errands, app
from tests.cluster.killed import STEP

pytestmark = pytest.mark.once  # the processes, the steps and the stores matter here

PARTITIONS = 3

STEPS = [
    "begun",
    "marked",
    "following 1",
    "copying 1",
    "copied 1",
    "stopped 1",
    "followed 1",
    "arrived 1",
    "moved 1",
]
QUICK = ("arrived 1",)
KILLS = [step if step in QUICK else pytest.param(step, marks=pytest.mark.slow) for step in STEPS]
DEATHS = [
    step if step == "followed 1" else pytest.param(step, marks=pytest.mark.slow)
    for step in STEPS
    if step.endswith(" 1")
]
#: Each way once with a step, and with each of them where there is time.
WORKERS_DIE = [
    pytest.param(
        *(way, step),
        marks=[]
        if (way, step) in {("there", "copied 1"), ("back", "arrived 1")}
        else pytest.mark.slow,
    )
    for way in ("there", "back")
    for step in ("following 1", "copying 1", "copied 1", "stopped 1", "followed 1", "arrived 1")
]
#: What goes on in the store's own thread, whichever loop the hub is on.
SELDOM = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)]
)
LOOPS = pytest.mark.parametrize("loop", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)])


Process = subprocess.Popen[bytes]
WAYS = pytest.mark.parametrize("way", ["there", "back"])
#: Where both ways are the same to what is tested.
ONE_WAY = pytest.mark.parametrize("way", ["there", pytest.param("back", marks=pytest.mark.slow)])
TARGETS: dict[str, Any] = {"there": MovablePostgres, "back": MovableSqlite}
SOURCES: dict[str, Any] = {"there": SqlitePartition, "back": PostgresPartition}


@frozen
class Way:
    """From one store to another.

    Attributes:
        folder: which is one of them.
        source: where the hub is first.
        target: where it goes.
    """

    folder: Path
    source: str
    target: str

    @contextmanager
    def served(
        self, loop: str = "asyncio", *, step: str = "", workers: int = 0
    ) -> Generator[Process]:
        """Serve the errands in a process of its own, which ends itself where it reaches a step."""
        words = [sys.executable, "-m", "tests.storage.migrating", step, "serve"]
        words += ["tests.cluster.errands:app", "--store", self.source]
        words += ["--partitions", str(PARTITIONS), "--backend", loop]
        words += ["--workers", str(workers)] * bool(workers)
        log = self.folder.with_suffix(".log").open("ab")
        with log, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()  # it serves, or has ended
                yield process
            finally:
                process.kill()

    def said(self) -> str:
        """Give what the processes have logged."""
        return self.folder.with_suffix(".log").read_text()

    async def migrate(self) -> MigrationStatus:
        """Begin to move, or see that it goes on, until all has come."""
        async with perdure.watch_hub(self.source) as hub:
            await hub.migrate(self.target)
            while (status := await hub.migration()) is None or not status.has_ended:
                await anyio.sleep(0.02)
            return status

    async def run_to_its_end(
        self, errands: Errands, loop: str = "asyncio", *, workers: int = 0
    ) -> None:
        """Serve errands and move until all has moved, and stop in order."""
        with self.served(loop, workers=workers) as process:
            async with perdure.connect(self.source, app) as client:
                async with errands.beside(client):
                    status = await self.migrate()
                assert status.moved == (0, 1, 2)
                await errands.check(client)
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait) == 0, self.said()

    async def run_killed(self, errands: Errands, loop: str, step: str, *, workers: int = 0) -> None:
        """Serve errands and move, until the process ends itself at a step."""
        with self.served(loop, step=step, workers=workers) as process:
            async with (
                perdure.connect(self.source, app) as client,
                anyio.create_task_group() as tasks,
                errands.beside(client),
            ):
                tasks.start_soon(self.migrate)
                await until_dead(process)
                tasks.cancel_scope.cancel()

    async def run_command(self) -> bytes:
        """Move by the command, and give what it says."""
        words = [sys.executable, "-m", "perdure", "migrate", self.source, self.target]
        return (await anyio.run_process(words)).stdout

    async def check_moved(self, errands: Errands) -> None:
        """The source refuses, and the target has what the errands made."""
        with pytest.raises(StoreMovedError, match="has moved to"):
            async with Hub(app, store=self.source, partitions=PARTITIONS):
                pass
        async with Hub(app, store=self.target, partitions=PARTITIONS) as hub:
            await errands.check(hub.client)


def ways(way: str, folder: Path, database: str) -> Way:
    """Give the way from a folder to a database, or back."""
    # Who is cancelled while asyncpg asks whether the server has TLS leaves an error that nobody
    # takes, and the test's loop raises.
    there = Way(folder, f"sqlite:{folder}", f"{database}&sslmode=disable")
    return there if way == "there" else Way(folder, there.target, there.source)


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
    return process.poll() is not None


async def finished(hub: Hub) -> MigrationStatus:
    """Wait until all of a hub has moved."""
    with anyio.fail_after(60):
        while (status := await hub.migration()) is None or not status.has_ended:
            await anyio.sleep(0.01)
    return status


async def until_dead(process: subprocess.Popen[bytes]) -> None:
    with anyio.fail_after(60):
        assert await anyio.to_thread.run_sync(process.wait) == -signal.SIGKILL


@WAYS
@LOOPS
@pytest.mark.parametrize("step", KILLS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_that_was_killed_at_a_step_goes_on_with_its_move(
    tmp_path: Path, newest_postgres: str, step: str, loop: str, way: str
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    with anyio.fail_after(120):
        await move.run_killed(errands, loop, step)
        with pytest.raises(StoreMovedError, match="is being moved to"):
            async with Hub(app, store=move.target, partitions=PARTITIONS):
                pass
        await move.run_to_its_end(errands, loop)

    await move.check_moved(errands)


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("step", ["moved 0", "moved 2"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_move_whose_process_is_gone_is_finished_by_the_command(
    tmp_path: Path, newest_postgres: str, step: str, way: str
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    await move.run_killed(errands, "asyncio", step)
    await until_expired(newest_postgres)

    assert b"has moved to" in await move.run_command()
    await move.check_moved(errands)


async def until_expired(database: str) -> None:
    """Wait until whoever served a hub there is known to be gone."""
    store = open_store(database)
    assert isinstance(store, ClusterStore)
    with anyio.fail_after(30):
        while any(not row.expired for row in (await store.view()).members):
            await anyio.sleep(0.1)
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "step"),
    [("there", "moved 2"), ("back", "moved 2"), ("back", "arrived"), ("back", "buried")],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_store_of_a_hub_that_died_when_all_had_moved_is_refused(
    tmp_path: Path, newest_postgres: str, way: str, step: str
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    await move.run_killed(errands, "asyncio", step)

    with move.served() as process:
        assert await anyio.to_thread.run_sync(process.wait) != 0

    assert "has moved to" in move.said()
    await move.check_moved(errands)


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_that_is_killed_again_and_again_moves_all_the_same(
    tmp_path: Path, newest_postgres: str, seed: int, loop: str, way: str
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    chance = random.Random(seed)
    for _ in range(8):
        with move.served(loop) as process:
            if await anyio.to_thread.run_sync(has_ended, process):
                break  # all had come
            async with (
                perdure.connect(move.source, app) as client,
                anyio.create_task_group() as tasks,
                errands.beside(client),
            ):
                tasks.start_soon(move.migrate)
                await anyio.sleep(chance.uniform(0.02, 0.8))
                process.kill()
                tasks.cancel_scope.cancel()
    await until_expired(newest_postgres)
    await move.run_command()
    await move.check_moved(errands)


@ONE_WAY
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_command_that_was_killed_changes_nothing_of_the_move(
    tmp_path: Path, newest_postgres: str, way: str
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    command = [sys.executable, "-m", "perdure", "migrate", move.source, move.target]
    with move.served() as process:
        async with perdure.connect(move.source, app) as client, errands.beside(client):
            async with (
                perdure.watch_hub(move.source) as hub,
                await anyio.open_process(command) as first,
            ):
                while await hub.migration() is None:
                    await anyio.sleep(0.01)
                first.kill()
            said = await move.run_command()
        assert b"3 partitions came over" in said
        assert f"process {process.pid} serves the hub".encode() in said
        assert (f"with --partitions {PARTITIONS}".encode() in said) is (way == "back")
        process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(process.wait) == 0, move.said()

    await move.check_moved(errands)


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("way", "shards"),
    [("there", 1), pytest.param("there", 2, marks=pytest.mark.slow), ("back", 1)],
)
async def test_a_hub_moves_with_its_work_under_way(
    tmp_path: Path, newest_postgres: str, way: str, shards: int
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    elsewhere = "postgresql://elsewhere/hub" if way == "there" else "sqlite:elsewhere"
    async with Hub(app, store=move.source, partitions=PARTITIONS, shards=shards) as hub:
        async with errands.beside(hub.client):
            await hub.migrate(move.target)
            await hub.migrate(move.target)  # which says the same
            with pytest.raises(StoreMovedError, match="goes nowhere else"):
                await hub.migrate(elsewhere)
            status = await finished(hub)
        await errands.check(hub.client)
        assert (status.moved, status.trouble) == ((0, 1, 2), None)
        assert 0 < status.longest_pause_s < 5
        assert hub.durability.startswith("postgresql" if way == "there" else "sqlite")
        refusal = StoreMovedError if way == "there" else StoreInUseError
        words = r"is being moved to .* lets others in when it stops|in use by another hub"
        with pytest.raises(refusal, match=words):
            async with Hub(app, store=move.target, partitions=PARTITIONS):
                pass
        seen = str(await examine(newest_postgres))
        assert (
            "lets others in when it stops" if way == "there" else "has moved to sqlite:"
        ) in seen
        assert "no process serves" not in seen

    await move.check_moved(errands)


@pytest.mark.by_turns
async def test_a_hub_with_workers_moves_with_its_work_under_way(
    tmp_path: Path, newest_postgres: str
) -> None:
    move, errands = ways("there", tmp_path / "hub", newest_postgres), Errands()
    hub = Hub("tests.cluster.errands:app", store=move.source, partitions=PARTITIONS, workers=2)
    async with hub:
        async with errands.beside(hub.client):
            await hub.migrate(move.target)
            for number in range(4):  # and some go to and fro meanwhile
                with suppress(PerdureError):
                    await hub.move_partition(number % PARTITIONS, number % 2)
            status = await finished(hub)
            await hub.move_partition(0, 1)
            await hub.move_partition(0, 0)
        await errands.check(hub.client)
    assert status.moved == (0, 1, 2)
    assert 0 < status.longest_pause_s < 5

    await move.check_moved(errands)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_with_workers_that_stops_on_the_way_goes_on_at_its_next_start(
    tmp_path: Path, newest_postgres: str
) -> None:
    move, errands = ways("there", tmp_path / "hub", newest_postgres), Errands()
    where: Any = {"store": move.source, "partitions": PARTITIONS, "workers": 2}
    hub = await Hub("tests.cluster.errands:app", **where).start()
    async with errands.beside(hub.client):
        await hub.migrate(move.target)
        while (status := await hub.migration()) is None or not status.moved:
            await anyio.sleep(0.001)
    await hub.stop()

    async with Hub("tests.cluster.errands:app", **where) as hub:
        async with errands.beside(hub.client):
            await hub.migrate(move.target)
            await finished(hub)
        await errands.check(hub.client)
    await move.check_moved(errands)


@pytest.mark.by_turns("asyncio")
async def test_a_hub_with_workers_goes_back_with_its_work_under_way_by_one_of_them(
    tmp_path: Path, newest_postgres: str
) -> None:
    move, errands = ways("back", tmp_path / "hub", newest_postgres), Errands()
    hub = Hub("tests.cluster.errands:app", store=move.source, partitions=PARTITIONS, workers=2)
    async with hub:
        async with errands.beside(hub.client):
            with pytest.raises(UsageError, match="from a folder to a database, or back"):
                await hub.migrate("postgresql://elsewhere/hub")
            assert len((await hub.nodes()).nodes) == 2
            await hub.migrate(move.target)
            await hub.migrate(move.target)  # which says the same
            status = await finished(hub)
        await errands.check(hub.client)
        said = await metrics_text(hub)
        [node] = (await hub.nodes()).nodes
        assert [partition.index for partition in node.partitions] == [0, 1, 2]
    assert status.moved == (0, 1, 2)
    assert 0 < status.longest_pause_s < 5
    assert "perdure_migration_moved_partitions 3.0" in said

    await move.check_moved(errands)


@pytest.mark.by_turns
async def test_a_worker_that_has_just_joined_is_waited_for_on_the_way_back(
    tmp_path: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = ways("back", tmp_path / "hub", newest_postgres)
    looks, is_asked = anyio.Event(), anyio.Event()
    other = Hub(app, store=move.source)

    async def leave_when_seen() -> None:
        await is_asked.wait()
        while crew.count == 1:
            await anyio.sleep(0.005)
        await other.stop()

    async with Hub(app, store=move.source, partitions=PARTITIONS) as hub:
        crew = hub.crew
        assert isinstance(crew, ClusterCrew)
        membership = crew.leases.membership
        look = membership.look

        async def look_late() -> View:
            looks.set()
            await is_asked.wait()
            return await look()

        with anyio.fail_after(60):
            monkeypatch.setattr(membership, "look", look_late)
            async with anyio.create_task_group() as tasks:
                await looks.wait()
                await other.start()
                assert crew.count == 1
                tasks.start_soon(leave_when_seen)
                crew.be_alone = lambda _: is_asked.set()
                await hub.migrate(move.target)
            await finished(hub)


@pytest.mark.by_turns("trio")
@pytest.mark.parametrize("gives_up", [False, True])
async def test_who_asks_a_hub_with_workers_to_go_back_beside_another_takes_nothing_from_that_one(
    gives_up: bool, tmp_path: Path, newest_postgres: str
) -> None:
    move, errands = ways("back", tmp_path / "hub", newest_postgres), Errands()
    other = move if gives_up else evolve(move, target=f"sqlite:{tmp_path / 'other'}")
    hub = Hub("tests.cluster.errands:app", store=move.source, partitions=PARTITIONS, workers=2)
    refused = list[Way]()

    async def ask(way: Way, patience_s: float | None = None) -> None:
        try:
            with anyio.move_on_after(patience_s) if patience_s else nullcontext():
                await hub.migrate(way.target)
        except StoreMovedError:
            refused.append(way)

    async with hub:
        async with errands.beside(hub.client):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, move)
                await anyio.sleep(0.01)
                tasks.start_soon(ask, other, 0.05 if gives_up else None)
            await finished(hub)
        with anyio.fail_after(60):
            await errands.check(hub.client)
    assert len(refused) == (not gives_up)
    await (other if move in refused else move).check_moved(errands)


@pytest.mark.by_turns("asyncio")
async def test_a_hub_whose_worker_has_just_died_goes_back_by_the_other_one(
    tmp_path: Path, newest_postgres: str
) -> None:
    move, errands = ways("back", tmp_path / "hub", newest_postgres), Errands()
    hub = Hub("tests.cluster.errands:app", store=move.source, partitions=PARTITIONS, workers=2)
    async with hub:
        async with errands.beside(hub.client):
            dead = max(row.pid for row in (await hub.nodes()).nodes)
            os.kill(dead, signal.SIGKILL)
            crew = hub.crew
            assert isinstance(crew, MemberSupervisor)
            while any(one.process is None or one.process.pid == dead for one in crew.workers):
                await anyio.sleep(0.005)
            with anyio.fail_after(60):
                await hub.migrate(move.target)
                await finished(hub)
        with anyio.fail_after(60):
            await errands.check(hub.client)
    await move.check_moved(errands)


@pytest.mark.by_turns("trio")
async def test_a_hub_with_workers_that_has_other_nodes_stays_and_has_its_workers(
    tmp_path: Path, newest_postgres: str
) -> None:
    settings = Settings(lease_s=3.0, drain_s=0.5)
    where: Any = {"store": newest_postgres, "settings": settings}
    async with (
        Hub("tests.cluster.errands:app", partitions=PARTITIONS, workers=2, **where) as hub,
        Hub(app, **where),
    ):
        before = {node.member for node in (await hub.nodes()).nodes}
        with pytest.raises(StoreInUseError, match="has other nodes"):
            await hub.migrate(f"sqlite:{tmp_path / 'hub'}")
        assert {node.member for node in (await hub.nodes()).nodes} == before
        assert await hub.migration() is None


@pytest.mark.parametrize("step", ["arrived", pytest.param("buried", marks=pytest.mark.slow)])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_whose_worker_dies_when_all_has_gone_back_ends_and_says_where_it_is(
    tmp_path: Path, newest_postgres: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = ways("back", tmp_path / "hub", newest_postgres)
    monkeypatch.setenv(STEP, f"{step}:{tmp_path / 'killed'}")
    hub = Hub("tests.cluster.killed:app", store=move.source, partitions=PARTITIONS, workers=2)

    async def serve() -> None:
        async with hub:
            await hub.migrate(move.target)
            await anyio.sleep_forever()

    with anyio.fail_after(60), pytest.raises(StoreMovedError, match="has moved to"):
        await serve()
    assert (tmp_path / "killed").exists()

    await move.check_moved(Errands())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_with_workers_whose_supervisor_was_killed_goes_on_with_its_way_back(
    tmp_path: Path, newest_postgres: str
) -> None:
    move, errands = ways("back", tmp_path / "hub", newest_postgres), Errands()
    with anyio.fail_after(120):
        with move.served(workers=2) as process:
            async with (
                perdure.connect(move.source, app) as client,
                anyio.create_task_group() as tasks,
                errands.beside(client),
            ):
                async with perdure.watch_hub(move.source) as hub:
                    await hub.migrate(move.target)
                    while (status := await hub.migration()) is None or not status.moved:
                        await anyio.sleep(0.001)
                process.kill()
                await anyio.to_thread.run_sync(process.wait)
                tasks.cancel_scope.cancel()
        await until_expired(newest_postgres)
        with move.served(workers=2) as process:
            async with perdure.connect(move.source, app) as client:
                async with errands.beside(client):
                    await move.migrate()
                await errands.check(client)
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait) == 0, move.said()

    await move.check_moved(errands)


@pytest.mark.parametrize(("way", "step"), WORKERS_DIE)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_of_which_a_worker_is_killed_at_a_step_moves_all_the_same(
    tmp_path: Path, newest_postgres: str, way: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    done = tmp_path / "killed"
    monkeypatch.setenv(STEP, f"{step}:{done}")
    hub = Hub("tests.cluster.killed:app", store=move.source, partitions=PARTITIONS, workers=2)
    with anyio.fail_after(120):
        async with hub:
            async with errands.beside(hub.client):
                await hub.migrate(move.target)
                await finished(hub)
            await errands.check(hub.client)
    assert done.exists()

    await move.check_moved(errands)


@pytest.mark.parametrize("step", [pytest.param("moved 1", marks=pytest.mark.slow)])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_with_workers_that_was_killed_goes_on_with_its_move(
    tmp_path: Path, newest_postgres: str, step: str
) -> None:
    move, errands = ways("there", tmp_path / "hub", newest_postgres), Errands()
    with anyio.fail_after(120):
        await move.run_killed(errands, "asyncio", step, workers=2)
        await move.run_to_its_end(errands, workers=2)

    await move.check_moved(errands)


@pytest.mark.by_turns
@WAYS
async def test_how_far_a_hub_has_moved_is_counted(
    tmp_path: Path, newest_postgres: str, way: str
) -> None:
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    async with Hub(app, store=move.source, partitions=PARTITIONS) as hub:
        assert "\nperdure_migration" not in await metrics_text(hub)
        async with errands.beside(hub.client):
            await hub.migrate(move.target)
            status = await finished(hub)
        while 'perdure_migration_state{state="ended"} 1' not in (said := await metrics_text(hub)):
            await anyio.sleep(0.01)
        assert (await hub.statistics()).migration == await hub.migration()

    assert 'perdure_migration_state{state="moving"} 0' in said
    assert "perdure_migration_partitions 3.0" in said
    assert "perdure_migration_moved_partitions 3.0" in said
    assert f"perdure_migration_copied_rows_total {float(status.copied_rows)}" in said
    assert status.copied_rows > status.rows > 0
    assert f"perdure_migration_longest_pause_seconds {status.longest_pause_s}" in said


@pytest.mark.by_turns
async def test_a_move_that_was_not_finished_at_the_end_is_finished_where_the_hub_starts_next(
    tmp_path: Path, newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(self: MigratingStore) -> None:
        raise StorageError("the process is gone")

    folder, errands = tmp_path / "hub", Errands()
    monkeypatch.setattr(MigratingStore, "finish", lose)
    hub = await Hub(app, store=folder, partitions=PARTITIONS).start()
    async with errands.beside(hub.client):
        await hub.migrate(newest_postgres)
        await finished(hub)
    with pytest.raises(StorageError, match="is gone"):
        await hub.stop()
    monkeypatch.undo()

    async with Hub(app, store=newest_postgres) as hub:
        await errands.check(hub.client)
    await ways("there", folder, newest_postgres).check_moved(errands)


@SELDOM
@WAYS
@pytest.mark.parametrize("is_stored", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_a_partition_whose_arrival_was_not_answered_is_served_where_it_is(
    tmp_path: Path,
    newest_postgres: str,
    is_stored: bool,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = TARGETS[way]
    arrive = target.arrive_one
    tried: list[int] = []

    async def arrive_once(self: Any, partition: int, *rest: Any) -> None:
        tried.append(partition)
        if tried.count(partition) > 1:
            await arrive(self, partition, *rest)
            return
        if is_stored:
            await arrive(self, partition, *rest)
        raise StorageError("the answer is lost")

    monkeypatch.setattr(target, "arrive_one", arrive_once)
    move, errands = ways(way, tmp_path / "hub", newest_postgres), Errands()
    async with (
        Hub(app, store=move.source, partitions=PARTITIONS) as hub,
        errands.beside(hub.client),
    ):
        await hub.migrate(move.target)
        await finished(hub)

    assert tried == ([0, 1, 2] if is_stored else [0, 0, 1, 1, 2, 2])
    await move.check_moved(errands)


@SELDOM
@WAYS
async def test_a_partition_that_recovers_while_it_is_copied_is_copied_anew(
    tmp_path: Path, oldest_postgres: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, source = TARGETS[way], SOURCES[way]
    commit, failed = source.commit, list[bool]()
    load = target.load_one
    loaded: list[int] = []

    async def load_beside(self: Any, partition: int, *rest: Any) -> None:
        loaded.append(partition)
        await load(self, partition, *rest)
        while len(loaded) == 1 and not failed:
            await asyncio.sleep(0.01)

    async def commit_and_lose(self: Any, checkpoint: Checkpoint) -> None:
        await commit(self, checkpoint)
        if loaded and not failed and self.place.endswith(("-00.sqlite", "partition 0")):
            failed.append(True)
            raise StorageError("the answer is lost")

    monkeypatch.setattr(target, "load_one", load_beside)
    monkeypatch.setattr(source, "commit", commit_and_lose)
    move, errands = ways(way, tmp_path / "hub", oldest_postgres), Errands()
    async with (
        Hub(app, store=move.source, partitions=PARTITIONS) as hub,
        errands.beside(hub.client),
    ):
        await hub.migrate(move.target)
        await finished(hub)

    assert loaded == [0, 0, 1, 2]
    await move.check_moved(errands)


@WAYS
@pytest.mark.parametrize("step", DEATHS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_whose_database_dies_on_the_way_goes_on_when_it_is_back(
    own_postgres: Server, tmp_path: Path, step: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, errands = threading.Event(), Errands()

    def reached(here: str) -> None:
        if here == step and not stopped.is_set():
            own_postgres.stop("immediate")
            stopped.set()

    monkeypatch.setattr(migration, "reached", reached)
    move = ways(way, tmp_path / "hub", f"{own_postgres.dsn}?schema=moved")
    async with (
        Hub(app, store=move.source, partitions=PARTITIONS) as hub,
        errands.beside(hub.client),
    ):
        await hub.migrate(move.target)
        await anyio.to_thread.run_sync(stopped.wait, 30)
        await anyio.sleep(0.5)  # in which it finds out, at most steps
        await anyio.to_thread.run_sync(own_postgres.start)
        await finished(hub)

    await move.check_moved(errands)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_process_that_was_away_while_its_partitions_moved_goes_on_with_them(
    newest_postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, errands = ways("back", tmp_path / "hub", newest_postgres), Errands()
    expired = threading.Event()

    def reached(here: str) -> None:
        if here == "copied 1" and not expired.is_set():
            expired.wait(30)

    monkeypatch.setattr(migration, "reached", reached)
    async with (
        Hub(app, store=move.source, partitions=PARTITIONS) as hub,
        errands.beside(hub.client),
    ):
        await hub.migrate(move.target)
        while (status := await hub.migration()) is None or status.moved != (0,):
            await anyio.sleep(0.01)
        first = hub.crew.local_shard.number
        await expire(newest_postgres)
        with anyio.fail_after(30):
            while hub.crew.local_shard.number == first:
                await anyio.sleep(0.05)
        expired.set()
        await finished(hub)

    await move.check_moved(errands)


async def expire(database: str) -> None:
    """Have all members of a hub be taken for gone."""
    store = PostgresStore(database)

    async def run() -> None:
        connection = await connect(store.place)
        await connection.execute(store.sql("UPDATE {s}.member SET expires = clock_timestamp()"))
        await connection.close()

    bridge = AsyncioBridge()
    await bridge.run(run)
    await anyio.to_thread.run_sync(bridge.close)


@pytest.mark.by_turns
async def test_a_hub_goes_back_from_one_node_alone(tmp_path: Path, newest_postgres: str) -> None:
    folder = tmp_path / "hub"
    async with Hub(app, store=newest_postgres, partitions=PARTITIONS) as hub:
        async with Hub(app, store=newest_postgres) as other:
            with pytest.raises(StoreInUseError, match=r"perdure nodes .* drain \d+"):
                await hub.migrate(f"sqlite:{folder}")
            assert not folder.exists()
            assert await other.migration() is None
        await hub.migrate(f"sqlite:{folder}")
        with pytest.raises(StoreMovedError, match="is being moved to sqlite:"):
            async with Hub(app, store=newest_postgres):
                pass
        await finished(hub)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_node_that_was_asleep_while_its_hub_left_is_refused(
    tmp_path: Path, newest_postgres: str
) -> None:
    store = PostgresStore(newest_postgres)
    one = Newcomer(
        address="127.0.0.1:1", host="other", pid=1, software="", app="errands", app_hash=""
    )
    async with Hub(app, store=newest_postgres, partitions=PARTITIONS) as hub:
        await store.open(0)
        asleep = await store.join(evolve(one, ttl_s=0.01))
        await until_gone(asleep)
        await hub.migrate(f"sqlite:{tmp_path / 'hub'}")
        assert not await asleep.beat()
        with pytest.raises(StoreMovedError, match="is being moved to sqlite:"):
            await store.join(one)
        await finished(hub)
        with anyio.fail_after(30):
            while "has moved to sqlite:" not in await refusal_of(store, one):
                await anyio.sleep(0.05)
    with pytest.raises(StoreMovedError):
        await asleep.leave()
    await store.close()


@pytest.mark.by_turns
async def test_who_asks_where_a_hub_was_is_told_where_it_is(
    tmp_path: Path, newest_postgres: str
) -> None:
    async def is_refused() -> bool:
        try:
            async with perdure.watch_hub(newest_postgres):
                return False
        except StoreMovedError:
            return True
        except UnavailableError:
            return False  # it is just about to say so

    async with (
        Hub(app, store=newest_postgres, partitions=PARTITIONS) as hub,
        perdure.connect(newest_postgres, app) as before,
    ):
        await hub.migrate(f"sqlite:{tmp_path / 'hub'}")
        await finished(hub)
        with anyio.fail_after(30):
            while not await is_refused():
                await anyio.sleep(0.05)

        with pytest.raises(StoreMovedError, match=r"has moved to sqlite:.*: open it there"):
            async with perdure.connect(newest_postgres, app):
                pass
        with pytest.raises(StoreMovedError, match="has moved to sqlite:"):
            await perdure.read_nodes(newest_postgres)
        assert (await before.statistics()).migration is not None  # who is connected goes on


async def test_who_asks_where_a_hub_is_to_come_is_told_where_it_is(
    tmp_path: Path, newest_postgres: str
) -> None:
    end = MovablePostgres(newest_postgres)

    async def begin() -> None:
        hub = Found(str(uuid.uuid4()), PARTITIONS, 0, None)
        await end.begin(hub, Mark(COMING, "token", f"sqlite:{tmp_path}"))
        await end.close()

    bridge = AsyncioBridge()
    await bridge.run(begin)
    await anyio.to_thread.run_sync(bridge.close)

    with pytest.raises(StoreMovedError, match=f"the hub of sqlite:{tmp_path} is being moved to"):
        async with perdure.connect(newest_postgres, app):
            pass


async def until_gone(member: Membership) -> None:
    """Wait until a member has expired that never beats."""
    while not all(
        row.expired for row in (await member.look()).members if row.member == member.number
    ):
        await anyio.sleep(0.01)


async def refusal_of(store: PostgresStore, newcomer: Newcomer) -> str:
    """Say why somebody cannot be a member."""
    with pytest.raises(StoreMovedError) as refused:
        await store.join(newcomer)
    return str(refused.value)


async def test_a_hub_that_came_first_is_not_overwritten(newest_postgres: str) -> None:
    end = MovablePostgres(newest_postgres)

    async def try_it() -> None:
        hub = Found(str(uuid.uuid4()), PARTITIONS, 0, None)
        await end.begin(hub, Mark(COMING, "token", "sqlite:hub"))
        other = Found(str(uuid.uuid4()), PARTITIONS, 0, None)
        with pytest.raises(StoreInUseError, match="has another hub"):
            await end.begin(other, Mark(COMING, "other", "sqlite:other"))
        await end.arrive("token")
        with pytest.raises(StoreInUseError, match="has another hub"):
            await end.begin(hub, Mark(COMING, "other", "sqlite:hub"))
        await end.close()

    bridge = AsyncioBridge()
    await bridge.run(try_it)
    await anyio.to_thread.run_sync(bridge.close)


@pytest.mark.parametrize("kind", ["folder", "database"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_an_earlier_try_has_under_way_does_nothing(
    tmp_path: Path, newest_postgres: str, kind: str
) -> None:
    end = cast(
        "Live[Any]", open_end(f"sqlite:{tmp_path / 'hub'}" if kind == "folder" else newest_postgres)
    )
    entries = [end.entry(Checkpoint(number, 1))[0] for number in (1, 2)]

    async def try_it() -> None:
        hub = Found(str(uuid.uuid4()), PARTITIONS, 0, None)
        await end.begin(hub, Mark(COMING, "token", "elsewhere"))
        first = await end.begin_one(0, 4)
        second = await end.begin_one(0, 4)
        assert 4 < first < second
        with pytest.raises(LeaseLostError):
            await end.forward(0, first, entries[:1])
        with pytest.raises(LeaseLostError):
            await end.arrive_one(0, first, 0, "token")
        await end.forward(0, second, entries)
        with pytest.raises(LeaseLostError):  # it has not come so far
            await end.arrive_one(0, second, 2, "token")
        assert not await end.has_arrived(0, "token")
        with pytest.raises(LeaseLostError):
            await end.arrive_one(0, second, 0, "token")
        third = await end.begin_one(0, 4)
        assert await end.arrived("token") == []
        with pytest.raises(LeaseLostError):  # who asked for all may serve it elsewhere by now
            await end.arrive_one(0, third, 0, "token")
        await end.arrive_one(0, await end.begin_one(0, 4), 0, "token")
        assert await end.arrived("token") == [0]
        assert await end.arrived("another") == []
        await end.close()

    bridge = AsyncioBridge()
    await bridge.run(try_it)
    await anyio.to_thread.run_sync(bridge.close)


@pytest.mark.by_turns
async def test_what_cannot_move_while_it_serves_says_so(
    tmp_path: Path, newest_postgres: str, oldest_postgres: str
) -> None:
    async with Hub(app, store=newest_postgres, partitions=PARTITIONS) as hub:
        with pytest.raises(UsageError, match="from a folder to a database, or back"):
            await hub.migrate(oldest_postgres)
        async with Hub(app, store=tmp_path / "other", partitions=PARTITIONS) as other:
            with pytest.raises(StoreInUseError, match=r"runs: member|has another hub"):
                await other.migrate(newest_postgres)
            with pytest.raises(UsageError, match="from a folder to a database, or back"):
                await other.migrate("sqlite:elsewhere")
            with pytest.raises(StoreInUseError, match="runs: stop it"):
                await hub.migrate(f"sqlite:{tmp_path / 'other'}")
            assert await other.migration() is None
        with pytest.raises(StoreInUseError, match="has another hub"):
            await hub.migrate(f"sqlite:{tmp_path / 'other'}")
        assert await hub.migration() is None
    async with Hub(app) as hub:
        with pytest.raises(UsageError, match="only a hub on sqlite:PATH"):
            await hub.migrate(newest_postgres)
        with pytest.raises(UsageError, match=r"target must be a database, .* or a folder"):
            await hub.migrate("memory:")
    async with Hub(app, store=tmp_path / "other", partitions=PARTITIONS) as hub:
        with pytest.raises(StoreInUseError, match="has another hub"):
            await hub.migrate(newest_postgres)
        assert await hub.migration() is None
