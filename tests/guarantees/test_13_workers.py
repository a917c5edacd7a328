"""Guarantee 5, with worker processes: what was acknowledged survives the death of any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from perdure import (
    Client,
    EntityId,
    Hub,
    InternalError,
    OutcomeUnknownError,
    Rebalance,
    SqliteStore,
    StoreInUseError,
    UnavailableError,
    UsageError,
    connect,
)
from perdure.runtime.client.remote import watch_hub
from perdure.runtime.cluster.processes import ProcessCrew
from tests.faults import persist
from tests.guarantees.crash_child import OPENING_BALANCE, Account
from tests.guarantees.worker_load import (
    PARTITIONS,
    PATIENCE_S,
    Blocker,
    Fatal,
    Ledger,
    Load,
    Patient,
    app,
    crew_of,
    fork,
    hub_on,
    is_running,
    pid_of,
    seed_of,
    tick,
    until_served,
)
from tests.guarantees.workloads import entity_in, id_in

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("worker_child.py")
CLIENTS = 8
#: How long a worker without its supervisor may drain.
DRAIN_S = 1.0

#: For what is slow and is the same on every event loop.
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])

BROKEN_APP = """
from pathlib import Path
from perdure import App

if Path(__file__).with_name("broken").exists():
    raise RuntimeError("the next release is broken")

app = App()

@app.entity
class Account:
    balance: int = 0

    def change(self, amount: int) -> int:
        self.balance += amount
        return self.balance
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("w")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """Say how often workers are killed of a hub that has them start again each time."""
    return 3 if request.config.getoption("--long") else 2


@pytest.fixture
def broken_app(folder: Path) -> str:
    """Name an app that cannot be imported once the file "broken" is beside it."""
    (folder / "flows.py").write_text(BROKEN_APP)
    return f"{folder / 'flows.py'}:app"


async def run(folder: Path, kills: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    with anyio.fail_after(60 + 10 * kills):
        async with hub_on(folder) as hub:
            workers = crew_of(hub).workers
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                for _ in range(kills):
                    await load.more(load.random.randint(1, 40))
                    await anyio.sleep(load.random.uniform(0, 0.02))  # not always on an answer
                    victim = load.random.choice(workers)
                    if not victim.serves and load.random.random() < 0.5:
                        await until_served(hub, victim.number)
                    if victim.failed_starts == 0 and victim.process is not None:
                        with suppress(ProcessLookupError):  # the last kill may not be seen yet
                            victim.process.kill()
                await load.more(20)
                load.stopped = True
            await load.check(hub.client)
        # What the store holds is the same.
        async with hub_on(folder) as hub:
            await load.check(hub.client)


@pytest.mark.by_turns
async def test_what_was_acknowledged_survives_kills_of_workers(folder: Path) -> None:
    await run(folder, 3)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
async def test_what_was_acknowledged_survives_many_kills_of_workers(
    folder: Path, number: int
) -> None:
    await run(folder, 100, number)


async def end_of(pid: int) -> None:
    """Return when a process has ended."""
    with anyio.fail_after(PATIENCE_S):
        while is_running(pid):
            await anyio.sleep(0.005)


async def add(hub: Hub, n: int, amount: int = 1, request: str | None = None) -> int:
    return await hub.client.call_entity(account_in(n), Account.change, amount, request_id=request)


def account_in(partition: int) -> EntityId[Account]:
    """Give an account in a partition; workers serve the first and the second half of four."""
    return entity_in(partition, Account, "account", PARTITIONS)


@pytest.mark.by_turns("trio")
async def test_a_hub_stops_in_order_while_a_worker_is_being_restarted(folder: Path) -> None:
    async with hub_on(folder) as hub:
        worker = crew_of(hub).workers[0]
        await add(hub, 0)
        os.kill(pid_of(hub, 0), signal.SIGKILL)
        while worker.serves:
            await anyio.sleep(0.001)

    async with hub_on(folder) as hub:
        assert await add(hub, 0) == OPENING_BALANCE + 2


@pytest.mark.by_turns
async def test_a_partition_that_is_to_move_to_a_worker_that_died_is_served_somewhere(
    folder: Path, rounds: int
) -> None:
    async with hub_on(folder) as hub:
        with anyio.fail_after(PATIENCE_S):
            for n in range(rounds):
                victim = 1 - hub.placement[0]
                await until_served(hub, victim)
                os.kill(pid_of(hub, victim), signal.SIGKILL)
                while hub.placement[0] != victim:
                    with suppress(UnavailableError):
                        await hub.move_partition(0, victim)
                    await anyio.sleep(0.005)
                assert await add(hub, 0, 1, f"{n}") == OPENING_BALANCE + n + 1


@pytest.mark.by_turns("trio")
async def test_a_worker_that_does_not_start_any_more_has_its_partitions_served_by_the_others(
    folder: Path, broken_app: str
) -> None:
    hub = Hub(broken_app, store=f"sqlite:{folder / 'hub'}", workers=2, rebalance=None)
    async with hub:
        for n in range(PARTITIONS):
            assert await hub.client.call_entity(account_in(n), "change", 1) == 1
        (folder / "broken").touch()
        os.kill(pid_of(hub, 0), signal.SIGKILL)

        with anyio.fail_after(PATIENCE_S):
            for n in range(PARTITIONS):
                id = account_in(n)
                assert await hub.client.call_entity(id, "change", 1, request_id=f"{n}") == 2
            assert hub.placement == [1, 1, 1, 1]
            statistics = await hub.statistics()
            assert [shard.index for shard in statistics.shards] == [1]
            with pytest.raises(UnavailableError, match="worker 0 does not run"):
                await hub.move_partition(0, 0)
            assert await hub.client.call_entity(account_in(0), "change", 1) == 3


@on_one_loop
async def test_the_hub_stops_with_the_reason_when_its_last_worker_does_not_start_any_more(
    folder: Path, broken_app: str
) -> None:
    async def lose_it() -> None:
        async with Hub(
            broken_app, store=f"sqlite:{folder / 'hub'}", workers=1, rebalance=None
        ) as hub:
            (folder / "broken").touch()
            os.kill(pid_of(hub, 0), signal.SIGKILL)
            await anyio.sleep(PATIENCE_S)

    with pytest.raises(InternalError, match="worker 0 does not start any more, and was the last"):
        await lose_it()

    assert not list((folder / "hub").glob("*.sock*"))


@pytest.mark.by_turns
async def test_a_connection_that_sends_rubbish_harms_nobody_else(folder: Path) -> None:
    rubbish = [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x04oops",
        b'\x00\x00\x00\x07[["ask"]',
        b"\x00\x00\x00\x02{}",
        b'\x00\x00\x00\x0b[["nonsense"]]'[:15],
        b'\x00\x00\x00\x18[["ask", 1, "request", 0]]',
        b"\x00\x00\x00\x03[1]",
    ]
    async with hub_on(folder) as hub:
        pids = [pid_of(hub, n) for n in range(2)]
        for name in ("hub.sock", "hub.sock.0", "hub.sock.1"):
            for data in rubbish:
                async with await anyio.connect_unix(folder / "hub" / name) as stream:
                    await stream.send(data)
                    await stream.send_eof()
                    with anyio.fail_after(10), suppress(anyio.EndOfStream):
                        while True:
                            await stream.receive()

        assert await add(hub, 0) == OPENING_BALANCE + 1
        assert await add(hub, 3) == OPENING_BALANCE + 1
        assert pids == [pid_of(hub, n) for n in range(2)]


@pytest.mark.by_turns
async def test_a_worker_told_to_terminate_ends_in_order_and_is_started_again(folder: Path) -> None:
    async with hub_on(folder) as hub:
        before = pid_of(hub, 1)
        assert await add(hub, 3) == OPENING_BALANCE + 1
        os.kill(before, signal.SIGTERM)
        await until_served(hub, 1, not_by=before)

        assert await add(hub, 3) == OPENING_BALANCE + 2
        assert crew_of(hub).workers[1].failed_starts == 0


class Child:
    """A hub with workers in a process of its own."""

    def __init__(self, folder: Path, loop: str, *, drain_s: float = 2.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(folder), loop, str(drain_s)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    async def workers(self) -> list[int]:
        """Give the pids of its workers, once it serves."""
        assert self.process.stdout is not None
        line = await anyio.to_thread.run_sync(self.process.stdout.readline)
        return [int(pid) for pid in line.split()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def run_supervisor_kills(folder: Path, loop: str, kills: int, number: int = 0) -> None:
    """Kill hubs under the load of a client that follows from one to the next."""
    load = Load(seed_of(number), folder)
    # Those of a dead hub drain beside the next one, but not for longer than that takes to start.
    begin = partial(Child, folder, loop, drain_s=0.5)
    child = begin()
    old: list[int] = []
    try:
        with anyio.fail_after(60 + 15 * kills):
            pids = await child.workers()
            async with connect(f"sqlite:{folder / 'hub'}", app) as client:
                async with anyio.create_task_group() as tasks:
                    for _ in range(CLIENTS):
                        tasks.start_soon(load.drive, client)
                    for _ in range(kills):
                        await load.more(load.random.randint(1, 60))
                        await anyio.sleep(load.random.uniform(0, 0.02))  # not always on an answer
                        if load.random.random() < 0.5:
                            os.kill(load.random.choice(pids), signal.SIGKILL)  # both at once
                        child.kill()
                        old += pids
                        child = begin()
                        pids = await child.workers()
                    await load.more(20)
                    load.stopped = True
                await load.check(client)
        for pid in old:
            await end_of(pid)
    finally:
        child.kill()
    for pid in pids:
        await end_of(pid)


@pytest.mark.by_turns("trio")
async def test_what_was_acknowledged_survives_kills_of_the_supervisor(
    folder: Path, anyio_backend_name: str
) -> None:
    await run_supervisor_kills(folder, anyio_backend_name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
async def test_what_was_acknowledged_survives_many_kills_of_the_supervisor(
    folder: Path, anyio_backend_name: str, number: int
) -> None:
    await run_supervisor_kills(folder, anyio_backend_name, 30, number)


@pytest.mark.by_turns
async def test_a_client_of_another_process_follows_kills_and_moves(
    folder: Path, rounds: int
) -> None:
    load = Load(seed_of(), folder)
    with anyio.fail_after(PATIENCE_S):
        async with (
            hub_on(folder) as hub,
            connect(f"sqlite:{folder / 'hub'}", app) as client,
            watch_hub(f"sqlite:{folder / 'hub'}") as view,
        ):
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, client)
                for _ in range(rounds):
                    await load.more(load.random.randint(1, 40))
                    victim = load.random.choice(crew_of(hub).workers)
                    await until_served(hub, victim.number)
                    assert victim.process is not None
                    victim.process.kill()
                    for _ in range(5):
                        await load.more(2)
                        with suppress(UnavailableError):  # that worker may be the dead one
                            await view.move_partition(
                                load.random.randrange(PARTITIONS), load.random.randrange(2)
                            )
                await load.more(20)
                load.stopped = True
            await load.check(client)


@pytest.mark.by_turns
async def test_a_hub_that_starts_while_old_workers_drain_serves_with_its_own(
    folder: Path, anyio_backend_name: str
) -> None:
    old_child = Child(folder, anyio_backend_name, drain_s=20.0)
    try:
        old = await old_child.workers()
        async with connect(f"sqlite:{folder / 'hub'}", app) as client:
            for n in range(PARTITIONS):
                id = entity_in(n, Patient, "patient", PARTITIONS)
                await client.signal_entity(id, Patient.wait_for, str(folder))
            while (folder / "begun").read_text().count("begun") < PARTITIONS:
                await anyio.sleep(0.005)
            old_child.kill()

            async with hub_on(folder) as hub:
                assert all(is_running(pid) for pid in old), "they drain"
                (folder / "go").touch()
                for pid in old:
                    await end_of(pid)
                statistics = await hub.statistics()
                assert [one.index for one in statistics.partitions] == [*range(PARTITIONS)]
                assert {one.pid for one in statistics.shards} == {pid_of(hub, 0), pid_of(hub, 1)}
                for n in range(PARTITIONS):
                    # The client was connected to the former hub, and finds this one.
                    found = await client.call_entity(account_in(n), Account.change, 1)
                    assert found == OPENING_BALANCE + 1
    finally:
        old_child.kill()


@pytest.mark.by_turns("trio")
async def test_a_worker_is_replaced_also_while_a_child_has_its_sockets_open(folder: Path) -> None:
    async with hub_on(folder) as hub, connect(f"sqlite:{folder / 'hub'}", app) as client:
        id = id_in(0, "fork", PARTITIONS)
        child = await (await hub.client.start_new(fork, instance_id=id)).result()
        try:
            assert await client.call_entity(account_in(0), Account.change, 1) == OPENING_BALANCE + 1
            assert await add(hub, 3) == OPENING_BALANCE + 1
            dead = pid_of(hub, 0)
            os.kill(dead, signal.SIGKILL)

            with anyio.fail_after(PATIENCE_S):
                assert await add(hub, 0, request="r") == OPENING_BALANCE + 2
                found = await client.call_entity(account_in(0), Account.change, 1, request_id="s")
                assert found == OPENING_BALANCE + 3
                await hub.client.signal_entity(entity_in(3, Ledger, "l", PARTITIONS), "write", "x")
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.by_turns
async def test_a_worker_that_is_killed_while_the_hub_first_starts_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, killed = ProcessCrew.spawn, list[int]()

    async def spawn_and_kill(crew: ProcessCrew, worker: Any) -> None:
        await spawn(crew, worker)
        if len(killed) < 2:
            killed.append(worker.process.pid)
            worker.process.kill()

    monkeypatch.setattr(ProcessCrew, "spawn", spawn_and_kill)

    async with hub_on(folder) as hub:
        assert await add(hub, 0) == OPENING_BALANCE + 1
        assert await add(hub, 3) == OPENING_BALANCE + 1

    assert len(killed) == 2


@on_one_loop
async def test_an_activity_that_ends_its_process_fails_alone(folder: Path) -> None:
    calls: dict[str, list[Any]] = {
        "killed": ["kill_process"],
        "exits": ["exit_process"],
        "short": ["take_a_while", 0.2],
        "long": ["take_a_while", 600.0],
    }
    async with hub_on(folder, crashes_max=2) as hub:
        handles: dict[str, Any] = {}
        for name, given in calls.items():
            id = id_in(0, name, PARTITIONS)
            start = partial(hub.client.start_new, "call", given)
            # What it starts may end the process before that has answered.
            handles[name] = await persist(start, instance_id=id, request_id=id)

        with anyio.fail_after(PATIENCE_S):
            assert await handles["killed"].result() == "ProcessEndedError"
            assert await handles["exits"].result() == "ProcessEndedError"
            assert await handles["short"].result() == "done"
            assert await add(hub, 0, request="r") == OPENING_BALANCE + 1
            assert hub.placement == [0, 0, 1, 1], "no worker was given up"
            assert (await handles["long"].status()).runtime_status == "Running"


@on_one_loop
async def test_an_actor_whose_turns_end_their_process_is_parked(folder: Path) -> None:
    fatal = entity_in(0, Fatal, "fatal", PARTITIONS)
    async with hub_on(folder, crashes_max=2) as hub:
        # A signal that waited in the store comes again with each worker.
        strike = partial(hub.client.signal_entity, fatal, Fatal.strike)
        await persist(strike, at=timedelta(seconds=0.5), request_id="s")
        with anyio.fail_after(PATIENCE_S):
            while (status := await entity_status(hub, fatal)) is None or status.parked is None:
                await anyio.sleep(0.05)
            assert await add(hub, 0, request="r") == OPENING_BALANCE + 1
        assert hub.placement == [0, 0, 1, 1], "no worker was given up"


async def entity_status(hub: Hub, id: EntityId[Any]) -> Any:
    with suppress(UnavailableError):
        return await hub.client.get_entity(id)
    return None


@pytest.mark.slow
@on_one_loop
async def test_a_hub_opens_also_where_an_activity_of_its_store_ends_processes(folder: Path) -> None:
    id = id_in(3, "again", PARTITIONS)
    async with hub_on(folder) as hub:
        start = partial(hub.client.start_new, "call", ["kill_process"])
        await persist(start, instance_id=id, request_id=id)
        await until_served(hub, 1, not_by=pid_of(hub, 1))
    async with hub_on(folder) as hub:
        with anyio.fail_after(PATIENCE_S):
            while True:
                with suppress(UnavailableError, OutcomeUnknownError):
                    assert await hub.client.wait(id) == "ProcessEndedError"
                    return


async def until_there(path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not await anyio.Path(path).exists():
            await anyio.sleep(0.002)


def blocker_in(partition: int) -> EntityId[Blocker]:
    return entity_in(partition, Blocker, "blocker", PARTITIONS)


async def block(hub: Hub, folder: Path) -> None:
    """Block the worker of partition 0; where that or the hub ends, nobody knows what came of it."""
    with suppress(UnavailableError, OutcomeUnknownError):
        await hub.client.signal_entity(blocker_in(0), Blocker.block, str(folder))


async def block_at(client: Client, folder: Path) -> None:
    """Return when the worker of partition 0 is blocked, which gives no answer then."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.signal_entity, blocker_in(0), Blocker.block, str(folder))
        await until_there(folder / "blocks")
        tasks.cancel_scope.cancel()


@pytest.mark.by_turns
async def test_a_worker_that_code_blocks_does_not_stall_the_others(folder: Path) -> None:
    async with hub_on(folder) as hub, anyio.create_task_group() as tasks:
        tasks.start_soon(block, hub, folder)
        await until_there(folder / "blocks")

        with anyio.fail_after(PATIENCE_S):
            assert await add(hub, 3) == OPENING_BALANCE + 1
            id = id_in(2, "tick", PARTITIONS)
            handle = await hub.client.start_new(tick, instance_id=id)
            assert await handle.result() == 10
        (folder / "free").touch()
        assert await add(hub, 0) == OPENING_BALANCE + 1


@on_one_loop
async def test_a_hub_stops_within_its_bound_while_its_workers_do_not(folder: Path) -> None:
    pids: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with hub_on(folder, drain_s=1.0) as hub:
            pids += [pid_of(hub, n) for n in range(2)]
            await add(hub, 0)
            tasks.start_soon(block, hub, folder)
            await until_there(folder / "blocks")
            os.kill(pids[1], signal.SIGSTOP)
            began = anyio.current_time()
        assert anyio.current_time() - began < 1.0 + 15.0  # the machine may be busy
    assert not any(is_running(pid) for pid in pids)
    async with hub_on(folder) as hub:
        assert await add(hub, 0) == OPENING_BALANCE + 2


@on_one_loop
@pytest.mark.parametrize("kind", ["shards", "workers"])
async def test_a_worker_that_outlives_its_supervisor_is_in_nobodys_way_and_ends(
    folder: Path, anyio_backend_name: str, kind: str
) -> None:
    child = Child(folder, anyio_backend_name, drain_s=DRAIN_S)
    held: list[int] = []
    try:
        held += (await child.workers())[:1]
        async with connect(f"sqlite:{folder / 'hub'}", app) as client:
            await block_at(client, folder)
            child.kill()
            killed = anyio.current_time()

            next_one = Hub(
                app,
                store=f"sqlite:{folder / 'hub'}",
                socket=folder / "hub" / "hub.sock",
                partitions=PARTITIONS,
                shards=2 if kind == "shards" else 1,
                workers=2 if kind == "workers" else 0,
            )
            async with next_one as hub:
                assert await add(hub, 0) == OPENING_BALANCE + 1
                found = await client.call_entity(account_in(0), Account.change, 1, request_id="r")
                assert found == OPENING_BALANCE + 2
                lasts = anyio.current_time() - killed < DRAIN_S  # which a busy machine may use up
                assert is_running(held[0]) or not lasts, "it has the time that it may drain"
                if kind == "workers":
                    served = anyio.current_time()  # to start may have taken long
                    await end_of(held[0])
                    assert anyio.current_time() - served < DRAIN_S + 15.0
    finally:
        child.kill()
        for pid in held:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@on_one_loop
async def test_a_second_signal_ends_the_workers_too(folder: Path) -> None:
    place = f"sqlite:{folder / 'hub'}"
    here = "tests.guarantees.worker_load:app"
    serve = ["-m", "perdure", "serve", here, "--store", place, "--workers", "2"]
    pids: list[int] = []
    with subprocess.Popen(  # noqa: ASYNC220 - it is a moment
        [sys.executable, *serve],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            await anyio.to_thread.run_sync(process.stdout.readline)
            async with watch_hub(place) as view:
                pids += [shard.pid for shard in (await view.statistics()).shards]
            async with connect(place, app) as client:
                await block_at(client, folder)
                with anyio.fail_after(20):
                    while process.poll() is None:  # two that come at once are one
                        process.send_signal(signal.SIGTERM)
                        await anyio.sleep(0.005)
                    for pid in pids:
                        await end_of(pid)
            assert process.returncode == -signal.SIGTERM
        finally:
            process.kill()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@on_one_loop
async def test_another_hub_s_socket_is_not_taken_for_that_of_a_worker(folder: Path) -> None:
    async with Hub(app, socket=folder / "s.0") as other:
        with pytest.raises(UsageError, match=r"another hub listens at .*s\.0"):
            async with hub_on(folder, socket=folder / "s"):
                pass

        async with connect(folder / "s.0", app) as client:
            assert await client.call_entity(account_in(0), Account.change, 1) > 0
        assert other.shards == 1


@pytest.mark.by_turns("trio")
async def test_a_worker_killed_while_the_hub_stops_does_not_keep_it_from_stopping(
    folder: Path,
) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, hub_on(folder, drain_s=20.0) as hub:
            pid = pid_of(hub, 0)

            async def kill() -> None:
                while not crew_of(hub).is_stopping:
                    await anyio.sleep(0.001)
                os.kill(pid, signal.SIGKILL)

            tasks.start_soon(kill)
            await add(hub, 3)
            tasks.start_soon(block, hub, folder)
            await until_there(folder / "blocks")

    async with hub_on(folder) as hub:
        assert await add(hub, 3) == OPENING_BALANCE + 2


@on_one_loop
async def test_a_worker_that_another_owner_fences_out_is_started_again(folder: Path) -> None:
    store = SqliteStore(folder / "hub")
    async with hub_on(folder) as hub:
        before = pid_of(hub, 0)
        assert await add(hub, 0) == OPENING_BALANCE + 1
        other = (await store.attach(PARTITIONS))[0]
        await other.recover()
        await other.close()

        with pytest.raises((UnavailableError, OutcomeUnknownError)):
            await add(hub, 0, 100)
        await until_served(hub, 0, not_by=before)
        assert await add(hub, 0) == OPENING_BALANCE + 2
    await store.close()


@on_one_loop
async def test_a_second_hub_is_refused_and_harms_nothing_of_the_first(folder: Path) -> None:
    async with hub_on(folder) as hub:
        with pytest.raises(StoreInUseError):
            async with hub_on(folder):
                pass

        async with connect(f"sqlite:{folder / 'hub'}", app) as client:
            assert await client.call_entity(account_in(0), Account.change, 1) > OPENING_BALANCE
        assert await add(hub, 3) == OPENING_BALANCE + 1


@on_one_loop
async def test_what_cannot_be_sent_to_a_worker_is_refused_and_harms_nothing_else(
    folder: Path,
) -> None:
    async with hub_on(folder) as hub:
        with pytest.raises(UsageError, match="lone surrogates"):
            await hub.client.query_page(instance_id_prefix="\ud800")

        assert await add(hub, 0) == OPENING_BALANCE + 1


@on_one_loop
async def test_partitions_leave_a_busy_worker_by_themselves(folder: Path) -> None:
    rules = Rebalance(interval_s=0.05, busy=0.001, gain=0.0005, rest_s=60)
    ids = [account_in(0), account_in(1)]
    async with Hub(
        app,
        store=f"sqlite:{folder / 'hub'}?synchronous=OFF",
        workers=2,
        partitions=PARTITIONS,
        rebalance=rules,
    ) as hub:
        count = 0
        with anyio.fail_after(PATIENCE_S):
            while hub.placement == [0, 0, 1, 1]:
                for id in ids:
                    await hub.client.call_entity(id, Account.change, 1)
                count += 1
        for id in ids:
            assert await hub.client.call_entity(id, Account.change, 0) == OPENING_BALANCE + count
        assert sorted(hub.placement[:2]) == [0, 1]
