"""An application of entities to try things with, and what they are sent."""

from __future__ import annotations

import types
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import orjson

import perdure
from perdure import App, EntityContext, EntityId, OrchestrationContext
from perdure.actors.messages import (
    Caller,
    LockRelease,
    LockRequest,
    Operation,
)
from perdure.actors.registry.lookup import Lookup
from tests.actors.entities.lone import Lone, sent, signal

app = App()
contexts: list[EntityContext] = []


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Suspend, until the test lets it go on."""
    yield


@app.entity
class Account:
    balance: int = 0
    log: list[str] = []

    def add(self, amount: int = 1) -> int:
        self.balance += amount
        self.log.append(str(amount))
        if self.balance < 0:
            raise ValueError("below zero")
        return self.balance

    @perdure.combine(add)
    @staticmethod
    def add_all(amounts: list[int]) -> int:
        if 13 in amounts:
            raise ArithmeticError("unlucky")
        return sum(amounts)

    def get(self) -> int:
        return self.balance

    @perdure.readonly
    def peek(self, amount: int = 0) -> int:
        self.balance += amount
        return self.balance

    @perdure.readonly
    async def peek_slowly(self, ctx: EntityContext) -> int:
        await pause()
        if self.balance == 99:
            raise ValueError("not to be looked at")
        return self.balance

    @perdure.readonly
    def peek_badly(self, ctx: EntityContext) -> int:
        raise ValueError("not to be looked at")

    def spoil(self) -> None:
        setattr(self, "balance", "much")  # noqa: B010 (a type checker would see it)

    def grow(self, size: int) -> None:
        self.log = ["x" * size]

    def say(self, size: int) -> str:
        return "x" * size

    def tell(self, fail: bool, ctx: EntityContext) -> None:
        contexts.append(ctx)
        ctx.signal_entity(EntityId(Account, "other"), Account.add, 5)
        ctx.signal_entity(EntityId(Account, "other"), "add", 6, at=timedelta(seconds=1))
        ctx.start_new(flow, "in")
        if fail:
            raise ValueError("not sent")

    @perdure.combine(tell)
    @staticmethod
    def tell_once(fails: list[bool]) -> bool:
        return any(fails)

    def close(self, ctx: EntityContext) -> None:
        ctx.delete()

    async def add_slowly(self, amount: int) -> int:
        self.balance += amount
        await pause()
        if amount < 0:
            raise ValueError("below zero")
        return self.balance

    async def say_slowly(self, size: int) -> str:
        return "x" * size

    async def close_slowly(self, ctx: EntityContext) -> None:
        self.balance = 7
        ctx.delete()
        await pause()


@app.entity(name="loose")
def loose(ctx: EntityContext) -> None:
    contexts.append(ctx)
    if ctx.operation_name == "set":
        ctx.set_state(ctx.get_input())
    elif ctx.operation_name == "count":
        count: dict[str, int] = ctx.get_state(lambda: {"n": 0})
        count["n"] += ctx.get_input(int) or 0
        ctx.set_result(count["n"])
    elif ctx.operation_name == "bad":
        ctx.get_state(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    else:
        ctx.set_state({"n": -1})
        raise KeyError(ctx.operation_name)


@app.entity(name="waiting")
async def waiting(ctx: EntityContext) -> None:
    ctx.set_state(ctx.get_input())
    await pause()
    ctx.set_result("done")


@app.entity(stripes=2)
class Visits:
    total: int = 0

    @perdure.commutative
    def add(self, amount: int) -> None:
        self.total += amount

    @perdure.combine(add)
    @staticmethod
    def add_all(amounts: list[int]) -> int:
        return sum(amounts)

    def get(self) -> int:
        return self.total

    def put(self, total: int) -> None:
        self.total = total

    @perdure.combine(put)
    @staticmethod
    def put_last(totals: list[int]) -> int:
        return totals[-1]

    def merge(self, other: Visits) -> None:
        self.total += other.total


@app.orchestration
async def flow(ctx: OrchestrationContext, data: str) -> None: ...


MAX = 300
LOOKUP = Lookup(app, MAX)
KEY = "@account@x"
A = Caller("a", 1, 1)
B = Caller("b", 1, 1)


def account(*, careful: bool = False, balance: int | None = None) -> Lone:
    lone = Lone(LOOKUP, KEY, careful=careful)
    if balance is not None:
        lone.turn(signal("add", balance))
    return lone


def lock(owner: Caller, *entities: str, position: int = 0) -> LockRequest:
    return LockRequest(owner, [KEY, *entities], position)


def unlock(owner: Caller, *entities: str, position: int = 0) -> LockRelease:
    return LockRelease(owner, [KEY, *entities], position)


def called_by(caller: Caller, name: str, *input: Any) -> Operation:
    return Operation(name, orjson.dumps(*input) if input else None, call=True, caller=caller)


def answers(effects: list[Any]) -> list[tuple[str, str, Any]]:
    """Who was answered how, where orchestrations wait."""
    return [
        (target, fields[1], fields[4])
        for target, fields in sent(effects)
        if fields[0] == "completion"
    ]


def refusals(effects: list[Any]) -> list[str]:
    return [effect[1] for effect in effects if effect[0] == "refuse"]
