"""Connections to PostgreSQL: each opened when it is first used, and anew after it broke.

asyncpg's are of one asyncio loop; a link that is used on another one opens another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final, TypeVar

from ...actors.errors import UsageError
from ...actors.logs import Log
from .place import Place

T = TypeVar("T")

Connection = Any
"""A connection of asyncpg's, which has no types of its own."""

CONNECT_S: Final = 10.0
"""Seconds in which a connection must be there."""

WORRYING: Final = "WARNING"
"""How grave a message has to be that makes the outcome of what was under way unknown."""

LONG_S: float = 1.0
"""Seconds that somebody waits for one of several connections before the log says so."""
SILENT_S: Final = 60.0
"""Seconds in which it says so once."""

CLOSE_S: float = 5.0
"""Seconds that a connection is waited for which is to be closed."""

HELD_S: float = 5.0
"""Seconds that a server keeps a transaction open, and what that has locked, without a word."""

_STATEMENTS: Final = 200

_log = Log("perdure.storage")

# A server that is gone without a word is noticed within some ten seconds.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 5))
_UNACKNOWLEDGED_MS: Final = 10_000


def driver() -> Any:
    """Give asyncpg.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise UsageError(
            "a hub on PostgreSQL needs asyncpg: pip install 'perdure[postgres]'"
        ) from error
    return asyncpg


async def connect(place: Place, dsn: str | None = None, *, name: str = "perdure") -> Connection:
    """Open a connection."""
    asyncpg = driver()
    connection = await asyncpg.connect(
        dsn or place.dsn,
        timeout=CONNECT_S,
        command_timeout=None,
        statement_cache_size=0 if place.pooled else _STATEMENTS,
        server_settings=None if place.pooled else {"application_name": name},
    )
    try:
        _keep_alive(connection)
        # JSON is bytes on the way in and out, and is not looked at.
        await connection.set_type_codec(
            "json", schema="pg_catalog", encoder=_as_it_is, decoder=bytes, format="binary"
        )
    except BaseException:
        connection.terminate()
        raise
    return connection


@asynccontextmanager
async def transaction(
    connection: Connection, *, held_s: float | None = None, locked_s: float | None = None
) -> AsyncGenerator[None]:
    """Begin a transaction, which the server ends where it hears nothing for a while.

    What a machine that is gone without a word had locked would stay locked else, until the server
    finds its connection dead, by default after two hours.

    Args:
        connection: which has none.
        held_s: how long that is, in seconds; None for ``HELD_S``.
        locked_s: how long a statement waits for a lock, before it fails; None for what is set there.
    """
    if held_s is None:
        held_s = HELD_S
    # For this transaction: behind a pooler the session is another's next.
    settings = f"SET LOCAL idle_in_transaction_session_timeout = '{held_s * 1_000:.0f}ms'"
    if locked_s is not None:
        settings += f"; SET LOCAL lock_timeout = '{locked_s * 1_000:.0f}ms'"
    async with connection.transaction():
        await connection.execute(settings)
        yield


def _as_it_is(value: bytes) -> bytes:
    return value


def _keep_alive(connection: Connection) -> None:
    import socket

    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    raw = None if transport is None else transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


class Link:
    """One connection, which one call at a time uses; for calls on asyncio.

    Args:
        place: where it leads.
        name: what the server calls it.
        check: what each connection has to pass before it is used.
        on_lost: told when one breaks that nobody has closed.
    """

    def __init__(
        self,
        place: Place,
        name: str = "perdure",
        check: Callable[[Connection], Awaitable[None]] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._place = place
        self._name = name
        self._check = check
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._opened: Connection | None = None
        self._closed = False
        self.warnings = 0

    async def use(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something with the connection, once those before have done so.

        One that broke meanwhile is not used again. Whoever is cancelled breaks it, as nobody
        knows then what it is in the middle of.

        Raises:
            ValueError: it is closed.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.drop()
            self._loop, self._turn = loop, asyncio.Lock()
        async with self._turn:
            if self._closed:
                raise ValueError("closed")
            connection = self._opened
            if connection is None or connection.is_closed():
                connection = self._opened = await self._open()
            try:
                return await work(connection)
            except BaseException as error:
                if not is_answer(error):
                    self.drop()
                raise

    async def _open(self) -> Connection:
        connection = await connect(self._place, name=self._name)
        try:
            connection.add_log_listener(self._hear)
            connection.add_termination_listener(self._end)
            if self._check is not None:
                await self._check(connection)
            if self._closed:  # meanwhile, and nobody closes what is opened now
                raise ValueError("closed")
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _end(self, connection: Connection) -> None:
        # What was closed here is none of it any more. A driver that finds the connection broken
        # says so before whoever uses it hears of that, and drops it.
        if connection is self._opened and self._on_lost is not None:
            self._on_lost()

    def _hear(self, _: Connection, message: Any) -> None:
        if getattr(message, "severity_en", None) == WORRYING:
            self.warnings += 1

    def drop(self) -> None:
        """Let go of the connection, without a word; the next use opens another."""
        opened, self._opened = self._opened, None
        if opened is None or self._loop is None or self._loop.is_closed():
            return
        if self._loop is _running():
            opened.terminate()
        else:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(opened.terminate)

    def break_off(self) -> None:
        """Close it at once; whoever uses it sees it break. In any thread."""
        self._closed = True
        self.drop()

    async def close(self) -> None:
        """Close it, once what uses it has ended; what hangs is not waited for. Idempotent."""
        self._closed = True
        if self._loop is not _running():
            self.drop()
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._turn.acquire()
        except TimeoutError:
            self.drop()  # whoever uses it sees it break
            return
        try:
            opened, self._opened = self._opened, None
            if opened is not None:
                with suppress(Exception):  # the server sees its end in any case
                    await opened.close(timeout=2.0)
        finally:
            self._turn.release()


class Pool:
    """Links of which each user has one to himself; for calls on asyncio.

    So who has to wait at the server holds nobody else up. Where all are in use another one is
    opened, up to a limit; whoever comes then waits for one, in order.

    Args:
        make: makes a link.
        most: how many there may be.
        kept: how many of them stay open where nobody uses them.

    Attributes:
        waits: how often somebody came while as many were in use as there may be.
    """

    def __init__(self, make: Callable[[], Link], most: int, kept: int) -> None:
        self._make = make
        self._most = most
        self._kept = kept
        self._loop: asyncio.AbstractEventLoop | None = None
        self._places = asyncio.Semaphore(most)
        self._idle: list[Link] = []
        self._used = set[Link]()
        self._closed = False
        self._silent_until = 0.0
        self.waits = 0

    async def use(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something with a connection; see ``Link.use``."""
        async with self.link() as link:
            return await link.use(work)

    @asynccontextmanager
    async def link(self) -> AsyncGenerator[Link]:
        """Have a link that nobody else uses meanwhile.

        Raises:
            ValueError: it is closed.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._places = loop, asyncio.Semaphore(self._most)
            self._used.clear()
        complaint = None
        if self._places.locked():
            self.waits += 1
            complaint = loop.call_later(LONG_S, self._complain)
        try:
            await self._places.acquire()
        finally:
            if complaint is not None:
                complaint.cancel()
        try:
            if self._closed:
                raise ValueError("closed")
            link = self._idle.pop() if self._idle else self._make()
            self._used.add(link)
            try:
                yield link
            finally:
                self._used.discard(link)
                if len(self._idle) < self._kept and not self._closed:
                    self._idle.append(link)
                else:
                    await link.close()
        finally:
            self._places.release()

    def _complain(self) -> None:
        now = monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SILENT_S
            _log.warning(
                "all %d connections that may wait at the database have been in use for %g seconds: "
                "see there who holds locks, in pg_locks",
                self._most,
                LONG_S,
            )

    def break_off(self) -> None:
        """Close all of them at once; see ``Link.break_off``."""
        self._closed = True
        for link in (*self._idle, *self._used):
            link.break_off()

    async def close(self) -> None:
        """Close all of them; see ``Link.close``."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(link.close() for link in (*idle, *self._used)))


def is_answer(error: BaseException) -> bool:
    """Whether the server said so, and the connection is well."""
    asyncpg = driver()
    return isinstance(error, asyncpg.PostgresError) and not isinstance(
        error,
        (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError),
    )


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
