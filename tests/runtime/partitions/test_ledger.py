from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from perdure.runtime.partitions.batch import Batch, Errand
from perdure.runtime.partitions.ledger import Ledger
from perdure.runtime.scheduling.waiter import waiter_factory


def new_ledger() -> Ledger:
    return Ledger(0, lambda: waiter_factory()())


def activation() -> Any:
    woken: list[str] = []
    return SimpleNamespace(
        queued=False, touched=False, woken=woken, wake=lambda: woken.append("woken")
    )


def test_no_number_is_given_out_twice() -> None:
    ledger = new_ledger()

    ids = [ledger.new_id() for _ in range(5)]
    rows = [ledger.new_row() for _ in range(5)]

    assert ids == rows == [1, 2, 3, 4, 5]


def test_what_broke_down_first_is_what_is_recovered_from() -> None:
    ledger = new_ledger()
    first, second = ValueError("first"), ValueError("second")

    ledger.break_down(first)
    ledger.break_down(second)

    assert (ledger.is_tainted, ledger.has_work) == (True, True)
    assert [ledger.take_trouble(), ledger.take_trouble()] == [first, None]
    assert (ledger.is_tainted, ledger.has_work) == (False, False)


async def test_it_waits_for_work_until_something_gathers() -> None:
    ledger, seen = new_ledger(), list[str]()

    async def wait() -> None:
        await ledger.wait_for_work()
        seen.append("work")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        ledger.gathered()

    assert seen == ["work"]


async def test_it_does_not_wait_where_there_is_work_already() -> None:
    ledger = new_ledger()
    ledger.batch.mail_deleted.append(1)

    with anyio.fail_after(5):
        await ledger.wait_for_work()


async def test_an_errand_is_done_at_once_and_answered_with_the_batch() -> None:
    ledger, done = new_ledger(), list[str]()
    errand = Errand(lambda: done.append("done"))
    errand.reply = waiter_factory()()

    ledger.take_up(errand)

    assert done == ["done"]
    assert ledger.batch.replies == [(errand.reply, None, errand)]


def test_turns_wait_for_the_end_of_a_commit_only_where_there_is_one_to_wait_for() -> None:
    ledger, one = new_ledger(), activation()

    assert not ledger.defers(one)
    ledger.flying = Batch()
    assert ledger.defers(one)
    assert one.queued
    ledger.let_on()
    ledger.let_on()

    assert one.woken == ["woken"]


def test_who_is_touched_twice_is_looked_at_once() -> None:
    ledger, one = new_ledger(), activation()

    ledger.touch(one)
    ledger.touch(one)

    assert ledger.batch.touched == [one]


async def test_who_had_it_leave_is_told_where_it_stays() -> None:
    ledger = new_ledger()
    ledger.leaving = waiter = waiter_factory()()
    error = ValueError("it stays")

    ledger.stay(error)
    ledger.stay(error)

    assert not ledger.has_work
    with pytest.raises(ValueError, match="it stays") as told:
        await waiter
    assert told.value is error
