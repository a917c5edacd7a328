"""Several nodes on one PostgreSQL: what an operation costs on 1, 2 and 4, and pauses.

A pause is the longest call of each of many callers while a node is killed, or stands still, and of
those of a partition while that moves.

On few processors more nodes cannot be faster; whether they would be on more is told by what an
operation takes of the processors, in the nodes and in the database.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from statistics import median
from subprocess import DEVNULL
from time import perf_counter

import anyio
from anyio.abc import Process

import perdure
from perdure import Client, EntityId, NodeStatus, PerdureError, Settings, UnavailableError

from .bench import Bench
from .figures import Cell, Fact, Outcome, Sweep, expect, percentile
from .postgres import Database, cpu_of, database
from .schedule import partition_of
from .sharding import app as sharding, drive_hellos, stay
from .workloads import Meter

NODES = (1, 2, 4)
FULL = 16_000
PARTITIONS = 16  # while operations are counted
HELD = 64  # while nodes are hurt
LIVE = 10_000  # instances that wait then
AT_ONCE = 100  # of them are begun together
DRIVERS = 64
CALLERS = 64
KILLS = 3
RESTARTS = 3
MOVES = 48
REST_S = 0.2  # of each caller between two calls while partitions move: some half of the full load
LEASE_S = Settings().lease_s
LOOK_S, LOOK_AFTER_LEASE_S = 2.0, 3.0  # at what a death makes wait

#: How much more an operation may take of the processors on more nodes; the pause at a death, at one
#: of which nothing is heard, beyond the lease, and at a move.
MORE, PAUSE_S, PAUSE_MOST_S, MOVE_S = 1.1, 0.5, 1.5, 0.25

HEADS = ("nodes", "hellos/s", "CPU us in nodes", "CPU us in the database", "commits")


async def measure_cluster(bench: Bench) -> Outcome:
    """The same load on ever more nodes, and then deaths of some."""
    async with database(bench) as server:
        if server is None:
            return Outcome(
                verified=["nothing: there is no PostgreSQL on this machine, and no wheel of one"]
            )
        return await _measure(bench, server)


async def _measure(bench: Bench, server: Database) -> Outcome:
    n = bench.n(FULL)
    rows: list[list[Cell]] = []
    done = 0
    is_small = n < FULL  # to see that all of it runs
    counts = NODES[:1] if is_small else NODES
    for count in counts:
        async with _cluster(server, count) as (client, nodes):
            await _drive(client, "warm", n // 4)
            cpu, database_s, began = _cpu_s(nodes), server.cpu_s(), perf_counter()
            before = (await client.statistics()).commits
            done += await _drive(client, "driven", n)
            seconds = perf_counter() - began
            commits = (await client.statistics()).commits - before
            taken = (_cpu_s(nodes) - cpu) / n * 1e6
            rows.append(
                [count, n / seconds, taken, (server.cpu_s() - database_s) / n * 1e6, commits / n]
            )
    kills = 1 if is_small else KILLS
    async with _called(server) as called:
        pauses = await called.deaths(kills)
        silent = await called.silence()
        moves = await called.moves(max(1, MOVES * n // FULL))
        restarts = await called.restarts()
    alone, most = rows[0][2], rows[-1][2]
    assert isinstance(alone, float)
    assert isinstance(most, float)
    return Outcome(
        sweeps=[Sweep(name="hellos on ever more nodes", heads=HEADS, rows=rows)],
        facts=[
            Fact(
                name=f"cluster: CPU in nodes of a hello on {counts[-1]} / on 1",
                value=most / alone,
                unit="times",
                target=MORE,
                note="of all nodes together; what is passed between them is part of it",
            ),
            Fact(
                name="cluster: pause when a node is killed, median",
                value=median(pauses),
                unit="s",
                target=PAUSE_S,
                note=f"of {CALLERS} callers, the longest call of each; {kills} times one of 3 is killed, "
                f"with {HELD} partitions and {LIVE:,} live instances",
            ),
            Fact(
                name="cluster: pause when a node is killed, 99th percentile",
                value=percentile(pauses, 99),
                unit="s",
                target=PAUSE_MOST_S,
            ),
            Fact(
                name="cluster: pause when a node stands still, 99th percentile",
                value=percentile(silent, 99),
                unit="s",
                target=LEASE_S + PAUSE_MOST_S,
                note=f"one that is stopped (SIGSTOP); its lease is of {LEASE_S:g} s",
            ),
            Fact(
                name="cluster: pause when a partition moves, 99th percentile",
                value=percentile(moves, 99),
                unit="s",
                target=MOVE_S,
                note=f"of {len(moves)} moves to another node, the longest call of those to the partition, "
                f"where each caller rests {REST_S:g} s between two calls",
            ),
            Fact(
                name="cluster: pause when nodes are restarted one by one, 99th percentile",
                value=percentile(restarts, 99),
                unit="s",
                target=MOVE_S,
                note=f"of {CALLERS} callers that rest as long, the longest call of each at each of {RESTARTS}, "
                "from when the next node has joined until the last one has ended",
            ),
        ],
        verified=[
            f"every result of {done:,} hellos",
            f"the count at each entity after {kills} deaths, one that stood still and "
            f"{len(moves)} moves, of {called.calls:,} calls, none of which failed while partitions moved, or nodes were restarted",
            f"nodes, load and database on the same {os.cpu_count()} processors",
        ],
    )


@asynccontextmanager
async def _cluster(server: Database, count: int) -> AsyncGenerator[tuple[Client, list[Process]]]:
    """Run some nodes of a new hub, and give a client of it."""
    place = server.place()
    async with AsyncExitStack() as stack:
        nodes = [await _node(place, stack, PARTITIONS) for _ in range(count)]
        client = await _connected(place, stack)
        await _until_shared(client, nodes, PARTITIONS)
        yield client, nodes


async def _node(place: str, stack: AsyncExitStack, partitions: int) -> Process:
    target = f"{__package__}.sharding:app"
    command = [sys.executable, "-m", "perdure", "serve", target, "--store", place]
    command += ["--partitions", f"{partitions}"]
    node = await anyio.open_process(command, stdout=DEVNULL, stderr=DEVNULL)
    stack.push_async_callback(_end, node)
    return node


async def _end(node: Process) -> None:
    with anyio.CancelScope(shield=True):
        if node.returncode is None:
            node.terminate()
        await node.wait()


async def _connected(place: str, stack: AsyncExitStack) -> Client:
    with anyio.fail_after(60):
        while not await _is_served(place):  # noqa: ASYNC110 - it is another process that begins
            await anyio.sleep(0.1)
    return await stack.enter_async_context(perdure.connect(place, app=sharding))


async def _is_served(place: str) -> bool:
    store = perdure.PostgresStore(place)
    try:
        return bool((await store.view()).members)
    finally:
        await store.close()


async def _until_joined(client: Client, nodes: Sequence[Process]) -> None:
    """Return when each of the nodes is there."""
    with anyio.fail_after(60):
        while True:
            if {node.pid for node in nodes} <= {one.pid for one in await _living(client)}:
                return
            await anyio.sleep(0.02)


async def _until_shared(client: Client, nodes: Sequence[Process], partitions: int) -> None:
    """Return when these nodes have their share, and none has more, and no other is there."""
    pids = {node.pid for node in nodes}
    with anyio.fail_after(60):
        while True:
            found = await _living(client)
            shares = [len(node.partitions) for node in found]
            is_whole = pids == {node.pid for node in found} and sum(shares) == partitions
            if is_whole and max(shares) - min(shares) <= 1:
                return
            await anyio.sleep(0.1)


async def _living(client: Client) -> list[NodeStatus]:
    """Give the nodes that have not expired; none where it has begun, and does not serve yet."""
    try:
        return [node for node in (await client.nodes()).nodes if not node.is_expired]
    except UnavailableError:
        return []


def _cpu_s(nodes: list[Process]) -> float:
    return sum(cpu_of(node.pid) for node in nodes)


async def _drive(client: Client, name: str, n: int) -> int:
    """Have drivers in all of the hub run so many hellos."""
    each = -(-n // DRIVERS)
    done = [0]

    async def drive(index: int) -> None:
        numbers = [index * each, each]
        handle = await client.start_new(drive_hellos, numbers, instance_id=f"{name}-{index}")
        expect("right", await handle.result(), each)
        done[0] += each

    async with anyio.create_task_group() as tasks:
        for index in range(DRIVERS):
            tasks.start_soon(drive, index)
    return done[0]


@asynccontextmanager
async def _called(server: Database) -> AsyncGenerator[_Called]:
    """Run three nodes under callers, and see in the end that each call was applied once."""
    place = server.place()
    async with AsyncExitStack() as stack:
        nodes = [await _node(place, stack, HELD) for _ in range(3)]
        client = await _connected(place, stack)
        await _until_shared(client, nodes, HELD)
        await _begin(client, LIVE)
        called = _Called(place, nodes, client, stack)
        callers = called.callers
        async with anyio.create_task_group() as tasks:
            for number in range(CALLERS):
                tasks.start_soon(callers.call, number)
            yield called
            callers.is_over = True
        expect("live instances", await client.count(statuses=["Running"], name=stay), LIVE)
        for number, count in callers.counts.items():
            found = (await client.call_entity(_caller(number), Meter.read))[0]
            expect(f"{_caller(number)}", found, count)


async def _begin(client: Client, count: int) -> None:
    """Begin so many instances that stay."""
    for start in range(0, count, AT_ONCE):
        async with anyio.create_task_group() as tasks:
            for number in range(start, min(start + AT_ONCE, count)):
                tasks.start_soon(client.start_new, stay, number)


class _Called:
    """Three nodes under callers, which are hurt.

    Args:
        place: their database.
        nodes: those that run.
        client: of all.
        stack: ends the nodes.
    """

    def __init__(
        self, place: str, nodes: list[Process], client: Client, stack: AsyncExitStack
    ) -> None:
        self._place = place
        self._nodes = nodes
        self._client = client
        self._stack = stack
        self.callers = _Callers(client)

    @property
    def calls(self) -> int:
        """How many calls were answered."""
        return sum(self.callers.counts.values())

    async def deaths(self, kills: int) -> list[float]:
        """Kill nodes; gives the longest call of each caller at each death, sorted."""
        pauses: list[float] = []
        for _ in range(kills):
            pauses += await self._hurt(signal.SIGKILL, LOOK_S)
        return sorted(pauses)

    async def silence(self) -> list[float]:
        """Have a node stand still until others have what it had; gives the same."""
        return sorted(await self._hurt(signal.SIGSTOP, LEASE_S + LOOK_AFTER_LEASE_S))

    async def _hurt(self, how: signal.Signals, look_s: float) -> list[float]:
        await anyio.sleep(0.5)
        callers = self.callers
        callers.longest.clear()
        victim = self._nodes.pop(0)
        victim.send_signal(how)
        await anyio.sleep(look_s)
        pauses = [callers.longest.get(number, look_s) for number in range(CALLERS)]
        with suppress(ProcessLookupError):
            victim.kill()
        await victim.wait()
        self._nodes.append(await _node(self._place, self._stack, HELD))
        await _until_shared(self._client, self._nodes, HELD)
        return pauses

    async def moves(self, count: int) -> list[float]:
        """Move partitions; gives the longest call to each meanwhile, sorted.

        Raises:
            WrongOutcomeError: a request failed.
        """
        callers, pauses = self.callers, list[float]()
        in_each: dict[int, list[int]] = {}
        for number in range(CALLERS):
            partition = partition_of(str(_caller(number)), HELD)
            in_each.setdefault(partition, []).append(number)
        failed = callers.failed
        callers.rest_s = REST_S
        for index in range(count):
            partition, numbers = [*in_each.items()][index % len(in_each)]
            others = [
                node
                for node in await _living(self._client)
                if all(one.index != partition for one in node.partitions)
            ]
            callers.longest.clear()
            await self._client.move_partition(partition, others[index % len(others)].member)
            await callers.until_more(numbers)
            pauses.append(max(callers.longest[number] for number in numbers))
        expect("requests that failed while partitions moved", callers.failed - failed, 0)
        return sorted(pauses)

    async def restarts(self) -> list[float]:
        """Begin a node and end another, some times; gives the longest call of each caller, sorted.

        Raises:
            WrongOutcomeError: a request failed.
        """
        callers, pauses = self.callers, list[float]()
        failed = callers.failed
        callers.rest_s = REST_S
        for node in self._nodes[:RESTARTS]:
            self._nodes.append(await _node(self._place, self._stack, HELD))
            await _until_joined(self._client, self._nodes)
            callers.longest.clear()  # to start takes a processor, which on another machine is another
            await _until_shared(self._client, self._nodes, HELD)
            await _end(node)
            self._nodes.remove(node)
            await _until_shared(self._client, self._nodes, HELD)
            await callers.until_more([*range(CALLERS)])
            pauses += [callers.longest[number] for number in range(CALLERS)]
        expect("requests that failed while nodes were restarted", callers.failed - failed, 0)
        return sorted(pauses)


def _caller(number: int) -> EntityId[Meter]:
    return EntityId(Meter, f"caller-{number}")


class _Callers:
    """Callers, each of an entity of its own, that repeat what may have been lost."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.counts: dict[int, int] = {}
        self.longest: dict[int, float] = {}
        self.failed = 0
        self.rest_s = 0.0
        self.is_over = False

    async def call(self, number: int) -> None:
        meter = _caller(number)
        count = 0
        while not self.is_over:
            began = perf_counter()
            await self._once(meter, number, count)
            count += 1
            took = perf_counter() - began
            self.longest[number] = max(self.longest.get(number, 0.0), took)
            self.counts[number] = count
            await anyio.sleep(self.rest_s)

    async def until_more(self, numbers: Sequence[int]) -> None:
        """Return when some callers had answers to calls that they have not made yet."""
        until = {number: self.counts.get(number, 0) + 2 for number in numbers}
        with anyio.fail_after(60):
            while any(  # noqa: ASYNC110 - they have nobody to tell
                self.counts.get(number, 0) < count for number, count in until.items()
            ):
                await anyio.sleep(0.005)

    async def _once(self, meter: EntityId[Meter], number: int, count: int) -> None:
        while True:
            try:
                await self._client.call_entity(
                    meter, Meter.mark, count, request_id=f"{number}-{count}"
                )
                return
            except PerdureError:
                self.failed += 1
                await anyio.sleep(0.01)
