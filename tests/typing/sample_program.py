"""A user's program that uses each part of the public face once, with the types it must have.

Checked by test_typing.py as a user's checkers would check it, and imported there as well.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, ClassVar, assert_type

import perdure
from perdure import (
    ActivityContext,
    App,
    AppDescription,
    CleanResult,
    Client,
    EntityContext,
    EntityExplanation,
    EntityId,
    EntityLock,
    EntityStatus,
    HistoryEvent,
    HistoryPage,
    Hub,
    InstanceExplanation,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationHandle,
    OrchestrationStatus,
    Page,
    RetryPolicy,
    Settings,
    SqliteStore,
    Store,
    Task,
    Trace,
    WaitingBranch,
)

app = App("sample")


@dataclass
class Order:
    item: str
    amount: int = 1


@app.entity
class Counter:
    schema_version: ClassVar[int] = 1
    value: int = 0
    seen: list[str] = []

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @perdure.readonly
    def get(self) -> int:
        return self.value

    def reset(self) -> None:
        self.value = 0

    def push(self, text: str, ctx: EntityContext) -> int:
        self.seen.append(f"{ctx.key}: {text}")
        return len(self.seen)

    def poke(self, ctx: EntityContext) -> datetime:
        ctx.signal_entity(EntityId(Counter, "pokes"), Counter.add, 1, at=timedelta(seconds=1))
        ctx.signal_entity(EntityId(Counter, "pokes"), Counter.get)
        ctx.signal_entity(EntityId(Counter, "pokes"), Counter.push, "poked")
        ctx.signal_entity(EntityId(Counter, "pokes"), Counter.peek)
        ctx.signal_entity(EntityId("counter", "pokes"), "add", 1)
        ctx.signal_entity(EntityId(Shelf, "top"), Shelf.put, {"a": [1]})
        ctx.signal_entity(EntityId(Shelf, "top"), Shelf.find)
        ctx.signal_entity(EntityId(Shelf, "top"), Shelf.find_later, "a")
        ctx.signal_entity(EntityId(Shelf, "top"), Shelf.weigh, 1)
        ctx.signal_entity(EntityId(Shelf, "top"), Shelf.weigh_later, 1)
        ctx.signal_entity(EntityId(Shelf, "top"), Shelf.show_later)
        ctx.signal_entity(EntityId(Likes, "page"), Visits.add, 1)
        assert_type(ctx.start_new(double, 1), str)
        assert_type(ctx.start_new(drowse), str)
        assert_type(ctx.start_new(idle, instance_id="idle"), str)
        assert_type(ctx.start_new("double", 1), str)
        return ctx.current_utc_datetime

    async def slow(self, text: str) -> bytes:
        return text.encode()

    async def slow_push(self, text: str, ctx: EntityContext) -> list[str]:
        return [*self.seen, text, ctx.key]

    async def peek(self, ctx: EntityContext) -> float:
        return ctx.current_utc_datetime.timestamp()


@app.entity(name="Basket", max_mailbox=10)
class ShoppingBasket:
    orders: list[Order] = []

    def put(self, order: Order) -> None:
        self.orders.append(order)


@app.entity
class Words:
    counts: dict[str, int] = {}

    def add(self, counts: dict[str, int]) -> None:
        self.counts |= counts

    @perdure.combine(add)
    @staticmethod
    def add_all(waiting: list[dict[str, int]]) -> dict[str, int]:
        return {word: count for counts in waiting for word, count in counts.items()}

    def say(self, word: str, ctx: EntityContext) -> int:
        return self.counts[word + ctx.key]

    @perdure.combine(say)
    @staticmethod
    def say_all(words: list[str]) -> str:
        return " ".join(words)


@app.entity(stripes=8)
class Visits:
    total: int = 0

    @perdure.commutative
    def add(self, amount: int = 1) -> None:
        self.total += amount

    @perdure.combine(add)
    @staticmethod
    def add_all(amounts: list[int]) -> int:
        return sum(amounts)

    @perdure.commutative
    async def add_slowly(self, amount: int) -> str:
        self.total += amount
        return "added"

    def get(self) -> int:
        return self.total

    def merge(self, other: Visits) -> None:
        self.total += other.total


@app.entity(stripes="auto", name="likes")
class Likes(Visits):
    pass


@app.entity
class Shelf:
    boxes: dict[str, list[int]] = {}

    def put(self, boxes: dict[str, list[int]]) -> None:
        self.boxes |= boxes

    def find(self, name: str | None = None) -> list[int] | None:
        return None if name is None else self.boxes.get(name)

    async def find_later(self, name: str | None = None) -> list[int] | None:
        return self.find(name)

    def weigh(self, factor: float, ctx: EntityContext) -> float:
        return len(self.boxes) * factor + len(ctx.key)

    async def weigh_later(self, factor: float, ctx: EntityContext) -> bytes:
        return bytes(int(self.weigh(factor, ctx)))

    def show(self, ctx: EntityContext) -> str:
        return ctx.key

    async def show_later(self, ctx: EntityContext) -> list[str]:
        return [ctx.key]

    def anything(self, value: Any) -> Any:
        return value


@app.entity
def tally(ctx: EntityContext) -> None:
    ctx.set_state(ctx.get_state(int) + ctx.get_input(int))
    ctx.set_result(ctx.get_state())


@app.activity
async def fetch(url: str) -> bytes:
    return url.encode()


@app.activity
def parse(page: bytes) -> list[str]:
    return page.decode().split("/")


@app.activity
def roll() -> float:
    return 0.5


@app.activity
async def tick() -> datetime:
    return datetime.now(UTC)


@app.activity(name="ship", retry=RetryPolicy(1.0, max_attempts=3), timeout=30.0, max_concurrency=2)
def ship_order(ctx: ActivityContext, order: Order) -> str:
    ctx.heartbeat({"item": order.item})
    return ctx.idempotency_key


@app.activity
async def ship_later(ctx: ActivityContext, order: Order) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, ctx.idempotency_key + order.item)


@app.activity
def who_called(ctx: ActivityContext) -> str:
    return ctx.instance_id


@app.activity
async def how_often(ctx: ActivityContext) -> int:
    return ctx.attempt


@app.activity
def page(number: int | None = None) -> str | None:
    return None if number is None else str(number)


@app.activity
async def page_later(number: int = 1) -> list[str | None]:
    return [str(number)]


@app.activity
def beat(ctx: ActivityContext, seconds: int = 1) -> float:
    return ctx.attempt / seconds


@app.activity
async def beat_later(ctx: ActivityContext, seconds: int = 1) -> bytes:
    return bytes(seconds)


@app.activity
def anything(value: Any) -> Any:
    return value


@app.orchestration
async def double(ctx: OrchestrationContext, number: int) -> int:
    return number * 2


@app.orchestration
async def idle(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(days=30))


@app.orchestration(name="collect", version="2.0", retry=RetryPolicy(1.0))
def collect(ctx: OrchestrationContext, urls: list[str]) -> Generator[Task[Any], Any, list[bytes]]:
    pages: list[bytes] = yield ctx.task_all([ctx.call_activity(fetch, url) for url in urls])
    return pages


@app.orchestration
def nap(ctx: OrchestrationContext) -> Generator[Task[Any], Any, str]:
    yield ctx.create_timer(timedelta(seconds=1))
    return "rested"


@app.orchestration
async def doze(ctx: OrchestrationContext, seconds: int = 1) -> str:
    await ctx.create_timer(timedelta(seconds=seconds))
    return "rested"


@app.orchestration
def drowse(ctx: OrchestrationContext, seconds: int = 1) -> Generator[Task[Any], Any, bytes]:
    yield ctx.create_timer(timedelta(seconds=seconds))
    return b"rested"


async def branch(ctx: OrchestrationContext, url: str) -> None:
    await ctx.call_activity(fetch, url)


@app.orchestration
async def tour(ctx: OrchestrationContext, order: Order) -> bool:
    # Activities: async and sync, with and without input, with and without a context.
    assert_type(ctx.call_activity(fetch, "url"), Task[bytes])
    assert_type(ctx.call_activity(fetch, "url", overall_timeout=5, summary="a"), Task[bytes])
    with ctx.shield():
        await ctx.call_activity(fetch, "url")
    assert_type(await ctx.call_activity(fetch, "url", timeout=5), bytes)
    assert_type(await ctx.call_activity(parse, b"a/b"), list[str])
    assert_type(await ctx.call_activity(roll), float)
    assert_type(await ctx.call_activity(tick, retry=RetryPolicy(timedelta(seconds=1))), datetime)
    assert_type(await ctx.call_activity(ship_order, order), str)
    assert_type(await ctx.call_activity(ship_later, order, tags={"a": "b"}), uuid.UUID)
    assert_type(await ctx.call_activity(who_called), str)
    assert_type(await ctx.call_activity(how_often), int)
    assert_type(await ctx.call_activity("fetch", 1), Any)
    assert_type(await ctx.call_activity("roll"), Any)
    # An input with a default, given or not.
    assert_type(await ctx.call_activity(page), str | None)
    assert_type(await ctx.call_activity(page, 1), str | None)
    assert_type(await ctx.call_activity(page, None), str | None)
    assert_type(await ctx.call_activity(page_later), list[str | None])
    assert_type(await ctx.call_activity(page_later, 1), list[str | None])
    assert_type(await ctx.call_activity(beat), float)
    assert_type(await ctx.call_activity(beat, 1), float)
    assert_type(await ctx.call_activity(beat_later), bytes)
    assert_type(await ctx.call_activity(beat_later, 1), bytes)
    assert_type(await ctx.call_activity(anything, 1), Any)
    assert_type(await ctx.call_activity(len, "text"), int)

    # Sub-orchestrations: async and generator, with one parameter and with two.
    assert_type(await ctx.call_sub_orchestrator(double, 1), int)
    assert_type(await ctx.call_sub_orchestrator(idle, instance_id="child"), None)
    assert_type(await ctx.call_sub_orchestrator(collect, ["url"], version="2.0"), list[bytes])
    assert_type(await ctx.call_sub_orchestrator(nap, retry=RetryPolicy(1.0)), str)
    assert_type(await ctx.call_sub_orchestrator("double", 1), Any)
    assert_type(await ctx.call_sub_orchestrator(doze), str)
    assert_type(await ctx.call_sub_orchestrator(doze, 1), str)
    assert_type(await ctx.call_sub_orchestrator(drowse), bytes)
    assert_type(await ctx.call_sub_orchestrator(drowse, 1), bytes)
    assert_type(await ctx.call_sub_orchestrator(collect, ["url"]), list[bytes])

    # Entities.
    counter = EntityId(Counter, "clicks")
    assert_type(counter, EntityId[Counter])
    assert_type(EntityId("counter", "clicks"), EntityId[Any])
    assert_type(EntityId(tally, "votes"), EntityId[Any])
    assert_type(await ctx.call_entity(counter, Counter.add, 5), int)
    assert_type(await ctx.call_entity(counter, Counter.add), int)
    assert_type(await ctx.call_entity(counter, Counter.get), int)
    assert_type(await ctx.call_entity(counter, Counter.reset), None)
    assert_type(await ctx.call_entity(counter, Counter.push, "text"), int)
    assert_type(await ctx.call_entity(counter, Counter.poke), datetime)
    assert_type(await ctx.call_entity(counter, Counter.slow, "text"), bytes)
    assert_type(await ctx.call_entity(counter, Counter.slow_push, "text"), list[str])
    assert_type(await ctx.call_entity(counter, Counter.peek), float)
    assert_type(await ctx.call_entity(counter, "add", 5), Any)
    assert_type(await ctx.call_entity(EntityId("counter", "clicks"), "get"), Any)
    ctx.signal_entity(counter, Counter.add, 5)
    ctx.signal_entity(counter, Counter.reset)
    ctx.signal_entity(counter, Counter.push, "text")
    ctx.signal_entity(counter, Counter.poke, at=timedelta(hours=1))
    ctx.signal_entity(counter, Counter.slow_push, "text", at=ctx.current_utc_datetime)
    ctx.signal_entity(EntityId(ShoppingBasket, "mine"), ShoppingBasket.put, order)
    ctx.signal_entity(EntityId(tally, "votes"), "add", 1)
    shelf, likes = EntityId(Shelf, "top"), EntityId(Likes, "page")
    assert_type(await ctx.call_entity(shelf, Shelf.put, {"a": [1]}), None)
    assert_type(await ctx.call_entity(shelf, Shelf.find), list[int] | None)
    assert_type(await ctx.call_entity(shelf, Shelf.find, "a"), list[int] | None)
    assert_type(await ctx.call_entity(shelf, Shelf.find, None), list[int] | None)
    assert_type(await ctx.call_entity(shelf, Shelf.find_later), list[int] | None)
    assert_type(await ctx.call_entity(shelf, Shelf.find_later, "a"), list[int] | None)
    assert_type(await ctx.call_entity(shelf, Shelf.weigh, 1), float)
    assert_type(await ctx.call_entity(shelf, Shelf.weigh_later, 1), bytes)
    assert_type(await ctx.call_entity(shelf, Shelf.show), str)
    assert_type(await ctx.call_entity(shelf, Shelf.show_later), list[str])
    assert_type(await ctx.call_entity(shelf, Shelf.anything, 1), Any)
    assert_type(await ctx.call_entity(likes, Visits.add, 1), None)
    assert_type(await ctx.call_entity(likes, Likes.add_slowly, 1), str)
    ctx.signal_entity(shelf, Shelf.put, {"a": [1]})
    ctx.signal_entity(shelf, Shelf.find)
    ctx.signal_entity(shelf, Shelf.find, "a")
    ctx.signal_entity(shelf, Shelf.find_later)
    ctx.signal_entity(shelf, Shelf.find_later, "a")
    ctx.signal_entity(shelf, Shelf.weigh, 1)
    ctx.signal_entity(shelf, Shelf.weigh_later, 1)
    ctx.signal_entity(shelf, Shelf.show)
    ctx.signal_entity(shelf, Shelf.show_later)
    ctx.signal_entity(shelf, "show")
    ctx.signal_entity(likes, Visits.add, 1)
    async with ctx.lock_entities(counter, EntityId(ShoppingBasket, "mine")) as lock:
        assert_type(lock, EntityLock)

    # Waiting.
    both = ctx.task_all([ctx.call_activity(roll), ctx.call_activity(roll)], fail_fast=False)
    assert_type(both, Task[list[float]])
    assert_type(await both, list[float])
    deadline = ctx.create_timer(timedelta(hours=1))
    approved = ctx.wait_for_external_event("approved", data_type=bool)
    winner = await ctx.task_any([approved, deadline], cancel_losers=True)
    assert_type(winner, Task[Any])
    if winner is deadline:
        return False
    assert_type(approved.result, bool)
    assert_type(await approved, bool)
    assert_type(await ctx.wait_for_external_event("orders", data_type=list[Order]), list[Order])
    assert_type(await ctx.wait_for_external_event("anything", timeout=10.0), Any)
    await ctx.task_all([ctx.create_timer(timedelta(seconds=1)), ctx.call_activity(roll)])
    with ctx.move_on_after(5) as scope:
        await ctx.create_timer(datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(scope.cancelled_caught, bool)
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(branch, ctx, "url")

    # The rest of the context.
    assert_type(ctx.instance_id, str)
    assert_type(ctx.parent_instance_id, str | None)
    assert_type(ctx.version, str | None)
    assert_type(ctx.is_replaying, bool)
    assert_type(ctx.current_utc_datetime, datetime)
    assert_type(ctx.new_uuid(), uuid.UUID)
    assert_type(ctx.random, Random)
    ctx.logger.info("%s is on its way", order.item)
    ctx.set_custom_status({"stage": 1})
    ctx.send_event("other", "done", [1, 2])
    ctx.continue_as_new(order, keep_events=False)
    return True


async def every(statuses: AsyncIterator[OrchestrationStatus]) -> list[OrchestrationStatus]:
    return [status async for status in statuses]


async def main() -> None:
    stores: list[Store] = [MemoryStore(), SqliteStore("hub")]
    hub = Hub(app, store=stores[0], partitions=2, settings=Settings(), clock=ManualClock())
    async with hub:
        client = hub.client

        # Orchestrations.
        handle = await client.start_new(double, 1, instance_id="one", on_existing="reuse")
        assert_type(handle, OrchestrationHandle[int])
        assert_type(await handle.result(timeout=5), int)
        assert_type(await client.start_new(idle, start_at=timedelta(1)), OrchestrationHandle[None])
        assert_type(await client.start_new(collect, ["url"]), OrchestrationHandle[list[bytes]])
        assert_type(await client.start_new(nap, tags={"a": "b"}), OrchestrationHandle[str])
        assert_type(await client.start_new("double", 1), OrchestrationHandle[Any])
        assert_type(await client.start_new(doze), OrchestrationHandle[str])
        assert_type(await client.start_new(doze, 1), OrchestrationHandle[str])
        assert_type(await client.start_new(drowse), OrchestrationHandle[bytes])
        assert_type(await client.start_new(drowse, 1), OrchestrationHandle[bytes])
        assert_type(await client.start_new("double"), OrchestrationHandle[Any])
        assert_type(client.get_handle("one"), OrchestrationHandle[Any])
        assert_type(await handle.status(), OrchestrationStatus)
        assert_type(await client.get_status("one"), OrchestrationStatus | None)
        assert_type(await handle.history(), list[HistoryEvent])
        assert_type(await handle.explain(), InstanceExplanation)
        assert_type(await client.explain("x"), InstanceExplanation)
        assert_type((await handle.explain()).branches, tuple[WaitingBranch, ...])
        assert_type(await client.trace("x", after=1, limit=2), Trace)
        assert_type(await handle.restart(), OrchestrationHandle[int])
        await handle.raise_event("approved", True, request_id="r-1")
        assert_type(await every(client.query(statuses=["Running"])), list[OrchestrationStatus])
        assert_type(await client.query_page(page_size=10), Page[OrchestrationStatus])
        assert_type(await client.purge(statuses=[perdure.RuntimeStatus.COMPLETED]), int)

        # Entities.
        visits = EntityId(Visits, "page")
        await client.signal_entity(visits, Visits.add, 5)
        assert_type(await client.call_entity(visits, Visits.add_slowly, 5), str)
        assert_type(await client.call_entity(visits, Visits.get), int)
        assert_type(await client.read_entity_state(visits), Visits | None)
        await client.signal_entity(EntityId(Words, "english"), Words.add, {"word": 1})

        counter = EntityId(Counter, "clicks")
        assert_type(await client.call_entity(counter, Counter.add, 5, timeout=1), int)
        assert_type(await client.call_entity(counter, Counter.add, request_id="r-2"), int)
        assert_type(await client.call_entity(counter, Counter.get), int)
        assert_type(await client.call_entity(counter, Counter.push, "text"), int)
        assert_type(await client.call_entity(counter, Counter.poke), datetime)
        assert_type(await client.call_entity(counter, Counter.slow, "text"), bytes)
        assert_type(await client.call_entity(counter, Counter.slow_push, "text"), list[str])
        assert_type(await client.call_entity(counter, Counter.peek), float)
        assert_type(await client.call_entity(counter, "add", 5), Any)
        assert_type(await client.call_entity(EntityId(tally, "votes"), "add", 1), Any)
        shelf, likes = EntityId(Shelf, "top"), EntityId(Likes, "page")
        assert_type(await client.call_entity(shelf, Shelf.put, {"a": [1]}), None)
        assert_type(await client.call_entity(shelf, Shelf.find), list[int] | None)
        assert_type(await client.call_entity(shelf, Shelf.find, "a"), list[int] | None)
        assert_type(await client.call_entity(shelf, Shelf.find_later), list[int] | None)
        assert_type(await client.call_entity(shelf, Shelf.find_later, "a"), list[int] | None)
        assert_type(await client.call_entity(shelf, Shelf.weigh, 1), float)
        assert_type(await client.call_entity(shelf, Shelf.weigh_later, 1), bytes)
        assert_type(await client.call_entity(shelf, Shelf.show), str)
        assert_type(await client.call_entity(shelf, Shelf.show_later), list[str])
        assert_type(await client.call_entity(shelf, Shelf.anything, 1), Any)
        assert_type(await client.call_entity(shelf, "show"), Any)
        assert_type(await client.call_entity(likes, Visits.add, 1), None)
        await client.signal_entity(shelf, Shelf.put, {"a": [1]})
        await client.signal_entity(shelf, Shelf.find)
        await client.signal_entity(shelf, Shelf.find_later, "a")
        await client.signal_entity(shelf, Shelf.weigh, 1)
        await client.signal_entity(shelf, Shelf.weigh_later, 1)
        await client.signal_entity(shelf, Shelf.show)
        await client.signal_entity(shelf, Shelf.show_later)
        await client.signal_entity(likes, Visits.add, 1)
        await client.signal_entity(counter, Counter.add, 5)
        await client.signal_entity(counter, Counter.reset, at=timedelta(hours=1))
        await client.signal_entity(counter, Counter.push, "text", request_id="r-3")
        await client.signal_entity(counter, Counter.poke)
        await client.signal_entity(counter, "add", 5)
        await client.signal_entities([(counter, Counter.add, 1), (counter, "get", perdure.MISSING)])
        assert_type(await client.read_entity_state(counter), Counter | None)
        assert_type(await client.explain(counter), EntityExplanation)
        assert_type(await client.get_entity(counter), EntityStatus[Counter] | None)
        assert_type(await client.clean_entity_storage(), CleanResult)
        async for entity in client.query_entities(name="counter"):
            assert_type(entity, EntityStatus[Any])


async def elsewhere() -> None:
    async with perdure.connect("hub.sock") as client:
        assert_type(client, Client)
        assert_type(await client.start_new("double", 1), OrchestrationHandle[Any])
        assert_type(await client.ask("describe", {}), Any)
    async with perdure.connect("http://host:7071", app, key="k", settings=Settings()) as client:
        assert_type(client, Client)
        assert_type(await client.start_new(double, 1), OrchestrationHandle[int])
        assert_type(await client.describe(), AppDescription)
        assert_type(await client.get_history_page("x", after=5, order="newest"), HistoryPage)
        assert_type(await client.query_entities_page(name="counter"), Page[EntityStatus[Any]])
