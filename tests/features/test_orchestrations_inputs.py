"""What orchestrations take and give, as coroutines and as generators."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from perdure import App, OrchestrationContext
from tests.runtime.orchestrating import Flow, running

app = App()


@dataclass
class Order:
    item: str
    count: int = 1


@app.orchestration
async def takes_input(ctx: OrchestrationContext, order: Order) -> Order:
    return Order(order.item.upper(), order.count + 1)


@app.orchestration
def takes_input_by_yield(ctx: OrchestrationContext, order: Order) -> Generator[Any, Any, Order]:
    yield ctx.task_all([])
    return Order(order.item.upper(), order.count + 1)


@pytest.mark.parametrize("flow", [takes_input, takes_input_by_yield])
@pytest.mark.parametrize("by_name", [False, True])
async def test_input_and_result_have_their_declared_types(flow: Flow, by_name: bool) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(flow.__name__ if by_name else flow, Order("tea", 2))

        result = await handle.result(5)

        assert result == Order("TEA", 3)
        assert await hub.client.get_handle(handle.instance_id).result(5) == Order("TEA", 3)


@app.orchestration
async def gets_input(ctx: OrchestrationContext) -> Any:
    return ctx.get_input()


@app.orchestration
def gets_input_by_yield(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    yield ctx.task_all([])
    return ctx.get_input()


@pytest.mark.parametrize("name", ["gets_input", "gets_input_by_yield"])
@pytest.mark.parametrize("value", [None, 5, {"a": [1, {"b": None}]}, "text", []])
async def test_a_function_of_its_context_alone_gets_any_input(name: str, value: Any) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(name, value)

        assert await handle.result(5) == value


async def test_get_input_of_nothing_is_none() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(gets_input)

        assert await handle.result(5) is None


async def test_get_input_gives_the_typed_input_each_time() -> None:
    local = App()

    @local.orchestration
    async def both(ctx: OrchestrationContext, order: Order) -> list[bool]:
        order.count = 99
        again: Order = ctx.get_input()
        return [again == Order("tea"), type(again) is Order]

    async with running(local) as hub:
        handle = await hub.client.start_new(both, Order("tea"))

        assert await handle.result(5) == [True, True]


async def test_a_parameter_with_a_default_may_be_left_out() -> None:
    local = App()

    @local.orchestration
    async def defaulted(ctx: OrchestrationContext, n: int = 7) -> int:
        return n

    async with running(local) as hub:
        left_out = await hub.client.start_new("defaulted")
        given = await hub.client.start_new("defaulted", 1)

        assert (await left_out.result(5), await given.result(5)) == (7, 1)
