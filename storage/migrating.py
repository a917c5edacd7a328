"""A hub that goes from a folder to a schema, or back, while it serves, partition by partition.

One process owns the folder, and serves each partition from the one store or the other; to leave a
schema it has to be the only one that serves it. What is told of each step is durable, so it may die
at any moment; the next one that opens the source goes on.

1. The target gets a mark, ``coming``: other processes refuse it, until all has ended.
2. The source gets a mark, ``moving``: whoever opens it asks the target which partitions that has.
   Of a schema the server refuses other members from now on.
3. For each partition, while it is served: what it has is copied as of one moment, and what it
   commits from then on follows, to the journal there, and from there to the tables.
4. It stops, as for any move; the rest follows, and one statement makes it valid in the target: the
   point of no return. It goes on from there.
5. When all have come, the target is valid as a whole and the source says where the hub is: of a
   folder, which keeps others out, at once; of a schema when this process ends in order.

Invariants:

* A partition is valid in the source unless the target says, under the token of both marks, that it
  is there.
* It is said only when the target has the last checkpoint that the source has, and while no turn is
  taken.
* Whatever an earlier try has under way does nothing: each has an epoch of its own, and a process
  that asks what has come ends them all.
* Only who owns the folder serves any of it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from anyio import CancelScope, to_thread
from attrs import define

from ..actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreInUseError,
    StoreMovedError,
    UnavailableError,
    UsageError,
)
from ..actors.logs import Log
from . import is_database, migration, open_store
from .bridge import ApartBridge
from .followed import Followed, FollowedPostgres, FollowedSqlite, Trail
from .marks import COMING, GONE, HERE, MOVING, Mark
from .migration import (
    Content,
    Found,
    Movable,
    Portion,
    Standing,
    check_same,
    check_target,
    open_end,
)
from .postgres.migration import MovablePostgres
from .postgres.store import PostgresPartition, PostgresStore
from .protocol import PartitionStore, Store
from .records import Checkpoint
from .sqlite.store import SqlitePartition, SqliteStore

if TYPE_CHECKING:
    from .membership import Membership
    from .postgres.members import PostgresMembership

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
_Entry = TypeVar("_Entry")

_log = Log("perdure.storage")


class Live(Movable, Protocol[_Entry]):
    """A store as one end of a migration while the hub serves; it is used on asyncio.

    Where it says so, a partition comes by *tries*, of which each has an epoch of its own.

    Attributes:
        rests: whether what takes long leaves half of the time to others of this process.
    """

    rests: bool

    # As the source.

    async def look_within(self) -> Found:
        """See which hub is there, for the process that has it open."""
        ...

    async def set_out(self, mark: Mark) -> None:
        """Mark the store that the hub leaves while this process alone serves it.

        Raises:
            StoreInUseError: others serve it, too.
        """
        ...

    def snapshot(
        self, partition: int
    ) -> AbstractAsyncContextManager[tuple[Standing, AsyncGenerator[Portion]]]:
        """Give how far a partition's tables are, and all rows of that moment, also if it is served."""
        ...

    # As the target.

    async def has_arrived(self, partition: int, token: str) -> bool:
        """Whether a partition is valid here: from now on no earlier try can make it so."""
        ...

    async def begin_one(self, partition: int, epoch: int) -> int:
        """Begin a try, and end those before; gives its epoch.

        Args:
            partition: which one comes.
            epoch: how often it was taken where it is.
        """
        ...

    async def load_one(
        self,
        partition: int,
        epoch: int,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        """Replace all that a partition has but its journal, in one transaction; see ``load``.

        Raises:
            LeaseLostError: there has been another try.
        """
        ...

    def entry(self, checkpoint: Checkpoint) -> tuple[_Entry, int]:
        """Give what ``forward`` takes of a checkpoint, and its bytes."""
        ...

    async def forward(self, partition: int, epoch: int, entries: list[_Entry]) -> None:
        """Put checkpoints into the journal.

        Raises:
            LeaseLostError: there has been another try.
        """
        ...

    async def fold_one(self, partition: int, epoch: int) -> int:
        """Bring some of what the journal has into the tables; says how far these are.

        Raises:
            LeaseLostError: there has been another try.
            StoreDamagedError: a checkpoint is missing.
        """
        ...

    async def arrive_one(self, partition: int, epoch: int, sequence: int, token: str) -> None:
        """Make a partition valid here: the point of no return.

        Raises:
            LeaseLostError: there has been another try, or it has not come so far; it is not valid.
            StorageError: it may be; ``has_arrived`` says so.
        """
        ...


@define
class _Try:
    """One try to bring a partition over.

    Attributes:
        number: which one.
        served: the partition, as it is served.
        epoch: of the try, in the target.
        trail: what it commits.
        follows: brings that to the target's journal, while much else is copied.
        is_close: whether that is done step by step from now on.
        forwarded: the last checkpoint that the target has, in its journal or its tables.
    """

    number: int
    served: FollowedSqlite | FollowedPostgres
    epoch: int
    trail: Trail
    follows: asyncio.Task[None] | None = None
    is_close: bool = False
    forwarded: int = -1


class MigratingStore:
    """A folder and a schema that have one hub together.

    Args:
        source: the one that the hub leaves; it is open, or ``open`` opens it.
        target: where it goes, as ``open_store`` takes it.
        is_shared: whether several event loops use it.
        membership: gives that of this process, as it is now, of a source that has members.

    Attributes:
        count: how many partitions there are.
        target: as it was given; it may have a password.
        token: of the migration.
        moved: the numbers of those that are valid in the target.
        is_finished: whether both stores say that all has come.
    """

    def __init__(
        self,
        source: SqliteStore | PostgresStore,
        target: str,
        *,
        is_shared: bool,
        membership: Callable[[], Membership] | None = None,
    ) -> None:
        self.source = source
        self.target = target
        self._membership = membership
        # What takes long, and much of the processor, is done in a thread of its own.
        self._bridge = ApartBridge()
        self._here = _live(source.spec)
        self._there = _live(target)
        self._there.rests = True
        self._journal = _live(target)  # the same by another connection
        store = open_store(target)
        assert isinstance(store, SqliteStore | PostgresStore)
        self._store = store
        if is_shared and isinstance(store, PostgresStore):
            store.bridge = ApartBridge()
        if isinstance(self._here, MovablePostgres) and membership is not None:
            self._here.member = lambda: membership().number
        self.token = ""
        self._try: _Try | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left: list[SqlitePartition | PostgresPartition] = []
        self.count = len(source.partitions)
        self.moved: set[int] = set()
        self.is_finished = False

    @property
    def _holder(self) -> SqliteStore | PostgresMembership:
        """What has the partitions that have not moved, as they are served."""
        if isinstance(self.source, SqliteStore):
            return self.source
        assert self._membership is not None
        return cast("PostgresMembership", self._membership())

    def partition(self, number: int) -> SqlitePartition | PostgresPartition:
        """Give a partition where it is valid."""
        partitions = self._store.partitions if number in self.moved else self._holder.partitions
        return partitions[number]

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
        if open_end(target).location != self.location:
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
        """Begin to move the hub of a store that is open; from now on the next start goes on with it.

        Raises:
            StoreInUseError: the target has a hub already, or the source has other nodes.
            StoreMovedError: it leaves from there, or the source's is on its way elsewhere.
            StorageError: the target cannot be reached, or made.
        """
        await self._run(self._begin)
        await self._open()

    async def _begin(self) -> None:
        hub, there = await self._here.look_within(), await self._there.look()
        source, target = self._here.location, self._there.location
        if hub.mark is not None:
            if there is not None and there.mark == Mark(COMING, hub.mark.token, source):
                self.token = hub.mark.token  # it had begun, and did not get far
                return
            hub.mark.refuse(source)
        check_target(hub, there, source, target)
        token = uuid.uuid4().hex
        await self._there.begin(hub, Mark(COMING, token, source))
        migration.reached("begun")
        await self._here.set_out(Mark(MOVING, token, target))
        migration.reached("marked")
        self.token = token

    async def join(self, token: str, moved: Iterable[int]) -> None:
        """Have some of the partitions in a process that the owner of the source has begun.

        It brings those of them that are served in it, and the owner says in the end that all are.

        Args:
            token: of the migration.
            moved: the partitions that have moved.
        """
        self.token, self.is_finished = token, True
        self.moved = {*moved}
        if isinstance(self._store, PostgresStore):
            await self._store.open(0, token=token)

    async def find(self, number: int) -> bool:
        """Ask whether a partition has moved whose process is gone, until that is known."""
        arrived = number in self.moved or await self._run(lambda: self._has_arrived(number))
        if arrived:
            self.moved.add(number)
        return arrived

    async def open(self, partitions: int) -> list[PartitionStore]:
        """Open the source of a hub that was moving when its last owner ended.

        Raises:
            StoreMovedError: all of it had come over: where it is.
            StoreInUseError: another process serves it.
            StorageError: the source cannot be opened, or the target cannot be reached.
        """
        mark = (await self._run(self._here.look_within)).mark
        assert mark is not None
        self.token = mark.token
        await self.source.open(partitions, token=mark.token)
        self.count = len(self.source.partitions)
        gone = await self._run(self._look_again)
        if gone is not None:
            raise StoreMovedError(gone.words(self._here.location))
        await self._open()
        if self._membership is not None:
            return [*self.source.partitions]  # nobody is a member yet
        return [self.partition(number) for number in range(self.count)]

    async def _look_again(self) -> Mark | None:
        """Look how far it is; gives the mark of the folder that all has left."""
        hub = await self._here.look_within()
        assert hub.mark is not None
        words = hub.mark.words(self._here.location)
        try:
            there = await self._there.look()
        except StoreInUseError as error:
            raise StoreMovedError(f"{words}; a process does so") from error
        if there is None and isinstance(self.source, PostgresStore):
            raise StoreMovedError(f"{words}; there is no such folder on this host")
        if there is None or there.mark is None or there.mark.token != self.token:
            raise StoreDamagedError(
                f"{self._there.location} does not have what {self._here.location} says that it has "
                "partitions of its hub: bring back what was there, or give up what had moved by "
                "restoring a copy of what the hub has left"
            )
        if there.mark.state == HERE or len(await self._there.arrived(self.token)) == hub.partitions:
            return await self._finish()
        return None

    async def _open(self) -> None:
        """Give each partition where it is."""
        arrived = await self._run(lambda: self._there.arrived(self.token))
        if isinstance(self._store, SqliteStore):
            await self._store.open(self.count, token=self.token, is_owned=True)
        else:
            await self._store.open(0, token=self.token)
        if isinstance(self.source, PostgresStore):
            self.source.token = self.token
        self.moved = set(arrived)

    async def finish(self) -> None:
        """Say in both stores that all has come. Idempotent.

        Raises:
            StorageError: one of them cannot be reached.
        """
        if not self.is_finished:
            await self._run(self._finish)

    async def _finish(self) -> Mark:
        """Say so; gives the source's mark."""
        there = await self._there.look()
        if there is None or there.mark is None or there.mark.state != HERE:
            await self._there.arrive(self.token)
            migration.reached("arrived")
        gone = Mark(GONE, self.token, self._there.location)
        await self._here.bury(gone)
        migration.reached("buried")
        self.is_finished = True
        return gone

    async def close(self) -> None:
        """Give both up; the hub is the target's as a whole if all of it has come. Idempotent."""
        with CancelScope(shield=True):
            try:
                await self.release()
            finally:
                await self.put_away()
                await self.source.close()

    async def release(self) -> None:
        """Give the target up alone, with what is under way there."""
        with CancelScope(shield=True):
            try:
                await self._run(self._stop)
                await self._store.close()
                if self.moved and len(self.moved) == self.count:
                    await self.finish()
            finally:
                self.moved = set()
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
        for end in (self._here, self._there, self._journal):
            await end.close()

    # One partition.

    def follow(self, number: int) -> PartitionStore:
        """Give a partition of the source anew, so that it can be followed; it is to be served next."""
        holder = self._holder
        self._left.append(holder.partitions[number])
        if isinstance(holder, SqliteStore):
            return holder.renew(number, FollowedSqlite)
        return holder.renew(number, FollowedPostgres)

    def is_followed(self, number: int) -> bool:
        """Whether a partition is one that ``follow`` gave."""
        return isinstance(self.partition(number), Followed)

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
            StorageError, UnavailableError: it did not work, and goes on as it was.
        """
        served = self.partition(number)
        if not isinstance(served, FollowedSqlite | FollowedPostgres):
            raise _begun_anew(number)
        try:
            one = await self._run(lambda: self._begin_try(number, served))
            await served.apply()  # where it is served: its connections are that loop's
            await self._run(lambda: self._copy(one, tell))
        except BaseException:
            with CancelScope(shield=True):
                await self._run(self._give_up)
            raise

    async def _begin_try(self, number: int, served: FollowedSqlite | FollowedPostgres) -> _Try:
        await self._give_up()
        standing = await self._here.standing(number)
        epoch = await self._there.begin_one(number, standing.epoch)
        one = self._try = _Try(number, served, epoch, served.follow())
        one.follows = asyncio.get_running_loop().create_task(self._follow(one))
        return one

    async def _copy(self, one: _Try, tell: Callable[[int], None]) -> None:
        async with self._here.snapshot(one.number) as (standing, portions):
            await self._load(one, standing, portions, tell)
            one.forwarded = max(one.forwarded, standing.sequence)
        migration.reached(f"copied {one.number}")
        await self._come_near(one)
        await self._come_close(one)

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
        """Bring what a partition commits to the target's journal."""
        try:
            while not (one.trail.is_lost or one.is_close):
                await self._forward(one)
                await asyncio.sleep(FOLLOW_S)
        except BaseException:
            one.trail.lose()  # commits must not wait for what does not come
            raise

    async def _forward(self, one: _Try) -> None:
        entries: list[Any] = []
        size = sequence = 0
        for checkpoint in one.trail.take():
            entry, its = self._journal.entry(checkpoint)
            entries.append(entry)
            size += its
            sequence = checkpoint.sequence
            if size >= ENTRIES_SIZE:
                await self._journal.forward(one.number, one.epoch, entries)
                one.forwarded, entries, size = sequence, [], 0
        if entries:
            await self._journal.forward(one.number, one.epoch, entries)
            one.forwarded = sequence

    def _check(self, one: _Try) -> None:
        """Refuse to go on with a try that has lost its track.

        Raises:
            StorageError: it has.
        """
        if one.follows is not None and one.follows.done() and not one.follows.cancelled():
            error = one.follows.exception()
            if error is not None:
                raise error
        if one.trail.is_lost or self.partition(one.number) is not one.served:
            raise _begun_anew(one.number)

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
        """Make a partition valid in the target, which was copied, and is not served now.

        Returns:
            Whether it is valid there; else it is valid where it was. Either way ``partition`` gives it.
        """
        if not await self._run(lambda: self._switch(number)):
            return False
        self._left.append(self.partition(number))
        self.moved.add(number)
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
            await self._there.arrive_one(number, one.epoch, last, self.token)
            arrived = True
        except Exception as error:
            _log.warning("it is not known yet whether partition %d has moved: %s", number, error)
            arrived = await self._has_arrived(number)
        migration.reached(f"arrived {number}")
        await self._give_up()
        return arrived

    async def _has_arrived(self, number: int) -> bool:
        """Ask the target until it answers: nobody may serve the partition before."""
        while True:
            try:
                return await self._there.has_arrived(number, self.token)
            except StorageError as error:
                _log.error("partition %d waits to know where it is: %s", number, error)
                await asyncio.sleep(ASK_S)


def _missing(one: _Try, sequence: int) -> UnavailableError:
    return UnavailableError(f"checkpoint {sequence} of partition {one.number} has not come over")


def _begun_anew(number: int) -> UnavailableError:
    return UnavailableError(f"partition {number} recovered while it was copied: it is copied anew")


def _live(place: str) -> Live[Any]:
    """Make one end of a migration of a hub that serves."""
    return cast("Live[Any]", open_end(place))


async def begun(
    store: Store,
    target: str,
    *,
    is_shared: bool = False,
    membership: Callable[[], Membership] | None = None,
) -> MigratingStore:
    """Begin to move a hub that has a store open; see ``MigratingStore``, and its ``begin``.

    Raises:
        UsageError: it is no folder that is to go to a database, and no database to a folder.
    """
    made = MigratingStore(
        check_way(store, target), target, is_shared=is_shared, membership=membership
    )
    try:
        await made.begin()
    except BaseException:
        await made.release()
        raise
    return made


def check_way(store: Store, target: str) -> SqliteStore | PostgresStore:
    """Give the store, if a hub can go from there to a target while it serves.

    Raises:
        UsageError: it is no folder that is to go to a database, and no database to a folder.
    """
    if not isinstance(store, SqliteStore | PostgresStore):
        raise UsageError(
            "only a hub on sqlite:PATH or postgresql://... goes to another store while it serves: "
            "one in memory is gone when it ends"
        )
    if is_database(target) == isinstance(store, PostgresStore):
        raise UsageError(
            f"while it serves, a hub goes from a folder to a database, or back, and not from "
            f"{store.location} to {open_end(target).location}: stop it, then: perdure migrate"
        )
    return store


async def opened_beside(store: Store, partitions: int) -> bool:
    """Open the store of a hub that leaves it while a worker of this process serves; else False.

    Raises:
        StorageError: it cannot be opened.
    """
    mark = await store.read_mark() if isinstance(store, PostgresStore) else None
    if mark is None or mark.state != MOVING:
        return False
    assert isinstance(store, PostgresStore)
    await store.open(partitions, token=mark.token)
    return True


async def joined(
    store: object,
    partitions: Sequence[PartitionStore],
    target: str,
    token: str,
    moved: Iterable[int],
) -> MigratingStore:
    """Give a store with its hub to a process that serves some of it; see ``MigratingStore.join``.

    Args:
        store: the folder that its owner has told this process of.
        partitions: those of the folder, as this process has them, whose list has the next ones, too.
        target: where the hub goes.
        token: of the migration.
        moved: the partitions that are there.

    Raises:
        StorageError: the target cannot be reached.
    """
    assert isinstance(store, SqliteStore)
    store.partitions = cast("list[SqlitePartition]", partitions)
    made = MigratingStore(store, target, is_shared=False)
    try:
        await made.join(token, moved)
    except BaseException:
        with CancelScope(shield=True), suppress(StorageError):
            await made.release()
        raise
    return made


async def reopened(
    store: Store,
    partitions: int,
    *,
    is_shared: bool = False,
    membership: Callable[[], Membership] | None = None,
) -> MigratingStore | None:
    """Give a store with its hub, which was moving while it served; None if it was not.

    Raises:
        StorageError: it cannot be opened.
    """
    if not isinstance(store, SqliteStore | PostgresStore):
        return None
    mark = await store.read_mark()
    if mark is None or mark.state != MOVING:
        return None
    made = MigratingStore(store, mark.place, is_shared=is_shared, membership=membership)
    try:
        await made.open(partitions)
    except BaseException:
        with CancelScope(shield=True), suppress(StorageError):
            await made.close()
        raise
    return made
