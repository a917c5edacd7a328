"""What the tests of entities share: an application, gates, and looks at an entity."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs

import perdure
from perdure import App, Client, EntityContext, EntityId, EntityOperationError, OrchestrationContext
from tests.runtime.harness import until

app = App()

gates: dict[str, anyio.Event] = {}
reached: dict[str, anyio.Event] = {}


async def pass_gate(name: str) -> None:
    """Say that the gate is reached and wait until the test opens it."""
    reached[name].set()
    await gates[name].wait()


def new_gate(name: str) -> tuple[anyio.Event, anyio.Event]:
    gates[name], reached[name] = anyio.Event(), anyio.Event()
    return gates[name], reached[name]


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def fail_after_adding(self, amount: int) -> None:
        self.value += amount
        raise ValueError("no luck")

    @perdure.readonly
    def peek(self) -> int:
        return self.value

    @perdure.readonly
    def peek_and_touch(self) -> int:
        self.value += 1_000
        return self.value

    @perdure.readonly
    async def peek_slowly(self) -> int:
        await pass_gate("peek")
        return self.value


@attrs.define
class Point:
    x: int
    y: int = 0


@dataclass
class Line:
    text: str
    tags: list[str] = field(default_factory=list[str])


@app.entity
class Cart:
    lines: list[Line] = []
    prices: dict[str, float] = {}
    owners: set[str] = set()
    at: Point | None = None

    def add(self, line: Line) -> int:
        self.lines.append(line)
        self.prices[line.text] = 1.5
        self.owners.add(line.text)
        self.at = Point(len(self.lines))
        return len(self.lines)

    def spoil(self) -> None:
        self.lines[0].tags.append("spoilt")
        self.lines.append(Line("more"))
        self.prices.clear()
        self.owners.add("nobody")
        if self.at is not None:
            self.at.x = -1
        raise RuntimeError("spoilt")

    def get_lines(self) -> list[Line]:
        return self.lines


@app.entity
class Journal:
    """Notes what reached it, in order, and can do everything that a context offers."""

    seen: list[str] = []

    def note(self, text: str) -> None:
        self.seen.append(text)

    def get(self) -> list[str]:
        return self.seen

    def context_first(self, ctx: EntityContext, text: str) -> str:
        return f"{ctx.key}/{ctx.entity_id}/{ctx.operation_name}/{text}"

    def context_last(self, text: str, ctx: EntityContext) -> str:
        return f"{ctx.key}/{ctx.entity_id}/{ctx.operation_name}/{text}"

    def context_only(self, ctx: EntityContext) -> datetime:
        return ctx.current_utc_datetime

    def clear(self, ctx: EntityContext) -> None:
        self.seen.append("deleted after all")
        ctx.delete()

    def tell(self, key: str, ctx: EntityContext) -> None:
        ctx.signal_entity(EntityId(Journal, key), Journal.note, f"from {ctx.key}")

    def tell_later(self, key: str, ctx: EntityContext) -> None:
        ctx.signal_entity(
            EntityId(Journal, key), Journal.note, f"later from {ctx.key}", at=timedelta(seconds=60)
        )

    def tell_and_fail(self, key: str, ctx: EntityContext) -> None:
        self.seen.append("told")
        ctx.signal_entity(EntityId(Journal, key), Journal.note, f"from {ctx.key}")
        ctx.start_new(write, key, instance_id=f"started-for-{key}")
        ctx.delete()
        raise ValueError("after telling")

    def count_down(self, left: int, ctx: EntityContext) -> None:
        self.seen.append(str(left))
        if left:
            ctx.signal_entity(ctx.entity_id, "count_down", left - 1)

    def start(self, key: str, ctx: EntityContext) -> str:
        return ctx.start_new(write, key, instance_id=f"started-for-{key}")

    def start_with_any_id(self, key: str, ctx: EntityContext) -> str:
        return ctx.start_new("write", key)

    def start_unknown(self, ctx: EntityContext) -> str:
        return ctx.start_new("no such orchestration")

    async def slow_note(self, text: str) -> str:
        self.seen.append(f"begun {text}")
        await pass_gate(text)
        self.seen.append(f"done {text}")
        return text

    async def slow_fail(self, text: str, ctx: EntityContext) -> None:
        self.seen.append(f"begun {text}")
        ctx.signal_entity(EntityId(Journal, "other"), Journal.note, "never")
        await pass_gate(text)
        raise ValueError(text)

    async def at_once(self, text: str) -> str:
        self.seen.append(text)
        return text

    async def within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught


class Shape:
    name: str = "shape"

    def rename(self, name: str) -> str:
        self.name = name
        return self.name

    def area(self) -> float:
        return 0.0


@app.entity
class Square(Shape):
    side: float = 2.0

    def area(self) -> float:
        return self.side * self.side


@app.entity(name="Tally")
def tally(ctx: EntityContext) -> Any:
    state = ctx.get_state(dict)
    if ctx.operation_name == "vote":
        name = ctx.get_input(str)
        state[name] = state.get(name, 0) + 1
        ctx.set_state(state)
        ctx.set_result(state[name])
    elif ctx.operation_name == "spoil":
        state["spoilt"] = True
        ctx.set_state(state)
        raise ValueError("spoilt")
    elif ctx.operation_name == "reset":
        ctx.set_state(None)
    elif ctx.operation_name == "drop":
        ctx.delete()
    else:
        raise ValueError(f"unknown operation {ctx.operation_name}")


@app.entity
async def slow_tally(ctx: EntityContext) -> Any:
    count = ctx.get_state(int)
    await anyio.lowlevel.checkpoint()
    ctx.set_state(count + 1)
    ctx.set_result(count + 1)


@app.orchestration
async def write(ctx: OrchestrationContext, key: str) -> str:
    ctx.signal_entity(EntityId(Journal, key), Journal.note, "one")
    ctx.signal_entity(EntityId(Journal, key), "note", "two")
    await ctx.call_entity(EntityId(Journal, key), Journal.note, "three")
    return key


@app.orchestration
async def write_later(ctx: OrchestrationContext, key: str) -> None:
    id = EntityId(Journal, key)
    ctx.signal_entity(id, Journal.note, "delay", at=timedelta(seconds=60))
    ctx.signal_entity(
        id, Journal.note, "time", at=ctx.current_utc_datetime + timedelta(seconds=120)
    )
    ctx.signal_entity(id, Journal.note, "past", at=datetime(2000, 1, 1, tzinfo=UTC))


@app.orchestration
def add_by_yield(ctx: OrchestrationContext, key: str) -> Generator[Any, Any, list[int]]:
    id = EntityId(Counter, key)
    ctx.signal_entity(id, Counter.add, 10)
    first: int = yield ctx.call_entity(id, Counter.add, 5)
    second: int = yield ctx.call_entity(id, "get")
    return [first, second]


@app.orchestration
async def call_failing(ctx: OrchestrationContext, key: str) -> list[Any]:
    id = EntityId(Counter, key)
    await ctx.call_entity(id, Counter.add, 1)
    try:
        await ctx.call_entity(id, Counter.fail_after_adding, 5)
    except EntityOperationError as error:
        return [error.target, error.error_type, error.message, await ctx.call_entity(id, "get")]
    return []


async def seen(client: Client, key: str) -> list[str]:
    return await client.call_entity(EntityId(Journal, key), Journal.get)


async def until_exists(client: Client, id: EntityId[Any]) -> None:
    async def exists() -> bool:
        return await client.read_entity_state(id) is not None

    await until(exists)


@app.entity
class Keeper:
    items: list[str] = []

    def keep(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    async def keep_async(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    def fail(self) -> None:
        raise ValueError

    @perdure.readonly
    def try_to_delete(self, ctx: EntityContext) -> None:
        self.items.clear()
        ctx.delete()
