"""Connections to SQLite that open when they are first used, each with a thread of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final, Literal

import aiosqlite

from .mending import read_text

UNDECODABLE: Final = "Could not decode to UTF-8"
"""How sqlite3 begins to say that a text is none."""

COMMON: Final = "PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY;"
"""What every connection of a store begins with."""


class Connection:
    """An aiosqlite connection that opens when it is first used."""

    def __init__(self, path: Path, mode: Literal["rw", "ro"], pragmas: str) -> None:
        self._path = path
        self._mode: Literal["rw", "ro"] = mode
        self._pragmas = pragmas
        self._opened: aiosqlite.Connection | None = None
        self._made: sqlite3.Connection | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the next use finds it open."""
        return self._opened is not None

    async def fetch(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """Run one statement and give its rows."""
        opened = self._opened
        if opened is None:
            opened = await self._open()
        try:
            return list(await opened.execute_fetchall(sql, values))
        except sqlite3.OperationalError as error:
            if not str(error).startswith(UNDECODABLE):
                raise
        opened.text_factory = read_text
        try:
            return list(await opened.execute_fetchall(sql, values))
        finally:
            opened.text_factory = str

    def adopt(self, made: sqlite3.Connection) -> None:
        """Take a connection for the next use that would open one; it may come from any thread."""
        last, self._made = self._made, made
        if last is not None:
            last.close()

    async def _open(self) -> aiosqlite.Connection:
        if self._closed:
            raise ValueError("closed")
        made, self._made = self._made, None
        opening = _connection(location(self._path, self._mode), made)
        try:
            opened = await opening
            await opened.executescript(COMMON + self._pragmas)
        except BaseException:
            opening.stop()  # pyright: ignore[reportUnknownMemberType]
            raise
        return await self._settle(opened)

    async def _settle(self, opened: aiosqlite.Connection) -> aiosqlite.Connection:
        # During the awaits of _open another task may have opened it too, or closed it for good.
        if self._opened is None and not self._closed:
            self._opened = opened
            return opened
        await opened.close()
        if self._opened is None:
            raise ValueError("closed")
        return self._opened

    async def close(self, *, for_good: bool) -> None:
        """Close it; unless for good, the next use opens it again."""
        self._closed = self._closed or for_good
        made, self._made = self._made, None
        if made is not None:
            made.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()


def location(path: Path, mode: Literal["rw", "ro"]) -> str:
    """Name a file as SQLite's ``uri=True`` takes it."""
    return f"{path.resolve().as_uri()}?mode={mode}"


def _connection(uri: str, given: sqlite3.Connection | None) -> aiosqlite.Connection:
    """Make an unopened connection whose thread does not keep the process alive.

    A thread is a daemon if the one that made it is, and aiosqlite gives no other way to say so.
    Without it a program that fails before it closes its hub would never end.
    """
    made: list[aiosqlite.Connection] = []

    def make() -> None:
        if given is not None:
            made.append(aiosqlite.Connection(partial(_same, given), iter_chunk_size=64))
        else:
            made.append(aiosqlite.connect(uri, uri=True, isolation_level=None))

    maker = Thread(target=make, daemon=True)
    maker.start()
    maker.join()
    return made[0]


def _same(given: sqlite3.Connection) -> sqlite3.Connection:
    return given
