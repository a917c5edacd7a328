"""Load that is made inside a hub: orchestrations that signal entities, placed where they should be.

A client lives on one loop and would be the limit of a hub with several. A driver sends signals in
waves, and the last of each wave is a call, so that it does not run ahead of those who get them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from time import perf_counter
from typing import Any, Literal

import anyio
from attrs import frozen

from perdure import App, Client, EntityId, Hub, OrchestrationContext

from .bench import Bench, Request, Timed
from .figures import expect
from .schedule import partition_of, tally
from .workloads import app as workloads

app = App("drivers")
app.include(workloads)

WAVE = 200
PER_PARTITION = 16  # fewer, and all of them would often be waiting for a disk

Kind = Literal["threads", "processes"]


@frozen(kw_only=True)
class Order:
    """What one driver sends.

    Attributes:
        entity: the name of the entities, which have the operations ``mark`` and ``read``.
        prefix: what their keys begin with; a number follows.
        drawn: the number of the key of each operation.
        first: the number that the first operation takes.
        step: how much greater the number of the next one is.
    """

    entity: str
    prefix: str
    drawn: list[int]
    first: int = 0
    step: int = 1


@app.orchestration
async def drive(ctx: OrchestrationContext, order: Order) -> int:
    """Send what the order says; gives how much that was."""
    ids: dict[int, EntityId[Any]] = {
        key: EntityId(order.entity, f"{order.prefix}{key}") for key in set(order.drawn)
    }
    last = len(order.drawn) - 1
    for place, key in enumerate(order.drawn):
        number = order.first + place * order.step
        if place == last or place % WAVE == WAVE - 1:
            await ctx.call_entity(ids[key], "mark", number)
        else:
            ctx.signal_entity(ids[key], "mark", number)
    return len(order.drawn)


@frozen
class Plan:
    """What all drivers of a load send, and what comes of it.

    Attributes:
        orders: what each sends, by its instance id.
        wanted: count and sum at each entity when all is applied.
    """

    orders: dict[str, Order]
    wanted: dict[EntityId[Any], list[int]]

    @property
    def operations(self) -> int:
        """How much is sent."""
        return sum(len(order.drawn) for order in self.orders.values())


def make_plan(entity: str, prefix: str, drawn: Sequence[int], drivers: list[str]) -> Plan:
    """Deal operations out to drivers, one by one: number ``i`` goes to the key ``drawn[i]``."""
    keys = max(drawn) + 1
    counts, totals = [0] * keys, [0] * keys
    tally(drawn, counts, totals)
    step = len(drivers)
    orders = {
        driver: Order(
            entity=entity,
            prefix=prefix,
            drawn=list(drawn[first::step]),
            first=first,
            step=step,
        )
        for first, driver in enumerate(drivers)
    }
    wanted: dict[EntityId[Any], list[int]] = {
        EntityId(entity, f"{prefix}{key}"): [counts[key], totals[key]] for key in range(keys)
    }
    return Plan(orders, wanted)


def drivers_in(
    places: Sequence[int], partitions: int, name: str, each: int | None = None
) -> list[str]:
    """Give ids of drivers, the same number in each of these partitions."""
    return [
        f"{place_in(places[index % len(places)], partitions, 'driver')}::{name}-{index}"
        for index in range(len(places) * (each or PER_PARTITION))
    ]


def place_in(partition: int, partitions: int, name: str) -> str:
    """Find an id that begins so and lies in a partition: what follows ``::`` does not move it."""
    return next(
        id for number in count() if partition_of(id := f"{name}-{number}", partitions) == partition
    )


def key_in(partition: int, partitions: int, entity: str) -> str:
    """Find the key of an entity that lies in a partition."""
    return place_in(partition, partitions, f"@{entity}@key").removeprefix(f"@{entity}@")


async def measure_plan(
    bench: Bench, hub: Hub, name: str, plan: Plan, *, unit: str = "signals"
) -> Timed:
    """Have the drivers send all of it; the time ends when all is applied and durable."""
    return await bench.timed_loop(
        hub,
        name,
        _request(hub.client, plan),
        len(plan.orders),
        unit=unit,
        concurrency=len(plan.orders),
        operations=plan.operations,
        then=lambda: await_applied(bench, hub.client, plan),
        note="latency is of a driver, from its start to its end",
    )


async def send_plan(bench: Bench, hub: Hub, name: str, plan: Plan) -> None:
    """Have the drivers send all of it, and wait until it is applied; no figure counts it."""
    await bench.unmeasured(name, _request(hub.client, plan), len(plan.orders))
    await await_applied(bench, hub.client, plan)


def _request(client: Client, plan: Plan) -> Request:
    orders = list(plan.orders.items())

    async def request(index: int) -> None:
        driver, order = orders[index]
        handle = await client.start_new(drive, order, instance_id=driver)
        expect(f"sent by {driver}", await handle.result(), len(order.drawn))

    return request


async def await_applied(bench: Bench, client: Client, plan: Plan) -> None:
    """Return when each entity has had what it should get, however long signals are under way."""
    entities = list(plan.wanted.items())
    given_up = perf_counter() + bench.options.stalled_s

    async def wait(index: int) -> None:
        id, (wanted, _) = entities[index]
        # The answer to a call is durable, and so is all that was applied before it.
        while (found := (await client.call_entity(id, "read"))[0]) < wanted:
            if perf_counter() > given_up:
                expect(f"signals applied to {id}", found, wanted)
            await anyio.sleep(0.001)

    await bench.unmeasured("waiting for the last signals", wait, len(entities))


async def verify_plan(bench: Bench, client: Client, plan: Plan) -> None:
    """Refuse entities that have not got exactly what was sent to them."""
    entities = list(plan.wanted.items())

    async def verify(index: int) -> None:
        id, wanted = entities[index]
        expect(f"{id}", (await client.call_entity(id, "read"))[:2], wanted)

    await bench.unmeasured("checking", verify, len(entities))


def kinds(bench: Bench) -> tuple[Kind, ...]:
    """Which kinds of shards there can be: worker processes need files that they share."""
    return ("threads",) if bench.folder is None else ("threads", "processes")


def note_on_kinds(bench: Bench) -> str:
    """Say which kinds were left out, and why."""
    return "" if len(kinds(bench)) > 1 else "Worker processes cannot use memory: left out."


def on(kind: Kind, shards: int) -> dict[str, Any]:
    """Say to a hub how many shards of a kind to have."""
    return {"shards": shards} if kind == "threads" else {"workers": shards}
