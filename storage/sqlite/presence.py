"""Whether the files of a partition still are where they were opened.

SQLite goes on with files that were deleted, moved or replaced, and says nothing. What it writes
there is lost, so somebody has to look now and then.
"""

from __future__ import annotations

import os
from pathlib import Path

from .connection import log_of
from .faults import missing


class Presence:
    """The files of one partition, by the device and inode that they had at first."""

    def __init__(self, tables: Path, journal: Path) -> None:
        self._paths = (tables, journal)
        self._known: dict[Path, tuple[int, int]] = {}

    def check(self, *, logs: bool = False) -> None:
        """Look for the files, and with ``logs`` for their write-ahead logs, which are in use.

        Raises:
            StoreMovedError: one of them is not there, or is another than the first time.
        """
        for path in self._paths:
            found = _identity(path)
            if self._known.setdefault(path, found) != found:
                raise missing(path)
            if logs:
                _identity(log_of(path))


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise missing(path) from error
    return found.st_dev, found.st_ino
