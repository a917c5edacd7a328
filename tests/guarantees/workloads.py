"""Workloads for crash tests: each drives one pattern and says what must have come of it.

A workload is driven again from the start after every crash. Requests that were acknowledged are
not repeated, so that losing one shows; the others are repeated under the same request id, so that
applying one twice shows. Every effect counts itself in a ``Tally`` under a name of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from statistics import median
from typing import Any

import anyio.lowlevel

import perdure
from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    Hub,
    MemoryStore,
    OrchestrationContext,
    RuntimeStatus,
    Store,
)
from perdure.runtime.placement.hashing import partition_of
from tests.faults import Crashed, FaultyStore, JumpingClock, content, persist

PARTITIONS = 3
app = App()


def brief_s(ordinary_s: list[float]) -> float:
    """Give how long what a move stops may stand still, by how long calls took that nothing stopped.

    It is a quarter of a second, and more only where a busy machine takes long for anything.
    """
    return max(0.25, 20 * median(ordinary_s))


def id_in(partition: int, name: str, partitions: int = PARTITIONS) -> str:
    """Give an instance id that lives in that partition."""
    return next(
        f"{name}-{n}" for n in range(999) if partition_of(f"{name}-{n}", partitions) == partition
    )


def entity_in(
    partition: int, entity: Any, name: str, partitions: int = PARTITIONS
) -> EntityId[Any]:
    """Give an entity that lives in that partition."""
    ids = (EntityId(entity, f"{name}-{n}") for n in range(999))
    return next(id for id in ids if partition_of(str(id), partitions) == partition)


@app.entity
class Tally:
    """Counts what it is told, by name, and keeps the order."""

    seen: dict[str, int] = {}
    order: list[str] = []

    def add(self, name: str) -> int:
        self.seen[name] = self.seen.get(name, 0) + 1
        self.order.append(name)
        return self.seen[name]

    async def add_slowly(self, name: str) -> int:
        self.seen[name] = self.seen.get(name, 0) + 1
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        self.order.append(name)
        return self.seen[name]

    def pass_on(self, route: list[str], ctx: EntityContext) -> None:
        self.add(route[0])
        if len(route) > 2:
            following = EntityId(Tally, route[1])
            ctx.signal_entity(following, Tally.pass_on, [route[0], *route[2:]])
        elif len(route) > 1:
            later = timedelta(seconds=5)
            ctx.signal_entity(EntityId(Tally, route[1]), Tally.add, route[0], at=later)


@app.entity
class Account:
    balance: int = 100

    def change(self, amount: int) -> int:
        self.balance += amount
        return self.balance


@app.entity(stripes=4)  # one more than there are partitions
class Visits:
    total: int = 0
    seen: dict[str, int] = {}

    @perdure.commutative
    def add(self, name: str) -> None:
        self.total += 1
        self.seen[name] = self.seen.get(name, 0) + 1

    @perdure.commutative
    async def add_slowly(self, name: str) -> None:
        self.total += 1
        await anyio.lowlevel.checkpoint()
        self.add(name)
        self.total -= 1

    def names(self) -> list[str]:
        return sorted(self.seen)

    def merge(self, other: Visits) -> None:
        self.total += other.total
        for name, count in other.seen.items():
            self.seen[name] = self.seen.get(name, 0) + count


VISITS = EntityId(Visits, "page")
TALLIES = [entity_in(n, Tally, "tally") for n in range(PARTITIONS)]
ACCOUNTS = [entity_in(n, Account, "account") for n in range(PARTITIONS)]


@app.activity
async def double(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return x * 2


@app.orchestration
async def chaining(ctx: OrchestrationContext, x: int) -> int:
    for _ in range(3):
        x = await ctx.call_activity(double, x)
        ctx.signal_entity(TALLIES[x % PARTITIONS], Tally.add, f"{ctx.instance_id}/{x}")
    return x


@app.orchestration
async def fan_out(ctx: OrchestrationContext, n: int) -> int:
    results = await ctx.task_all([ctx.call_activity(double, i) for i in range(n)])
    for i in range(PARTITIONS):
        assert await ctx.call_entity(TALLIES[i], Tally.add, f"{ctx.instance_id}/{i}") == 1
    return sum(results)


@app.orchestration
async def timing(ctx: OrchestrationContext) -> float:
    begun = ctx.current_utc_datetime
    for i in range(3):
        await ctx.create_timer(timedelta(seconds=10))
        ctx.signal_entity(TALLIES[i], Tally.add, f"{ctx.instance_id}/{i}")
    return (ctx.current_utc_datetime - begun).total_seconds()


@app.orchestration
async def listening(ctx: OrchestrationContext) -> list[int]:
    heard = [await ctx.wait_for_external_event("news", data_type=int) for _ in range(4)]
    try:
        await ctx.wait_for_external_event("never", timeout=5)
    except TimeoutError:
        ctx.signal_entity(TALLIES[0], Tally.add, ctx.instance_id)
    return heard


@app.orchestration
async def transfer(ctx: OrchestrationContext, amount: int) -> int:
    first, second = ACCOUNTS[0], ACCOUNTS[1]
    async with ctx.lock_entities(second, first):
        left = await ctx.call_entity(first, Account.change, -amount)
        await ctx.call_activity(double, amount)
        await ctx.call_entity(second, Account.change, amount)
    ctx.signal_entity(TALLIES[2], Tally.add, ctx.instance_id)
    return int(left)


@app.orchestration
async def family(ctx: OrchestrationContext, ids: list[str]) -> list[int]:
    children = [
        ctx.call_sub_orchestrator(chaining, n, instance_id=id) for n, id in enumerate(ids, 1)
    ]
    results = await ctx.task_all(children)
    results.append(await ctx.call_sub_orchestrator(chaining, 10))
    return results


@app.orchestration
async def rounds(ctx: OrchestrationContext, n: int) -> list[Any]:
    ctx.signal_entity(TALLIES[n % PARTITIONS], Tally.add, f"{ctx.instance_id}/{n}")
    await ctx.create_timer(timedelta(seconds=1))
    if n:
        ctx.continue_as_new(n - 1)
        return []
    return [await ctx.wait_for_external_event("last", data_type=str), n]


@app.orchestration
async def visiting(ctx: OrchestrationContext, name: str) -> bool:
    for n in range(3):
        ctx.signal_entity(VISITS, Visits.add, f"{name} {n}")
    await ctx.call_entity(VISITS, Visits.add_slowly, f"{name} called")
    seen = await ctx.call_entity(VISITS, Visits.names)
    ctx.signal_entity(VISITS, Visits.add, f"{name} later", at=timedelta(seconds=2))
    await ctx.create_timer(timedelta(seconds=4))
    return f"{name} called" in seen and f"{name} 0" in seen


class Workload:
    """One pattern: ``drive`` asks for it, ``expected`` says what must be in the tallies."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()

    async def once(
        self, request: str, call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any
    ) -> Any:
        """Make a request, unless an earlier life of the hub has acknowledged it."""
        if request not in self.acknowledged:
            answer = await persist(call, *arguments, request_id=request, **options)
            self.acknowledged.add(request)
            return answer
        return None

    async def start(self, client: Client, f: Any, *input: Any, id: str) -> None:
        await self.once(f"start {id}", client.start_new, f.__name__, *input, instance_id=id)

    async def drive(self, client: Client) -> None:
        raise NotImplementedError

    def expected(self) -> set[str]:
        raise NotImplementedError

    async def check(self, client: Client) -> None:
        """Check what only this pattern has."""


class Chaining(Workload):
    ids = [id_in(n, "chain") for n in range(PARTITIONS)]

    async def drive(self, client: Client) -> None:
        for n, id in enumerate(self.ids, 1):
            await self.start(client, chaining, n, id=id)
        for n, id in enumerate(self.ids, 1):
            assert await client.wait(id) == n * 8

    def expected(self) -> set[str]:
        return {f"{id}/{n * 2**k}" for n, id in enumerate(self.ids, 1) for k in (1, 2, 3)}


class FanOut(Workload):
    id = id_in(1, "fan")

    async def drive(self, client: Client) -> None:
        await self.start(client, fan_out, 6, id=self.id)
        assert await client.wait(self.id) == 30

    def expected(self) -> set[str]:
        return {f"{self.id}/{n}" for n in range(PARTITIONS)}


class Timing(Workload):
    id = id_in(2, "timing")

    async def drive(self, client: Client) -> None:
        await self.start(client, timing, id=self.id)
        assert await client.wait(self.id) >= 30

    def expected(self) -> set[str]:
        return {f"{self.id}/{n}" for n in range(PARTITIONS)}


class Listening(Workload):
    id = id_in(1, "listening")

    async def drive(self, client: Client) -> None:
        await self.start(client, listening, id=self.id)
        for n in range(4):
            await self.once(f"news {n}", client.raise_event, self.id, "news", n)
        assert await client.wait(self.id) == [0, 1, 2, 3]

    def expected(self) -> set[str]:
        return {self.id}


class Transfers(Workload):
    ids = [id_in(n, "transfer") for n in range(PARTITIONS)]

    async def drive(self, client: Client) -> None:
        for id in self.ids:
            await self.start(client, transfer, 10, id=id)
        # A caller from outside waits in the locked account's mailbox, and is served once, too.
        await self.once("gift", client.signal_entity, ACCOUNTS[1], Account.change, 1)
        left = [await client.wait(id) for id in self.ids]
        assert sorted(left) == [70, 80, 90]

    def expected(self) -> set[str]:
        return set(self.ids)

    async def check(self, client: Client) -> None:
        balances = [await client.read_entity_state(id) for id in ACCOUNTS[:2]]
        assert [state and state.balance for state in balances] == [70, 131]
        assert [s async for s in client.query_entities(locked=True, include_empty=True)] == []


class Family(Workload):
    id = id_in(0, "family")
    children = [id_in(1, "child"), id_in(2, "child")]

    async def drive(self, client: Client) -> None:
        await self.start(client, family, self.children, id=self.id)
        assert await client.wait(self.id) == [8, 16, 80]

    def expected(self) -> set[str]:
        made = f"{self.id}::1.3"
        explicit = {f"{id}/{n * 2**k}" for n, id in enumerate(self.children, 1) for k in (1, 2, 3)}
        return explicit | {f"{made}/{10 * 2**k}" for k in (1, 2, 3)}


class Rounds(Workload):
    id = id_in(2, "rounds")

    async def drive(self, client: Client) -> None:
        await self.start(client, rounds, 3, id=self.id)
        # Raised before anybody waits: it goes along through every new execution.
        await self.once("last", client.raise_event, self.id, "last", "x")
        assert await client.wait(self.id) == ["x", 0]

    def expected(self) -> set[str]:
        return {f"{self.id}/{n}" for n in range(4)}


class Entities(Workload):
    async def drive(self, client: Client) -> None:
        keys = [id.key for id in TALLIES]
        for n, id in enumerate(TALLIES):
            answer = await self.once(f"call {n}", client.call_entity, id, Tally.add, f"call {n}")
            assert answer in (1, None)
            answer = await self.once(
                f"slow {n}", client.call_entity, id, Tally.add_slowly, f"slow {n}"
            )
            assert answer in (1, None)
            route = [f"pass {n}", keys[(n + 1) % 3], keys[(n + 2) % 3]]
            await self.once(f"pass {n}", client.signal_entity, id, Tally.pass_on, route)
            later = timedelta(seconds=3)
            await self.once(
                f"later {n}", client.signal_entity, id, Tally.add, f"later {n}", at=later
            )
        while not await self._is_complete(client):
            await anyio.sleep(0.001)

    def expected(self) -> set[str]:
        return {f"{kind} {n}" for kind in ("call", "slow", "later") for n in range(3)}

    async def _is_complete(self, client: Client) -> bool:
        states = [await client.read_entity_state(id) for id in TALLIES]
        return all(
            state is not None and f"later {n}" in state.seen and len(state.seen) == 6
            for n, state in enumerate(states)
        )

    async def check(self, client: Client) -> None:
        for n in range(3):
            states = [await client.read_entity_state(id) for id in TALLIES]
            assert [state.seen[f"pass {n}"] for state in states if state] == [1, 1, 1]


class Striped(Workload):
    ids = [id_in(n, "visiting") for n in range(PARTITIONS)]

    async def drive(self, client: Client) -> None:
        for n, id in enumerate(self.ids):
            await self.once(f"early {n}", client.signal_entity, VISITS, Visits.add, f"early {n}")
            await self.start(client, visiting, id, id=id)
        for n in range(3):
            await self.once(f"call {n}", client.call_entity, VISITS, Visits.add, f"call {n}")
            status = await persist(client.get_entity, VISITS)
            known = {f"early {m}" for m in range(3)} | {f"call {m}" for m in range(n + 1)}
            assert known <= set(status.state.seen)
        for id in self.ids:
            assert await client.wait(id)

    def expected(self) -> set[str]:
        return set()

    async def check(self, client: Client) -> None:
        status = await client.get_entity(VISITS)
        kinds = ("0", "1", "2", "called", "later")
        wanted = {f"{id} {kind}" for id in self.ids for kind in kinds}
        wanted |= {f"{kind} {n}" for kind in ("early", "call") for n in range(3)}
        assert status is not None
        assert status.state is not None
        assert status.state.seen == dict.fromkeys(wanted, 1)
        assert status.state.total == len(wanted)
        assert status.failed_signals == 0


WORKLOADS: dict[str, type[Workload]] = {
    kind.__name__: kind
    for kind in (
        Chaining,
        FanOut,
        Timing,
        Listening,
        Transfers,
        Family,
        Rounds,
        Entities,
        Striped,
    )
}


async def live(store: Store, clock: JumpingClock, work: Workload) -> bool:
    """Drive the workload in one life of a hub; the answer is whether the hub lived to the end."""
    try:
        async with Hub(app, store=store, partitions=PARTITIONS, clock=clock) as hub:
            await work.drive(hub.client)
    except Crashed:
        return False
    return True


async def check_outcome(inner: Store, clock: JumpingClock, work: Workload) -> None:
    """Open the store once more, and check that everything happened, and happened once."""
    async with Hub(app, store=inner, partitions=PARTITIONS, clock=clock) as hub:
        client = hub.client
        tallies = [await client.get_entity(id) for id in TALLIES]
        seen: dict[str, int] = {}
        for tally in tallies:
            if tally is not None and tally.state is not None:
                assert tally.failed_signals == 0
                assert len(tally.state.order) == sum(tally.state.seen.values())
                for name, count in tally.state.seen.items():
                    seen[name] = seen.get(name, 0) + count
        wanted = work.expected()
        counts = {name: count for name, count in seen.items() if not name.startswith("pass")}
        assert counts == dict.fromkeys(wanted, 1)
        async for status in client.query():
            assert status.runtime_status == RuntimeStatus.COMPLETED
            assert status.parked is None
        await work.check(client)
    if isinstance(inner, MemoryStore):
        assert [(row["mail"], row["timers"]) for row in content(inner).rows] == [
            (0, 0)
        ] * PARTITIONS


async def count_commits(work: type[Workload], seed: int | None = None) -> int:
    """Count the commits of a life without faults."""
    store = FaultyStore(MemoryStore(), seed=seed)
    assert await live(store, JumpingClock(), work())
    return store.commits
