"""The folder of a hub on disk: who owns it, which files it must have, how they come to be.

All of it is plain blocking code, run in a worker thread when a store is opened.

Invariants:

* A file under its final name is complete: files are made under another name, then renamed.
* ``partition-00.sqlite`` is renamed last. While it is missing the hub was never opened, so the
  other files can be made anew; once it exists, a missing file is lost data and said so.
* A file of an older schema is upgraded in one transaction, a partition's journal before its tables.
* Nothing here writes to a file that it has not found to be a healthy file of this hub.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from attrs import frozen

from ...actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)
from ...actors.logs import Log
from ..marks import Mark
from ..mended import is_count
from .connection import companions
from .faults import PATH_MAX, explained
from .marks import put_mark, read_mark
from .schema import SCHEMA_VERSION, SCRIPTS, Part, lacking, read_scripts, scripts_of

APPLICATION_ID = 0x50524455  # "PRDU", which file(1) and sqlite3 show
OLDEST_SQLITE = (3, 38, 0)  # the first with -> and ->>
SOFTWARE = "perdure"
PARTITIONS_MAX = 1024
_COUNT_MAX = 1 << 62

_log = Log("perdure.storage")
_NAME_MAX = 255


def partition_file(folder: Path, number: int) -> Path:
    """Name the file of a partition."""
    return folder / f"partition-{number:02}.sqlite"


def journal_file(folder: Path, number: int) -> Path:
    """Name the journal of a partition."""
    return folder / f"journal-{number:02}.sqlite"


def check_sqlite() -> None:
    """Refuse an SQLite without the JSON operators that a checkpoint is unpacked with."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StorageError(
            f"SQLite {sqlite3.sqlite_version} is too old; 3.38 or newer is needed: use a Python "
            "that is linked with a newer one"
        )


class Ownership:
    """The exclusive right to a folder, from ``take`` until ``release`` or the process's end.

    It is an exclusive transaction on ``owner.sqlite`` that never writes. The operating system
    ends it with the process, and SQLite also keeps a second hub of the same process out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: sqlite3.Connection | None = None

    def take(self) -> None:
        """Make the folder if need be, and take it.

        Raises:
            StoreInUseError: another hub has it.
            StoreReadOnlyError: it cannot be written to.
        """
        _make_folder(self._folder)
        path = self._folder / "owner.sqlite"
        if what := _no_file(path):
            raise StoreDamagedError(f"{path} is {what}; remove it, and the hub makes it anew")
        with explained(path):
            connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                connection.close()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                    raise StoreInUseError(
                        f"{self._folder} is in use by another hub; stop that one first, or give "
                        "this one a folder of its own"
                    ) from error
                raise
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def release(self) -> None:
        """Give the folder up. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _make_folder(folder: Path) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise StoreDamagedError(f"{folder} is a file, not the folder of a hub; give another path")
    if os.path.islink(folder) and not os.path.exists(folder):
        raise StoreDamagedError(
            f"{folder} is a link to {os.readlink(folder)}, which is not there; make that folder, "
            "or give another path"
        )
    if len(os.fsencode(os.path.realpath(partition_file(folder, 0)))) > PATH_MAX:
        raise _too_long(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # SQLite says only "unable to open"; this says why. Never by opening one of its own files:
        # closing that would drop the locks that another hub of this process holds on it.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StorageError(
                f"{folder} cannot be opened ({error.strerror}): allow the process more open files "
                "(ulimit -n)"
            ) from error
        if error.errno == errno.ENOSPC:
            raise StoreFullError(f"no space left for {folder}; free some, then go on") from error
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long(folder) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
            raise StoreReadOnlyError(
                f"{folder} cannot be written to, nor be a folder ({error.strerror}); give another path"
            ) from error
        raise StoreReadOnlyError(
            f"{folder} cannot be written to ({error.strerror}); check its owner and mount"
        ) from error


def _too_long(folder: Path) -> StorageError:
    """Say which part of a path is too long for the file system; an error number does not."""
    longest = max(folder.absolute().parts, key=lambda part: len(os.fsencode(part)))
    size, whole = len(os.fsencode(longest)), len(os.fsencode(folder.absolute()))
    what = f"its part {longest[:40]!r}... has {size:,} bytes, where file systems take 255 or fewer"
    if size <= _NAME_MAX:
        what = f"{str(folder)[:40]!r}... has {whole:,} bytes, and SQLite takes some {PATH_MAX}"
    return StorageError(f"the path of the store is too long: {what}; give another path")


@frozen
class Identity:
    """What a file says of itself in its table ``meta``."""

    hub: str
    partition: int
    partitions: int
    created: int
    sequence: int
    epoch: int
    version: int
    mode: str  # how SQLite writes to it
    lacks: tuple[Part, ...]

    @property
    def meta(self) -> tuple[int | str, ...]:
        """The first columns of the table ``meta`` behind the schema's version."""
        return (self.hub, self.partition, self.partitions, self.created, SOFTWARE)


def prepare(
    folder: Path, partitions: int, *, migrates: bool = False, token: str | None = None
) -> None:
    """Check the files of an owned folder, and make those of a new hub.

    Args:
        folder: where they are.
        partitions: how many the hub has.
        migrates: whether a hub that is on its way from or to another store is wanted.
        token: of the migration that goes on, by which the hub leaves while it serves.

    Raises:
        StoreMovedError: the hub is not here any more, or not yet.
        StoreDamagedError: a file is damaged, foreign, missing, or of another hub.
        StoreVersionError: newer schema, or another number of partitions.
    """
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise UsageError(f"a hub has 1 to {PARTITIONS_MAX} partitions, not {partitions}")
    stored = _stored(folder)
    main = partition_file(folder, 0)
    if main not in stored:
        _make_all(folder, partitions, stored, str(uuid.uuid4()), time.time_ns() // 1000)
        return
    if not migrates and (mark := read_mark(main)) is not None:
        mark.refuse(f"sqlite:{folder}", token)
    first = stored[main]
    if first.partitions != partitions:
        raise StoreVersionError(
            f"the hub in {folder} has {first.partitions} partitions, not {partitions}; open it "
            f"with partitions={first.partitions} (perdure serve --partitions {first.partitions})"
        )
    for number in range(partitions):
        path, journal = partition_file(folder, number), journal_file(folder, number)
        found = _check_member(path, stored.get(path), first, number)
        if found.version > 1 or journal in stored:
            _check_member(journal, stored.get(journal), first, number)
    for number in range(partitions):
        _upgrade(folder, stored[partition_file(folder, number)], stored)
        for path in (journal_file(folder, number), partition_file(folder, number)):
            if path in stored:
                _put_right(path, stored[path])


def _check_member(path: Path, found: Identity | None, first: Identity, number: int) -> Identity:
    if found is None:
        raise StoreDamagedError(f"{path} is missing; restore it from a copy of the whole folder")
    if (found.hub, found.partition, found.partitions) != (first.hub, number, first.partitions):
        raise StoreDamagedError(
            f"{path} is partition {found.partition} of {found.partitions} of hub {found.hub}, not "
            f"partition {number} of {first.partitions} of hub {first.hub}; restore the right file"
        )
    return found


def make_hub(folder: Path, partitions: int, hub: str, created: int, mark: Mark) -> None:
    """Make the files of a hub that comes from another store, in an owned folder without one.

    Raises:
        StoreDamagedError: there was one, of which something is missing.
    """
    _make_all(folder, partitions, _stored(folder), hub, created, mark)


def _stored(folder: Path) -> dict[Path, Identity]:
    return {
        path: identify(path)
        for kind in ("partition", "journal")
        for path in sorted(folder.glob(f"{kind}-*.sqlite"))
    }


def _make_all(
    folder: Path,
    partitions: int,
    stored: dict[Path, Identity],
    hub: str,
    created: int,
    mark: Mark | None = None,
) -> None:
    used = [path for path, identity in stored.items() if identity.sequence > 0]
    if used:
        raise StoreDamagedError(
            f"{partition_file(folder, 0)} is missing but {used[0]} has data; restore a copy of the "
            "whole folder"
        )
    for path in stored:
        path.unlink()
    for number in reversed(range(partitions)):
        meta = (hub, number, partitions, created, SOFTWARE)
        _make(journal_file(folder, number), meta)
        _make(partition_file(folder, number), meta, None if number else mark)


def _make(path: Path, meta: tuple[int | str, ...], mark: Mark | None = None) -> None:
    unfinished = path.with_suffix(".new")
    with explained(path):
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            connection.executescript("PRAGMA page_size = 4096; PRAGMA journal_mode = WAL;")
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {SCHEMA_VERSION};\n"
                f"{read_scripts(scripts_of(path))}\nCOMMIT;"
            )
            connection.execute(
                "INSERT INTO meta (one, schema_version, hub, partition, partitions, created,"
                " software) VALUES (1, ?, ?, ?, ?, ?, ?)",
                (SCHEMA_VERSION, *meta),
            )
            if mark is not None:
                put_mark(connection, mark)
        # Closing has folded the log into the file.
        unfinished.rename(path)
        _sync_folder(path.parent)


def _upgrade(folder: Path, found: Identity, stored: dict[Path, Identity]) -> None:
    """Bring a partition of an older schema up to this one; every byte of data stays."""
    journal = journal_file(folder, found.partition)
    if found.version == SCHEMA_VERSION:
        if stored[journal].version < SCHEMA_VERSION:
            raise StoreDamagedError(
                f"{journal} has schema version {stored[journal].version}, which is older than its "
                "partition's: they are of different moments; restore a copy of the whole folder"
            )
        return
    if journal not in stored:
        _make(journal, found.meta)
        _change(journal, f"UPDATE meta SET epoch = {found.epoch};")
    elif stored[journal].version < SCHEMA_VERSION:
        # Values are bound by position, so the new columns are the last ones there too.
        activities = (
            "ALTER TABLE entry ADD COLUMN activities TEXT;"
            "ALTER TABLE entry ADD COLUMN activities_deleted TEXT;"
        )
        _change(journal, activities if stored[journal].version < 3 else "")
    path = partition_file(folder, found.partition)
    has = max(1, found.version - 1)  # of the scripts, in whose order they were added
    _change(path, f"DROP VIEW checkpoint;\n{read_scripts(SCRIPTS[has:])}\n")


def _change(path: Path, script: str) -> None:
    """Change the schema of a file, all of it or nothing, to this version."""
    with explained(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}"
                f"UPDATE meta SET schema_version = {SCHEMA_VERSION};"
                f"PRAGMA user_version = {SCHEMA_VERSION};"
            )
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
                raise
            raise StoreDamagedError(
                f"{path} is not what a file of its schema version is ({error}); it was left as it "
                "is: restore a copy of the whole folder"
            ) from error
        _complete(connection, path, _replaceable(lacking(connection, path), path))
        connection.execute("COMMIT")


def _put_right(path: Path, found: Identity) -> None:
    """Give a file what it lacks and can be given, as another program may have left it."""
    if found.mode == "wal" and not found.lacks:
        return
    with explained(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _complete(connection, path, found.lacks)
        connection.execute("COMMIT")
        [(mode,)] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise StorageError(
                f"{path} cannot have a write-ahead log (SQLite keeps its journal mode {mode!r}); "
                "keep the folder on a local disk"
            )


def _complete(connection: sqlite3.Connection, path: Path, parts: tuple[Part, ...]) -> None:
    for part in parts:
        assert part.sql is not None
        try:
            connection.execute(part.sql)
        except (sqlite3.IntegrityError, sqlite3.OperationalError) as error:
            raise StoreDamagedError(
                f"{path} lacks {part.title}, which cannot be made anew ({error}); restore a copy "
                "of the whole folder"
            ) from error
        _log.warning("%s lacked %s, which was made anew", path, part.title)


def _replaceable(parts: tuple[Part, ...], path: Path) -> tuple[Part, ...]:
    """Give the parts back if nothing that they held is lost.

    Raises:
        StoreDamagedError: there is a column among them.
    """
    for part in parts:
        if part.sql is None:
            raise StoreDamagedError(
                f"{path} lacks {part.title}; restore a copy of the whole folder"
            )
    return parts


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and renames are journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_file(path: Path) -> str | None:
    """Say what is at a place that only a file may have; None if it is one, or nothing."""
    if os.path.isfile(path) or not os.path.lexists(path):
        return None
    if os.path.isdir(path):
        return "a folder, not a file"
    if os.path.islink(path):
        return f"a link to {os.readlink(path)}, which is not there"
    return "no file, but a pipe, a socket or a device"


def identify(path: Path) -> Identity:
    """Read what a file is.

    Raises:
        StoreDamagedError: it is none of a hub.
        StoreVersionError: it is of a newer version.
    """
    # SQLite takes an empty file for an empty database and a link to nowhere for a new one, and it
    # would wait for a pipe. What lies beside a file must not be a link at all.
    for place in (path, *companions(path)):
        what = _no_file(place)
        if what is None and place != path and place.is_symlink():
            what = f"a link to {os.readlink(place)}"
        if what is not None:
            raise StoreDamagedError(f"{place} is {what}; restore a copy of the whole folder")
    if path.stat().st_size == 0:
        raise StoreDamagedError(f"{path} is empty; restore a copy of the whole folder")
    with explained(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        try:
            return _read_identity(connection, path)
        finally:
            connection.close()


def _read_identity(connection: sqlite3.Connection, path: Path) -> Identity:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreDamagedError(
            f"{path} is an SQLite file of something else, not of a Perdure store; it was left as "
            "it is: give the hub another folder"
        )
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{path} has schema version {version}, and this release knows versions up to "
            f"{SCHEMA_VERSION}; upgrade perdure"
        )
    [(mode,)] = connection.execute("PRAGMA journal_mode").fetchall()
    is_journal = path.name.startswith("journal-")
    newest = "max(sequence, ifnull((SELECT max(sequence) FROM entry), 0))"
    try:
        connection.execute("BEGIN IMMEDIATE").connection.rollback()
        lacks: tuple[Part, ...] = ()
        if version == SCHEMA_VERSION:
            lacks = _replaceable(lacking(connection, path), path)
        found = connection.execute(
            "SELECT schema_version, hub, partition, partitions, created, "
            f"{newest if is_journal else 'sequence'}, epoch,"
            f" {'0, 0' if is_journal else 'next_id, next_row'} FROM meta"
        ).fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
            raise
        raise StoreDamagedError(f"{path} lacks the table meta ({error})") from error
    if found is None:
        raise StoreDamagedError(f"{path} has an empty table meta; restore a copy")
    stated, hub, partition, partitions, created, sequence, epoch, *rest = found
    for number in (stated, partition, partitions, created, sequence, epoch, *rest):
        # There has to be room above it for what is counted from now on.
        if not is_count(number) or number > _COUNT_MAX:
            raise StoreDamagedError(
                f"{path}, table meta, row 1: {number!r} is no count; restore a copy of the whole folder"
            )
    if stated != version or version < 1:
        raise StoreDamagedError(
            f"{path} has schema version {version} in its head and {stated} in the table meta; "
            "restore a copy of the whole folder"
        )
    return Identity(hub, partition, partitions, created, sequence, epoch, version, mode, lacks)
