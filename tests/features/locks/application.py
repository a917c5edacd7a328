"""What the tests of entity locks share: accounts, who locks them, and looks at a lock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    Cancelled,
    Client,
    EntityId,
    Hub,
    LockRuleError,
    OrchestrationContext,
    OrchestrationHandle,
    UsageError,
)
from tests.runtime.harness import until

app = App()


@app.entity
class Account:
    balance: int = 0
    log: list[str] = []

    def add(self, amount: int) -> int:
        if self.balance + amount < 0:
            raise ValueError("not enough")
        self.balance += amount
        return self.balance

    def get(self) -> int:
        return self.balance

    def note(self, text: str) -> None:
        self.log.append(text)

    def notes(self) -> list[str]:
        return self.log

    @perdure.readonly
    def peek(self) -> int:
        return self.balance


def account(key: str) -> EntityId[Account]:
    return EntityId(Account, key)


def accounts(keys: str) -> list[EntityId[Account]]:
    return [account(key) for key in keys]


@app.orchestration
async def hold(ctx: OrchestrationContext, keys: str) -> str:
    """Lock the accounts, say so, and release them when told to."""
    async with ctx.lock_entities(*accounts(keys)):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")
        for id in accounts(keys):
            await ctx.call_entity(id, Account.note, f"inside {ctx.instance_id}")
    return "released"


@app.orchestration
def hold_by_yield(ctx: OrchestrationContext, keys: str) -> Generator[Any, Any, list[int]]:
    balances: list[int] = []
    with (yield ctx.lock_entities(accounts(keys))):
        ctx.set_custom_status("locked")
        yield ctx.wait_for_external_event("go")
        for id in accounts(keys):
            balance: int = yield ctx.call_entity(id, Account.add, 1)
            balances += [balance]
    return balances


@app.orchestration
async def transfer(ctx: OrchestrationContext, order: list[Any]) -> bool:
    source, target, amount, extra = order
    ids = [account(source), account(target), *(account(key) for key in extra)]
    async with ctx.lock_entities(*ids):
        if await ctx.call_entity(ids[0], Account.get) < amount:
            return False
        await ctx.call_entity(ids[0], Account.add, -amount)
        await ctx.call_entity(ids[1], Account.add, amount)
        return True


@app.orchestration
async def nothing(ctx: OrchestrationContext) -> None:
    return None


@app.orchestration
async def end_inside(ctx: OrchestrationContext, how: str) -> str:
    """End a lock of a and b without leaving its block in the ordinary way."""
    a, b = accounts("ab")
    if how == "second round":
        return how
    async with ctx.lock_entities(a, b):
        await ctx.call_entity(a, Account.note, "inside")
        if how == "raise":
            raise ValueError("inside")
        if how == "fail":
            await ctx.call_entity(b, Account.add, -5)
        if how == "return":
            return "from inside"
        if how == "continue":
            ctx.continue_as_new("second round")
            return ""
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("never")
    return "not reached"


@app.orchestration
async def keep_lock_open(ctx: OrchestrationContext, how: str) -> str:
    """Lock without a block, and never release."""
    if how == "second round":
        return how
    await ctx.lock_entities(account("a"))
    if how == "continue":
        ctx.continue_as_new("second round")
    return "ended"


@app.orchestration
async def clean_up_when_cancelled(ctx: OrchestrationContext) -> None:
    a, b = accounts("ab")
    try:
        async with ctx.lock_entities(a, b):
            ctx.set_custom_status("locked")
            try:
                await ctx.wait_for_external_event("never")
            except Cancelled:
                await ctx.call_entity(a, Account.note, "compensated inside")
                raise
    finally:
        await ctx.call_entity(b, Account.note, "compensated outside")


@app.orchestration
async def break_rule(ctx: OrchestrationContext, rule: str) -> list[str]:
    a, b, c = accounts("abc")
    log: list[str] = []
    async with ctx.lock_entities(a, b):
        try:
            if rule == "nested":
                ctx.lock_entities(c)
            elif rule == "child":
                ctx.call_sub_orchestrator(nothing)
            elif rule == "call another":
                ctx.call_entity(c, Account.get)
            elif rule == "two calls":
                task = ctx.call_entity(a, Account.add, 1)
                try:
                    ctx.call_entity(a, Account.add, 1)
                finally:
                    await task
            elif rule == "signal a locked one":
                ctx.signal_entity(a, Account.add, 1)
            elif rule == "two waves":
                await ctx.call_entity(a, Account.add, 1)
                await ctx.call_entity(a, Account.add, 1)
            elif rule == "signal another":
                ctx.signal_entity(c, Account.add, 1)
            elif rule == "both at once":
                await ctx.task_all(
                    [ctx.call_entity(a, Account.add, 1), ctx.call_entity(b, Account.add, 1)]
                )
        except LockRuleError as error:
            log.append(str(error))
    # Everything is allowed again.
    await ctx.call_sub_orchestrator(nothing)
    await ctx.call_entity(c, Account.get)
    async with ctx.lock_entities(c):
        log.append("free")
    return log


@app.orchestration
async def lock_none(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities():
        pass


@app.orchestration
async def lock_unknown(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId[Any]("nothing", "k")):
        pass


@app.orchestration
async def call_neighbours(ctx: OrchestrationContext) -> list[int]:
    """Call locked entities at once whose keys begin alike."""
    ids = [account("x"), account("x.y"), account("x.add")]
    async with ctx.lock_entities(*ids):
        return await ctx.task_all([ctx.call_entity(id, Account.add, 1) for id in reversed(ids)])


@app.orchestration
def enter_without_yield(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    lock = ctx.lock_entities(account("a"))
    try:
        with lock:
            return "entered"
    except UsageError as error:
        yield lock
        lock.release()
        lock.release()
        return str(error)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Hub(app) as hub:
        yield hub.client


async def until_locked(handle: OrchestrationHandle[Any]) -> None:
    async def locked() -> bool:
        status = (await handle.status()).custom_status
        return bool(status == "locked")

    await until(locked)


async def until_free(client: Client, *keys: str) -> None:
    async def free() -> bool:
        found = [await client.get_entity(account(key)) for key in keys]
        return all(status is None or status.locked_by is None for status in found)

    await until(free)


async def holder(client: Client, key: str) -> str | None:
    status = await client.get_entity(account(key))
    return None if status is None else status.locked_by


async def notes(client: Client, key: str) -> list[str]:
    return await client.call_entity(account(key), Account.notes, timeout=10)
