"""What the nodes of the tests serve."""

from __future__ import annotations

import os

from perdure import App, EntityContext, EntityId, FailedError, OrchestrationContext, readonly

app = App("cluster")


@app.entity
class Counter:
    """Says a sum, and how often each request was applied."""

    total: int = 0
    applied: dict[str, int] = {}

    def add(self, by: int) -> int:
        self.total += by
        return self.total

    def note(self, request: str) -> int:
        self.applied[request] = self.applied.get(request, 0) + 1
        self.total += 1
        return self.applied[request]

    @readonly
    def get(self) -> int:
        return self.total

    @readonly
    def noted(self) -> dict[str, int]:
        return self.applied


@app.entity
class Register:
    """One value, read without a commit."""

    value: int = 0

    def write(self, value: int) -> int:
        before, self.value = self.value, value
        return before

    @readonly
    def read(self) -> int:
        return self.value


@app.entity
class Log:
    """What came, in the order in which it came, and by whom."""

    lines: list[list[int]] = []

    def append(self, line: list[int]) -> None:
        self.lines.append(line)

    @readonly
    def all(self) -> list[list[int]]:
        return self.lines


@app.entity
class Account:
    """Money, which moves and does not become more or less, and who has held its lock."""

    balance: int = 1_000
    entries: list[list[str]] = []

    def enter(self, who: str) -> None:
        self.entries.append(["in", who])

    def leave(self, who: str) -> None:
        self.entries.append(["out", who])

    def change(self, by: int) -> int:
        self.balance += by
        return self.balance

    @readonly
    def get(self) -> int:
        return self.balance


@app.entity
class Speaker:
    """Says its numbers to a log, each once and in order."""

    said: int = 0

    def say(self, to: str, ctx: EntityContext) -> int:
        self.said += 1
        ctx.signal_entity(EntityId(Log, to), Log.append, [int(ctx.entity_id.key), self.said])
        return self.said


@app.orchestration
async def count(ctx: OrchestrationContext, key: str) -> int:
    """Count, by a call that is exactly one in any case."""
    return await ctx.call_entity(EntityId(Counter, key), Counter.note, ctx.instance_id)


@app.orchestration
async def transfer(ctx: OrchestrationContext, order: list[str]) -> list[int]:
    """Move one unit from an account to another, with both locked."""
    source, target = (EntityId(Account, key) for key in order)
    async with ctx.lock_entities(source, target):
        for account in (source, target):
            await ctx.call_entity(account, Account.enter, ctx.instance_id)
        left = await ctx.call_entity(source, Account.change, -1)
        right = await ctx.call_entity(target, Account.change, 1)
        for account in (source, target):
            await ctx.call_entity(account, Account.leave, ctx.instance_id)
    return [left, right]


@app.activity
def end_process() -> None:
    os._exit(1)


@app.orchestration
async def end(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(end_process)
    except FailedError as error:
        return error.error_type
    return "it goes on"


@app.entity
class Fatal:
    """Ends its process."""

    def strike(self) -> None:
        os._exit(3)
