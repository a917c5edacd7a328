"""A hub in a process of its own, for tests that kill it.

Reads requests from stdin and writes acknowledgements to stdout, a JSON object a line. A request is
acknowledged when the hub says that it is durable. Usage: ``crash_child.py FOLDER LOOP``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import orjson

from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    Hub,
    OrchestrationContext,
    SqliteStore,
    UnavailableError,
)
from tests.faults import FaultyStore

PARTITIONS = 3
BOOKS = 4
ACCOUNTS = 5
OPENING_BALANCE = 1_000

app = App()


@app.entity
class Book:
    """Counts, for each request, how often it was applied."""

    applied: dict[str, int] = {}

    def note(self, request: str) -> int:
        self.applied[request] = self.applied.get(request, 0) + 1
        return self.applied[request]

    async def note_slowly(self, request: str) -> int:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        return self.note(request)

    def pass_on(self, request: str, ctx: EntityContext) -> None:
        ctx.signal_entity(book_of(request), Book.note, request)


@app.entity
class Account:
    balance: int = OPENING_BALANCE

    def change(self, amount: int) -> int:
        self.balance += amount
        return self.balance


def book_of(request: str) -> EntityId[Book]:
    return EntityId(Book, f"book-{sum(request.encode()) % BOOKS}")


def account(number: int) -> EntityId[Account]:
    return EntityId(Account, f"account-{number}")


@app.activity
async def double(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return x * 2


@app.activity
def double_in_thread(x: int) -> int:
    return x * 2


@app.orchestration
async def chain(ctx: OrchestrationContext, request: str) -> int:
    x = 1
    for _ in range(3):
        x = await ctx.call_activity(double, x)
    x = await ctx.call_activity(double_in_thread, x)
    ctx.signal_entity(book_of(request), Book.note, request)
    return x


@app.orchestration
async def fan(ctx: OrchestrationContext, request: str) -> int:
    results = await ctx.task_all([ctx.call_activity(double, n) for n in range(8)])
    assert await ctx.call_entity(book_of(request), Book.note, request) == 1
    return sum(results)


@app.orchestration
async def timer(ctx: OrchestrationContext, request: str) -> int:
    for _ in range(3):
        await ctx.create_timer(timedelta(milliseconds=5))
    ctx.signal_entity(book_of(request), Book.note, request, at=timedelta(milliseconds=5))
    return 3


@app.orchestration
async def listen(ctx: OrchestrationContext, request: str) -> int:
    heard = [await ctx.wait_for_external_event("news", data_type=int) for _ in range(2)]
    assert await ctx.call_entity(book_of(request), Book.note_slowly, request) == 1
    return sum(heard)


@app.orchestration
async def transfer(ctx: OrchestrationContext, order: list[Any]) -> int:
    request, source, target, amount = order
    async with ctx.lock_entities(account(source), account(target)):
        await ctx.call_entity(account(source), Account.change, -amount)
        await ctx.call_activity(double, amount)
        await ctx.call_entity(account(target), Account.change, amount)
    ctx.signal_entity(book_of(request), Book.note, request)
    return int(amount)


@app.orchestration
async def nested(ctx: OrchestrationContext, request: str) -> int:
    inner = await ctx.call_sub_orchestrator(chain, request)
    if ctx.current_utc_datetime.microsecond % 2:
        await ctx.create_timer(timedelta(milliseconds=1))
    return inner


async def perform(client: Client, kind: str, request: str, data: list[Any]) -> Any:
    """Do what is asked for, under its request id."""
    if kind == "signal":
        await client.signal_entity(book_of(request), Book.note, request, request_id=request)
    elif kind == "relay":
        other = EntityId(Book, f"relay-{len(request)}")
        await client.signal_entity(other, Book.pass_on, request, request_id=request)
    elif kind == "delayed":
        at = timedelta(milliseconds=10)
        await client.signal_entity(book_of(request), Book.note, request, at=at, request_id=request)
    elif kind == "call":
        return await client.call_entity(book_of(request), Book.note, request, request_id=request)
    elif kind == "slow":
        return await client.call_entity(
            book_of(request), Book.note_slowly, request, request_id=request
        )
    elif kind == "event":
        await client.raise_event(data[0], "news", data[1], request_id=request)
    else:
        given = [request, *data] if kind == "transfer" else request
        await client.start_new(kind, given, instance_id=f"i-{request}", request_id=request)
    return None


async def report(client: Client, instances: list[str]) -> dict[str, Any]:
    """Wait until everything has ended, and tell what there is."""
    results = {id: await client.wait(id) for id in instances}
    books = [await client.read_entity_state(EntityId(Book, f"book-{n}")) for n in range(BOOKS)]
    ids: list[EntityId[Any]] = [account(n) for n in range(ACCOUNTS)]
    accounts = [await client.read_entity_state(id) for id in ids]
    locked = client.query_entities(locked=True, include_empty=True)
    failed = [s.failed_signals async for s in client.query_entities(include_empty=True)]
    statuses = [str(s.runtime_status) async for s in client.query(payloads=False)]
    return {
        "results": results,
        "applied": [{} if book is None else book.applied for book in books],
        "balances": [OPENING_BALANCE if a is None else a.balance for a in accounts],
        "locked": [str(status.entity_id) async for status in locked],
        "failed": sum(failed),
        "statuses": sorted(set(statuses)),
    }


def say(**fields: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
    sys.stdout.buffer.flush()


class Suicidal(FaultyStore):
    """Kills its own process at one commit, instead of pretending."""

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


async def serve(folder: str, fault: str) -> None:
    # Only the process is killed, not the machine, so there is no need to wait for the disk.
    store = Suicidal(SqliteStore(folder, synchronous="OFF"))
    if fault:
        when, _, commit = fault.partition(":")
        store.crash_at(int(commit), "before" if when == "before" else "after")
    async with Hub(app, store=store, partitions=PARTITIONS) as hub:
        say(ready=True)
        async with anyio.create_task_group() as tasks:

            async def answer(id: str, kind: str, data: list[Any]) -> None:
                if kind == "report":
                    say(id=id, value=await report(hub.client, data))
                    return
                try:
                    value = await perform(hub.client, kind, id, data)
                except UnavailableError as error:
                    say(id=id, unavailable=str(error))
                else:
                    say(id=id, value=value)

            async for line in anyio.wrap_file(sys.stdin.buffer):
                tasks.start_soon(answer, *orjson.loads(line))


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    anyio.run(serve, sys.argv[1], sys.argv[3], backend=sys.argv[2])
