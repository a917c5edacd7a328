"""Leases: how a member of a hub stays one, sees the others, and takes and lets go partitions.

A member *beats*, so that the others see that it lives, *looks* at who has what, *decides*
(``shares.py``) and acts. Each beat and look is a task of its own, held up by nothing else.

Invariants:

* What decides who has a partition is its epoch in the store. All that is known here is a hint, but
  for one thing: what is answered without a commit rests on ``is_sure``.
* A member that has expired drops all it has before it joins again, as another one.
* Who could not look for a whole time to live judges nobody as expired: all look dead to him who
  was away himself.
* A member that lives on the same host and refuses a connection, or all of whose beats are old, and
  whose session has ended, is gone, and need not be waited for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Protocol

import anyio

from ...actors.errors import (
    LeaseLostError,
    PerdureError,
    StorageError,
    StoreDamagedError,
    UnavailableError,
)
from ...actors.logs import Log
from ..durations import DurationCounter
from ..partitions.tenure import STORE_PATIENCE_S
from ..placement.places import MovedError
from ..scheduling.hidden_tasks import TaskGroup
from .shares import Knowledge, decide, is_alive

if TYPE_CHECKING:
    from ...storage.membership import ClusterStore, LeaseRow, MemberRow, Membership, Newcomer, View
    from ..scheduling.keeper import Keeper

_log = Log("perdure.nodes")

#: Seconds between two looks where nothing happens, and at least, whatever does.
LOOK_S = 1.0
_LOOK_LEAST_S = 0.02
#: Beats in a time to live, and the part of it by which nobody relies on a beat any more.
BEATS = 3
MARGIN = 1 / 5
#: Seconds by which members that take what another one had do so apart.
JITTER_S = 0.05
#: Seconds that a partition is kept for the member that it is for.
KEPT_S = 1.0
#: Seconds that a partition which was wished for stays, while others can go instead.
HELD_S = 60.0
#: Members of other hosts that are taken for gone before they expire, and the seconds in which no
#: more are: what refuses a connection there may be a proxy or a firewall, and then partitions move
#: to and fro. On this host it is the kernel that says so, and with the end of the session that is
#: proof; so of those here any number is, as when the system ends one after another.
FAST_MAX = 3
_FAST_S = 60.0
#: Partitions that are taken at the same time, let go, and let go where time runs out. What is let go
#: nobody serves until it is taken, and several at once wait for each other: for processors, mostly.
TAKES_MAX = 16
LETS_GO_MAX = 1
LETS_GO_IN_HURRY_MAX = 8
_WAIT_LEAST_S = 0.1
_WAIT_MOST_S = 5.0
_DAMAGED_S = 30.0
#: Seconds in which a process that has expired joins again, or tries anew.
JOIN_S = 10.0
#: Seconds for what a member that has expired or ends has to say to the store.
LEAVE_S = 2.0


def steady_s() -> float:
    """Give seconds that go on while the process, or the machine, stands still."""
    if _BOOT is None:
        return time.monotonic()
    return time.clock_gettime(_BOOT)


_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Host(Protocol):
    """Who serves partitions while he has their leases."""

    @property
    def hosted(self) -> Collection[int]:
        """The partitions that are served here."""
        ...

    @property
    def awaits(self) -> bool:
        """Whether partitions come that bring something along."""
        ...

    @property
    def refused(self) -> Collection[int]:
        """The members whose hosts say that nobody is there any more."""
        ...

    def newcomer(self) -> Newcomer:
        """Say who joins."""
        ...

    def begin(self, membership: Membership) -> None:
        """Be a member from now on, that has nothing yet."""
        ...

    def drop(self, partition: int, error: Exception) -> None:
        """Give a partition up that others may have; what is not durable is lost."""
        ...

    def see(self, view: View, alive: Mapping[int, MemberRow]) -> None:
        """Take note of who has what."""
        ...

    async def host(self, partition: int, epoch: int | None) -> None:
        """Bring a partition back from its store, and serve it.

        Args:
            partition: which.
            epoch: that it was taken over from; None where it is this member's already.
        """
        ...

    async def hand_over(self, partition: int, to: int) -> None:
        """Stop serving a partition, all of which is durable, since another member will."""
        ...


class Leases:
    """The leases of one process, over all the members that it has been.

    Args:
        store: which is open.
        host: serves the partitions.
        keeper: begins anew what must not end.
        random: chooses among what is equal, and when.
        now: tells seconds that only go on.

    Attributes:
        membership: of the member that the process is now.
        view: what was seen last.
        is_leaving: whether all is to be let go, and nothing taken.
        lost_count: partitions that were served here until others had them, or might.
        look_count: looks that were sent.
        is_over_for_good: whether there are no members any more, and all that is here stays.
        takeovers: how long it took until what was taken was served.
    """

    def __init__(
        self,
        store: ClusterStore,
        host: Host,
        keeper: Keeper,
        *,
        random: Random | None = None,
        now: Callable[[], float] = steady_s,
    ) -> None:
        self._store = store
        self._host = host
        self._keeper = keeper
        self._random = Random() if random is None else random
        self._now = now
        self._membership: Membership | None = None
        self.view: View | None = None
        self.is_leaving = False
        self._tasks: TaskGroup | None = None
        # When the last beat that was answered, and the last look, were sent.
        self._beat = self._looked = -1.0
        self._looks_since = 0.0  # since when no look has failed
        self._losses = 0
        self._doubted = -1.0  # when the last loss of a connection was seen
        self._beaten = anyio.Event()
        self._hurry = anyio.Event()
        self._wake = anyio.Event()
        self._seen = anyio.Event()
        self._busy: dict[int, anyio.CancelScope] = {}  # partitions on their way here
        self._moving: dict[int, int] = {}  # and away, with whom they are for
        # Let go, and not seen to be taken: until when others wait for that.
        self._untaken: dict[int, float] = {}
        self._served_since: dict[int, float] = {}
        self._held_until: dict[int, float] = {}
        self._free_since: dict[int, float] = {}
        self._known: set[int] = set()
        self._left: dict[int, float] = {}  # when it was let go last
        self._kept: set[int] = set()  # that are left alone, as they go to another store
        self._is_over = False
        self.is_over_for_good = False
        self._living: anyio.CancelScope | None = None
        self._is_joining = False
        self._ended: set[int] = set()
        self._fast: deque[float] = deque()
        self.lost_count = 0
        self.look_count = 0
        self.takeovers = DurationCounter()
        self._takes = anyio.Semaphore(TAKES_MAX)
        self._lets_go_max = LETS_GO_MAX

    @property
    def membership(self) -> Membership:
        """That of the member that the process is now."""
        assert self._membership is not None
        return self._membership

    @property
    def number(self) -> int:
        """The member that the process is now."""
        return self.membership.number

    @property
    def is_busy(self) -> bool:
        """Whether partitions are on their way here, or away."""
        return bool(self._busy or self._moving or self._kept)

    @property
    def beat_age_s(self) -> float:
        """Seconds since the last beat was sent that the store has answered."""
        return max(self._now() - self._beat, 0.0)

    # Whether what is here is still this member's.

    def is_sure(self) -> bool:
        """Whether no other member can have taken over what this one has."""
        if self.is_over_for_good:
            return True
        membership = self.membership
        now = self._now()
        if now - self._beat >= membership.ttl_s * (1 - MARGIN):
            return False
        if membership.losses != self._losses:
            self._losses = membership.losses
            self._doubted = now
        # Others may take it for gone since its session ended: what they took is seen in a look.
        # And a store that has failed over may have forgotten what is here: a beat says so.
        return min(self._beat, self._looked) > self._doubted

    async def until_sure(self) -> None:
        """Return when no other member can have taken over what this one has.

        Raises:
            MovedError: it has expired.
            UnavailableError: the store has not been reached for too long.
        """
        membership = self.membership
        with anyio.move_on_after(STORE_PATIENCE_S):
            while not self.is_sure():
                self._hurry.set()
                self._wake.set()
                await self._beaten.wait()
                if membership is not self._membership:
                    raise MovedError(f"member {membership.number} has expired")
            return
        raise UnavailableError(
            "this process cannot reach the store, so it does not know whether others have taken "
            f"its partitions over, for {STORE_PATIENCE_S:g} seconds; repeat it"
        )

    # Life.

    async def join(self) -> None:
        """Become a member.

        Raises:
            StorageError: the store says no, or cannot be reached.
        """
        sent = self._now()
        self._membership = membership = await self._store.join(self._host.newcomer())
        self._beat = self._looked = self._looks_since = sent
        self._losses, self._doubted = 0, -1.0
        self._host.begin(membership)
        _log.info("joined as member %d", membership.number)

    async def run(self) -> None:
        """Beat, look and act, until that is over for good."""
        with anyio.CancelScope() as self._living:
            await self._live()

    async def _live(self) -> None:
        async with TaskGroup() as tasks:
            self._tasks = tasks
            persist = self._keeper.persist
            tasks.start_soon(persist, "the beats of the member", self._beat_on)
            tasks.start_soon(persist, "the looks of the member", self._look_on)
            tasks.start_soon(persist, "the notices of the member", self._listen)

    async def leave(self) -> None:
        """Be no member any more, if that can be said in time."""
        if self._membership is None:
            return
        with anyio.move_on_after(LEAVE_S, shield=True) as scope:
            try:
                await self._membership.leave()
            except PerdureError as error:
                _log.warning("member %d could not leave: %s", self.number, error)
        if scope.cancelled_caught:
            _log.warning("member %d could not leave in time: it expires", self.number)

    @contextmanager
    def kept(self, partition: int) -> Generator[None]:
        """Leave a partition alone while somebody else sees to it that it is served here."""
        self._kept.add(partition)
        try:
            yield
        finally:
            self._kept.discard(partition)
            self.look_soon()

    async def rest(self) -> None:
        """Be no member any more, and keep what is here: nobody can take it, in another store.

        Raises:
            StorageError: the store has not heard it.
        """
        self.is_over_for_good = True
        if self._living is not None:
            self._living.cancel()
        self._tell_waiting()
        await self.membership.leave()

    async def let_all_go(self, within_s: float) -> None:
        """Let all partitions go to others; return when that is done, or nobody is there for them.

        Args:
            within_s: in how many seconds that should be done. Behind half of them more go at once.
        """
        self.is_leaving = True
        if self.is_over_for_good:
            return
        with suppress(PerdureError):  # others may go on giving it some: it lets these go, too
            await self.membership.drain(self.number, True)
        asked = self._now()
        # Who has come of late is seen in a look that begins now.
        while (
            self.is_busy
            or self._host.awaits
            or (self._host.hosted and (self._looked < asked or self._has_heirs()))
        ):
            if self._now() - asked > within_s / 2:
                self._lets_go_max = LETS_GO_IN_HURRY_MAX
            self.look_soon()
            await self._seen.wait()

    def _has_heirs(self) -> bool:
        return self.view is None or any(
            not row.draining and row.member not in (self.number, *self._host.refused)
            for row in self.view.members
            if is_alive(row, self._knowledge())
        )

    def break_off(self) -> None:
        """Have what still waits for the store fail now: the process ends, and has waited long."""
        if not self.is_over_for_good:
            self.membership.break_off()

    def end(self) -> None:
        """Insist on nothing any more: the process ends."""
        self._is_over = True

    async def look_anew(self) -> None:
        """Return when a look that began from now on has been acted on."""
        asked = self._now()
        while self._looked < asked and not self.is_over_for_good:
            self.look_soon()
            await self._seen.wait()

    def look_soon(self) -> None:
        """Look at who has what now: something has changed."""
        self._wake.set()

    # Beats.

    async def _beat_on(self) -> None:
        wait = self.membership.ttl_s / BEATS
        tries = 0
        while True:
            with anyio.move_on_after(wait):
                await self._hurry.wait()
            self._hurry = anyio.Event()
            if await self._beat_once():
                tries, wait = 0, self.membership.ttl_s / BEATS
            else:
                wait = min(self._pause(tries), self.membership.ttl_s / BEATS)
                tries += 1

    async def _beat_once(self) -> bool:
        """Beat; False where the store was not reached."""
        membership, sent = self.membership, self._now()
        try:
            with anyio.fail_after(membership.ttl_s):
                lives = await membership.beat()
        except (PerdureError, TimeoutError) as error:
            _log.warning("member %d could not beat: %s", membership.number, _text(error))
            await anyio.sleep(_WAIT_LEAST_S)  # whoever waits would have it hurry again at once
            return False
        if lives:
            self._beat = sent
        elif not self._is_over:
            await self._begin_anew()
        self._tell_waiting()
        return True

    async def _begin_anew(self) -> None:
        """Drop all, and join as another member: this one has expired."""
        old = self.membership
        error = LeaseLostError(
            f"member {old.number} has expired: it did not reach the store in time"
        )
        _log.error("%s; all its partitions end here, and it joins again", error)
        self._known = {*self._host.hosted}
        self._drop_all(error)
        self._is_joining = True
        await self.leave()
        tries = 0
        while True:
            try:
                with anyio.fail_after(JOIN_S):
                    await self.join()
                break
            except (PerdureError, TimeoutError) as why:
                _log.error("this process cannot join again yet: %s", _text(why))
            await anyio.sleep(self._pause(tries))
            tries += 1
        self._drop_all(error)  # what has come meanwhile was the old member's
        self._is_joining = False
        self.view = None
        self.look_soon()

    def _drop_all(self, error: LeaseLostError) -> None:
        for scope in self._busy.values():
            scope.cancel()
        for partition in list(self._host.hosted):
            self._drop(partition, error)

    # Looks.

    async def _listen(self) -> None:
        while True:
            membership = self.membership
            try:
                await membership.noticed()
            except PerdureError as error:
                _log.debug("no notices: %s", error)
                await anyio.sleep(LOOK_S)
            # One that has left may say so at once, and again, without end.
            await anyio.sleep(_LOOK_LEAST_S)
            if membership is not self._membership:
                continue
            self.look_soon()

    async def _look_on(self) -> None:
        tries = 0
        while True:
            if await self._look_once():
                tries, wait = 0, min(LOOK_S, self.membership.ttl_s / BEATS)
            else:
                wait = self._pause(tries)
                tries += 1
            await anyio.sleep(_LOOK_LEAST_S)
            with anyio.move_on_after(wait):
                await self._wake.wait()
            self._wake = anyio.Event()

    async def _look_once(self) -> bool:
        """Look, and act on what is seen; False where the store was not reached."""
        if self._is_joining:
            return False  # it is no member, and would be told so again and again
        membership, sent = self.membership, self._now()
        if sent - self._looked > membership.ttl_s:
            self._looks_since = sent  # the process stood still, or the store was away
        self.look_count += 1
        try:
            with anyio.fail_after(membership.ttl_s):
                view = await membership.look()
        except (PerdureError, TimeoutError) as error:
            _log.warning("member %d could not look: %s", membership.number, _text(error))
            self._looks_since = self._now()
            return False
        if membership is not self._membership or self._is_joining:
            return True
        self.view = view
        try:
            await self._act(view, sent)
        except PerdureError as error:
            _log.warning("member %d could not act: %s", membership.number, error)
        # Behind that: who waits for it sees what was not this member's any more dropped.
        self._looked = sent
        self._tell_waiting()
        seen, self._seen = self._seen, anyio.Event()
        seen.set()
        return True

    def _tell_waiting(self) -> None:
        """Have whoever waits to be sure look whether he is."""
        beaten, self._beaten = self._beaten, anyio.Event()
        beaten.set()

    async def _act(self, view: View, sent: float) -> None:
        me = self.number
        if not any(row.member == me and not row.expired for row in view.members):
            self._hurry.set()  # the beat finds out, and begins anew
            return
        self._ended &= {row.member for row in view.members}
        await self._find_ended(view)
        knows = self._knowledge()
        self._host.see(view, {row.member: row for row in view.members if is_alive(row, knows)})
        for lease in view.leases:
            self._compare(lease, me, sent)
        if self._tasks is None:
            return
        view = self._as_meant(view)
        plan = decide(view, me, self._random, self._knowledge())
        for lease in plan.take:
            self._start(lease.partition, self._take, lease)
        # The others wait for a later plan: by then whom they are for now may be gone.
        self._see_taken(view)
        for partition, to in plan.let_go:
            if len(self._moving) + len(self._untaken) >= self._lets_go_max:
                break
            if partition in self._host.hosted and partition not in self._moving:
                self._moving[partition] = to
                self._tasks.start_soon(self._let_go, partition, to)

    def _see_taken(self, view: View) -> None:
        """Wait no more for what somebody has that was let go, or nobody seems to want."""
        untaken = {lease.partition for lease in view.leases if lease.owner in (None, self.number)}
        now = self._now()
        self._untaken = {
            partition: until
            for partition, until in self._untaken.items()
            if until > now and partition in untaken
        }

    def _as_meant(self, view: View) -> View:
        """Give a view in which this member drains as soon as it leaves."""
        if not self.is_leaving:
            return view
        members = [
            row._replace(draining=True) if row.member == self.number else row
            for row in view.members
        ]
        return view._replace(members=members)

    def _knowledge(self) -> Knowledge:
        now = self._now()
        self._held_until = {n: until for n, until in self._held_until.items() if until > now}
        return Knowledge(
            may_judge=now - self._looks_since >= self.membership.ttl_s,
            ended=frozenset(self._ended),
            refused=frozenset(self._host.refused) - {self.number},
            overdue=frozenset(n for n, t in self._free_since.items() if now - t > KEPT_S),
            moving=dict(self._moving),
            held=frozenset(self._held_until),
            known=frozenset(self._known),
        )

    def _compare(self, lease: LeaseRow, me: int, sent: float) -> None:
        """Have what is here be what the store says, as of when a look was sent."""
        partition = lease.partition
        if lease.owner is None:
            self._free_since.setdefault(partition, self._now())
        else:
            self._free_since.pop(partition, None)
        if partition in self._moving:
            return
        since = self._served_since.get(partition)
        if lease.owner == me:
            # A look from before it was let go may still say so.
            if partition not in self._host.hosted and self._left.get(partition, -1.0) < sent:
                self._start(partition, self._serve, partition, None)
        elif since is not None and since < sent:
            self._drop(partition, LeaseLostError(f"partition {partition} has been taken over"))
            self.look_soon()

    def _drop(self, partition: int, error: LeaseLostError) -> None:
        self.lost_count += 1
        self._served_since.pop(partition, None)
        if (scope := self._busy.get(partition)) is not None:
            scope.cancel()
        self._host.drop(partition, error)

    def lost(self, partition: int, error: Exception) -> None:
        """Hear that a partition was found to be somebody else's, and is served here no more."""
        _log.warning("partition %d is served here no more: %s", partition, error)
        self.lost_count += 1
        self._served_since.pop(partition, None)
        self.look_soon()

    async def _find_ended(self, view: View) -> None:
        """Find out which members are gone, though they have not expired."""
        here = next(row.host for row in view.members if row.member == self.number)
        owners = {lease.owner for lease in view.leases}
        for row in view.members:
            if row.member not in self._host.refused or row.member not in owners or row.expired:
                continue
            is_old = row.beat_age_s >= self.membership.ttl_s * (1 - MARGIN)
            is_here = row.host == here
            if row.member in self._ended or not (is_here or (is_old and self._has_fast_left())):
                continue
            if await self.membership.has_ended(row.member):
                if not is_here:
                    self._fast.append(self._now())
                self._ended.add(row.member)
                _log.warning("member %d at %s is gone: others take over", row.member, row.address)

    def _has_fast_left(self) -> bool:
        """Whether one more on another host may be taken for gone before it expires."""
        while self._fast and self._fast[0] < self._now() - _FAST_S:
            self._fast.popleft()
        return len(self._fast) < FAST_MAX

    # Taking, and letting go.

    def _start(
        self, partition: int, work: Callable[..., Awaitable[object]], *given: object
    ) -> None:
        """Have something done about a partition that nothing is done about."""
        if partition in self._busy or partition in self._kept or self._tasks is None:
            return
        scope = self._busy[partition] = anyio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    async with self._takes:
                        await work(*given)
            finally:
                del self._busy[partition]
                self.look_soon()

        self._tasks.start_soon(run)

    async def _take(self, seen: LeaseRow) -> None:
        membership = self.membership
        if seen.owner is not None:
            await anyio.sleep(self._random.uniform(0, JITTER_S))
        began = self._now()
        try:
            epoch = await membership.take(seen.partition, seen)
        except PerdureError as error:
            _log.warning("partition %d could not be taken: %s", seen.partition, error)
            await anyio.sleep(self._pause(0))
            return
        if epoch is None or membership is not self._membership:
            return
        if seen.wanted == membership.number:
            self._held_until[seen.partition] = self._now() + HELD_S
        if await self._serve(seen.partition, seen.epoch):
            self.takeovers.add(self._now() - began)

    async def _serve(self, partition: int, epoch: int | None) -> bool:
        """Serve a partition; False where it is somebody else's."""
        membership = self._membership
        tries = 0
        while True:
            self._served_since[partition] = self._now()
            try:
                await self._host.host(partition, epoch)
                if membership is not self._membership:
                    # What cannot be stopped, as a recovery, may end after the member has expired.
                    self._drop(partition, LeaseLostError("this process is another member now"))
                    return False
                self._known.discard(partition)
                return True
            except LeaseLostError as error:
                _log.info("partition %d is somebody else's: %s", partition, error)
                self._served_since.pop(partition, None)
                return False
            except StoreDamagedError as error:
                _log.critical("partition %d cannot be served: %s", partition, error)
                await anyio.sleep(_DAMAGED_S)
            except (StorageError, UnavailableError) as error:
                _log.error("partition %d cannot be served yet: %s", partition, error)
                await anyio.sleep(self._pause(tries))
            tries += 1

    async def _let_go(self, partition: int, to: int) -> None:
        membership = self.membership
        try:
            try:
                await self._host.hand_over(partition, to)
            except (StorageError, UnavailableError) as error:
                _log.warning("partition %d stays here for now: %s", partition, error)
                await anyio.sleep(self._pause(0))
                return
            self._served_since.pop(partition, None)
            with anyio.CancelScope(shield=True):
                await self._give_up(membership, partition, to)
            self._untaken[partition] = self._now() + KEPT_S
        finally:
            del self._moving[partition]
            self.look_soon()

    async def _give_up(self, membership: Membership, partition: int, to: int) -> None:
        """Tell the store, which may take a while, unless this member has expired by then."""
        tries = 0
        while membership is self._membership and not self._is_over:
            try:
                with anyio.fail_after(LEAVE_S):
                    await membership.let_go(partition, to)
                self._left[partition] = self._now()
                return
            except (PerdureError, TimeoutError) as error:
                _log.warning("partition %d is not given up yet: %s", partition, _text(error))
            await anyio.sleep(self._pause(tries))
            tries += 1

    def _pause(self, tries: int) -> float:
        """Seconds until the next try; members that come back to one store do so apart."""
        most = min(_WAIT_LEAST_S * 2.0 ** min(tries + 1, 10), _WAIT_MOST_S)
        return self._random.uniform(_WAIT_LEAST_S, most)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
