"""Placement, with worker processes: partitions move under load, and nobody can tell.

Nothing is lost, repeated or reordered, nobody hangs, and what stands still does so briefly.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import anyio
import pytest

from perdure import Client, EntityId, Hub, RuntimeStatus, UnavailableError
from tests.guarantees.worker_load import (
    PARTITIONS,
    Load,
    Patient,
    crew_of,
    hold,
    hub_on,
    seed_of,
    until_served,
    waver,
)
from tests.guarantees.workloads import brief_s, entity_in

CLIENTS = 8


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("m")


async def move_at_random(hub: Hub, load: Load, moves: int) -> None:
    for _ in range(moves):
        await load.more(load.random.randint(0, 6))
        partition = load.random.randrange(PARTITIONS)
        await hub.move_partition(partition, load.random.randrange(hub.shards))


async def run(folder: Path, moves: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    with anyio.fail_after(60 + moves):
        async with hub_on(folder, workers=3) as hub:
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                await move_at_random(hub, load, moves)
                load.stopped = True
            await load.check(hub.client)
            assert not load.repeated, "a client was told of a move"
            load.check_runs()


@pytest.mark.by_turns
async def test_partitions_that_move_under_load_lose_and_repeat_nothing(folder: Path) -> None:
    await run(folder, 20)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
async def test_partitions_that_move_for_long_lose_and_repeat_nothing(
    folder: Path, number: int
) -> None:
    await run(folder, 400, number)


async def run_with_kills(folder: Path, kills: int, number: int = 0) -> None:
    load = Load(seed_of(number), folder)
    moved = 0

    async def keep_moving(hub: Hub) -> None:
        nonlocal moved
        while not load.stopped:
            await load.more(load.random.randint(0, 6))
            try:
                await hub.move_partition(
                    load.random.randrange(PARTITIONS), load.random.randrange(hub.shards)
                )
            except UnavailableError:
                continue  # one of the two was killed
            moved += 1

    with anyio.fail_after(60 + 10 * kills):
        async with hub_on(folder, workers=3) as hub:
            async with anyio.create_task_group() as tasks:
                for _ in range(CLIENTS):
                    tasks.start_soon(load.drive, hub.client)
                tasks.start_soon(keep_moving, hub)
                for _ in range(kills):
                    await load.more(load.random.randint(1, 60))
                    await anyio.sleep(load.random.uniform(0, 0.02))  # not always on an answer
                    victim = load.random.choice(crew_of(hub).workers)
                    await until_served(hub, victim.number)
                    assert victim.process is not None
                    victim.process.kill()
                await load.more(20)
                load.stopped = True
            await load.check(hub.client)
    assert moved > kills


@pytest.mark.by_turns("trio")
async def test_kills_while_partitions_move_lose_and_repeat_nothing(folder: Path) -> None:
    await run_with_kills(folder, 3)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
async def test_many_kills_while_partitions_move_lose_and_repeat_nothing(
    folder: Path, number: int
) -> None:
    await run_with_kills(folder, 50, number)


async def shake(hub: Hub) -> None:
    """Move every partition once around."""
    for _ in range(hub.shards):
        for partition, shard in enumerate(hub.placement):
            await hub.move_partition(partition, (shard + 1) % hub.shards)


@pytest.mark.by_turns("trio")
async def test_a_lock_and_all_who_wait_behind_it_live_over_moves(folder: Path) -> None:
    answers: dict[int, int] = {}

    async with hub_on(folder) as hub, anyio.create_task_group() as tasks:
        client = hub.client

        async def take(n: int, request: str | None) -> None:
            answers[n] = await client.call_entity(patient, Patient.take, n, request_id=request)

        patient = EntityId(Patient, "a")
        handle = await client.start_new(hold, "a")
        while (await handle.status()).custom_status != "locked":
            await anyio.sleep(0.002)
        for n in range(1, 7):
            tasks.start_soon(take, n, None if n % 2 else f"request-{n}")
            while (await waiting(client, patient)) < n:
                await anyio.sleep(0.002)
        for n in range(6):
            await handle.raise_event("n", n)
            await shake(hub)
        assert not answers
        tasks.start_soon(take, 2, "request-2")  # a repetition waits with the first
        await shake(hub)
        await handle.raise_event("n", -1)

        assert await handle.result(30) == [0, 1, 2, 3, 4, 5, 1]
        with anyio.fail_after(30):
            while len(answers) < 6:
                await anyio.sleep(0.002)
        assert answers == {n: n + 1 for n in range(1, 7)}
        state = await client.read_entity_state(patient)
        assert state is not None
        assert state.taken == list(range(7))


async def waiting(client: Client, id: EntityId[Patient]) -> int:
    status = await client.get_entity(id)
    return 0 if status is None else status.waiting


@pytest.mark.by_turns("trio")
async def test_an_async_operation_under_way_begins_again_and_counts_once(folder: Path) -> None:
    answers: dict[str, int] = {}
    patient = EntityId(Patient, "a")

    async with hub_on(folder) as hub:
        async with anyio.create_task_group() as tasks:

            async def ask(name: str, given: object) -> None:
                answers[name] = await hub.client.call_entity(patient, name, given)

            await ask("take", 0)
            tasks.start_soon(ask, "wait_for", str(folder))
            while not (folder / "begun").exists():
                await anyio.sleep(0.002)
            tasks.start_soon(ask, "take", 1)
            while await waiting(hub.client, patient) < 2:
                await anyio.sleep(0.002)
            await shake(hub)
            (folder / "go").touch()

        assert answers == {"wait_for": 2, "take": 3}
        assert (folder / "begun").read_text().count("begun") == 1 + hub.shards
        state = await hub.client.read_entity_state(patient)
        assert state is not None
        assert state.taken == [0, -1, 1]


@pytest.mark.by_turns
async def test_a_parked_actor_stays_parked_over_moves_and_goes_on_when_retried(
    folder: Path,
) -> None:
    flag = folder / "flag"
    results: list[str] = []

    async with hub_on(folder) as hub, anyio.create_task_group() as tasks:

        async def wait() -> None:
            results.append(await handle.result())

        handle = await hub.client.start_new(waver, str(flag))
        tasks.start_soon(wait)
        while (await handle.status()).runtime_status != RuntimeStatus.RUNNING:
            await anyio.sleep(0.002)
        flag.touch()
        await shake(hub)
        await handle.raise_event("end", "well")
        await shake(hub)
        status = await handle.status()
        assert status.parked is not None
        assert "Nondeterminism" in str(status.parked)
        flag.unlink()
        await shake(hub)
        assert (await handle.status()).parked is not None, "a move alone is no retry"
        await handle.retry()

        assert await handle.result(30) == "well"
    assert results == ["well"]


@pytest.mark.by_turns
async def test_what_stands_still_while_a_partition_moves_does_so_briefly(folder: Path) -> None:
    pauses: list[float] = []
    ordinary: list[float] = []

    async with hub_on(folder) as hub:
        patient = entity_in(0, Patient, "patient", PARTITIONS)

        async def call_s(n: int) -> float:
            began = anyio.current_time()
            await hub.client.call_entity(patient, Patient.take, n)
            return anyio.current_time() - began

        for n in range(20):
            ordinary += [await call_s(n) for _ in range(3)]
            longest = 0.0
            async with anyio.create_task_group() as tasks:
                moved = anyio.Event()

                async def move(moved: anyio.Event) -> None:
                    await hub.move_partition(0, 1 - hub.placement[0])
                    moved.set()

                tasks.start_soon(move, moved)
                while not moved.is_set():
                    longest = max(longest, await call_s(n))
            pauses.append(longest)

    print(f"pause of a move: median {median(pauses) * 1e3:.0f} ms, {max(pauses) * 1e3:.0f} at most")
    assert median(pauses) < brief_s(ordinary)
