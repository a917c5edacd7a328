"""Connections to SQLite's files: those that read open when first used, each with its own thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from threading import Lock, Thread
from traceback import clear_frames
from typing import Any, Final, Literal, cast

import aiosqlite
from anyio import move_on_after

from ..mended import read_text

UNDECODABLE: Final = "Could not decode to UTF-8"
"""How sqlite3 begins to say that a text is none."""

COMMON: Final = (
    "PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = FAST;"
)
"""What every connection of a store begins with."""


STOP_S: Final = 1.0
"""Seconds that the thread of a connection is waited for which is given up."""


class Connection:
    """An aiosqlite connection that reads, and opens when it is first used.

    Attributes:
        opened: the connection, while it is open.
    """

    def __init__(self, path: Path, pragmas: str, mode: Literal["ro", "still"] = "ro") -> None:
        self._path = path
        self._mode: Literal["ro", "still"] = mode
        self._pragmas = pragmas
        self.opened: aiosqlite.Connection | None = None
        self._closed = False

    async def fetch(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """Run one statement and give its rows."""
        opened = self.opened
        if opened is None:
            opened = await self._open()
        try:
            return list(await opened.execute_fetchall(sql, values))
        except sqlite3.Error as error:
            # Else the cursor lives on in the frames of a cycle, and what is read from here on is
            # what there was then, until Python collects it.
            clear_frames(error.__traceback__)
            if not str(error).startswith(UNDECODABLE):
                raise
        opened.text_factory = read_text
        try:
            return list(await opened.execute_fetchall(sql, values))
        finally:
            opened.text_factory = str

    async def _open(self) -> aiosqlite.Connection:
        if self._closed:
            raise ValueError("closed")
        connector = Connector(location(self._path, self._mode))
        opening = _connection(connector)
        try:
            try:
                opened = await opening
            except BaseException:
                connector.give_up()
                raise
            await opened.executescript(COMMON + self._pragmas)
        except BaseException:
            stopped = cast("Any", opening).stop()
            if stopped is not None:
                # A loop that has ended by then is one that the thread cannot tell any more.
                with move_on_after(STOP_S, shield=True):
                    await stopped
            raise
        return await self._keep(opened)

    async def _keep(self, opened: aiosqlite.Connection) -> aiosqlite.Connection:
        # During the awaits of _open another task may have opened it too, or closed it for good.
        if self.opened is None and not self._closed:
            self.opened = opened
            return opened
        await opened.close()
        if self.opened is None:
            raise ValueError("closed")
        return self.opened

    async def close(self, *, for_good: bool) -> None:
        """Close it; unless for good, the next use opens it again."""
        self._closed = self._closed or for_good
        opened, self.opened = self.opened, None
        if opened is not None:
            await opened.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open a file to write to; one thread may hand the connection to the next."""
    return connect_to(location(path, "rw"))


def connect_to(uri: str) -> sqlite3.Connection:
    """Open a file for whatever thread; the rest is said to SQLite in statements."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def location(path: Path, mode: Literal["rw", "ro", "still"]) -> str:
    """Name a file as SQLite's ``uri=True`` takes it; a still one is read, and written by nobody."""
    return f"{path.resolve().as_uri()}?mode={'ro&immutable=1' if mode == 'still' else mode}"


def companions(path: Path) -> list[Path]:
    """Name what SQLite keeps beside a file, wherever a link to it lies: its log comes first."""
    real = os.path.realpath(path)
    return [Path(real + end) for end in ("-wal", "-shm", "-journal")]


def log_of(path: Path) -> Path:
    """Name the write-ahead log of a file."""
    return companions(path)[0]


class Connector:
    """Opens a file in a connection's thread, which may be when nobody waits for it any more."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._made: sqlite3.Connection | None = None
        self._lock = Lock()
        self._is_given_up = False

    def __call__(self) -> sqlite3.Connection:
        made = connect_to(self._uri)
        with self._lock:
            if not self._is_given_up:
                self._made = made
                return made
        made.close()
        raise ValueError("closed")

    def give_up(self) -> None:
        """Have it closed, where it is open and where it will be."""
        with self._lock:
            self._is_given_up = True
            if self._made is not None:
                self._made.close()


def _connection(connector: Connector) -> aiosqlite.Connection:
    """Make an unopened connection whose thread does not keep the process alive.

    A thread is a daemon if the one that made it is, and aiosqlite gives no other way to say so.
    Without it a program that fails before it closes its hub would never end.
    """
    made: list[aiosqlite.Connection] = []

    def make() -> None:
        made.append(aiosqlite.Connection(connector, iter_chunk_size=64))

    maker = Thread(target=make, daemon=True)
    maker.start()
    maker.join()
    return made[0]
