"""A hub goes from a folder to PostgreSQL while it serves, whatever dies on the way."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

import perdure
from perdure import (
    Hub,
    LeaseLostError,
    MigrationStatus,
    StorageError,
    StoreInUseError,
    StoreMovedError,
    UsageError,
)
from perdure.storage import Checkpoint, migration
from perdure.storage.bridge import AsyncioBridge
from perdure.storage.marks import COMING, Mark
from perdure.storage.migrating import MigratingStore
from perdure.storage.migration import Found
from perdure.storage.postgres.migration import MovablePostgres
from perdure.storage.postgres.server import Server
from perdure.storage.sqlite.store import SqlitePartition
from tests.cluster.errands import Errands, app

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
#: What goes on in the store's own thread, whichever loop the hub is on.
SELDOM = pytest.mark.parametrize(
    "anyio_backend", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)]
)
LOOPS = pytest.mark.parametrize("loop", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)])


@contextmanager
def served(folder: Path, loop: str, *, step: str = "") -> Generator[subprocess.Popen[bytes]]:
    """Serve the errands in a process of its own, which ends itself where it reaches a step."""
    words = [sys.executable, "-m", "tests.storage.migrating", step, "serve"]
    words += ["tests.cluster.errands:app", "--store", f"sqlite:{folder}"]
    words += ["--partitions", str(PARTITIONS), "--backend", loop]
    log = folder.with_suffix(".log").open("ab")
    with log, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it serves, or has ended
            yield process
        finally:
            process.kill()


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
    return process.poll() is not None


def said(folder: Path) -> str:
    return folder.with_suffix(".log").read_text()


async def migrate(folder: Path, target: str) -> MigrationStatus:
    """Begin to move, or see that it goes on, until all has come."""
    async with perdure.watch_hub(f"sqlite:{folder}") as hub:
        await hub.migrate(target)
        while (status := await hub.migration()) is None or not status.has_ended:
            await anyio.sleep(0.02)
        return status


async def finished(hub: Hub) -> MigrationStatus:
    """Wait until all of a hub has moved."""
    with anyio.fail_after(60):
        while (status := await hub.migration()) is None or not status.has_ended:
            await anyio.sleep(0.01)
    return status


async def until_dead(process: subprocess.Popen[bytes]) -> None:
    with anyio.fail_after(60):
        assert await anyio.to_thread.run_sync(process.wait) == -signal.SIGKILL


@LOOPS
@pytest.mark.parametrize("step", KILLS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_that_was_killed_at_a_step_goes_on_with_its_move(
    tmp_path: Path, newest_postgres: str, step: str, loop: str
) -> None:
    folder, errands = tmp_path / "hub", Errands()
    with anyio.fail_after(120):
        await run_killed(errands, folder, newest_postgres, loop, step)
        with pytest.raises(StoreMovedError, match="is being moved to"):
            async with Hub(app, store=newest_postgres):
                pass
        with served(folder, loop) as process:
            async with perdure.connect(f"sqlite:{folder}", app) as client:
                async with errands.beside(client):
                    status = await migrate(folder, newest_postgres)
                assert status.moved == (0, 1, 2)
                await errands.check(client)
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait) == 0, said(folder)

    await check_moved(errands, folder, newest_postgres)


async def run_killed(errands: Errands, folder: Path, target: str, loop: str, step: str) -> None:
    """Serve errands and move, until the process ends itself at a step."""
    with served(folder, loop, step=step) as process:
        async with (
            perdure.connect(f"sqlite:{folder}", app) as client,
            anyio.create_task_group() as tasks,
            errands.beside(client),
        ):
            tasks.start_soon(migrate, folder, target)
            await until_dead(process)
            tasks.cancel_scope.cancel()


async def check_moved(errands: Errands, folder: Path, target: str) -> None:
    """The folder refuses, and the schema has what the errands made."""
    with pytest.raises(StoreMovedError, match="has moved to"):
        async with Hub(app, store=folder, partitions=PARTITIONS):
            pass
    async with Hub(app, store=target) as hub:
        await errands.check(hub.client)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["moved 0", "moved 2"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_move_whose_process_is_gone_is_finished_by_the_command(
    tmp_path: Path, newest_postgres: str, step: str
) -> None:
    folder, errands = tmp_path / "hub", Errands()
    await run_killed(errands, folder, newest_postgres, "asyncio", step)

    command = [sys.executable, "-m", "perdure", "migrate", str(folder), newest_postgres]
    done = await anyio.run_process(command)

    assert b"has moved to" in done.stdout
    await check_moved(errands, folder, newest_postgres)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_folder_of_a_hub_that_died_when_all_had_moved_is_refused(
    tmp_path: Path, newest_postgres: str
) -> None:
    folder, errands = tmp_path / "hub", Errands()
    await run_killed(errands, folder, newest_postgres, "asyncio", "moved 2")

    with served(folder, "asyncio") as process:
        assert await anyio.to_thread.run_sync(process.wait) != 0

    assert "has moved to" in said(folder)
    await check_moved(errands, folder, newest_postgres)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_that_is_killed_again_and_again_moves_all_the_same(
    tmp_path: Path, newest_postgres: str, seed: int, loop: str
) -> None:
    folder, errands, chance = tmp_path / "hub", Errands(), random.Random(seed)
    for _ in range(8):
        with served(folder, loop) as process:
            if await anyio.to_thread.run_sync(has_ended, process):
                break  # all had come
            async with (
                perdure.connect(f"sqlite:{folder}", app) as client,
                anyio.create_task_group() as tasks,
                errands.beside(client),
            ):
                tasks.start_soon(migrate, folder, newest_postgres)
                await anyio.sleep(chance.uniform(0.02, 0.8))
                process.kill()
                tasks.cancel_scope.cancel()
    command = [sys.executable, "-m", "perdure", "migrate", str(folder), newest_postgres]
    await anyio.run_process(command)
    await check_moved(errands, folder, newest_postgres)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_command_that_was_killed_changes_nothing_of_the_move(
    tmp_path: Path, newest_postgres: str
) -> None:
    folder, errands = tmp_path / "hub", Errands()
    command = [sys.executable, "-m", "perdure", "migrate", str(folder), newest_postgres]
    with served(folder, "asyncio") as process:
        async with perdure.connect(f"sqlite:{folder}", app) as client, errands.beside(client):
            async with (
                perdure.watch_hub(f"sqlite:{folder}") as hub,
                await anyio.open_process(command) as first,
            ):
                while await hub.migration() is None:
                    await anyio.sleep(0.01)
                first.kill()
            done = await anyio.run_process(command)
        assert b"3 partitions came over" in done.stdout
        assert f"process {process.pid} serves the hub".encode() in done.stdout
        process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(process.wait) == 0, said(folder)

    await check_moved(errands, folder, newest_postgres)


@pytest.mark.parametrize("shards", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_a_hub_moves_with_its_work_under_way(
    tmp_path: Path, newest_postgres: str, shards: int
) -> None:
    folder, errands = tmp_path / "hub", Errands()
    async with Hub(app, store=folder, partitions=PARTITIONS, shards=shards) as hub:
        async with errands.beside(hub.client):
            await hub.migrate(newest_postgres)
            await hub.migrate(newest_postgres)  # which says the same
            with pytest.raises(StoreMovedError, match="goes nowhere else"):
                await hub.migrate("postgresql://elsewhere/hub")
            status = await finished(hub)
        await errands.check(hub.client)
        assert (status.moved, status.trouble) == ((0, 1, 2), None)
        assert 0 < status.longest_pause_s < 5
        assert hub.durability.startswith("postgresql")
        with pytest.raises(StoreMovedError, match="is being moved to"):
            async with Hub(app, store=newest_postgres):
                pass

    await check_moved(errands, folder, newest_postgres)


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
    await check_moved(errands, folder, newest_postgres)


@SELDOM
@pytest.mark.parametrize("is_stored", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_a_partition_whose_arrival_was_not_answered_is_served_where_it_is(
    tmp_path: Path, newest_postgres: str, is_stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive = MovablePostgres.arrive_one
    tried: list[int] = []

    async def arrive_once(self: MovablePostgres, partition: int, *rest: Any) -> None:
        tried.append(partition)
        if tried.count(partition) > 1:
            await arrive(self, partition, *rest)
            return
        if is_stored:
            await arrive(self, partition, *rest)
        raise StorageError("the answer is lost")

    monkeypatch.setattr(MovablePostgres, "arrive_one", arrive_once)
    folder, errands = tmp_path / "hub", Errands()
    async with Hub(app, store=folder, partitions=PARTITIONS) as hub, errands.beside(hub.client):
        await hub.migrate(newest_postgres)
        await finished(hub)

    assert tried == ([0, 1, 2] if is_stored else [0, 0, 1, 1, 2, 2])
    await check_moved(errands, folder, newest_postgres)


@SELDOM
async def test_a_partition_that_recovers_while_it_is_copied_is_copied_anew(
    tmp_path: Path, oldest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failed = SqlitePartition.commit, list[bool]()
    load = MovablePostgres.load_one
    loaded: list[int] = []

    async def load_beside(self: MovablePostgres, partition: int, *rest: Any) -> None:
        loaded.append(partition)
        await load(self, partition, *rest)
        while len(loaded) == 1 and not failed:
            await asyncio.sleep(0.01)

    async def commit_and_lose(self: SqlitePartition, checkpoint: Checkpoint) -> None:
        await commit(self, checkpoint)
        if loaded and not failed and self.place.endswith("-00.sqlite"):
            failed.append(True)
            raise StorageError("the answer is lost")

    monkeypatch.setattr(MovablePostgres, "load_one", load_beside)
    monkeypatch.setattr(SqlitePartition, "commit", commit_and_lose)
    folder, errands = tmp_path / "hub", Errands()
    async with Hub(app, store=folder, partitions=PARTITIONS) as hub, errands.beside(hub.client):
        await hub.migrate(oldest_postgres)
        await finished(hub)

    assert loaded == [0, 0, 1, 2]
    await check_moved(errands, folder, oldest_postgres)


@pytest.mark.parametrize("step", DEATHS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hub_whose_database_dies_on_the_way_goes_on_when_it_is_back(
    own_postgres: Server, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, errands = threading.Event(), Errands()

    def reached(here: str) -> None:
        if here == step and not stopped.is_set():
            own_postgres.stop("immediate")
            stopped.set()

    monkeypatch.setattr(migration, "reached", reached)
    async with (
        Hub(app, store=tmp_path / "hub", partitions=PARTITIONS) as hub,
        errands.beside(hub.client),
    ):
        await hub.migrate(own_postgres.dsn)
        await anyio.to_thread.run_sync(stopped.wait, 30)
        await anyio.sleep(0.5)  # in which it finds out, at most steps
        await anyio.to_thread.run_sync(own_postgres.start)
        await finished(hub)

    await check_moved(errands, tmp_path / "hub", own_postgres.dsn)


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


async def test_what_an_earlier_try_has_under_way_does_nothing(newest_postgres: str) -> None:
    end = MovablePostgres(newest_postgres)

    async def try_it() -> None:
        hub = Found(str(uuid.uuid4()), PARTITIONS, 0, None)
        await end.begin(hub, Mark(COMING, "token", "sqlite:hub"))
        first = await end.begin_one(0, 4)
        second = await end.begin_one(0, 4)
        assert 4 < first < second
        with pytest.raises(LeaseLostError):
            await end.forward(0, first, [(1, 1, 1, b"")])
        with pytest.raises(LeaseLostError):
            await end.arrive_one(0, first, 0, "token")
        await end.forward(0, second, [(1, 1, 1, b""), (2, 1, 1, b"")])
        with pytest.raises(LeaseLostError):  # it has not come so far
            await end.arrive_one(0, second, 2, "token")
        assert not await end.has_arrived(0, "token")
        with pytest.raises(LeaseLostError):
            await end.arrive_one(0, second, 0, "token")
        assert await end.arrived("token") == []
        await end.close()

    bridge = AsyncioBridge()
    await bridge.run(try_it)
    await anyio.to_thread.run_sync(bridge.close)


async def test_what_cannot_move_while_it_serves_says_so(
    tmp_path: Path, newest_postgres: str, oldest_postgres: str
) -> None:
    async with Hub(app, store=newest_postgres, partitions=PARTITIONS) as hub:
        with pytest.raises(UsageError, match="only from a folder"):
            await hub.migrate(oldest_postgres)
        async with Hub(app, store=tmp_path / "other", partitions=PARTITIONS) as other:
            with pytest.raises(StoreInUseError, match=r"runs: member|has another hub"):
                await other.migrate(newest_postgres)
            assert await other.migration() is None
    async with Hub(app) as hub:
        with pytest.raises(UsageError, match="only a hub on sqlite:PATH"):
            await hub.migrate(newest_postgres)
        with pytest.raises(UsageError, match="target must be a database"):
            await hub.migrate("sqlite:elsewhere")
    async with Hub(app, store=tmp_path / "other", partitions=PARTITIONS) as hub:
        with pytest.raises(StoreInUseError, match="has another hub"):
            await hub.migrate(newest_postgres)
        assert await hub.migration() is None
