"""Many locks at once."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

import perdure
from perdure import Hub, OrchestrationHandle, Store
from tests.features.locks.application import (
    Account,
    account,
    app,
    hold,
    transfer,
    until_free,
)


@pytest.mark.by_turns
@pytest.mark.parametrize("settings", [perdure.Settings(), perdure.Settings(cached_actors_max=4)])
async def test_hundreds_of_transfers_in_opposite_orders_neither_deadlock_nor_lose_money(
    store: Store, settings: perdure.Settings
) -> None:
    keys = "abcdefgh"
    dice = random.Random(7)
    orders: list[list[Any]] = []
    for _ in range(300):
        source, target, *extra = dice.sample(keys, dice.choice((2, 3, 4)))
        orders.append([source, target, dice.randint(1, 60), "".join(extra)])

    async with Hub(app, store=store, settings=settings) as hub:
        client = hub.client
        for key in keys:
            await client.call_entity(account(key), Account.add, 100)
        done: list[bool] = []

        async def run(order: list[Any]) -> None:
            handle = await client.start_new(transfer, order)
            done.append(await handle.result(60))

        async with anyio.create_task_group() as tasks:
            for order in orders:
                tasks.start_soon(run, order)
        await until_free(client, *keys)
        balances = [await client.call_entity(account(key), Account.get) for key in keys]

    assert len(done) == 300
    assert sum(done) > 100
    assert sum(balances) == 100 * len(keys)
    assert min(balances) >= 0


@pytest.mark.by_turns
async def test_transfers_are_neither_lost_nor_doubled_when_holders_are_terminated(
    store: Store,
) -> None:
    keys = "abcd"
    dice = random.Random(11)

    async with Hub(app, store=store) as hub:
        client = hub.client
        for key in keys:
            await client.call_entity(account(key), Account.add, 1_000)
        handles = [
            await client.start_new(hold, "".join(dice.sample(keys, 3)), instance_id=f"h{i}")
            for i in range(40)
        ]

        async def end(handle: OrchestrationHandle[str], how: str) -> None:
            if how == "go":
                await handle.raise_event("go")
            else:
                await getattr(handle, how)()

        async with anyio.create_task_group() as tasks:
            for handle in handles:
                tasks.start_soon(end, handle, dice.choice(["go", "terminate", "cancel"]))
        for handle in handles:
            try:
                await handle.result(30)
            except (perdure.OrchestrationTerminatedError, perdure.OrchestrationCanceledError):
                continue
        await until_free(client, *keys)

        for key in keys:
            assert await client.call_entity(account(key), Account.get, timeout=10) == 1_000
