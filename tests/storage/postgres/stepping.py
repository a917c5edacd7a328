"""One statement after another, in an order that a seed says, on a real server.

All members are in one loop, whose time is turned by hand and whose connections ask the ``Stage``
before they send anything, and before they hand on what was answered. So one statement is under way
at a time, but for those that wait for a lock in the server; what comes next is the schedule's choice.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from attrs import define, field

from perdure.storage.postgres.links import Connection, driver

SOON_S: Final = 120.0
"""Seconds of real time in which what was begun has to be done, or to wait for a lock."""
TAKES_S: Final = 0.0001
"""Seconds of the loop's time that a statement takes."""
_PATIENCE_S: Final = 0.001
_QUIET: Final = (
    "LISTEN ",
    "pg_advisory_lock(",
    "server_version_num",
    "pg_walfile_name",
    "enable_seqscan",
    "SET control = true",
)
"""Parts of what a new connection is prepared with, which is not a step of its own."""
_BLOCKED: Final = "SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity WHERE pid = ANY($1)"


class Actor(Protocol):
    """Whose connections they are."""

    @property
    def slot(self) -> int: ...

    @property
    def is_dead(self) -> bool: ...

    @property
    def is_paused(self) -> bool: ...

    @property
    def wires(self) -> list[Wire]: ...


_connect: Final = driver().connect

acting: ContextVar[Actor | None] = ContextVar("acting", default=None)
"""Who opens connections in this task; None for the test itself."""


class Quietude(selectors.DefaultSelector):
    """Tells when nobody on a loop has anything to do.

    Attributes:
        waiter: told of it.
        is_busy: whether something may be answered soon.
        next_s: in how many seconds of the loop's time the next timer is due; None if there is none.
        on_idle: called with that where nobody waits for ``waiter``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiter: asyncio.Future[None] | None = None
        self.is_busy: Callable[[], bool] = bool
        self.next_s: float | None = None
        self.on_idle: Callable[[float], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self.next_s = timeout
        if self.waiter is None:
            events = super().select(_PATIENCE_S if self.on_idle else 0.05)
            if not events and timeout is not None and self.on_idle is not None:
                self.on_idle(timeout)
            return events
        events = super().select(_PATIENCE_S if self.is_busy() else 0)
        if not events:
            waiter, self.waiter = self.waiter, None
            waiter.set_result(None)
        return events


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose time goes on when it is told to.

    Attributes:
        now: its time, in seconds.
    """

    def __init__(self) -> None:
        self.now = 1_000.0
        self.quietude = Quietude()
        super().__init__(self.quietude)

    def time(self) -> float:
        return self.now

    def go_on(self) -> None:
        """Have time go on by itself from now on, as quickly as all that is done allows."""

        def skip(seconds: float) -> None:
            self.now += seconds

        self.quietude.on_idle = skip

    async def until_quiet(self) -> None:
        """Return when nobody has anything to do, and nothing is answered."""
        waiter = self.quietude.waiter = self.create_future()
        await waiter


@define(eq=False)
class Call:
    """A statement that somebody sends, or would.

    Attributes:
        wire: by which.
        sql: the statement.
        values: what is bound.
        turn: how many came before.
        sent: done when it may be sent; an error where it never is.
        answer: done when what was answered may be handed on.
        is_held: whether it waits until somebody says ``release``.
        is_warned: whether the server is to say so with a warning, and not to mean it.
        is_lost: whether the connection breaks before the answer is handed on.
        is_of_pause: whether the answer is held because its member is paused.
    """

    wire: Wire
    sql: str
    values: Sequence[Any]
    turn: int
    sent: asyncio.Future[None] = field(factory=lambda: asyncio.get_running_loop().create_future())
    answer: asyncio.Future[None] | None = None
    is_held: bool = False
    is_warned: bool = False
    is_lost: bool = False
    is_of_pause: bool = False

    @property
    def order(self) -> tuple[int, str, int]:
        """By which those that could be first are told apart."""
        return self.wire.actor.slot, self.wire.name, self.turn

    @property
    def is_commit(self) -> bool:
        """Whether it stores checkpoints."""
        return "journal (" in self.sql

    @property
    def is_decisive(self) -> bool:
        """Whether it changes who has a partition, or what its tables have."""
        return "epoch" in self.sql or self.sql.startswith("COMMIT")

    def __str__(self) -> str:
        words = self.sql.replace("{s}.", "").split()
        what = " ".join(words[:3])
        if self.is_commit:
            numbers = self.values[:2]
            pairs = (
                zip(*numbers, strict=True) if isinstance(numbers[0], (tuple, list)) else [numbers]
            )
            what = "commit of " + ", ".join(f"{p}#{n}" for p, n in pairs)
        return f"member {self.wire.actor.slot}, {self.wire.name}: {what}"


class Stage:
    """Says who goes on.

    Args:
        loop: of all of them.
        judge: a connection of the test's own.

    Attributes:
        pending: what is not sent yet, in the order that it came.
        flying: what is sent, and not answered yet.
        held: what is answered, and waits until somebody says ``release``.
        answered: what is to be handed on.
        orphans: the server's processes whose clients have gone, and that may go on for a while.
        is_free: whether everything goes on by itself.
        spare: sessions that somebody has left, by whose they were and their name.
        opened: all sessions of actors.
    """

    def __init__(self, loop: SteppedLoop, judge: Connection) -> None:
        self.loop = loop
        self.judge = judge
        self.pending: list[Call] = []
        self.flying: list[Call] = []
        self.held: list[Call] = []
        self.answered: dict[Call, asyncio.Future[None]] = {}
        self.orphans: set[int] = set()
        self.quiet = 0
        self.is_free = True
        self.moves = 0
        self.turns = 0
        self.spare: dict[tuple[int, str], list[Connection]] = {}
        self.opened: list[Connection] = []
        # Who waits for a lock, and for whom: so it stays until these have done something.
        self._blocked: dict[int, set[int]] = {}
        loop.quietude.is_busy = lambda: bool(self.quiet or self._unknown())

    def _unknown(self) -> list[int]:
        """Give the server's processes of which it is not known that they wait for a lock."""
        pids = [call.wire.pid for call in self.flying]
        return [pid for pid in (*pids, *self.orphans) if pid not in self._blocked]

    def unblock(self, pid: int | None = None) -> None:
        """Take note that somebody may have let go of a lock; None is the test itself."""
        if pid is None:
            self._blocked.clear()
        elif self._blocked:
            self._blocked.pop(pid, None)
            freed = [one for one, blockers in self._blocked.items() if pid in blockers]
            for one in freed:
                del self._blocked[one]

    async def connect(self, *given: Any, **named: Any) -> Connection:
        """Do what asyncpg's ``connect`` does."""
        actor = acting.get()
        if actor is None:
            return await _connect(*given, **named)
        if actor.is_dead:
            raise ConnectionRefusedError("its process is gone")
        settings: dict[str, str] = named.get("server_settings") or {}
        name = settings.get("application_name", "?").removeprefix("perdure ")
        spare = self.spare.get((id(actor), name))
        inner = None
        while spare and inner is None:
            inner = spare.pop()
            if inner.is_closed():
                inner = None
        if inner is None:
            inner = await self.quietly(partial(_connect, *given, **named))
            self.opened.append(inner)
        wire = Wire(self, actor, name, inner)
        actor.wires.append(wire)
        return wire

    async def quietly(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something that is not a step, and waits for nobody."""
        self.quiet += 1
        if self.is_free:
            self.loop.now += TAKES_S
        try:
            return await work()
        finally:
            self.quiet -= 1
            self.moves += 1

    async def settle(self) -> None:
        """Return when all wait for their turn, for a lock, or for time to pass."""
        until = monotonic() + SOON_S
        while True:
            await self.loop.until_quiet()
            pids = self._unknown()
            if not self.quiet and not pids:
                if not self.answered:
                    return
                # Of several that waited for one lock, the server answers now the one first, now another.
                call, done = min(self.answered.items(), key=lambda item: item[0].order)
                del self.answered[call]
                done.set_result(None)
                continue
            if monotonic() > until:
                raise TimeoutError(
                    f"not answered: {[*map(str, self.flying)]}, {self.quiet} others, and processes"
                    f" {self.orphans} of the server"
                )
            if self.quiet:
                continue
            moves = self.moves
            found: dict[int, list[int]] = dict(map(tuple, await self.judge.fetch(_BLOCKED, pids)))
            self.orphans -= set(pids) - found.keys()
            if not all(found.values()):
                continue
            await self.loop.until_quiet()
            if moves == self.moves and not self.quiet:
                self._blocked |= {pid: set(blockers) for pid, blockers in found.items()}

    def ready(self) -> list[Call]:
        """Give what may be sent now."""
        calls = [call for call in self.pending if not (call.is_held or call.wire.actor.is_paused)]
        return sorted(calls, key=lambda call: call.order)

    def send(self, call: Call) -> None:
        """Have something sent."""
        self.loop.now += TAKES_S
        self.pending.remove(call)
        call.sent.set_result(None)

    def refuse(self, call: Call) -> None:
        """Have something never sent, since the connection breaks."""
        self.pending.remove(call)
        call.wire.terminate()
        call.sent.set_exception(ConnectionResetError("the connection broke before it was sent"))

    def release(self, call: Call) -> None:
        """Have something go on that was held."""
        call.is_held = False
        if call.answer is not None and not call.answer.done():
            call.answer.set_result(None)

    def fail_all(self) -> None:
        """Have all connections break, and nobody wait for his turn."""
        self.is_free = True
        for call in [*self.pending]:
            self.refuse(call)
        for call in [*self.held, *self.flying]:
            self.release(call)
        for done in self.answered.values():
            done.cancel()

    def release_all(self) -> None:
        """Have all go on that was held."""
        for call in [*self.pending, *self.held, *self.flying]:
            self.release(call)


class Wire:
    """A connection that asks before it sends, and before it hands on what was answered.

    What closes it leaves the session behind it for the next one, if nothing is under way there: to
    open one takes the server longer than all that a schedule has it do meanwhile.

    Args:
        stage: whom it asks.
        actor: whose it is.
        name: what the store calls it.
        inner: asyncpg's.

    Attributes:
        pid: the server's process.
    """

    def __init__(self, stage: Stage, actor: Actor, name: str, inner: Connection) -> None:
        self.stage = stage
        self.actor = actor
        self.name = name
        self.pid: int = inner.get_server_pid()
        self._inner = inner
        self._listeners: list[Any] = []
        self._is_closed = self._is_spoiled = False

    def is_closed(self) -> bool:
        return self._is_closed or bool(self._inner.is_closed())

    async def execute(self, query: str, *values: Any) -> Any:
        return await self._step(self._inner.execute, query, values)

    async def fetch(self, query: str, *values: Any) -> Any:
        return await self._step(self._inner.fetch, query, values)

    async def fetchval(self, query: str, *values: Any) -> Any:
        return await self._step(self._inner.fetchval, query, values)

    async def fetchrow(self, query: str, *values: Any) -> Any:
        return await self._step(self._inner.fetchrow, query, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        await self.execute("BEGIN")
        try:
            yield
        except BaseException:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")

    async def set_type_codec(self, *given: Any, **named: Any) -> None:
        await self.stage.quietly(partial(self._inner.set_type_codec, *given, **named))

    async def add_listener(self, *given: Any) -> None:
        await self.stage.quietly(partial(self._inner.add_listener, *given))

    def add_log_listener(self, listener: Any) -> None:
        self._listeners.append(listener)
        self._inner.add_log_listener(listener)

    def add_termination_listener(self, listener: Any) -> None:
        self._is_spoiled = True  # somebody waits for its end
        self._inner.add_termination_listener(listener)

    async def close(self, **named: Any) -> None:
        if not self._leave():
            await self.stage.quietly(partial(self._inner.close, **named))

    def terminate(self) -> None:
        if any(call.wire is self for call in self.stage.flying):
            self.stage.orphans.add(self.pid)
            self._is_spoiled = True
        self.stage.unblock()
        if not self._leave():
            self._inner.terminate()

    def _leave(self) -> bool:
        """Close it, if that needs no more than to leave the session to the next one."""
        if self._is_closed:
            return True
        self._is_closed = True
        inner = self._inner
        if self._is_spoiled or inner.is_closed() or inner.is_in_transaction():
            return False
        for listener in self._listeners:
            inner.remove_log_listener(listener)
        self.stage.spare.setdefault((id(self.actor), self.name), []).append(inner)
        return True

    async def _step(
        self, send: Callable[..., Awaitable[Any]], query: str, values: Sequence[Any]
    ) -> Any:
        stage = self.stage
        if self._is_closed:
            raise ConnectionResetError("the connection has broken")
        if stage.is_free or any(part in query for part in _QUIET):
            return await stage.quietly(partial(self._send, send, query, values))
        stage.turns += 1
        call = Call(self, query, values, stage.turns)
        stage.moves += 1
        stage.pending.append(call)
        try:
            await call.sent
        except asyncio.CancelledError:
            if call in stage.pending:
                stage.pending.remove(call)
            raise
        stage.flying.append(call)
        try:
            if call.is_warned:
                await self._inner.execute("SET perdure.warn = on")
            try:
                return await self._send(send, query, values)
            finally:
                if call.is_warned and not self._is_spoiled:
                    await self._inner.execute("RESET perdure.warn")
        finally:
            stage.flying.remove(call)
            stage.moves += 1
            stage.unblock(self.pid)
            done = stage.answered[call] = stage.loop.create_future()
            try:
                await done
            except asyncio.CancelledError:
                stage.answered.pop(call, None)
                raise
            await self._hand_on(call)

    async def _send(
        self, send: Callable[..., Awaitable[Any]], query: str, values: Sequence[Any]
    ) -> Any:
        if self._is_closed:
            raise ConnectionResetError("the connection has broken")
        try:
            return await send(query, *values)
        except BaseException as error:
            self._is_spoiled = self._is_spoiled or not isinstance(error, driver().PostgresError)
            raise

    async def _hand_on(self, call: Call) -> None:
        if call.answer is None and self.actor.is_paused:
            call.answer, call.is_of_pause = self.stage.loop.create_future(), True
        if call.answer is not None and not (self.stage.is_free or self.actor.is_dead):
            self.stage.held.append(call)
            try:
                await call.answer
            finally:
                self.stage.held.remove(call)
                self.stage.moves += 1
        if call.is_lost:
            self.terminate()
            raise ConnectionResetError("the connection broke before its answer was there")
