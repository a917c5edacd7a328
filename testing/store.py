"""The store of a hub under test: it fails as it is told to, and survives whoever opened it.

``FaultyStore`` stands between a hub and the store where the rows are. Each time it is opened, that
is one *life*. A life that has ended is fenced off: whatever is left of its memory reaches the rows
no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
from attrs import frozen

from ..actors.arguments import choice, whole
from ..actors.errors import LeaseLostError, StorageError
from ..actors.times import seconds as seconds_of
from ..runtime.scheduling.waiter import event_factory
from ..storage.records import SLICE_ROWS

if TYPE_CHECKING:
    from datetime import timedelta

    from ..storage.bells import Bell
    from ..storage.protocol import PartitionStore, Store
    from ..storage.records import (
        Checkpoint,
        ChunkRow,
        EntityFilter,
        EntityRow,
        InstanceFilter,
        InstanceRecord,
        MailRow,
        OutboxRow,
        Recovered,
        RequestRow,
        SetAside,
    )

T = TypeVar("T")

When = Literal["before", "after"]


class CrashedError(LeaseLostError):
    """The hub under test has crashed: this memory of it is not one any more."""

    def __str__(self) -> str:
        return "the hub under test has crashed; this was asked by what is left of its memory"


class Fence:
    """Keeps what is left of a life from the store, once that has ended.

    Attributes:
        is_down: whether the life has ended.
    """

    def __init__(self) -> None:
        self.is_down = False
        self._is_buried = False
        self._gone: anyio.Event | Bell | None = None
        self._told: list[Callable[[], None]] = []

    def tell(self, callback: Callable[[], None]) -> None:
        """Have something called when the life ends."""
        self._told.append(callback)

    def fall(self) -> None:
        """End the life, at once."""
        if not self.is_down:
            self.is_down = True
            for callback in self._told:
                callback()

    def bury(self) -> None:
        """Take note that nothing of the life runs any more."""
        self.fall()
        self._is_buried = True
        if self._gone is not None:
            self._gone.set()

    def check(self) -> None:
        """Refuse whatever a life that has ended still begins.

        Raises:
            CrashedError: it has ended.
        """
        if self.is_down:
            raise CrashedError

    async def stand(self) -> None:
        """Let nothing pass of a life that has ended: what is its own is cancelled here, and silent.

        Raises:
            CrashedError: to others, once nothing of the life runs any more.
        """
        if not self._is_buried:
            self._gone = self._gone or event_factory()()
            await self._gone.wait()
        raise CrashedError


@frozen
class Fault:
    """What happens at a commit, before or after it is durable: it fails, or the hub crashes."""

    effect: Literal["fail", "crash"]
    when: When


class Faults:
    """What is to go wrong in a hub under test: ``hub.faults``.

    Its methods may be called from any thread, also before the hub is entered.

    Attributes:
        commits: how many commits were begun so far, over all crashes.
    """

    def __init__(self) -> None:
        self.commits = 0
        self._planned: dict[int, Fault] = {}
        self._delay_s = 0.0
        self._answers = 0

    def fail_commit(self, n: int = 1, *, when: When = "before") -> None:
        """Have the n-th commit from now raise ``StorageError``; the hub recovers, as from a disk.

        Args:
            n: which; 1 is the next.
            when: ``"before"`` it is durable, so that nothing of it happened, or ``"after"``, so
                that the hub has to find out that all of it did.
        """
        self._plan(n, Fault("fail", choice(when, "when", ("before", "after"))))

    def crash_commit(self, n: int = 1, *, when: When = "before") -> None:
        """Have the hub crash at the n-th commit from now, and come back.

        Args:
            n: which; 1 is the next.
            when: ``"before"`` it is durable, or ``"after"`` that and before anything is released
                that depends on it: an answer, an activity, a message to another partition.
        """
        self._plan(n, Fault("crash", choice(when, "when", ("before", "after"))))

    def slow_commits(self, seconds: float | timedelta) -> None:
        """Have each commit take so long from now on, in real time; 0 for no longer than it takes."""
        self._delay_s = seconds_of(seconds, "seconds")

    def lose_answers(self, n: int = 1) -> None:
        """Have the answers to the next n requests of the client get lost on their way.

        What changes something is applied, and its answer is not told: the client asks once more,
        under the same request id, as one does whose connection broke.
        """
        self._answers += whole(n, "n", least=1)

    def _plan(self, n: int, fault: Fault) -> None:
        self._planned[self.commits + whole(n, "n", least=1)] = fault

    @property
    def delay_s(self) -> float:
        """How long a commit takes besides its work."""
        return self._delay_s

    def begin_commit(self) -> Fault | None:
        """Count a commit; gives what is to happen to it."""
        self.commits += 1
        return self._planned.pop(self.commits, None) if self._planned else None

    def takes_answer(self) -> bool:
        """Whether the answer at hand gets lost."""
        if not self._answers:
            return False
        self._answers -= 1
        return True


class FaultyStore:
    """A store that fails as it is told to, and may be opened again whoever has it open.

    Args:
        inner: where the rows are.
        faults: what goes wrong.

    Attributes:
        fence: of the life that has it open.
        busy: how many calls are under way.
        on_done: called when one has ended.
    """

    def __init__(self, inner: Store, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.fence = Fence()
        self.busy = 0
        self.on_done: Callable[[], None] = _nothing
        self.partitions: list[PartitionStore] = []  # of the store behind it
        self._idle: anyio.Event | None = None

    @property
    def durability(self) -> str:
        """How durable a commit is, in words."""
        return self.inner.durability

    async def open(self, partitions: int) -> Sequence[PartitionStore]:
        """Begin a life: take the store over from the last one, which is fenced off."""
        await self._give_up()
        self.partitions = [*await self.inner.open(partitions)]
        self.fence = fence = Fence()
        return [_FaultyPartition(self, fence, one) for one in self.partitions]

    async def close(self) -> None:
        """End the life; the rows stay."""
        await self._give_up()

    async def _give_up(self) -> None:
        self.fence.bury()
        while self.busy:  # what a life was committing is committed, or is not, before the next
            self._idle = anyio.Event()
            await self._idle.wait()
        if self.partitions:
            self.partitions = []
            await self.inner.close()

    def end_call(self) -> None:
        """Take note that a call has ended."""
        self.busy -= 1
        if self._idle is not None and not self.busy:
            self._idle.set()
        self.on_done()


class _FaultyPartition:
    """One partition, as one life has it."""

    def __init__(self, store: FaultyStore, fence: Fence, inner: PartitionStore) -> None:
        self._store = store
        self._fence = fence
        self._inner = inner

    @property
    def place(self) -> str:
        return self._inner.place

    async def commit(self, checkpoint: Checkpoint) -> None:
        fence = self._fence
        if fence.is_down:
            await fence.stand()
        store, faults = self._store, self._store.faults
        fault = faults.begin_commit()
        store.busy += 1
        try:
            if faults.delay_s:
                await anyio.sleep(faults.delay_s)
            if fault is not None and fault.when == "before":
                self._happen(fault)
            if not fence.is_down:
                await self._inner.commit(checkpoint)
                if fault is not None and fault.when == "after":
                    self._happen(fault)
        finally:
            store.end_call()
        if fence.is_down:  # now, or meanwhile: durable or not, it is told to nobody
            await fence.stand()

    def _happen(self, fault: Fault) -> None:
        if fault.effect == "fail":
            raise StorageError(
                f"a commit failed, {fault.when} it was durable, as the test wants it"
            )
        self._fence.fall()

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        fence = self._fence
        if fence.is_down:
            await fence.stand()
        self._store.busy += 1
        try:
            answer = await call()
        finally:
            self._store.end_call()
        if fence.is_down:
            await fence.stand()
        return answer

    @property
    def unapplied(self) -> int:
        return self._inner.unapplied

    async def recover(self) -> Recovered:
        return await self._call(self._inner.recover)

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        return await self._call(lambda: self._inner.read_instances(keys, payloads=payloads))

    async def count_instances(self, filter: InstanceFilter) -> int:
        return await self._call(lambda: self._inner.count_instances(filter))

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        return await self._call(lambda: self._inner.read_entities(ids))

    async def read_history(self, instance: int) -> list[bytes]:
        return await self._call(lambda: self._inner.read_history(instance))

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        return await self._call(lambda: self._inner.read_history_part(instance, first, end))

    async def read_request(self, request: str) -> RequestRow | None:
        return await self._call(lambda: self._inner.read_request(request))

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        return await self._call(lambda: self._inner.query_instances(filter))

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        return await self._call(lambda: self._inner.query_entities(filter))

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        return await self._call(lambda: self._inner.read_mail(actor, after, upto, limit))

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        return await self._call(lambda: self._inner.read_outbox(target, after, limit))

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        await self._call(lambda: self._inner.set_aside(rows))

    async def apply(self) -> None:
        await self._call(self._inner.apply)

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        return await self._call(lambda: self._inner.find_unknown(known))

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        return await self._call(lambda: self._inner.waiting(actors))

    async def size(self) -> int:
        return await self._call(self._inner.size)


def _nothing() -> None:
    """Tell nobody."""
