"""Commits, take-overs and rounds of folding in each order that their statements can come in.

Each is a transaction on a connection of its own, of the statements that the store makes. All
merges of two of them are tried; a statement that waits for a lock lets the other go on. After each
the server is asked whether something acknowledged is missing, or something is there twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest

from perdure.storage.postgres import PostgresStore, journal
from perdure.storage.postgres.folding import CLEAR, GATE
from perdure.storage.postgres.links import Connection, connect
from perdure.storage.postgres.place import Place, read_place
from perdure.storage.postgres.store import FENCE, TAKE

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

SOON_S = 20.0

Step = Callable[["Side"], Awaitable[None]]


class Breach(AssertionError):
    """An invariant does not hold."""


class Side:
    """One of two that meet: a connection, and what it was told."""

    def __init__(self, connection: Connection, quoted: str) -> None:
        self.connection = connection
        self.quoted = quoted
        self.pid: int = connection.get_server_pid()
        self.told: dict[str, Any] = {}
        self.left: list[Step] = []  # whose turn has come, and that wait for the step before
        self.task: asyncio.Task[None] | None = None

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        return list(await self.connection.fetch(sql.replace("{s}", self.quoted), *values))

    def go_on(self) -> None:
        if (self.task is None or self.task.done()) and self.left:
            if self.task is not None:
                self.task.result()
            self.task = asyncio.get_running_loop().create_task(_run(self.left.pop(0), self))

    @property
    def is_idle(self) -> bool:
        return (self.task is None or self.task.done()) and not self.left


async def _run(step: Step, side: Side) -> None:
    await step(side)


async def begin(side: Side) -> None:
    await side.fetch("BEGIN")


async def end(side: Side) -> None:
    await side.fetch("COMMIT")


# A commit of the owner whose epoch is 1: checkpoint 3.


async def store(side: Side) -> None:
    side.told["stored"] = await side.fetch(journal.COMMIT, 0, 3, 1, 1, 1, b"new") != []


async def acknowledge(side: Side) -> None:
    await end(side)
    side.told["acknowledged"] = side.told["stored"]


COMMIT: Sequence[Step] = (begin, store, acknowledge)


# A take-over, and what it reads.


async def raise_epoch(side: Side) -> None:
    [(side.told["epoch"],)] = await side.fetch(TAKE, 0)


async def fence(side: Side) -> None:
    [(settled, _, _)] = await side.fetch(FENCE, 0, side.told["epoch"])
    side.told["settled"] = settled


async def read_tail(side: Side) -> None:
    rows = await side.fetch(journal.TAIL, 0, side.told["settled"])
    side.told["tail"] = [row[0] for row in rows]


TAKE_OVER: Sequence[Step] = (begin, raise_epoch, fence, end, read_tail)


# A round of folding, of the owner whose epoch is 1: checkpoint 1 and 2.


async def gate(side: Side) -> None:
    side.told["folds"] = await side.fetch(GATE, 0, 1, 0, 2, 1, 1) != []


async def clear(side: Side) -> None:
    if side.told["folds"]:
        await side.fetch(CLEAR, 0, 2)


FOLD: Sequence[Step] = (begin, gate, clear, end)


def merges(one: int, other: int) -> Iterator[list[int]]:
    """Give each order in which the steps of two can come: whose turn it is."""
    for places in combinations(range(one + other), one):
        yield [0 if place in places else 1 for place in range(one + other)]


class Arena:
    """Where two meet, again and again."""

    def __init__(self, place: Place, connections: Sequence[Connection]) -> None:
        self._quoted = place.quoted
        self._judge = Side(connections[0], self._quoted)
        self._connections = connections[1:]

    async def meet(self, one: Sequence[Step], other: Sequence[Step]) -> int:
        """Have two meet in each order, and look after each; gives how often one waited.

        Raises:
            Breach: an invariant does not hold after one of them.
        """
        waits = 0
        for order in merges(len(one), len(other)):
            await self._judge.fetch("DELETE FROM {s}.journal")
            await self._judge.fetch("UPDATE {s}.partition SET epoch = 1")
            await self._judge.fetch("UPDATE {s}.folded SET epoch = 1, settled = 0")
            await self._judge.fetch(
                "INSERT INTO {s}.journal SELECT 0, n, 1, 1, 1, 'old' FROM generate_series(1, 2) n"
            )
            sides = [Side(connection, self._quoted) for connection in self._connections]
            steps = [iter(one), iter(other)]
            for turn in order:
                sides[turn].left.append(next(steps[turn]))
                waits += await self._settle(sides)
            async with asyncio.timeout(SOON_S):
                while not all(side.is_idle for side in sides):
                    await self._settle(sides)
            for side in sides:
                assert side.task is not None
                side.task.result()
            await self._check(sides[0].told | sides[1].told, order)
            taken = sorted(side.told["epoch"] for side in sides if "epoch" in side.told)
            [(epoch,)] = await self._judge.fetch("SELECT epoch FROM {s}.partition")
            if taken != [*range(2, epoch + 1)]:
                raise Breach(f"{order}: epochs {taken} were given, and the last is {epoch}")
        return waits

    async def _settle(self, sides: list[Side]) -> bool:
        """Go on until each has done its steps or waits for a lock; gives whether one waits."""
        while True:
            for side in sides:
                side.go_on()
            busy = [side for side in sides if not side.is_idle]
            if not busy:
                return False
            await asyncio.wait([side.task for side in busy if side.task is not None], timeout=0.003)
            waiting = [
                side
                for side in busy
                if side.task is not None
                and not side.task.done()
                and (await self._judge.fetch("SELECT pg_blocking_pids($1) <> '{}'", side.pid))[0][0]
            ]
            if waiting and all(side in waiting or side.is_idle for side in sides):
                return True

    async def _check(self, told: dict[str, Any], order: list[int]) -> None:
        rows = await self._judge.fetch("SELECT sequence, epoch FROM {s}.journal ORDER BY sequence")
        [(epoch,)] = await self._judge.fetch("SELECT epoch FROM {s}.partition")
        [(settled,)] = await self._judge.fetch("SELECT settled FROM {s}.folded")
        sequences = [row[0] for row in rows]
        epochs = [row[1] for row in rows]
        if sequences != [*range(settled + 1, settled + 1 + len(rows))]:
            raise Breach(f"{order}: behind {settled} there is {sequences}")
        if epochs != sorted(epochs) or (epochs and epochs[-1] > epoch):
            raise Breach(f"{order}: epochs {epochs}, and the partition's is {epoch}")
        if "stored" in told and told["acknowledged"] != (3 in sequences):
            raise Breach(f"{order}: acknowledged is {told['acknowledged']}, stored {sequences}")
        if "tail" in told:
            seen = [*range(1, told["settled"] + 1), *told["tail"]]
            if seen != [*range(1, settled + 1), *sequences] or settled != told["settled"]:
                raise Breach(f"{order}: who took over saw {seen}, and there is {sequences}")


@pytest.fixture
async def arena(postgres: str) -> AsyncIterator[Arena]:
    place = read_place(postgres)
    made = PostgresStore(postgres)
    await made.open(1)
    connections = [await connect(place) for _ in range(3)]
    yield Arena(place, connections)
    for connection in connections:
        await connection.close()
    await made.close()


async def test_a_commit_and_a_take_over(arena: Arena) -> None:
    assert await arena.meet(COMMIT, TAKE_OVER) > 0


async def test_a_round_of_folding_and_a_take_over(arena: Arena) -> None:
    assert await arena.meet(FOLD, TAKE_OVER) > 0


async def test_a_commit_never_waits_for_a_round_of_folding(arena: Arena) -> None:
    assert await arena.meet(COMMIT, FOLD) == 0


async def test_of_two_that_take_over_one_comes_after_the_other(arena: Arena) -> None:
    assert await arena.meet(TAKE_OVER[:-1], TAKE_OVER[:-1]) > 0


async def test_without_the_share_lock_a_commit_would_be_lost(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMMIT", journal.COMMIT.replace(" FOR SHARE", ""))
    with pytest.raises(Breach, match="who took over saw"):
        await arena.meet(COMMIT, TAKE_OVER)


async def test_without_a_fence_in_what_is_committed_an_older_owner_would_commit(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMMIT", journal.COMMIT.replace("epoch = $3", "$3::bigint > 0"))
    with pytest.raises(Breach, match=r"who took over saw|epochs"):
        await arena.meet(COMMIT, TAKE_OVER)


async def test_without_a_fence_in_what_is_folded_an_older_owner_would_fold(arena: Arena) -> None:
    async def gate_without(side: Side) -> None:
        sql = GATE.replace("epoch = $2", "$2::bigint > 0")
        side.told["folds"] = await side.fetch(sql, 0, 1, 0, 2, 1, 1) != []

    with pytest.raises(Breach, match="who took over saw"):
        await arena.meet((begin, gate_without, clear, end), TAKE_OVER)
