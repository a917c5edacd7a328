from __future__ import annotations

from collections.abc import Generator

import anyio
import pytest
from hypothesis import given, strategies as st

from perdure.storage import slices
from perdure.storage.slices import (
    SLICES,
    Breath,
    at_once,
    each,
    first_in_order,
    first_of,
    in_slices,
    map_each,
    turn_of_loop,
)
from tests.runtime.stretches import measured


def counting(pauses: int) -> Generator[None, None, str]:
    for _ in range(pauses):
        yield
    return "made"


async def turns_during(work: Generator[object, None, str]) -> tuple[str, int]:
    """Say how often the loop turned while some work was done in slices."""
    turns = seen = 0
    made = ""

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        made = await in_slices(work)
        seen = turns
        group.cancel_scope.cancel()
    return made, seen


async def test_the_loop_turns_at_each_pause_that_comes_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slices, "slice_s", -1.0)

    made, turns = await turns_during(counting(20))

    assert made == "made"
    assert turns >= 15


async def test_work_that_takes_no_time_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "slice_s", 60.0)

    assert await turns_during(counting(20)) == ("made", 0)


async def test_a_breath_is_taken_only_where_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def breathing() -> Breath:
        return Breath()

    with anyio.CancelScope() as scope:
        scope.cancel()
        monkeypatch.setattr(slices, "slice_s", 60.0)
        await breathing().take()  # a turn of the loop would end here
        monkeypatch.setattr(slices, "slice_s", -1.0)
        await breathing().take()
        raise AssertionError("no turn of the loop")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await turn_of_loop()
        raise AssertionError("no turn of the loop")
    assert scope.cancelled_caught


@pytest.mark.parametrize("kind", ["slices", "breaths"])
async def test_works_share_what_one_turn_of_their_loop_may_take(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    step_s, works = slices.slice_s / 2, 20
    taken: dict[int, float] = {}

    def take_a_step() -> None:
        nonlocal now
        now += step_s
        taken[stretches.turns] = taken.get(stretches.turns, 0.0) + step_s

    async def work() -> None:
        if kind == "slices":
            await in_slices(each(range(50), lambda _: take_a_step(), 1))
            return
        breath = Breath()
        for _ in range(50):
            take_a_step()
            await breath.take()

    monkeypatch.setattr(slices, "perf_counter", lambda: now)
    with measured() as stretches:
        async with anyio.create_task_group() as group:
            for _ in range(works):
                group.start_soon(work)

    assert sum(taken.values()) == pytest.approx(works * 50 * step_s)
    # Each has a step, since it would never end else.
    assert max(taken.values()) < slices.slice_s * (SLICES + 1) + works * step_s


async def test_what_is_spent_otherwise_leaves_less_for_works_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def pauses_behind(spent_s: float) -> bool:
        slices.spend(spent_s)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await in_slices(counting(1))  # a turn of the loop would end here
        return scope.cancelled_caught

    monkeypatch.setattr(slices, "slice_s", -1.0)
    await in_slices(counting(2))  # what was spent before is of another turn
    monkeypatch.setattr(slices, "slice_s", 1.0)

    assert not await pauses_behind(SLICES - 1.0)
    assert await pauses_behind(1.0)
    monkeypatch.setattr(slices, "slice_s", -1.0)
    await in_slices(counting(2))
    monkeypatch.setattr(slices, "slice_s", 1.0)
    assert not await pauses_behind(0.0)


async def test_what_work_raises_ends_it() -> None:
    def failing() -> Generator[None]:
        yield
        raise KeyError("no")

    with pytest.raises(KeyError):
        await in_slices(failing())
    with pytest.raises(KeyError):
        at_once(failing())


@given(st.lists(st.integers()), st.integers(1, 5))
def test_each_is_done_in_order_with_a_pause_behind_so_many(items: list[int], every: int) -> None:
    done: list[int] = []

    pauses = [len(done) for _ in each(items, done.append, every)]

    assert done == items
    assert pauses == list(range(every, len(items) + 1, every))


def test_what_is_made_of_each_is_given_in_order() -> None:
    assert at_once(map_each(range(200), str)) == [str(number) for number in range(200)]


@given(st.lists(st.integers(0, 9_999), max_size=3_000), st.integers(-1, 3_000), st.booleans())
def test_the_first_in_order_are_those_that_come_first_when_all_are_sorted(
    numbers: list[int], limit: int, reverse: bool
) -> None:
    def key(number: int) -> str:
        return str(number)

    wanted = sorted(numbers, key=key, reverse=reverse)[: max(0, limit)]
    half = len(numbers) // 2
    runs = [sorted(some, key=key, reverse=reverse) for some in (numbers[:half], numbers[half:])]

    assert at_once(first_in_order(numbers, key, limit, reverse=reverse)) == wanted
    assert at_once(first_of(runs, key, limit, reverse=reverse)) == wanted


def test_long_lists_are_sorted_with_pauses() -> None:
    numbers = [n * 7_919 % 10_007 for n in range(10_007)]
    pauses = 0

    def count() -> Generator[None, None, list[int]]:
        nonlocal pauses
        work = first_in_order(numbers, int, 5_000)
        try:
            while True:
                next(work)
                pauses += 1
                yield
        except StopIteration as stop:
            made: list[int] = stop.value
            return made

    assert at_once(count()) == [*range(5_000)]
    assert pauses > 11 + 5_000 // 64 - 1
