"""A hub that does not run, from one store to another: all of it, and valid in one of them.

What is told of each step is durable, so the process may die at any moment; the same command again
finishes what is left.

1. The target gets a mark, ``coming``: hubs refuse it.
2. Each partition comes over in one transaction, and only if what can be read there afterwards is
   what the source has.
3. The source gets a mark, ``leaving``: hubs refuse it, too.
4. One statement makes the target valid: the point of no return.
5. The mark of the source says that the hub is gone.

Invariants:

* Before 3 the source is valid, from 4 on the target; no hub can open the other one.
* Nothing is written before the source was read as a whole, but what its next start would write.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from contextvars import Context
from hashlib import blake2b
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from anyio import to_thread
from attrs import Factory, define, evolve, frozen

from ..actors.errors import (
    StoreDamagedError,
    StoreInUseError,
    StoreMovedError,
    UnavailableError,
    UsageError,
)
from .bridge import AsyncioBridge
from .marks import COMING, GONE, HERE, LEAVING, MOVING, Mark, command
from .records import Checkpoint

#: The parts of a checkpoint that have rows, and the tables that these are in.
PARTS: Final = {
    "created": "instance_row",
    "progress": "instance_row",
    "history": "history_row",
    "entities": "entity_row",
    "mail": "mail_row",
    "timers": "timer_row",
    "outbox": "outbox_row",
    "peers": "peer_row",
    "requests": "request_row",
    "activities": "activity_row",
}
DAMAGED: Final = "damaged_row"
"""The table of copies of rows that nobody can read."""

PORTION_ROWS: Final = 250
"""Rows that come over at once: to encode, decode and hash them holds an event loop meanwhile."""
PORTION_SIZE: Final = 1024 * 1024
"""Bytes of them, about."""
_REST_MAX_S: Final = 0.2

_T = TypeVar("_T")


class DamagedRow(NamedTuple):
    """A copy of a row that nobody could read; its values are each a kind and what is stored.

    A kind is one of SQLite's: ``null``, ``integer``, ``real``, ``text`` or ``blob``; a text is
    given as its bytes, which may be no UTF-8.
    """

    table: str
    row: int
    at: int
    reason: str
    actor: tuple[str, Any]
    due: tuple[str, Any]
    target: tuple[str, Any]
    last: tuple[str, Any]
    body: tuple[str, Any]


@frozen
class Portion:
    """Some rows of a partition: those of a checkpoint, and copies of damaged ones."""

    checkpoint: Checkpoint
    damaged: list[DamagedRow] = Factory(list[DamagedRow])

    @property
    def rows(self) -> int:
        """How many there are."""
        parts = (part for part in PARTS if part != "progress")
        return sum(len(getattr(self.checkpoint, part)) for part in parts) + len(self.damaged)


class Standing(NamedTuple):
    """How far a partition has come."""

    epoch: int
    sequence: int
    next_id: int
    next_row: int


@frozen
class Found:
    """The hub that a store has.

    Attributes:
        hub: its id.
        partitions: how many it has.
        created: when it was made.
        mark: that it moves, or has come from elsewhere.
    """

    hub: str
    partitions: int
    created: int
    mark: Mark | None

    @property
    def is_valid(self) -> bool:
        """Whether hubs may open it."""
        return self.mark is None or self.mark.state == HERE


@define
class Content:
    """How many rows a partition has, and a hash of them, for each table; whatever the store."""

    counts: dict[str, int] = Factory(dict[str, int])
    _hashes: dict[str, Any] = Factory(dict[str, Any])

    def add(self, portion: Portion) -> None:
        """Add the next rows; each kind comes in the order of its numbers, or names."""
        for part, table in PARTS.items():
            rows: list[Any] = getattr(portion.checkpoint, part)
            if part != "progress":
                self.counts[table] = self.counts.get(table, 0) + len(rows)
            self._add(part, rows)
        self.counts[DAMAGED] = self.counts.get(DAMAGED, 0) + len(portion.damaged)
        self._add(DAMAGED, portion.damaged)

    def _add(self, part: str, rows: Iterable[Any]) -> None:
        known = self._hashes.get(part)
        if known is None:
            known = self._hashes[part] = blake2b(digest_size=16)
        for row in rows:
            known.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))

    def differing(self, other: Content) -> list[str]:
        """Name the tables that are not the same in another one."""
        tables = [*dict.fromkeys((*PARTS.values(), DAMAGED))]
        return [table for table in tables if self._of(table) != other._of(table)]

    def _of(self, table: str) -> tuple[int, list[str]]:
        parts = [part for part, its in (*PARTS.items(), (DAMAGED, DAMAGED)) if its == table]
        empty = blake2b(digest_size=16)
        hashes = [self._hashes.get(part, empty).hexdigest() for part in parts]
        return self.counts.get(table, 0), hashes


class Movable(Protocol):
    """A store as one end of a migration; it is used on asyncio."""

    @property
    def location(self) -> str:
        """What names it, without a password."""
        ...

    async def look(self) -> Found | None:
        """See which hub is there, and keep others from it where that can be done.

        Raises:
            StoreInUseError: a hub has it open.
        """
        ...

    async def unsettled(self, found: Found) -> list[int]:
        """Name the partitions whose tables may lack what was committed."""
        ...

    async def settle(self, found: Found) -> None:
        """Bring all that was committed into the tables, as the next start would."""
        ...

    async def standing(self, partition: int) -> Standing:
        """Say how far a partition has come."""
        ...

    def portions(self, partition: int) -> AsyncGenerator[Portion]:
        """Give all rows of a settled partition, as of one moment; see ``Content.add``.

        Raises:
            StoreDamagedError: a row cannot be read: which.
        """
        ...

    def check(self, portion: Portion, source: str) -> None:
        """Refuse rows that this store cannot hold.

        Raises:
            StorageError: there is one: which.
        """
        ...

    async def begin(self, hub: Found, mark: Mark) -> None:
        """Make the store of a hub that comes, or mark the one there; hubs refuse it from now on."""
        ...

    async def arrived(self, token: str) -> list[int]:
        """Name the partitions that are valid here, of a hub that came while it served.

        Nobody serves one of them now, and whoever brought them brings no more.
        """
        ...

    async def has(self, partition: int, standing: Standing) -> bool:
        """Whether a partition has come over, by what it says of itself."""
        ...

    async def load(
        self,
        partition: int,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        """Replace all that a partition has, in one transaction.

        Args:
            partition: its number.
            standing: how far it has come.
            portions: its rows.
            check: is given what can be read afterwards; nothing is stored if it raises.
        """
        ...

    async def leave(self, mark: Mark, standings: list[Standing]) -> None:
        """Mark the store that the hub leaves; hubs refuse it from now on.

        Raises:
            StoreInUseError: a hub had it open meanwhile.
        """
        ...

    async def analyze(self) -> None:
        """Do what makes queries of what has come quick."""
        ...

    async def arrive(self, token: str) -> None:
        """Make the hub that has come valid, in one statement."""
        ...

    async def bury(self, mark: Mark) -> None:
        """Say that the hub is valid elsewhere."""
        ...

    async def close(self) -> None:
        """Let go of it. Idempotent."""
        ...


class Unhurried:
    """Something that may take its time.

    Attributes:
        rests: whether what takes long leaves half of the time to others of this process.
    """

    rests = False

    async def rest(self, since: float) -> float:
        """Leave the interpreter to others for as long as was worked since a moment; gives a new one."""
        if self.rests:
            await asyncio.sleep(min(monotonic() - since, _REST_MAX_S))
        return monotonic()


@frozen
class Progress:
    """How far a migration is.

    Attributes:
        step: what it does, in words.
        done: how many partitions this is done with.
        partitions: how many there are.
        rows: how many rows were read or written in this step.
    """

    step: str
    done: int
    partitions: int
    rows: int


@frozen
class Migrated:
    """What came of a migration.

    Attributes:
        hub: the id of the hub, the same as before.
        source: where it was.
        target: where it is.
        partitions: how many it has.
        counts: how many rows, of each table; none where it had ended before.
        had_ended: whether there was nothing left to do.
    """

    hub: str
    source: str
    target: str
    partitions: int
    counts: dict[str, int]
    had_ended: bool = False


@frozen
class Difference:
    """A table of a partition that two stores have not alike."""

    partition: int
    table: str
    rows: tuple[int, int]


def _ignore(progress: Progress) -> None:
    del progress


Tell = Callable[[Progress], None]


def reached(step: str) -> None:
    """Is called between any two steps, for tests that end the process there."""
    del step


async def migrate(source: str, target: str, tell: Tell = _ignore) -> Migrated:
    """Move a hub that does not run from one store to another, or finish that.

    Args:
        source: the store that has it, as ``sqlite:PATH`` or ``postgresql://...``.
        target: the store that gets it: an empty one, or one that it had left.
        tell: is told how far it is.

    Raises:
        UsageError: one of them is no such store, or both are the same.
        UnavailableError: there is no hub in the source.
        StoreInUseError: a hub has one of them open, or the target has a hub already.
        StoreMovedError: the hub has gone elsewhere, or is on its way there.
        StoreDamagedError: a row of the source cannot be read, or did not come over as it was.
    """
    return await _with_both(source, target, lambda one, other: _Migration(one, other, tell).run())


async def finish(source: str, target: str) -> bool:
    """Finish what a process has left that served the hub while it moved, where all of it has come.

    Args:
        source: the folder that the target names; False where it is not on this host.
        target: the store that has all.

    Returns:
        Whether the target is valid now. It is not where something has not come, or where that
        process may still serve it.
    """
    if not source.startswith("sqlite:"):
        return False
    try:
        return await _with_both(source, target, _finish)
    except StoreInUseError:
        return False  # it serves


async def compare(source: str, target: str, tell: Tell = _ignore) -> list[Difference]:
    """Compare what two stores have of one hub, neither of which is open; nothing is changed.

    Raises:
        UnavailableError: one has no hub, or one that did not stop in order.
        StoreInUseError: a hub has one of them open, or they have not the same hub.
        StoreDamagedError: a row cannot be read.
    """
    return await _with_both(source, target, lambda one, other: _compare(one, other, tell))


async def _with_both(
    source: str, target: str, work: Callable[[Movable, Movable], Coroutine[Any, Any, _T]]
) -> _T:
    ends = [open_end(source), open_end(target)]
    if ends[0].location == ends[1].location:
        raise UsageError(f"source and target are both {ends[0].location}")
    bridge = AsyncioBridge()

    async def run() -> _T:
        try:
            return await work(*ends)
        finally:
            for end in ends:
                await end.close()

    async def begin() -> _T:
        # What it uses of anyio would take it for the caller's loop, by the caller's context.
        return await asyncio.get_running_loop().create_task(run(), context=Context())

    try:
        return await bridge.run(begin)
    finally:
        await to_thread.run_sync(bridge.close)


def open_end(place: str) -> Movable:
    """Make what a hub is moved from or to.

    Raises:
        UsageError: a place is none of a store that keeps hubs.
    """
    if place.startswith(("postgresql://", "postgres://")):
        from .postgres.migration import MovablePostgres

        return MovablePostgres(place)
    if place.startswith("sqlite:") and place != "sqlite:":
        from .sqlite.migration import MovableSqlite

        return MovableSqlite(place)
    raise UsageError(
        f"{place!r} is no store that a hub can be moved from or to: give sqlite:PATH, or "
        "postgresql://HOST/DATABASE"
    )


async def _there(end: Movable) -> Found:
    found = await end.look()
    if found is None:
        raise UnavailableError(f"there is no hub in {end.location}")
    return found


def check_target(hub: Found, there: Found | None, source: str, target: str) -> None:
    """Refuse what is in a target, if a hub must not come there.

    Raises:
        StoreInUseError: another hub is, or this one is valid there.
        StoreMovedError: this one leaves it.
        StoreDamagedError: it is another one in fact.
    """
    if there is None:
        return
    if there.hub != hub.hub:
        raise StoreInUseError(
            f"{target} has another hub ({there.hub}, not {hub.hub}): give a store that is empty"
        )
    if there.partitions != hub.partitions:
        raise StoreDamagedError(
            f"{target} says that the hub has {there.partitions} partitions, and {source} says "
            f"{hub.partitions}"
        )
    if there.mark is not None and there.mark.state in (LEAVING, MOVING):
        raise StoreMovedError(there.mark.words(target))
    if there.is_valid:
        raise StoreInUseError(
            f"{target} and {source} both have this hub, and neither says that it went to the other: "
            "one is a copy, so remove that, or give another"
        )


@define
class _Migration:
    """One run of the command."""

    source: Movable
    target: Movable
    tell: Tell
    _standings: list[Standing] = Factory(list[Standing])
    _contents: list[Content] = Factory(list[Content])
    _arrived: list[int] = Factory(list[int])  # while the hub served

    async def run(self) -> Migrated:
        hub = await _there(self.source)
        try:
            there = await self.target.look()
        except StoreInUseError:
            known = hub.mark
            if known is None or known != Mark(GONE, known.token, self.target.location):
                raise
            return self._migrated(hub, had_ended=True)  # and somebody serves it there
        mark = self._mark(hub, there)
        is_gone = hub.mark is not None and hub.mark.state == GONE
        has_arrived = there is not None and there.mark == evolve(
            mark, state=HERE, place=there.mark.place if there.mark else ""
        )
        if is_gone and has_arrived:
            return self._migrated(hub, had_ended=True)
        if is_gone:
            raise StoreMovedError(mark.words(self.source.location))
        if not has_arrived:
            check_target(hub, there, self.source.location, self.target.location)
            await self._bring(hub, mark)
            await self.target.analyze()
            await self.target.arrive(mark.token)
            reached("arrived")
        await self.source.bury(evolve(mark, state=GONE))
        reached("buried")
        return self._migrated(hub)

    def _mark(self, hub: Found, there: Found | None) -> Mark:
        """Give the mark of the source, as it is or will be.

        Raises:
            StoreMovedError: it is on its way elsewhere, or from elsewhere.
        """
        known = hub.mark
        if known is None or known.state == HERE:
            return Mark(LEAVING, uuid.uuid4().hex, self.target.location)
        if known.state != COMING:
            if there is not None and there.mark is not None and there.mark.token == known.token:
                return evolve(known, state=LEAVING) if known.state == MOVING else known
            if there is None and known == Mark(LEAVING, known.token, self.target.location):
                return known  # somebody has removed the target before it was valid
        raise StoreMovedError(known.words(self.source.location))

    async def _bring(self, hub: Found, mark: Mark) -> None:
        """Bring all over; both ends are refused by hubs afterwards, and say the same."""
        source, target = self.source, self.target
        await source.settle(hub)
        reached("settled")
        if hub.mark is not None and hub.mark.state == MOVING:
            self._arrived = await target.arrived(mark.token)
        await self._read_all(hub)
        await target.begin(hub, Mark(COMING, mark.token, source.location))
        reached("begun")
        rows = 0
        for number in range(hub.partitions):
            rows += await self._bring_one(number, hub.partitions, rows)
            reached(f"brought {number}")
        await source.leave(mark, self._standings)
        reached("left")

    async def _read_all(self, hub: Found) -> None:
        """Read the source once: what cannot be read there, or kept, is found before all else."""
        rows = 0
        for number in range(hub.partitions):
            self._standings.append(await self.source.standing(number))
            content = Content()
            if number in self._arrived:
                self._contents.append(content)
                continue
            async with aclosing(self.source.portions(number)) as portions:
                async for portion in portions:
                    self.target.check(portion, self.source.location)
                    content.add(portion)
                    rows += portion.rows
                    self.tell(Progress("reads", number, hub.partitions, rows))
            self._contents.append(content)
            self.tell(Progress("reads", number + 1, hub.partitions, rows))

    async def _bring_one(self, number: int, partitions: int, before: int) -> int:
        standing, content = self._standings[number], self._contents[number]
        rows = 0
        if number in self._arrived:
            return rows

        async def told() -> AsyncIterator[Portion]:
            nonlocal rows
            async with aclosing(self.source.portions(number)) as portions:
                async for portion in portions:
                    yield portion
                    rows += portion.rows
                    reached(f"bringing {number}")
                    self.tell(Progress("brings", number, partitions, before + rows))

        def check(there: Content) -> None:
            check_same(number, content, there, self.source.location, self.target.location)

        if await self._has(number):
            rows = sum(content.counts.values())
        else:
            await self.target.load(number, standing, told(), check)
        self.tell(Progress("brings", number + 1, partitions, before + rows))
        return rows

    async def _has(self, number: int) -> bool:
        """Whether a partition is there, of an earlier run or of the time when the hub was there."""
        if not await self.target.has(number, self._standings[number]):
            return False
        return not self._contents[number].differing(await _content(self.target, number))

    def _migrated(self, hub: Found, *, had_ended: bool = False) -> Migrated:
        counts: dict[str, int] = {}
        for content in self._contents:
            for table, count in content.counts.items():
                counts[table] = counts.get(table, 0) + count
        return Migrated(
            hub.hub, self.source.location, self.target.location, hub.partitions, counts, had_ended
        )


def check_same(partition: int, content: Content, there: Content, source: str, target: str) -> None:
    """Refuse what came over otherwise than it was.

    Raises:
        StoreDamagedError: it did.
    """
    if tables := content.differing(there):
        raise StoreDamagedError(
            f"partition {partition} of {source} is not the same in {target}: {', '.join(tables)}; "
            "nothing of it was kept there"
        )


async def _content(end: Movable, partition: int) -> Content:
    content = Content()
    async with aclosing(end.portions(partition)) as portions:
        async for portion in portions:
            content.add(portion)
    return content


async def _finish(source: Movable, target: Movable) -> bool:
    hub, there = await source.look(), await target.look()
    if hub is None or there is None or hub.mark is None or there.mark is None:
        return False
    token = hub.mark.token
    if hub.mark.state != MOVING or (there.mark.state, there.mark.token) != (COMING, token):
        return False
    if len(await target.arrived(token)) < hub.partitions:
        return False
    await target.arrive(token)
    await source.bury(evolve(hub.mark, state=GONE))
    return True


async def _compare(source: Movable, target: Movable, tell: Tell) -> list[Difference]:
    hub, there = await _there(source), await _there(target)
    if (hub.hub, hub.partitions) != (there.hub, there.partitions):
        raise StoreInUseError(
            f"{source.location} and {target.location} have not the same hub: {hub.hub} with "
            f"{hub.partitions} partitions, and {there.hub} with {there.partitions}"
        )
    for end, its in ((source, hub), (target, there)):
        if await end.unsettled(its):
            raise UnavailableError(
                f"the hub of {end.location} did not stop in order, so its tables may lack what it "
                f"has committed: start and stop it, or finish with: "
                f"{command(source.location, target.location)}"
            )
    differences: list[Difference] = []
    rows = 0
    for number in range(hub.partitions):
        one, other = await _content(source, number), await _content(target, number)
        differences += [
            Difference(number, table, (one.counts.get(table, 0), other.counts.get(table, 0)))
            for table in one.differing(other)
        ]
        first, second = await source.standing(number), await target.standing(number)
        if first[1:] != second[1:]:
            differences.append(Difference(number, "meta", (first.sequence, second.sequence)))
        rows += sum(one.counts.values())
        tell(Progress("compares", number + 1, hub.partitions, rows))
    return differences


def unreadable(where: str, table: str, row: object, why: str) -> StoreDamagedError:
    """Give the error for a row that keeps a hub from moving."""
    return StoreDamagedError(
        f"{where}, table {table}, row {row}: {why}; repair or delete it, then repeat the command: "
        "nothing was changed"
    )
