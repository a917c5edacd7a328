"""Registered functions called directly: an orchestration is refused, everybody else is not."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any

import pytest

from perdure import App, EntityContext, EntityId, OrchestrationContext, OrchestrationFailedError
from tests.runtime.orchestrating import running

app = App()


@app.activity
async def slow(number: int) -> int:
    return number


@app.activity
def quick(number: int) -> int:
    return number + int(number > 5 and quick(number - 1) > 0)


@app.orchestration
async def other(ctx: OrchestrationContext, number: int) -> int:
    return number


@app.orchestration
def by_yield(ctx: OrchestrationContext, number: int) -> Generator[Any, Any, int]:
    yield ctx.call_activity(quick, 1)
    return number


@app.entity
class Counter:
    value: int = 0

    def add(self, number: int) -> int:
        self.value += number
        return self.get()

    def get(self) -> int:
        return self.value


@app.entity
def by_name(ctx: EntityContext) -> None:
    ctx.set_result(ctx.get_input())


@app.orchestration
async def direct(ctx: OrchestrationContext, which: str) -> Any:
    if which == "slow":
        return await slow(1)
    if which == "quick":
        return quick(1)
    if which == "other":
        return await other(ctx, 1)
    if which == "counter":
        return Counter().add(1)
    if which == "by_name":
        return by_name(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return list(by_yield(ctx, 1))


@pytest.mark.parametrize(
    ("which", "ours"),
    [
        ("slow", "ctx.call_activity(slow, ...)"),
        ("quick", "ctx.call_activity(quick, ...)"),
        ("other", "ctx.call_sub_orchestrator(other, ...)"),
        ("counter", "ctx.call_entity(EntityId('counter', key), 'add', ...)"),
        ("by_name", "ctx.call_entity("),
        ("by_yield", "ctx.call_sub_orchestrator(by_yield, ...)"),
    ],
)
async def test_an_orchestration_that_calls_one_directly_is_told_how(which: str, ours: str) -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(direct, which)

        with pytest.raises(OrchestrationFailedError, match=r"test_direct_calls\.py:\d+") as caught:
            await handle.result(5)

        assert caught.value.error_type == "NonDurableAwaitError"
        assert ours in caught.value.message


@app.orchestration
async def calls(ctx: OrchestrationContext) -> list[int]:
    counter = EntityId(Counter, "c")
    return [await ctx.call_activity(quick, 6), await ctx.call_entity(counter, Counter.add, 2)]


async def test_ordinary_code_activities_and_operations_may_call_them() -> None:
    async with running(app) as hub:
        assert await (await hub.client.start_new(calls)).result(5) == [7, 2]
    assert await slow(3) == quick(3) == Counter().add(3) == 3


def test_a_registered_function_is_the_object_that_it_was() -> None:
    def make(bonus: int) -> Any:
        def add(number: int = 1) -> int:
            "Add."
            return number + bonus

        return add

    add = make(5)
    line, signature = add.__code__.co_firstlineno, inspect.signature(add)

    assert App().activity(add) is add
    assert App().activity(name="again")(add) is add

    assert add() == add(number=1) == 6
    assert make(7)(1) == 8  # another function of the same code is not touched
    assert (add.__name__, add.__doc__, add.__code__.co_firstlineno) == ("add", "Add.", line)
    assert inspect.signature(add) == signature
    assert "return number + bonus" in inspect.getsource(add)
    assert inspect.iscoroutinefunction(slow)
    assert inspect.isgeneratorfunction(by_yield)
