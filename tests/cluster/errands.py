"""Errands that cross partitions all the time, and what must have come of them.

Each signals, waits for a timer, moves money under locks, and signals again; and a client signals
beside it, under a request id. What is asked of a hub that dies is asked again until it answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import anyio

from perdure import (
    App,
    Client,
    EntityId,
    OrchestrationContext,
    PerdureError,
    readonly,
)

T = TypeVar("T")

app = App("errands")

TALLIES = 6
ACCOUNTS = 8
OPENING = 100
TOGETHER = 4
REST_S = 0.05


@app.entity
class Tally:
    count: int = 0
    numbers: int = 0

    def note(self, number: int) -> None:
        self.count += 1
        self.numbers += number

    @readonly
    def read(self) -> list[int]:
        return [self.count, self.numbers]


@app.entity
class Account:
    balance: int = OPENING

    def change(self, amount: int) -> None:
        self.balance += amount

    @readonly
    def read(self) -> int:
        return self.balance


@app.entity
class Lane:
    """Takes the steps of errands, which come one by one, each once."""

    steps: dict[str, int] = {}
    wrong: int = 0

    def take(self, step: list[int]) -> None:
        errand, number = step
        self.wrong += self.steps.get(str(errand), 0) != number
        self.steps[str(errand)] = number + 1

    @readonly
    def read(self) -> int:
        return self.wrong


def lane(number: int) -> EntityId[Lane]:
    return EntityId(Lane, f"lane-{number % TALLIES}")


def tally(number: int) -> EntityId[Tally]:
    return EntityId(Tally, f"tally-{number % TALLIES}")


def account(number: int) -> EntityId[Account]:
    return EntityId(Account, f"account-{number % ACCOUNTS}")


@app.activity
async def double(number: int) -> int:
    return 2 * number


@app.orchestration
async def errand(ctx: OrchestrationContext, number: int) -> int:
    for step in range(3):
        ctx.signal_entity(lane(number), Lane.take, [number, step])
    ctx.signal_entity(tally(number), Tally.note, number)
    await ctx.create_timer(timedelta(milliseconds=20 * (number % 5)))
    async with ctx.lock_entities(account(number), account(number + 3)):
        await ctx.call_entity(account(number), Account.change, -number)
        await ctx.call_entity(account(number + 3), Account.change, number)
    ctx.signal_entity(tally(number + 1), Tally.note, number)
    for step in range(3, 6):
        ctx.signal_entity(lane(number), Lane.take, [number, step])
    return await ctx.call_activity(double, number)


async def run_errand(client: Client, number: int) -> None:
    """Run one to its end, whatever becomes of the hub meanwhile."""
    id = f"errand-{number}"
    await again(lambda: client.start_new(errand, number, instance_id=id, request_id=id))
    signal = (tally(number + 2), Tally.note, number)
    await again(lambda: client.signal_entity(*signal, request_id=f"signal-{number}"))
    assert await again(client.get_handle(id).result) == 2 * number


class Errands:
    """Errands that go on until somebody has enough of them.

    Attributes:
        begun: how many there are, some of which may not have ended.
    """

    def __init__(self) -> None:
        self.begun = 0

    @asynccontextmanager
    async def beside(self, client: Client) -> AsyncGenerator[None]:
        """Run more and more, some at a time, beside the block; those that are begun then end."""
        has_enough = anyio.Event()

        async def run() -> None:
            while not has_enough.is_set():
                number, self.begun = self.begun, self.begun + 1
                await run_errand(client, number)
                await anyio.sleep(REST_S)

        async with anyio.create_task_group() as tasks:
            for _ in range(TOGETHER):
                tasks.start_soon(run)
            yield
            has_enough.set()

    async def check(self, client: Client) -> None:
        """See all of them end, and compare what has come of them."""
        async with anyio.create_task_group() as tasks:
            for number in range(self.begun):
                tasks.start_soon(run_errand, client, number)
        await check(client, self.begun)


async def again(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer."""
    while True:
        try:
            return await ask()
        except (PerdureError, OSError):
            await anyio.sleep(0.05)


async def check(client: Client, errands: int) -> None:
    """Compare with what so many errands make of it."""
    counts, numbers = [0] * TALLIES, [0] * TALLIES
    balances = [OPENING] * ACCOUNTS
    for number in range(errands):
        for step in range(3):
            counts[(number + step) % TALLIES] += 1
            numbers[(number + step) % TALLIES] += number
        balances[number % ACCOUNTS] -= number
        balances[(number + 3) % ACCOUNTS] += number
    for number in range(TALLIES):
        wanted = [counts[number], numbers[number]]
        found: list[int] = []
        with anyio.move_on_after(10):  # the last signals may be on their way; what is doubled stays
            while found != wanted:
                await anyio.sleep(0.01)
                found = await client.call_entity(tally(number), Tally.read)
        assert found == wanted, (found, wanted)
    for number in range(TALLIES):
        assert not await client.call_entity(lane(number), Lane.read), number
    balanced = [
        await client.call_entity(account(number), Account.read) for number in range(ACCOUNTS)
    ]
    assert balanced == balances
