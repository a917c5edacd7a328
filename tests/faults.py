"""Stores that fail on purpose, and what a store holds, for tests of what survives.

``FaultyStore`` stands between a hub and a real store. It counts commits, lets the process "die" at
any of them, makes any of them fail, and holds calls back until a test lets them go. A hub that
died is abandoned: nothing of its memory reaches the store any more. Opening the same store with a
new ``FaultyStore`` is the restart.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import anyio.lowlevel
import attrs
from attrs import define, frozen

from perdure import (
    LeaseLostError,
    ManualClock,
    MemoryStore,
    OutcomeUnknownError,
    StorageError,
    Store,
    UnavailableError,
)
from perdure.actors.entities.entity import EntityActor
from perdure.actors.replay.executor import Executor
from perdure.storage import (
    Checkpoint,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PartitionStore,
    Recovered,
    RequestRow,
    SetAside,
)
from perdure.storage.records import SLICE_ROWS, ChunkRow

if TYPE_CHECKING:
    import pytest  # processes that are started to be killed need nothing of it

T = TypeVar("T")

Effect = Literal["crash", "fail"]
When = Literal["before", "after"]


@frozen
class Fault:
    """What happens at a commit: the process dies or the disk errs, before or after it applies."""

    effect: Effect
    when: When


class Crashed(LeaseLostError):
    """The process is dead: the hub stops without another word."""


class Gate:
    """Holds calls of one kind back, from when it is made until it is opened."""

    def __init__(self, partition: int | None) -> None:
        self.partition = partition
        self.arrived = anyio.Event()
        self._opened = anyio.Event()

    def open(self) -> None:
        """Let everything through."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Wait until the gate is open."""
        self.arrived.set()
        await self._opened.wait()


class FaultyStore:
    """A store between a hub and ``inner`` that fails as it is told to.

    Args:
        inner: where the rows are.
        faults: what happens at which commit, counted from 1 over all partitions.
        seed: draws how often a call gives the event loop a turn; None: once each.

    Attributes:
        commits: how many commits were begun.
        applied: how many of them were applied.
        dead: whether the process "died"; from then on no call does anything.
    """

    def __init__(
        self, inner: Store, faults: dict[int, Fault] | None = None, *, seed: int | None = None
    ) -> None:
        self.inner = inner
        self.faults = faults or {}
        self.commits = 0
        self.applied = 0
        self.dead = False
        self.read_failures: dict[str, int] = {}
        self.sealed: list[tuple[int, Checkpoint]] = []
        self._gates: dict[str, list[Gate]] = {}
        self._next: list[tuple[int | None, Fault]] = []
        self._random = None if seed is None else random.Random(seed)

    @property
    def durability(self) -> str:
        return self.inner.durability

    def crash_at(self, commit: int, when: When = "before") -> None:
        """Die at that commit."""
        self.faults[commit] = Fault("crash", when)

    def fail_at(self, commit: int, when: When = "before") -> None:
        """Raise ``StorageError`` at that commit; the process lives on."""
        self.faults[commit] = Fault("fail", when)

    def fail_next(self, when: When = "before", partition: int | None = None) -> None:
        """Raise ``StorageError`` at the next commit (of that partition, or of any)."""
        self._next.append((partition, Fault("fail", when)))

    def crash_next(self, when: When = "before", partition: int | None = None) -> None:
        """Die at the next commit (of that partition, or of any)."""
        self._next.append((partition, Fault("crash", when)))

    def take_fault(self, partition: int) -> Fault | None:
        """Begin a commit: give what is to happen to it."""
        self.commits += 1
        for entry in self._next:
            if entry[0] in (None, partition):
                self._next.remove(entry)
                return entry[1]
        return self.faults.pop(self.commits, None)

    def fail_reads(self, method: str, times: int) -> None:
        """Raise ``StorageError`` at the next calls of a method that reads."""
        self.read_failures[method] = times

    def hold(self, method: str, partition: int | None = None) -> Gate:
        """Hold calls of a method back (of one partition, or of all) until the gate is opened."""
        gate = Gate(partition)
        self._gates.setdefault(method, []).append(gate)
        return gate

    def fail_no_more(self) -> None:
        """Forget the faults that are still to come at the next commits and reads."""
        self._next.clear()
        self.read_failures.clear()

    def hold_no_more(self) -> None:
        """Hold no call that comes from now on."""
        self._gates.clear()

    async def open(self, partitions: int) -> Sequence[PartitionStore]:
        opened = await self.inner.open(partitions)
        return [FaultyPartition(self, index, inner) for index, inner in enumerate(opened)]

    async def close(self) -> None:
        await self.inner.close()

    def check_alive(self) -> None:
        """Refuse everything once the process is dead."""
        if self.dead:
            raise Crashed("the process is dead")

    async def pass_gates(self, method: str, partition: int) -> None:
        """Wait where the test holds calls back, and let others have a turn."""
        self.check_alive()
        for gate in self._gates.get(method, []):
            if gate.partition in (None, partition):
                await gate.pass_through()
        turns = 1 if self._random is None else self._random.randrange(4)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        self.check_alive()
        left = self.read_failures.get(method, 0)
        if left:
            self.read_failures[method] = left - 1
            raise StorageError(f"{method} failed on purpose")

    async def deliver(self, method: str, partition: int) -> None:
        """Called when a read is done, before its caller is told; a place for delays."""

    def die(self) -> None:
        """Die now."""
        self.dead = True
        raise Crashed("the process died")


class FaultyPartition:
    """One partition of a ``FaultyStore``."""

    def __init__(self, store: FaultyStore, index: int, inner: PartitionStore) -> None:
        self._store = store
        self._index = index
        self._inner = inner

    async def commit(self, checkpoint: Checkpoint) -> None:
        store = self._store
        store.check_alive()
        fault = store.take_fault(self._index)
        if fault is not None and fault.when == "before":
            await self._fail(fault)
        await store.pass_gates("commit", self._index)
        store.sealed.append((self._index, checkpoint))
        await self._inner.commit(checkpoint)
        store.applied += 1
        if fault is not None:
            await self._fail(fault)
        await store.pass_gates("committed", self._index)

    async def _fail(self, fault: Fault) -> None:
        if fault.effect == "crash":
            self._store.die()
        await anyio.lowlevel.checkpoint()
        raise StorageError("the disk erred on purpose")

    async def _call(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        await self._store.pass_gates(method, self._index)
        answer = await call()
        await self._store.deliver(method, self._index)
        return answer

    @property
    def unapplied(self) -> int:
        return self._inner.unapplied

    async def recover(self) -> Recovered:
        return await self._call("recover", self._inner.recover)

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        return await self._call(
            "read_instances", lambda: self._inner.read_instances(keys, payloads=payloads)
        )

    async def count_instances(self, filter: InstanceFilter) -> int:
        return await self._call("count_instances", lambda: self._inner.count_instances(filter))

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        return await self._call("read_entities", lambda: self._inner.read_entities(ids))

    async def read_history(self, instance: int) -> list[bytes]:
        return await self._call("read_history", lambda: self._inner.read_history(instance))

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        return await self._call(
            "read_history", lambda: self._inner.read_history_part(instance, first, end)
        )

    async def read_request(self, request: str) -> RequestRow | None:
        return await self._call("read_request", lambda: self._inner.read_request(request))

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        return await self._call("query_instances", lambda: self._inner.query_instances(filter))

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        return await self._call("query_entities", lambda: self._inner.query_entities(filter))

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        return await self._call(
            "read_mail", lambda: self._inner.read_mail(actor, after, upto, limit)
        )

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        return await self._call(
            "read_outbox", lambda: self._inner.read_outbox(target, after, limit)
        )

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        await self._call("set_aside", lambda: self._inner.set_aside(rows))

    @property
    def place(self) -> str:
        return self._inner.place

    async def apply(self) -> None:
        await self._call("apply", self._inner.apply)

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        return await self._inner.find_unknown(known)

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        return await self._call("waiting", lambda: self._inner.waiting(actors))

    async def size(self) -> int:
        return await self._inner.size()


class JumpingClock(ManualClock):
    """A clock that jumps to whatever is waited for, so that no timer takes any time."""

    async def wait_until(self, due: int | None, woken: anyio.Event) -> None:
        if due is None:
            await woken.wait()
        else:
            await anyio.lowlevel.checkpoint()
            if due > self.now():
                self.advance((due - self.now()) / 1e6)


@define
class Content:
    """What a store holds, in numbers that nothing moves but an effect."""

    sequences: list[int]
    rows: list[dict[str, int]]


def content(store: MemoryStore) -> Content:
    """Count every kind of row in every partition, and the checkpoints so far."""
    kinds = (
        "instances",
        "history",
        "entities",
        "mail",
        "timers",
        "outbox",
        "requests",
    )
    rows = [{kind: len(getattr(one, kind)) for kind in kinds} for one in store.rows]
    return Content([one.sequence for one in store.rows], rows)


def everything(store: MemoryStore) -> list[dict[str, Any]]:
    """Give every durable row as plain values, epochs and sequences left out."""
    found: list[dict[str, Any]] = []
    for one in store.rows:
        fields = attrs.asdict(one)
        del fields["epoch"], fields["sequence"]
        found.append(fields)
    return found


async def persist(
    attempt: Callable[..., Awaitable[Any]], *arguments: Any, tries: int = 1_000, **options: Any
) -> Any:
    """Do what a patient client does: repeat a request whose error says that it may be repeated."""
    for number in range(tries):
        try:
            return await attempt(*arguments, **options)
        except (Crashed, StorageError):
            raise
        except (UnavailableError, OutcomeUnknownError):
            # A partition that fails again and again takes real time between its tries.
            await anyio.sleep(0 if number < 20 else 0.005)
    raise AssertionError(f"still unavailable after {tries} tries")


@contextmanager
def dying() -> Generator[None, None, None]:
    """Run a block that ends because the hub lost its store: by a crash, or to another owner."""
    try:
        yield
    except LeaseLostError:
        return
    raise AssertionError("the hub lived to the end")


@asynccontextmanager
async def within(seconds: float = 30.0) -> AsyncGenerator[None, None]:
    """Fail instead of hanging; no test waits for this time to pass."""
    with anyio.fail_after(seconds):
        yield


async def settle(turns: int = 50) -> None:
    """Let everything run that can run without the store or the clock moving on."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


class Crash(BaseException):
    """Stands for a bug of the framework's own, in the turn that meets it."""


def let_turns_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``Crash`` end the turn in which users' code raises it.

    All that users' code raises is that code's own failure, so a turn crashes by a bug only. This
    puts one behind the places where failures are taken.
    """
    for owner, name, place in ((EntityActor, "_fail", 1), (Executor, "_end", 1)):
        taken: Any = getattr(owner, name)

        def take(self: Any, *given: Any, taken: Any = taken, place: int = place) -> None:
            if isinstance(given[place], Crash):
                raise given[place]
            taken(self, *given)

        monkeypatch.setattr(owner, name, take)
