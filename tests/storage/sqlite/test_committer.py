from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Barrier, Event

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, to_thread
from anyio.lowlevel import checkpoint

from perdure.storage.sqlite import SqliteStore
from perdure.storage.sqlite.committer import PATIENCE_S, Committer, Committers
from perdure.storage.sqlite.journal import Journal
from perdure.testing.store_conformance import Owner, created
from tests.storage.files import rows

# What tests of hubs that crashed may have left in this process, before the test that runs.
_left: list[threading.Thread] = []


@pytest.fixture(autouse=True)
def leave_out_what_others_left() -> None:
    _left[:] = []
    _left[:] = threads()


@pytest.fixture
async def committer() -> AsyncIterator[Committer]:
    committers = Committers()
    made = committers.enter()
    yield made
    committers.leave(made)
    await gone()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Nothing counts as held up, and no disk as slow, until this is set, at the latest at the end.

    However slow this machine is: no thread helps out that the test did not ask for.
    """
    over = Event()

    def wait(_: float) -> None:
        over.wait(60)

    monkeypatch.setattr("perdure.storage.sqlite.committer.sleep", wait)
    monkeypatch.setattr("perdure.storage.sqlite.committer.BACKLOG_S", 60.0)
    yield over
    over.set()


async def gone() -> None:
    """Wait until no committer has a thread."""
    for thread in threads():
        await to_thread.run_sync(thread.join, 30)
    assert not threads()


def threads() -> list[threading.Thread]:
    found = [one for one in threading.enumerate() if one.name == "perdure-committer"]
    return [one for one in found if one not in _left]


class Held:
    """Holds a thread of the committer until it is let go."""

    def __init__(self) -> None:
        self.begun = Event()
        self.released = Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.released.wait(60)
        return "held"

    def let_go(self) -> None:
        self.released.set()


def fail() -> None:
    raise ValueError("of this one alone")


async def until(condition: Callable[[], bool]) -> None:
    with fail_after(30):
        while not condition():
            await anyio.sleep(0.001)


def _has(committer: Committer, calls: int) -> bool:
    return committer.waiting == calls


async def test_each_caller_gets_its_own_outcome_and_no_failure_of_another(
    committer: Committer,
) -> None:
    held = Held()
    outcomes: dict[int, object] = {}

    async def run(number: int) -> None:
        works: dict[int, Callable[[], object]] = {0: held, 2: fail}
        work = works.get(number, lambda: number)
        try:
            outcomes[number] = await committer.run(work)
        except ValueError as error:
            outcomes[number] = str(error)

    async with create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(run, number)
        await until(held.begun.is_set)
        held.let_go()

    assert outcomes == {0: "held", 1: 1, 2: "of this one alone", 3: 3, 4: 4}


async def test_what_was_handed_in_together_wakes_the_loop_once(
    committer: Committer, patience: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.storage.sqlite.committer.TOGETHER_S", 60.0)
    posted: list[object] = []
    post = committer.home.post

    def counted(callback: Callable[[], None]) -> None:
        posted.append(callback)
        post(callback)

    monkeypatch.setattr(committer.home, "post", counted)
    held = Held()

    async with create_task_group() as tasks:
        tasks.start_soon(committer.run, held)
        await until(held.begun.is_set)
        for _ in range(8):
            tasks.start_soon(committer.run, int)
        await until(lambda: committer.waiting == 8)
        held.let_go()

    assert len(posted) == 1
    assert len(threads()) == 2  # one of them sees to it that nothing is stuck


async def test_one_that_takes_long_holds_no_other_up(committer: Committer) -> None:
    await committer.run(int)
    held = Held()

    async with create_task_group() as tasks:
        tasks.start_soon(committer.run, held)
        await until(held.begun.is_set)
        with fail_after(30):
            assert await committer.run(lambda: "other") == "other"
        assert not held.released.is_set()
        held.let_go()


async def test_an_outcome_does_not_wait_for_one_behind_it_that_takes_long(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.storage.sqlite.committer.TOGETHER_S", 60.0)
    first, last = Held(), Held()
    order: list[str] = []

    async def run(name: str, work: Held) -> None:
        await committer.run(work)
        order.append(name)

    async with create_task_group() as tasks:
        tasks.start_soon(run, "first", first)
        await until(first.begun.is_set)
        tasks.start_soon(run, "last", last)
        await until(lambda: committer.waiting > 0 or last.begun.is_set())
        first.let_go()
        await until(last.begun.is_set)
        await until(lambda: order == ["first"])
        last.let_go()

    assert order == ["first", "last"]


async def test_some_that_all_take_long_are_made_at_once(committer: Committer) -> None:
    all_begun = Barrier(4)

    async with create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(committer.run, lambda: all_begun.wait(60))

    assert not all_begun.broken


async def test_threads_are_as_many_as_the_disk_is_slow(
    committer: Committer, patience: Event
) -> None:
    committer.pace = 90.0  # half as much again as one thread may take
    both_begun = Barrier(2)

    async with create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(committer.run, lambda: both_begun.wait(60))
    assert committer.threads == 2

    committer.pace = 0.0
    held = Held()
    async with create_task_group() as tasks:
        tasks.start_soon(committer.run, held)
        await until(held.begun.is_set)
        tasks.start_soon(committer.run, int)
        await until(lambda: committer.waiting == 1)
        assert committer.asleep == 1
        held.let_go()


async def test_a_cancelled_caller_waits_for_the_end(committer: Committer) -> None:
    held = Held()
    ended: list[str] = []

    async def run() -> None:
        ended.append(await committer.run(held))

    async with create_task_group() as tasks:
        tasks.start_soon(run)
        await until(held.begun.is_set)
        tasks.cancel_scope.cancel()
        with CancelScope(shield=True):
            await anyio.sleep(PATIENCE_S)
            assert not ended
            held.let_go()

    assert ended == ["held"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_task_cancelled_by_asyncio_handed_in_is_done(committer: Committer) -> None:
    held, done = Held(), Event()
    tasks = [asyncio.ensure_future(committer.run(work)) for work in (held, done.set)]
    await until(held.begun.is_set)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [True, True]
    held.let_go()

    await until(done.is_set)
    assert await committer.run(lambda: "usable") == "usable"


async def test_each_loop_has_a_committer_whose_threads_end_with_its_last_user() -> None:
    committers = Committers()
    here = committers.enter()
    assert committers.enter() is here
    await here.run(int)

    async def elsewhere() -> None:
        there = committers.enter()
        assert there is not here
        assert await there.run(lambda: 1) == 1
        # What was served here is served there from now on.
        assert committers.enter(here) is there
        committers.leave(there)
        committers.leave(there)

    await to_thread.run_sync(anyio.run, elsewhere)
    assert await here.run(lambda: 2) == 2
    committers.leave(here)

    await gone()


@pytest.mark.by_turns
async def test_one_thread_commits_for_all_partitions_and_ends_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.storage.sqlite.committer.BACKLOG_S", 60.0)
    store = SqliteStore(tmp_path)
    owners = [Owner(one, await one.recover()) for one in await store.open(8)]
    assert not threads()

    for owner in owners:
        await owner.commit(created=[created(1)])
    assert len(threads()) == 1
    for owner in owners:
        assert await owner.keys() == ["i1"]
    await store.close()

    await gone()


async def test_a_journal_closes_after_what_it_was_given_to_do(
    tmp_path: Path, patience: Event
) -> None:
    committers = Committers()
    committer = committers.enter()
    journals: list[Journal] = []
    for n in range(4):
        with closing(sqlite3.connect(tmp_path / f"{n}.sqlite")) as made:
            made.execute("CREATE TABLE entry (n)")
        journals.append(Journal(tmp_path / f"{n}.sqlite", "", committers))
        await journals[n].execute("SELECT 1")
    held = Held()

    async with create_task_group() as tasks:
        tasks.start_soon(committer.run, held)
        await until(held.begun.is_set)
        for n, one in enumerate(journals, 1):
            tasks.start_soon(one.execute, "INSERT INTO entry VALUES (1)")
            await until(partial(_has, committer, n))
        for one in journals:
            tasks.start_soon(partial(one.close, for_good=True))
        held.let_go()

    for n, one in enumerate(journals):
        assert rows(tmp_path / f"{n}.sqlite", "SELECT n FROM entry") == [(1,)]
        with pytest.raises(ValueError, match="closed"):
            await one.execute("SELECT 1")
    patience.set()
    committers.leave(committer)
    await gone()


@pytest.mark.by_turns
async def test_a_journal_that_another_program_locks_holds_up_no_other_partition(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path)
    first, second = [Owner(one, await one.recover()) for one in await store.open(2)]
    await first.commit()
    await second.commit()
    stored: list[Owner] = []

    async def commit() -> None:
        await first.commit(created=[created(1)])
        stored.append(first)

    with closing(sqlite3.connect(tmp_path / "journal-00.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with create_task_group() as tasks:
            tasks.start_soon(commit)
            await checkpoint()
            for n in range(1, 4):
                await second.commit(created=[created(n)])
            assert not stored
            other.execute("COMMIT")

    assert stored == [first]
    assert await first.keys() == ["i1"]
    assert await second.keys() == ["i1", "i2", "i3"]
    await store.close()
