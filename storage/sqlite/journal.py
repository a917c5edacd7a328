"""A partition's journal: the file that its commits go to."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from .committer import Committer, Committers
from .connection import COMMON, connect


class Journal:
    """The connection that commits, in the thread of the event loop that its partition is on.

    It opens when it is first used.

    Args:
        path: the file.
        pragmas: how a connection to it is set up.
        committers: of the store.

    Attributes:
        opened: the connection, while it is open; for the thread that commits.
    """

    def __init__(self, path: Path, pragmas: str, committers: Committers) -> None:
        self._path = path
        self._pragmas = pragmas
        self._committers = committers
        self._committer: Committer | None = None
        self.opened: sqlite3.Connection | None = None
        self._made: sqlite3.Connection | None = None
        self._in_use = Lock()  # after a call that is held up the next may come in another thread
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the next use finds it open."""
        return self.opened is not None

    def adopt(self, made: sqlite3.Connection) -> None:
        """Take a connection for the next use that would open one; it may come from any thread."""
        last, self._made = self._made, made
        if last is not None:
            last.close()

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement and give its rows; see ``Committer.run``."""
        if self._closed:
            raise ValueError("closed")
        committer = self._committer = self._committers.enter(self._committer)
        return await committer.run(partial(self._execute, sql, values))

    def _execute(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._in_use:
            opened = self.opened or self._open()
            return opened.execute(sql, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        made, self._made = self._made, None
        if self._closed:
            raise ValueError("closed")
        opened = made or connect(self._path)
        try:
            opened.executescript(COMMON + self._pragmas)
        except BaseException:
            opened.close()
            raise
        self.opened = opened
        return opened

    async def close(self, *, for_good: bool) -> None:
        """Close it, after what it was given to do; unless for good, the next use opens it again."""
        self._closed = self._closed or for_good
        committer = self._committer
        if committer is None:
            self._close()
            return
        committer = self._committer = self._committers.enter(committer)
        try:
            await committer.run(self._close)
        finally:
            self._committer = None
            self._committers.leave(committer)

    def _close(self) -> None:
        with self._in_use:
            made, self._made = self._made, None
            if made is not None:
                made.close()
            opened, self.opened = self.opened, None
            if opened is not None:
                opened.close()
