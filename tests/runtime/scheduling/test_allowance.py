"""What is spent in one turn of a loop is not there for others before the next."""

from __future__ import annotations

import anyio

from perdure.runtime.scheduling.allowance import Allowance
from tests.runtime.stretches import measured


async def test_nobody_waits_while_some_is_left() -> None:
    allowance = Allowance(0.004)
    allowance.spend(0.003)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await allowance.wait()  # to wait would be cancelled

    assert not scope.cancelled_caught
    assert 0 < allowance.left < 0.0011


async def test_who_finds_it_spent_goes_on_in_another_turn_and_has_all_of_it() -> None:
    allowance = Allowance(0.004)
    found: list[float] = []
    turns: list[int] = []

    async def take() -> None:
        await allowance.wait()
        found.append(allowance.left)
        turns.append(stretches.turns)
        allowance.spend(0.005)

    with anyio.fail_after(5), measured() as stretches:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(take)

    assert found == [0.004] * 3
    assert len(set(turns)) == 3


async def test_trifles_are_not_counted() -> None:
    allowance = Allowance(0.004)

    for _ in range(1_000):
        allowance.spend(0.0001)

    assert allowance.left == 0.004
