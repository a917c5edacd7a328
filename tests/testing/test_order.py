from __future__ import annotations

from importlib import import_module
from typing import Any

import anyio
import anyio.lowlevel

from perdure.storage import slices
from perdure.testing.order import fixed_order


async def order_of(tasks: int, turns: int) -> list[int]:
    """Give the order in which tasks run that are always ready."""
    order: list[int] = []

    async def run(number: int) -> None:
        for _ in range(turns):
            order.append(number)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(tasks):
            group.start_soon(run, number)
    return order


async def test_what_is_ready_runs_first_come_first_served() -> None:
    with fixed_order():
        assert await order_of(tasks=5, turns=20) == [*range(5)] * 20


async def test_nothing_pauses_for_taking_long() -> None:
    others: list[str] = []

    async def run_beside() -> None:
        await anyio.lowlevel.checkpoint()
        others.append("a turn")

    def work() -> Any:
        for _ in range(20_000):
            yield

    with fixed_order():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_beside)
            await slices.in_slices(work())
            assert others == []


async def test_it_is_as_before_afterwards() -> None:
    scheduler: Any = import_module("trio._core._run")

    def settings() -> tuple[Any, ...]:
        return slices.slice_s, scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r

    before = settings()

    with fixed_order():
        assert settings() != before

    assert settings() == before
