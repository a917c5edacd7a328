"""What commits for all partitions that an event loop serves: one thread, where the disk is quick.

What partitions hand in is done one after another, and one wake-up of the loop brings all outcomes
back: to wake a thread and the loop for each commit was half of what a small one costs. Where a sync
takes long, some threads share what is handed in, since a disk syncs several files in the time
that it takes for one.

Invariants:

* What is handed in is done, also where nobody waits for it any more.
* Nothing that is done makes anything else fail; and it holds up what waits behind it for
  some ``PATIENCE_S`` at most: then another thread goes on with that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from anyio import CancelScope, current_effective_deadline

from ..bridge import on_asyncio

PATIENCE_S: Final = 0.02
"""How long one call may hold up those behind it: many times what a sync of a good disk takes."""

BACKLOG_S: Final = 0.001
"""How long what is under way may take for one thread alone; for each time more there is one more."""

TOGETHER_S: Final = 0.001
"""How long an outcome waits for those of the calls behind it, if these take what they mostly do."""

T = TypeVar("T")


class Call(Generic[T]):
    """Something to be done in the thread; its outcome is there once its waiter was told."""

    __slots__ = ("_error", "_value", "_work", "is_told", "waiter")

    def __init__(self, work: Callable[[], T], waiter: Any) -> None:
        self._work = work
        self._value: T | None = None
        self._error: BaseException | None = None
        self.waiter = waiter
        self.is_told = False

    def make(self) -> None:
        """Do it. Never raises."""
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def outcome(self) -> T:
        """Give what came of it, or raise it."""
        error, self._error = self._error, None  # else it would hold its own frame
        if error is not None:
            raise error
        return cast("T", self._value)


class _Home(Protocol):
    """An event loop, as threads reach it."""

    @property
    def cancelled(self) -> type[BaseException]: ...

    def new_waiter(self) -> Any: ...

    async def wait(self, waiter: Any) -> None: ...

    def tell(self, waiter: Any) -> None: ...

    def post(self, callback: Callable[[], None]) -> None: ...


class _AsyncioHome:
    cancelled = asyncio.CancelledError

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.new_waiter: Callable[[], Any] = self._loop.create_future

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        await waiter

    def tell(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def post(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # With the loop all have ended who waited.


class _TrioHome:
    def __init__(self) -> None:
        import trio

        from ..bells import Bell

        self.cancelled: type[BaseException] = trio.Cancelled
        self._over = trio.RunFinishedError
        self._token = trio.lowlevel.current_trio_token()
        self.new_waiter: Callable[[], Any] = Bell

    async def wait(self, waiter: Any) -> None:
        await waiter.wait()

    def tell(self, waiter: Any) -> None:
        waiter.set()

    def post(self, callback: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except self._over:
            return  # with the run all have ended who waited


class Committer:
    """Does what the partitions of one event loop hand in, in threads of its own: mostly one.

    Args:
        home: the event loop.

    Attributes:
        home: as it was given.
        threads: how many there are.
        pace: what a call takes, in seconds, as of late.
    """

    def __init__(self, home: _Home) -> None:
        self.home = home
        self._handed_in: deque[Call[Any]] = deque()
        self._ended: deque[Call[Any]] = deque()
        self._is_over = False
        # What wakes threads that have nothing to do. The last to fall asleep is the first to be
        # woken, so those that are needed no more sleep on. (A queue that several threads wait at
        # wakes one more for each item, for nothing.)
        self._asleep: list[SimpleQueue[bool]] = []
        self._alarm: SimpleQueue[bool] = SimpleQueue()
        # These are the loop's.
        self.threads = 0
        self._pending = 0
        # These are the threads', and no harm is done where one misses another's change.
        self.pace = 0.0
        self._taken = 0  # moves on as long as nothing is held up
        self._is_watching: bool | None = None

    @property
    def waiting(self) -> int:
        """How many calls no thread has taken yet."""
        return len(self._handed_in)

    @property
    def asleep(self) -> int:
        """How many of its threads have nothing to do."""
        return len(self._asleep)

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in the thread. A cancelled caller waits for the end of it first.

        Only asyncio's own ``Task.cancel`` makes it wait no more; what it handed in is still done.
        """
        home = self.home
        call = Call(work, home.new_waiter())
        self._handed_in.append(call)
        self._pending += 1
        if self.threads - len(self._asleep) <= self._pending * self.pace / BACKLOG_S:
            self._rouse()
        if self._pending > 1 and not self._is_watching:
            self._have_watched()
        try:
            await home.wait(call.waiter)
        except home.cancelled:
            # A scope around each call would take as long as all else that is done here.
            if current_effective_deadline() != -inf:  # asyncio's own
                raise
            with CancelScope(shield=True):
                while not call.is_told:
                    call.waiter = home.new_waiter()
                    await home.wait(call.waiter)
        return call.outcome()

    def end(self) -> None:
        """End the threads, after what was handed in."""
        self._is_over = True
        while self._asleep:
            self._asleep.pop().put(False)
        self._alarm.put(False)

    def _rouse(self) -> None:
        """On the loop: have one more thread at work."""
        if self._asleep:
            self._asleep.pop().put(True)
        else:
            self.threads += 1
            _start(self._work)

    def _tell(self) -> None:
        """On the loop: tell those whose calls have ended."""
        ended, tell = self._ended, self.home.tell
        while ended:
            self._pending -= 1
            call = ended.popleft()
            call.is_told = True
            tell(call.waiter)

    def _help(self) -> None:
        """On the loop: go on beside a call that takes too long."""
        self._tell()
        if self._handed_in:
            self._rouse()

    def _work(self) -> None:
        bell: SimpleQueue[bool] = SimpleQueue()
        while True:
            if self._handed_in:
                self._work_off()
            self._asleep.append(bell)
            if self._handed_in and self._stays_awake(bell):
                continue  # it was handed in just before, when this one seemed to be at work
            if (self._is_over and self._stays_awake(bell)) or not bell.get():
                return

    def _stays_awake(self, bell: SimpleQueue[bool]) -> bool:
        try:
            self._asleep.remove(bell)
        except ValueError:
            return False  # it is being woken
        return True

    def _work_off(self) -> None:
        """Make all calls that were handed in."""
        handed_in, ended = self._handed_in, self._ended
        told = now = monotonic()
        while True:
            try:
                call = handed_in.popleft()
            except IndexError:
                break
            if now - told + self.pace > TOGETHER_S:
                self.home.post(self._tell)
                told = now
            self._taken += 1
            call.make()
            ended.append(call)
            began, now = now, monotonic()
            self.pace += (now - began - self.pace) / 16
        self.home.post(self._tell)

    def _have_watched(self) -> None:
        if self._is_watching is None:
            _start(self._watch)
        self._is_watching = True
        self._alarm.put(True)

    def _watch(self) -> None:
        """See to it that nothing is held up for long."""
        while self._alarm.get():
            while self._is_behind():
                taken = self._taken
                sleep(PATIENCE_S)
                if taken == self._taken:
                    self.home.post(self._help)
                elif self._ended:
                    self.home.post(self._tell)  # one thread may go on, and another not
            self._is_watching = False
            if self._is_behind():  # what came just before that rang no alarm
                self._have_watched()

    def _is_behind(self) -> bool:
        """Whether a call, or an outcome, may wait for the end of another call."""
        return bool(self._ended or self._handed_in)


class Committers:
    """The committers of a store, one for each event loop on which some of its partitions are."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._here: dict[object, Committer] = {}
        self._users: dict[Committer, int] = {}

    def enter(self, last: Committer | None = None) -> Committer:
        """Give the committer of the running event loop, for who had another one by now."""
        with self._lock:
            key, make = _running()
            committer = self._here.get(key)
            if committer is None:
                committer = self._here[key] = Committer(make())
                self._users[committer] = 0
            if committer is not last:
                self._users[committer] += 1
                self._leave(last)
            return committer

    def leave(self, committer: Committer | None) -> None:
        """Use it no more; with its last user its thread ends."""
        with self._lock:
            self._leave(committer)

    def _leave(self, committer: Committer | None) -> None:
        if committer is None:
            return
        self._users[committer] -= 1
        if not self._users[committer]:
            del self._users[committer]
            self._here = {key: one for key, one in self._here.items() if one is not committer}
            committer.end()


def _running() -> tuple[object, Callable[[], _Home]]:
    """Name the running event loop, and give what reaches it."""
    if on_asyncio():
        return asyncio.get_running_loop(), _AsyncioHome
    import trio

    return trio.lowlevel.current_trio_token(), _TrioHome


def _start(work: Callable[[], None]) -> None:
    # A store that nobody closed must not keep the process alive.
    Thread(target=work, name="perdure-committer", daemon=True).start()
