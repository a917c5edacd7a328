"""A hub that goes from a folder to a schema while it serves, partition by partition.

One process owns the folder, and serves each partition from the one store or the other. What is told
of each step is durable, so it may die at any moment; the next one that opens the folder goes on.

1. The schema gets a mark, ``coming``: other processes refuse it, until all has ended.
2. The folder gets a mark, ``moving``: whoever opens it asks the schema which partitions that has.
3. For each partition, while it is served: what it has is copied as of one moment, and what it
   commits from then on follows, to the journal there, and from there to the tables.
4. It stops, as for any move; the rest follows, and one statement makes it valid in the schema: the
   point of no return. It goes on from there.
5. When all have come, and the process ends in order, the schema is valid as a whole and the folder
   says where the hub is.

Invariants:

* A partition is valid in the folder unless the schema says, under the token of both marks, that it
  is there.
* It is said only when the schema has the last checkpoint that the folder has, and while no turn is
  taken.
* Whatever an earlier try has under way does nothing: each has an epoch of its own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from contextvars import Context
from typing import Any, Final, TypeVar

from anyio import CancelScope, to_thread
from attrs import define

from ..actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreMovedError,
    UnavailableError,
    UsageError,
)
from ..actors.logs import Log
from . import migration
from .bridge import ApartBridge
from .encoding import next_numbers
from .marks import COMING, GONE, HERE, MOVING, Mark
from .migration import Content, Portion, Standing, check_same, check_target
from .postgres.journal import pack
from .postgres.migration import MovablePostgres
from .postgres.place import read_place
from .postgres.store import PostgresStore
from .protocol import PartitionStore, Store
from .slices import at_once
from .sqlite.followed import FollowedPartition, Trail
from .sqlite.marks import read_mark, write_mark
from .sqlite.migration import MovableSqlite
from .sqlite.store import SqlitePartition, SqliteStore

NEAR: Final = 500
"""Checkpoints behind, from which on commits wait for what follows."""
NEAR_ROUNDS: Final = 100
"""Rounds after which they wait in any case: else it might never come near."""
CLOSE: Final = 20
"""Checkpoints that are still to follow when a partition may stop."""
FOLLOW_S: Final = 0.02
"""Seconds between two looks for what a partition has committed."""
ASK_S: Final = 1.0
"""Seconds between two questions to a schema that does not answer."""
ENTRIES_SIZE: Final = 4 * 1024 * 1024
"""Bytes of checkpoints that follow at once."""

_T = TypeVar("_T")

_log = Log("perdure.storage")


@define
class _Try:
    """One try to bring a partition over.

    Attributes:
        number: which one.
        served: the partition, as it is served.
        epoch: of the try, in the schema.
        trail: what it commits.
        follows: brings that to the schema's journal, while much else is copied.
        is_close: whether that is done step by step from now on.
        forwarded: the last checkpoint that the schema has, in its journal or its tables.
    """

    number: int
    served: FollowedPartition
    epoch: int
    trail: Trail
    follows: asyncio.Task[None] | None = None
    is_close: bool = False
    forwarded: int = -1


class MigratingStore:
    """A folder and a schema that have one hub together.

    Args:
        source: the folder.
        target: the schema: ``postgresql://...``.
        is_shared: whether several event loops use it.

    Attributes:
        partitions: all of them, each where it is valid.
        moved: the numbers of those that are valid in the schema.
    """

    def __init__(self, source: SqliteStore, target: str, *, is_shared: bool) -> None:
        self.source = source
        # What takes long, and much of the processor, is done in a thread of its own.
        self._bridge = ApartBridge()
        self._here = MovableSqlite(source.location)
        self._there = MovablePostgres(target)
        self._there.rests = True
        self._journal = MovablePostgres(target)  # the same by another connection
        self._store = PostgresStore(target)
        if is_shared:
            self._store.bridge = ApartBridge()
        self._main = source.path / "partition-00.sqlite"
        self._token = ""
        self._try: _Try | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left: list[SqlitePartition] = []
        self.partitions: list[PartitionStore] = []
        self.moved: set[int] = set()

    @property
    def durability(self) -> str:
        """How durable a commit is, in words for people: where partitions go."""
        return self._store.durability

    @property
    def location(self) -> str:
        """Where the hub goes, without a password."""
        return self._there.location

    def check_target(self, target: str) -> None:
        """Refuse another target than this one.

        Raises:
            StoreMovedError: it is another.
        """
        place = read_place(target)
        if place.location != self.location:
            raise StoreMovedError(
                f"the hub is on its way to {self.location}, and goes nowhere else before it is there"
            )

    async def _run(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        async def begin() -> _T:
            # What it uses of anyio would take it for the caller's loop, by the caller's context.
            task = asyncio.get_running_loop().create_task(call(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await task

        return await self._bridge.run(begin)

    # The hub as a whole.

    async def begin(self) -> None:
        """Begin to move the hub of a folder that is open; from now on the next start goes on with it.

        Raises:
            StoreInUseError: the schema has a hub already.
            StoreMovedError: it leaves from there, or the folder's is on its way elsewhere.
            StorageError: the schema cannot be reached, or made.
        """
        await self._run(self._begin)
        await self._open()

    async def _begin(self) -> None:
        hub, there = await self._here.look_within(), await self._there.look()
        source, target = self._here.location, self._there.location
        if hub.mark is not None:
            if there is not None and there.mark == Mark(COMING, hub.mark.token, source):
                self._token = hub.mark.token  # it had begun, and did not get far
                return
            hub.mark.refuse(source)
        check_target(hub, there, source, target)
        token = uuid.uuid4().hex
        await self._there.begin(hub, Mark(COMING, token, source))
        migration.reached("begun")
        await to_thread.run_sync(write_mark, self._main, Mark(MOVING, token, target))
        migration.reached("marked")
        self._token = token

    async def open(self, partitions: int) -> list[PartitionStore]:
        """Open the folder of a hub that was moving when its last owner ended.

        Raises:
            StoreMovedError: all of it had come over: where it is.
            StorageError: the folder cannot be opened, or the schema cannot be reached.
        """
        mark = await to_thread.run_sync(read_mark, self._main)
        assert mark is not None
        self._token = mark.token
        await self.source.open(partitions, token=mark.token)
        gone = await self._run(self._look_again)
        if gone is not None:
            raise StoreMovedError(gone.words(self._here.location))
        await self._open()
        return self.partitions

    async def _look_again(self) -> Mark | None:
        """Look how far it is; gives the mark of the folder that all has left."""
        hub, there = await self._here.look_within(), await self._there.look()
        if there is None or there.mark is None or there.mark.token != self._token:
            raise StoreDamagedError(
                f"{self._there.location} does not have what {self._here.location} says that it has "
                "partitions of its hub: bring back what was there, or give up what had moved by "
                "restoring a copy of the folder"
            )
        if (
            there.mark.state == HERE
            or len(await self._there.arrived(self._token)) == hub.partitions
        ):
            return await self.finish()
        return None

    async def _open(self) -> None:
        """Give each partition where it is."""
        arrived = await self._run(lambda: self._there.arrived(self._token))
        there = await self._store.open(0, token=self._token)
        self.moved = set(arrived)
        self.partitions = [
            there[number] if number in self.moved else here
            for number, here in enumerate(self.source.partitions)
        ]

    async def finish(self) -> Mark:
        """Say in both stores that all has come; for asyncio. Gives the folder's mark."""
        there = await self._there.look()
        if there is None or there.mark is None or there.mark.state != HERE:
            await self._there.arrive(self._token)
            migration.reached("arrived")
        gone = Mark(GONE, self._token, self._there.location)
        await to_thread.run_sync(write_mark, self._main, gone)
        migration.reached("buried")
        return gone

    async def close(self) -> None:
        """Give both up; the hub is the schema's as a whole if all of it has come. Idempotent."""
        with CancelScope(shield=True):
            try:
                await self.release()
            finally:
                await self.put_away()
                await self.source.close()

    async def release(self) -> None:
        """Give the schema up alone, with what is under way there."""
        with CancelScope(shield=True):
            try:
                await self._run(self._stop)
                await self._store.close()
                if self.partitions and len(self.moved) == len(self.partitions):
                    await self._run(self.finish)
            finally:
                self.partitions = []
                await self._run(self._close)
                await to_thread.run_sync(self._bridge.close)

    async def _stop(self) -> None:
        me = asyncio.current_task()
        under_way = [task for task in self._tasks if task is not me]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._give_up()

    async def _close(self) -> None:
        for end in (self._there, self._journal):
            await end.close()

    # One partition.

    def follow(self, number: int) -> FollowedPartition:
        """Give a partition of the folder anew, so that it can be followed; it is to be served next."""
        followed = self.source.partition(number, FollowedPartition)
        self._left.append(self.source.partitions[number])
        self.partitions[number] = self.source.partitions[number] = followed
        return followed

    def is_followed(self, number: int) -> bool:
        """Whether a partition is one that ``follow`` gave."""
        return isinstance(self.partitions[number], FollowedPartition)

    async def put_away(self) -> None:
        """Close what is not served any more."""
        while self._left:
            try:
                await self._left.pop().close()
            except StorageError as error:
                _log.warning("a partition that has moved is not closed in order: %s", error)

    async def settle(self) -> None:
        """Do what is left to do when all have come, while they are served."""
        await self._run(self._there.analyze)

    async def copy(self, number: int, tell: Callable[[int], None]) -> None:
        """Bring a partition over that is served, until hardly anything is left to follow.

        Args:
            number: a partition that ``follow`` gave, and that is served since.
            tell: is told how many rows have been copied; in any thread.

        Raises:
            StorageError: it did not work, and goes on as it was.
        """
        served = self.partitions[number]
        assert isinstance(served, FollowedPartition)
        await self._run(lambda: self._copy(number, served, tell))

    async def _copy(
        self, number: int, served: FollowedPartition, tell: Callable[[int], None]
    ) -> None:
        await self._give_up()
        standing = await self._here.standing(number)
        epoch = await self._there.begin_one(number, standing.epoch)
        one = self._try = _Try(number, served, epoch, served.follow())
        one.follows = asyncio.get_running_loop().create_task(self._follow(one))
        try:
            await served.apply()
            async with self._here.snapshot(number) as (standing, portions):
                await self._load(one, standing, portions, tell)
                one.forwarded = max(one.forwarded, standing.sequence)
            migration.reached(f"copied {number}")
            await self._come_near(one)
            await self._come_close(one)
        except BaseException:
            await self._give_up()
            raise

    async def _come_near(self, one: _Try) -> None:
        """Fold what has followed, until that is not much any more, or does not get less."""
        for _ in range(NEAR_ROUNDS):
            self._check(one)
            folded = await self._there.fold_one(one.number, one.epoch)
            if one.served.sequence - folded <= NEAR:
                return
            await asyncio.sleep(FOLLOW_S)

    async def _come_close(self, one: _Try) -> None:
        """Follow step by step, while no more is committed than does so, until hardly any is left."""
        one.trail.most = CLOSE
        await self._end_following(one)
        while True:
            self._check(one)
            await self._forward(one)
            await self._fold(one)
            if one.served.sequence - one.forwarded <= CLOSE:
                break
        one.trail.most = None  # what stops it commits, and must not wait

    async def _end_following(self, one: _Try) -> None:
        follows, one.follows = one.follows, None
        one.is_close = True  # what it is in the middle of comes first
        if follows is not None:
            await follows

    async def _fold(self, one: _Try) -> None:
        """Fold all that was forwarded."""
        folded = -1
        while folded < one.forwarded:
            last, folded = folded, await self._there.fold_one(one.number, one.epoch)
            if folded <= last:
                raise _missing(one, folded + 1)

    async def _load(
        self,
        one: _Try,
        standing: Standing,
        portions: AsyncIterator[Portion],
        tell: Callable[[int], None],
    ) -> None:
        number, content = one.number, Content()
        source, target = self._here.location, self._there.location

        async def told() -> AsyncGenerator[Portion]:
            rows = 0
            async for portion in portions:
                self._there.check(portion, source)
                content.add(portion)
                yield portion
                rows += portion.rows
                tell(rows)
                migration.reached(f"copying {number}")

        def check(there: Content) -> None:
            check_same(number, content, there, source, target)

        async with aclosing(told()) as given:
            await self._there.load_one(number, one.epoch, standing, given, check)

    async def _follow(self, one: _Try) -> None:
        """Bring what a partition commits to the schema's journal."""
        try:
            while not (one.trail.is_lost or one.is_close):
                await self._forward(one)
                await asyncio.sleep(FOLLOW_S)
        except BaseException:
            one.trail.lose()  # commits must not wait for what does not come
            raise

    async def _forward(self, one: _Try) -> None:
        entries: list[tuple[int, int, int, bytes]] = []
        size = 0
        for checkpoint in one.trail.take():
            body = at_once(pack(checkpoint))
            entries.append((checkpoint.sequence, *next_numbers(checkpoint), body))
            size += len(body)
            if size >= ENTRIES_SIZE:
                await self._journal.forward(one.number, one.epoch, entries)
                one.forwarded, entries, size = checkpoint.sequence, [], 0
        if entries:
            await self._journal.forward(one.number, one.epoch, entries)
            one.forwarded = entries[-1][0]

    def _check(self, one: _Try) -> None:
        """Refuse to go on with a try that has lost its track.

        Raises:
            StorageError: it has.
        """
        if one.follows is not None and one.follows.done() and not one.follows.cancelled():
            error = one.follows.exception()
            if error is not None:
                raise error
        if one.trail.is_lost:
            raise UnavailableError(
                f"partition {one.number} recovered while it was copied: it is copied anew"
            )

    async def _give_up(self) -> None:
        """Let go of the try under way, if there is one: the partition is valid where it was."""
        one, self._try = self._try, None
        if one is None:
            return
        one.trail.lose()
        if one.follows is not None:
            one.follows.cancel()
            await asyncio.gather(one.follows, return_exceptions=True)

    async def switch(self, number: int) -> bool:
        """Make a partition valid in the schema, which was copied, and is not served now.

        Returns:
            Whether it is valid there; else it is valid where it was. Either way ``partitions`` has it.
        """
        if not await self._run(lambda: self._switch(number)):
            return False
        self.moved.add(number)
        self._left.append(self.source.partitions[number])
        self.partitions[number] = self._store.partitions[number]
        return True

    async def _switch(self, number: int) -> bool:
        one = self._try
        if one is None or one.number != number:
            return False
        last = one.served.sequence
        try:
            self._check(one)
            await self._forward(one)
            if one.forwarded != last:
                raise _missing(one, last)
            await self._fold(one)
        except Exception as error:
            _log.warning("partition %d has not moved yet: %s", number, error)
            await self._give_up()
            return False
        migration.reached(f"followed {number}")
        try:
            await self._there.arrive_one(number, one.epoch, last, self._token)
            arrived = True
        except Exception as error:
            _log.warning("it is not known yet whether partition %d has moved: %s", number, error)
            arrived = await self._has_arrived(number)
        migration.reached(f"arrived {number}")
        await self._give_up()
        return arrived

    async def _has_arrived(self, number: int) -> bool:
        """Ask the schema until it answers: nobody may serve the partition before."""
        while True:
            try:
                return await self._there.has_arrived(number, self._token)
            except StorageError as error:
                _log.error("partition %d waits to know where it is: %s", number, error)
                await asyncio.sleep(ASK_S)


def _missing(one: _Try, sequence: int) -> UnavailableError:
    return UnavailableError(f"checkpoint {sequence} of partition {one.number} has not come over")


async def begun(store: Store, target: str, *, is_shared: bool) -> MigratingStore:
    """Begin to move a hub that has a store open; see ``MigratingStore.begin``.

    Raises:
        UsageError: it is no folder, or the target is no database.
    """
    if not isinstance(store, SqliteStore):
        raise UsageError(
            "only a hub on sqlite:PATH goes to another store while it serves: one in memory is gone "
            "when it ends"
        )
    made = MigratingStore(store, target, is_shared=is_shared)
    try:
        await made.begin()
    except BaseException:
        await made.release()
        raise
    return made


async def reopened(store: Store, partitions: int, *, is_shared: bool) -> MigratingStore | None:
    """Give a store with its hub, which was moving while it served; None if it was not.

    Raises:
        StorageError: it cannot be opened.
    """
    if not isinstance(store, SqliteStore):
        return None
    main = store.path / "partition-00.sqlite"
    mark = await to_thread.run_sync(read_mark, main)
    if mark is None or mark.state != MOVING:
        return None
    made = MigratingStore(store, mark.place, is_shared=is_shared)
    try:
        await made.open(partitions)
    except BaseException:
        with CancelScope(shield=True), suppress(StorageError):
            await made.close()
        raise
    return made
