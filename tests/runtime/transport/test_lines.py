from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from perdure import HubStoppingError, UsageError
from perdure.runtime.placement.places import LineLostError
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.runtime.transport.channels import Channel, OnItems
from perdure.runtime.transport.lines import OVER, Line
from perdure.runtime.transport.wire import Item
from tests.faults import settle
from tests.runtime.harness import until_true


class FakeChannel:
    """A channel whose other side is the test."""

    incarnation: int | None = None

    def __init__(self) -> None:
        self.posted: list[Item] = []
        self._ended = anyio.Event()
        self._on_items: OnItems | None = None

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def post(self, item: Item) -> None:
        self.posted.append(item)

    async def run(self, on_items: OnItems) -> None:
        self._on_items = on_items
        await self._ended.wait()

    def close(self) -> None:
        self._ended.set()

    def take_requests(self, size_max: int) -> None:
        raise AssertionError("this is the side that asks")

    async def sent(self) -> None:
        raise AssertionError("this is the side that asks")

    def answer(self, number: int, value: Any) -> None:
        assert self._on_items is not None
        self._on_items([("answer", number, value)])


class Exchange:
    """Makes connections when the test lets it."""

    def __init__(self) -> None:
        self.channels: list[FakeChannel] = []
        self.refusals = 0
        self.gate: anyio.Event | None = None

    async def dial(self) -> Channel:
        if self.gate is not None:
            await self.gate.wait()
        if self.refusals:
            self.refusals -= 1
            raise ConnectionRefusedError("not yet")
        self.channels.append(FakeChannel())
        return self.channels[-1]


@asynccontextmanager
async def line_of(
    exchange: Exchange, on_up: Callable[[], None] = lambda: None
) -> AsyncGenerator[Line]:
    line = Line(exchange.dial, waiter_factory(), on_up)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(line.run)
            yield line
            line.close()


async def up(line: Line) -> None:
    await until_true(lambda: line.is_up)


async def test_a_request_gets_the_answer_with_its_number() -> None:
    exchange = Exchange()
    async with line_of(exchange) as line:
        await up(line)
        (first, one), (second, other) = line.ask("wait_durable", 1), line.ask("wait_durable", 2)
        channel = exchange.channels[0]

        channel.answer(second, b"2")
        channel.answer(first, b"1")

        assert (await one, await other) == (b"1", b"2")
        assert channel.posted == [
            ("ask", 1, "wait_durable", (1,)),
            ("ask", 2, "wait_durable", (2,)),
        ]


async def test_an_error_that_is_answered_is_raised() -> None:
    exchange = Exchange()
    async with line_of(exchange) as line:
        await up(line)
        number, waiter = line.ask("wait_durable", 1)
        exchange.channels[0].answer(number, UsageError("so not"))

        with pytest.raises(UsageError, match="so not"):
            await waiter


async def test_requests_made_before_the_line_is_up_are_sent_when_it_is_in_order() -> None:
    exchange = Exchange()
    exchange.refusals = 2
    async with line_of(exchange) as line:
        line.ask("wait_durable", 1)
        line.ask("wait_durable", 2)
        await up(line)

        assert [item[3] for item in exchange.channels[0].posted] == [(1,), (2,)]


async def test_a_request_taken_back_before_the_line_is_up_is_never_sent() -> None:
    exchange = Exchange()
    exchange.gate = anyio.Event()
    async with line_of(exchange) as line:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(line.call, "wait_durable", 1)
            await settle()
            tasks.cancel_scope.cancel()
        line.ask("wait_durable", 2)
        exchange.gate.set()
        await up(line)

        assert [item[3] for item in exchange.channels[0].posted] == [(2,)]


async def test_a_caller_that_is_cancelled_takes_its_request_back() -> None:
    exchange = Exchange()
    async with line_of(exchange) as line:
        await up(line)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(line.call, "wait_for_end", 0, "x")
            await settle()
            tasks.cancel_scope.cancel()

        assert exchange.channels[0].posted == [("ask", 1, "wait_for_end", (0, "x")), ("drop", 1)]


async def test_an_answer_to_a_request_that_was_taken_back_is_ignored() -> None:
    exchange = Exchange()
    async with line_of(exchange) as line:
        await up(line)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(line.call, "wait_durable", 0)
            await settle()
            tasks.cancel_scope.cancel()
        number, waiter = line.ask("wait_durable", 1)
        exchange.channels[0].answer(1, b"late")
        exchange.channels[0].answer(number, b"right")

        assert await waiter == b"right"


async def test_a_line_that_breaks_fails_what_was_sent_and_is_dialled_again() -> None:
    exchange = Exchange()
    ups: list[int] = []
    async with line_of(exchange, lambda: ups.append(1)) as line:
        await up(line)
        _, lost = line.ask("wait_durable", 1)
        exchange.channels[0].close()
        with pytest.raises(LineLostError) as caught:
            await lost
        await up(line)
        number, kept = line.ask("wait_durable", 2)
        exchange.channels[1].answer(number, b"2")

        assert caught.value.sent
        assert await kept == b"2"
        assert len(ups) == 2


async def test_what_is_not_answered_by_one_who_does_nothing_more_has_not_happened() -> None:
    exchange = Exchange()
    async with line_of(exchange) as line:
        await up(line)
        channel = exchange.channels[0]
        _, before = line.ask("wait_durable", 1)
        channel.answer(OVER, None)
        _, after = line.ask("wait_durable", 2)
        channel.close()
        for waiter in (before, after):
            with pytest.raises(LineLostError) as caught:
                await waiter
            assert not caught.value.sent

        await up(line)
        _, lost = line.ask("wait_durable", 3)
        exchange.channels[1].close()
        with pytest.raises(LineLostError) as caught:
            await lost
        assert caught.value.sent, "the next one has not said so"


async def test_a_request_made_while_the_line_is_down_is_not_lost_with_what_was_sent() -> None:
    exchange = Exchange()
    async with line_of(exchange) as line:
        await up(line)
        exchange.gate = anyio.Event()
        exchange.channels[0].close()
        await until_true(lambda: not line.is_up)
        number, early = line.ask("wait_durable", 1)
        exchange.gate.set()
        await up(line)
        exchange.channels[1].answer(number, b"1")

        assert await early == b"1"


async def test_what_is_said_when_the_line_comes_up_goes_before_what_waited_for_it() -> None:
    exchange = Exchange()
    exchange.gate = anyio.Event()

    def hello() -> None:
        line.post(("resend", 0, 1))

    async with line_of(exchange, hello) as line:
        line.ask("wait_durable", 1)
        line.post_surely(("reply", 7, None))
        exchange.gate.set()
        await up(line)

        kinds = [item[0] for item in exchange.channels[0].posted]
        assert kinds == ["resend", "ask", "reply"]


async def test_what_may_be_lost_is_lost_while_the_line_is_down() -> None:
    exchange = Exchange()
    exchange.gate = anyio.Event()
    async with line_of(exchange) as line:
        line.post(("ack", 0, 1, 1))
        exchange.gate.set()
        await up(line)

        assert exchange.channels[0].posted == []


async def test_a_closed_line_says_what_may_have_happened_and_what_has_not() -> None:
    exchange = Exchange()
    with anyio.fail_after(10):
        async with line_of(exchange) as line:
            await up(line)
            _, sent = line.ask("wait_durable", 1)
            exchange.gate = anyio.Event()
        with pytest.raises(LineLostError) as caught:
            await sent
        with pytest.raises(HubStoppingError):
            line.ask("wait_durable", 2)

    assert caught.value.sent


async def test_a_request_that_was_never_sent_is_told_that_nothing_happened() -> None:
    exchange = Exchange()
    exchange.gate = anyio.Event()
    async with line_of(exchange) as line:
        _, waiter = line.ask("wait_durable", 1)
        line.close()

        with pytest.raises(HubStoppingError):
            await waiter
