"""The files of a hub that does not run, read as they lie: nothing is written, and no lock is taken.

What a hub that stopped in order has left is read in place. What one that was killed has left must
be brought together first, as its next start does: that is done on a copy, which is gone afterwards.

Invariants:

* Files are opened as immutable, so SQLite locks none of them and makes none beside them.
* What was read is given only if its files stayed as they were meanwhile.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from anyio import CancelScope, to_thread

from ...actors.errors import StorageError, UnavailableError
from ..bridge import AsyncioBridge
from ..marks import Mark
from .committer import Committers
from .connection import Connection, location, log_of
from .folder import APPLICATION_ID, check_sqlite, journal_file, partition_file
from .marks import mark_in
from .schema import SCHEMA_VERSION, lacking
from .store import READER_PRAGMAS, SqlitePartition, SqliteStore

_TRIES = 5

#: What a file is known by: its size, and when it was changed last.
_State = tuple[int, int] | None


class StoppedStore:
    """A hub's folder that nobody has open; from ``open`` to ``close`` it can be read.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridge = AsyncioBridge()
        self._in_place: list[_StillPartition] = []
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._copied: SqliteStore | None = None

    @property
    def location(self) -> str:
        """The folder, as a place."""
        return f"sqlite:{self._folder}"

    async def open(self) -> Sequence[SqlitePartition]:
        """Give its partitions, of which the methods that read may be called.

        Raises:
            UnavailableError: no hub's files are there, or one is at work on them.
            StoreMovedError: the hub is not there any more, or not yet.
            StorageError: they cannot be read.
        """
        check_sqlite()
        if not _exists(partition_file(self._folder, 0)):
            raise UnavailableError(f"no hub has its files in {self._folder}")
        try:
            count = await to_thread.run_sync(_count_in_order, self._folder)
            if count:
                mark = await to_thread.run_sync(_mark_in_order, self._folder)
                if mark is not None:
                    mark.refuse(self.location)
                committers = Committers()
                self._in_place = [
                    _StillPartition(self._folder, number, self._bridge, committers)
                    for number in range(count)
                ]
                return self._in_place
            return await self._open_copy()
        except BaseException:
            with CancelScope(shield=True):
                await self.close()
            raise

    async def _open_copy(self) -> Sequence[SqlitePartition]:
        self._copy = tempfile.TemporaryDirectory(prefix="perdure-")
        copy = Path(self._copy.name)
        await to_thread.run_sync(_copy_all, self._folder, copy)
        self._copied = SqliteStore(copy, synchronous="OFF")
        try:
            partitions = await self._copied.open(_stated_count(copy))
            for partition in partitions:
                await partition.recover()
        except StorageError as error:
            # It is not the copy that somebody has to repair.
            told = str(error).replace(str(copy), str(self._folder))
            raise type(error)(told) from error
        return partitions

    async def close(self) -> None:
        """Let go of it, and of a copy of it. Idempotent."""
        for partition in self._in_place:
            await partition.close()
        await to_thread.run_sync(self._bridge.close)
        copied, self._copied = self._copied, None
        if copied is not None:
            await copied.close()
        copy, self._copy = self._copy, None
        if copy is not None:
            await to_thread.run_sync(copy.cleanup)


class _StillPartition(SqlitePartition):
    """One partition whose files nobody writes to."""

    def __init__(
        self, folder: Path, number: int, bridge: AsyncioBridge, committers: Committers
    ) -> None:
        super().__init__(folder, number, "OFF", bridge, committers)
        files = (self._path, journal_file(folder, number))
        self._reader = _StillConnection(self._path, files)
        self.querier = _StillConnection(self._path, files)

    async def close(self) -> None:
        """Let go of it."""
        await self.bridge.run(self._close_readers)


class _StillConnection(Connection):
    """A connection that reads a file which nobody writes to."""

    def __init__(self, path: Path, files: Iterable[Path]) -> None:
        super().__init__(path, READER_PRAGMAS, mode="still")
        self._folder = path.parent
        self._files = with_logs(files)
        self._states = states(self._files)

    async def fetch(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """Run one statement and give its rows.

        Raises:
            UnavailableError: somebody writes there now.
        """
        try:
            rows = await super().fetch(sql, values)
        except sqlite3.Error:
            self._check()  # which says more
            raise
        self._check()
        return rows

    def _check(self) -> None:
        if states(self._files) != self._states:
            raise _at_work(self._folder)


def _at_work(folder: Path) -> UnavailableError:
    return UnavailableError(
        f"a hub is at work in {folder} that cannot be asked: give it a socket (perdure serve and "
        "perdure.run have one), or repeat this when it has stopped"
    )


def with_logs(files: Iterable[Path]) -> list[Path]:
    """Give files, each with its write-ahead log."""
    return [path for file in files for path in (file, log_of(file))]


def states(files: Iterable[Path]) -> list[_State]:
    """Say by what it would be seen that files change; a log that is empty is none."""
    found: list[_State] = []
    for path in files:
        try:
            known = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((known.st_size, known.st_mtime_ns) if known.st_size else None)
    return found


def _count_in_order(folder: Path) -> int:
    """Count the partitions of a hub that stopped in order, in this version; 0 if it did not."""
    count = _stated_count(folder)
    files = [
        make(folder, number) for number in range(count) for make in (partition_file, journal_file)
    ]
    if any(states(map(log_of, files))):
        return 0
    try:
        hubs = {_hub_in_order(folder, number, count) for number in range(count)}
        return count if len(hubs) == 1 and None not in hubs else 0
    except (sqlite3.Error, TypeError, ValueError):
        return 0  # what is wrong is told when the copy is opened


def _stated_count(folder: Path) -> int:
    """Give the number of partitions that the first one states; of a damaged one, that of files."""
    try:
        with closing(_open_still(partition_file(folder, 0))) as tables:
            [(count,)] = tables.execute("SELECT partitions FROM meta").fetchall()
    except (sqlite3.Error, ValueError):
        count = None
    return count if type(count) is int and count > 0 else len([*folder.glob("partition-*.sqlite")])


def _hub_in_order(folder: Path, number: int, count: int) -> str | None:
    """Give the hub of a partition whose tables have all that its journal has, and lack nothing."""
    path, journal_path = partition_file(folder, number), journal_file(folder, number)
    with closing(_open_still(path)) as tables, closing(_open_still(journal_path)) as journal:
        for file, its_path in ((tables, path), (journal, journal_path)):
            [(application,)] = file.execute("PRAGMA application_id").fetchall()
            [(version,)] = file.execute("PRAGMA user_version").fetchall()
            if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
                return None
            if lacking(file, its_path):
                return None
        owner = "SELECT epoch, hub, partition, partitions FROM meta"
        [(epoch, hub, *numbers)] = tables.execute(owner).fetchall()
        [of_journal] = journal.execute(owner).fetchall()
        [(sequence,)] = tables.execute("SELECT sequence FROM meta").fetchall()
        [(last,)] = journal.execute("SELECT ifnull(max(sequence), 0) FROM entry").fetchall()
        is_whole = of_journal == (epoch, hub, number, count) and numbers == [number, count]
        return str(hub) if is_whole and epoch % 2 == 0 and last <= sequence else None


def _mark_in_order(folder: Path) -> Mark | None:
    with closing(_open_still(partition_file(folder, 0))) as tables:
        return mark_in(tables)


def refuse_moved(folder: Path) -> None:
    """Refuse a hub that stopped in order in a folder, and is elsewhere by now.

    Raises:
        StoreMovedError: it is.
    """
    if _count_in_order(folder) and (mark := _mark_in_order(folder)) is not None:
        mark.refuse(f"sqlite:{folder}")


def _open_still(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(location(path, "still"), uri=True, isolation_level=None)


def _copy_all(folder: Path, copy: Path) -> None:
    """Copy the files of a hub, all as they were at one moment.

    Raises:
        UnavailableError: a hub is at work on them.
    """
    for _ in range(_TRIES):
        kinds = ("partition", "journal")
        files = [path for kind in kinds for path in sorted(folder.glob(f"{kind}-*.sqlite"))]
        before = states(with_logs(files))
        if _copied(files, copy) and states(with_logs(files)) == before:
            return
    raise _at_work(folder)


def _copied(files: Iterable[Path], copy: Path) -> bool:
    """Copy files, each with its log; False if one went away meanwhile."""
    for path in files:
        # A log lies beside what a link leads to; in the copy there are no links.
        for source, name in ((path, path.name), (log_of(path), f"{path.name}-wal")):
            made = copy / name
            made.unlink(missing_ok=True)
            try:
                shutil.copyfile(source, made)
            except FileNotFoundError:
                if source == path:
                    return False
            except OSError as error:
                raise StorageError(f"{source} cannot be copied: {error.strerror}") from error
    return True


def _exists(file: Path) -> bool:
    """Whether there is such a file; a name that none can have is that of none."""
    try:
        return file.exists()
    except OSError:
        return False
