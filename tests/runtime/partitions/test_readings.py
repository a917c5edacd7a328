from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import perdure
from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    OrchestrationContext,
    SqliteStore,
    Store,
)
from tests.faults import FaultyStore, settle
from tests.runtime.harness import until, until_true

app = App()

gates: dict[str, tuple[anyio.Event, anyio.Event]] = {}
begun: list[int] = []  # async reads


@pytest.fixture(autouse=True)
async def fresh_gates() -> None:
    for name in ("write", "read"):
        gates[name] = anyio.Event(), anyio.Event()
    begun.clear()


async def pass_gate(name: str) -> None:
    reached, opened = gates[name]
    reached.set()
    await opened.wait()


async def reached(name: str) -> None:
    await gates[name][0].wait()


def open_gate(name: str) -> None:
    gates[name][1].set()


@app.entity
class Book:
    lines: list[str] = []
    anything: Any = None

    def add(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def write(self, line: str) -> int:
        self.lines.append(line)
        await pass_gate("write")
        self.lines.append(line)
        return len(self.lines)

    async def write_and_fail(self) -> None:
        self.lines.append("lost")
        await pass_gate("write")
        raise ValueError("no")

    @perdure.readonly
    def read(self) -> list[str]:
        found = list(self.lines)
        self.lines.append("not kept")
        return found

    @perdure.readonly
    async def read_slowly(self) -> list[str]:
        self.lines.append("seen")
        begun.append(1)
        await pass_gate("read")
        return self.lines

    @perdure.readonly
    def fail(self) -> None:
        raise SystemExit("no")

    @perdure.readonly
    async def fail_slowly(self) -> None:
        await anyio.lowlevel.checkpoint()
        raise KeyError("no")

    @perdure.readonly
    def tell(self, ctx: EntityContext) -> str:
        ctx.signal_entity(EntityId(Book, "other"), Book.add, "told")
        return ctx.key


@app.orchestration
async def read_a(ctx: OrchestrationContext) -> list[str]:
    return await ctx.call_entity(BOOK, Book.read)


@app.orchestration
def lock_a(ctx: OrchestrationContext) -> Generator[Any, Any, list[str]]:
    with (yield ctx.lock_entities(BOOK)):
        ctx.set_custom_status("locked")
        lines: list[str] = yield ctx.call_entity(BOOK, Book.read_slowly)
    return lines


BOOK = EntityId(Book, "a")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Hub(app, partitions=1) as hub:
        yield hub.client


async def test_reads_do_not_wait_for_an_async_operation_and_see_what_was_before(
    client: Client,
) -> None:
    await client.call_entity(BOOK, Book.add, "first")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, BOOK, Book.write, "second")
        await reached("write")

        with anyio.fail_after(5):
            assert await client.call_entity(BOOK, Book.read) == ["first"]
            assert await client.call_entity(BOOK, Book.read) == ["first"]
            handle = await client.start_new(read_a)
            assert await handle.result(5) == ["first"]
        open_gate("write")

    assert await client.call_entity(BOOK, Book.read) == ["first", "second", "second"]


async def test_a_read_of_an_entity_that_is_being_made_sees_none_yet(client: Client) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, BOOK, Book.write, "x")
        await reached("write")

        with anyio.fail_after(5):
            assert await client.call_entity(BOOK, Book.read) == []
        assert await client.get_entity(BOOK) is None
        open_gate("write")


async def test_what_waits_when_the_operation_suspends_is_read_at_once(client: Client) -> None:
    answers: list[list[str]] = []

    async def read() -> None:
        answers.append(await client.call_entity(BOOK, Book.read))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_entity, BOOK, Book.write, "x")
            tasks.start_soon(read)
            tasks.start_soon(read)
            await until_true(lambda: len(answers) == 2)
            open_gate("write")


async def test_async_reads_overlap_the_operation_and_each_other(client: Client) -> None:
    answers: list[list[str]] = []

    async def read() -> None:
        answers.append(await client.call_entity(BOOK, Book.read_slowly))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, BOOK, Book.write, "x")
        await reached("write")
        tasks.start_soon(read)
        tasks.start_soon(read)
        await until_true(lambda: len(begun) == 2)
        open_gate("write")  # the writer ends while they go on
        assert await client.call_entity(BOOK, Book.add, "y") == 3
        open_gate("read")

    assert answers == [["seen"], ["seen"]]
    assert await client.call_entity(BOOK, Book.read) == ["x", "x", "y"]


@pytest.mark.parametrize("fails", [Book.fail, Book.fail_slowly])
async def test_a_read_that_fails_beside_an_operation_fails_alone(
    client: Client, fails: Any
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, BOOK, Book.write, "x")
        await reached("write")
        with pytest.raises(EntityOperationError):
            await client.call_entity(BOOK, fails)
        await client.signal_entity(BOOK, fails)

        async def counted() -> bool:
            status = await client.get_entity(BOOK)
            return status is not None and status.failed_signals == 1

        await until(counted)
        open_gate("write")

    assert await client.call_entity(BOOK, Book.read) == ["x", "x"]


async def test_what_a_read_sends_beside_an_operation_is_sent(client: Client) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, BOOK, Book.write, "x")
        await reached("write")
        assert await client.call_entity(BOOK, Book.tell) == "a"
        open_gate("write")

    async def told() -> bool:
        return await client.call_entity(EntityId(Book, "other"), Book.read) == ["told"]

    await until(told)


async def test_a_read_under_a_lock_goes_past_the_calls_that_wait(client: Client) -> None:
    await client.call_entity(BOOK, Book.add, "first")
    handle = await client.start_new(lock_a)
    await reached("read")  # by the async read of the holder
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_entity, BOOK, Book.add, "second")

        with anyio.fail_after(5):
            assert await client.call_entity(BOOK, Book.read) == ["first"]
        open_gate("read")

    assert await handle.result(5) == ["first", "seen"]


async def test_a_read_is_answered_when_the_state_that_it_saw_is_durable() -> None:
    store = FaultyStore(perdure.MemoryStore())
    answers: list[list[str]] = []
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.call_entity(BOOK, Book.add, "first")

        async def read() -> None:
            answers.append(await client.call_entity(BOOK, Book.read))

        async with anyio.create_task_group() as tasks:
            gate = store.hold("commit")
            tasks.start_soon(client.call_entity, BOOK, Book.add, "second")
            await gate.arrived.wait()
            tasks.start_soon(client.call_entity, BOOK, Book.write, "third")
            await reached("write")
            tasks.start_soon(read)
            await settle()
            assert answers == []
            gate.open()
            await until_true(lambda: bool(answers))
            open_gate("write")

    assert answers == [["first", "second"]]


async def test_a_stopping_hub_takes_back_what_reads_beside_an_operation(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    store: Store = SqliteStore(tmp_path / "hub")
    settings = perdure.Settings(drain_s=0.1)

    async def ask(client: Client, op: Any, *given: Any) -> None:
        with pytest.raises(perdure.PerdureError):
            await client.call_entity(BOOK, op, *given)

    hub = Hub(app, store=store, partitions=1, settings=settings)
    async with anyio.create_task_group() as tasks, hub:
        tasks.start_soon(ask, hub.client, Book.write, "x")
        await reached("write")
        tasks.start_soon(ask, hub.client, Book.read_slowly)
        await reached("read")

    async with Hub(app, store=SqliteStore(tmp_path / "hub"), partitions=1) as hub:
        assert await hub.client.call_entity(BOOK, Book.read) == []
        open_gate("write")  # for those that were stored, and run again
        open_gate("read")
