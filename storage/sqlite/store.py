"""The SQLite store: a folder with two files per partition, a journal and tables.

A commit is one small write to the journal. What was committed is applied a little later: brought
into the tables, several checkpoints as one (``applier.py``). Reads correct what they find in the
tables by what is not applied yet (``unapplied.py``).

Invariants:

* A checkpoint is one statement outside any transaction, so SQLite applies all of it or nothing,
  and a caller that stops waiting in the middle cannot leave a transaction open.
* Only the journal's connection commits, only the applier writes to the tables. Reads of single
  actors and pages of queries have read-only connections of their own, so neither a long query nor
  a long page keeps the others waiting.
* After an error whose outcome is unknown the connections are not used again: ``recover`` opens
  new ones.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal, TypeVar, get_args

import orjson
from anyio import CancelScope, to_thread

from ...actors.errors import (
    LeaseLostError,
    StorageError,
    StoreFullError,
    StoreInUseError,
    StoreMovedError,
    UsageError,
)
from ...actors.logs import Log
from ..bridge import AsyncioBridge
from ..encoding import PARTS, encode_in_steps, encode_parts, next_numbers
from ..layered import LayeredReads, Reads, make_layer
from ..layers import Layers
from ..marks import Mark
from ..mended import check_places, mend_entity, mend_instance
from ..pieces import is_large
from ..records import (
    SLICE_ROWS,
    Checkpoint,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    Recovered,
    SetAside,
    TimerRow,
)
from ..slices import in_slices, map_each, turn_of_loop
from .applier import Applier
from .committer import Committers
from .connection import Connection, connect, log_of
from .faults import explained, lease_lost
from .folder import Ownership, check_sqlite, journal_file, partition_file, prepare
from .journal import Journal
from .marks import read_mark
from .presence import Presence
from .queries import (
    WITH_PAYLOADS,
    WITH_STATES,
    WITHOUT_PAYLOADS,
    Candidate,
    choose,
    count_matches,
    entity_page,
    instance_candidates,
    instance_count,
    instance_page,
)
from .takeover import Takeover, set_aside, take_over

Synchronous = Literal["FULL", "NORMAL", "OFF", "EXTRA"]

COMMIT: Final = f"INSERT INTO entry VALUES ({', '.join('?' * (PARTS + 5))})"
"""Takes sequence, epoch, applied, next_id and next_row, and the parts."""
REMEMBER: Final = "UPDATE meta SET sequence = max(sequence, ?)"
CLEAR: Final = "DELETE FROM entry WHERE sequence <= ?"
UNKNOWN: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_live WHERE status NOT IN"
    " ('Completed', 'Failed', 'Canceled', 'Terminated') AND (name, ifnull(version, char(0))) NOT IN"
    " (SELECT value ->> 0, ifnull(value ->> 1, char(0)) FROM json_each(CAST(? AS TEXT)))"
)
WAITING: Final = (
    "SELECT m.actor, count(*) FROM json_each(?) AS a CROSS JOIN mail_row m ON m.actor = a.value"
    " GROUP BY m.actor"
)
READ_INSTANCES: Final = (
    f"SELECT {WITH_PAYLOADS} FROM instance_row r LEFT JOIN input_row i ON i.id = r.id"
    " WHERE r.key IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
)
READ_STATUSES: Final = (
    f"SELECT {WITHOUT_PAYLOADS} FROM instance_row r"
    " WHERE r.key IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
)
READ_ENTITIES: Final = (
    f"SELECT {WITH_STATES} FROM entity_row e WHERE (e.name, e.key) IN"
    " (SELECT value ->> 0, value ->> 1 FROM json_each(CAST(? AS TEXT)))"
)
READ_HISTORY_PART: Final = (
    "SELECT seq, CAST(body AS BLOB) FROM history_row WHERE instance = ?1 AND seq < ?3 AND seq >="
    " (SELECT coalesce(max(seq), 0) FROM history_row WHERE instance = ?1 AND seq <= ?2)"
)
READ_HISTORY: Final = (
    "SELECT seq, CAST(body AS BLOB), n, CASE WHEN json_valid(body) THEN json_array_length(body) END"
    " FROM history_row WHERE instance = ?"
)
READ_HISTORIES: Final = (
    "SELECT h.seq, CAST(h.body AS BLOB), h.n, CASE WHEN json_valid(h.body) THEN"
    " json_array_length(h.body) END, h.instance FROM json_each(?) AS a"
    " CROSS JOIN history_row h ON h.instance = a.value"
)
READ_TIMERS: Final = (
    "SELECT n, due, actor, CAST(body AS BLOB) FROM timer_row WHERE n > ? ORDER BY n LIMIT ?"
)
# Lengths are summed up first, so that no more bodies are read than a slice may have.
_SLICE = (
    "WITH page AS (SELECT n, sum(size) OVER (ORDER BY n) - size AS before FROM"
    " (SELECT n, length(body) AS size FROM {source} ORDER BY n LIMIT ?))"
    " SELECT t.n, {columns}, CAST(t.body AS BLOB) FROM page JOIN {table} t ON t.n = page.n"
    " WHERE page.before < ? ORDER BY t.n"
)
READ_MAIL: Final = _SLICE.format(
    source="mail_row WHERE actor = ? AND n > ? AND n <= ?", columns="t.actor", table="mail_row"
)
READ_ALL_MAIL: Final = _SLICE.format(
    source="mail_row WHERE n > ? AND n <= ?", columns="t.actor", table="mail_row"
)
READ_OUTBOX: Final = _SLICE.format(
    source="outbox_row WHERE target = ? AND n > ?", columns="t.target, t.last", table="outbox_row"
)
READ_REQUEST: Final = "SELECT request, at, CAST(body AS BLOB) FROM request_row WHERE request = ?"

_READS: Final = Reads(
    instances=READ_INSTANCES,
    statuses=READ_STATUSES,
    entities=READ_ENTITIES,
    history=READ_HISTORY,
    history_part=READ_HISTORY_PART,
    request=READ_REQUEST,
    mail=READ_MAIL,
    all_mail=READ_ALL_MAIL,
    outbox=READ_OUTBOX,
)

# A journal is small, and what is copied from its log to the file delays a commit. A longer log saves
# a quarter of the bytes; but until it is as long as it gets, each commit makes the file longer,
# which takes the disk as long again.
JOURNAL_PRAGMAS: Final = (
    "PRAGMA wal_autocheckpoint = 1000; PRAGMA cache_size = -16384;"
    "PRAGMA journal_size_limit = 16777216;"
)
TABLES_PRAGMAS: Final = (
    "PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16384;"
    "PRAGMA journal_size_limit = 67108864;"
)
READER_PRAGMAS: Final = "PRAGMA cache_size = -16384;"

_T = TypeVar("_T")

_log = Log("perdure.storage")


class SqlitePartition(LayeredReads):
    """One partition of a ``SqliteStore``.

    Attributes:
        journal: the file that commits go to.
        querier: the connection that queries read by; other reads have one of their own.
        bridge: where these are run.
        applier: what brings the tables up to the journal, for the owner at hand.
    """

    reads = _READS

    def __init__(
        self,
        folder: Path,
        number: int,
        synchronous: str,
        bridge: AsyncioBridge,
        committers: Committers,
    ) -> None:
        self._path = partition_file(folder, number)
        self._journal_path = journal_file(folder, number)
        self.bridge = bridge
        # Without a sync the journal could lose its newest entries in a power cut, which NORMAL
        # says; but what it has given to the tables must not be lost there.
        applying = "OFF" if synchronous == "OFF" else "FULL"
        self._applying = f"PRAGMA synchronous = {applying};{TABLES_PRAGMAS}"
        committing = f"PRAGMA synchronous = {synchronous};{JOURNAL_PRAGMAS}"
        self.journal = Journal(self._journal_path, committing, committers)
        self._reader = Connection(self._path, READER_PRAGMAS)
        self.querier = Connection(self._path, READER_PRAGMAS)
        self._presence = Presence(self._path, self._journal_path)
        self._takeover = Takeover()
        self.applier: Applier | None = None
        self._last: Applier | None = None  # the one before, which reads need until there is another
        self._closed = False
        self._broken = False
        self._commits_under_way = 0
        self._at_rest: Event | None = None  # told when a closing store has none any more

    @property
    def place(self) -> str:
        """The file of the tables."""
        return str(self._path)

    async def recover(self) -> Recovered:
        """Read what is needed to go on, under a new epoch that is durable on return."""
        with CancelScope(shield=True):
            if self._broken:
                await self._reopen()
            self._check_open()
            self._broken = True
            if self.applier is not None:
                self._last, self.applier = self.applier, None
            taken = await self._takeover.run(
                partial(take_over, self._path, self._journal_path, self._presence, self._last)
            )
            try:
                self._check_open()
            except StorageError:
                taken.close()
                raise
            recovered = taken.recovered
            self.applier = Applier(
                self._path,
                taken.tables,
                self._applying,
                recovered.sequence,
                recovered.epoch,
                self._presence,
            )
            if self.journal.is_open:
                taken.journal.close()  # quick, as it is not the last one to the file
            else:
                self.journal.adopt(taken.journal)
            self._last = None
            self._broken = False
            return recovered
        raise AssertionError("a scope that nobody cancels swallows nothing")

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"the store of {self._path} is closed; open it again")

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Put the checkpoint into the journal, all of it or nothing, and sync it to the disk.

        A cancelled caller waits for the outcome first, except when asyncio's own
        ``Task.cancel`` hits the call itself: then the checkpoint still ends, applied or not.

        Raises:
            LeaseLostError: the stored epoch or sequence is not the expected one.
            StoreFullError: no space; nothing was written.
            StorageError: anything else; ``recover`` tells by ``sequence`` whether it was written.
        """
        c = checkpoint
        applier = self.applier
        if applier is None:
            raise StorageError(f"{self._path} is closed, or not recovered yet")
        if c.sequence != applier.layers.sequence + 1:
            raise lease_lost(self._path)
        applier.layers.check(c)
        self._commits_under_way += 1
        try:
            await self._commit(c, applier)
        finally:
            self._commits_under_way -= 1
            if self._at_rest is not None and not self._commits_under_way:
                self._at_rest.set()

    async def _commit(self, c: Checkpoint, applier: Applier) -> None:
        try:
            if applier.lost is not None:
                raise StoreMovedError(str(applier.lost))
            if applier.is_behind:
                await self._apply(applier)
            with explained(self._journal_path):
                if is_long := is_large(c):
                    await turn_of_loop()  # what has just sealed it took its time as well
                parts = await in_slices(encode_in_steps(c)) if is_long else encode_parts(c)
                numbers = next_numbers(c)
                meta = (c.sequence, c.epoch, applier.layers.applied, *numbers)
                await self.journal.execute(COMMIT, (*meta, *parts))
        except (LeaseLostError, StoreFullError):
            raise
        except StorageError:
            self._broken = True
            raise
        size = sum(len(part) for part in parts if isinstance(part, bytes))
        if not is_long:
            applier.add(c, numbers, size)
            return
        # Beside what reads and the applier see, and all at once into that.
        applier.add_layer(await make_layer(c, numbers, size))

    async def _apply(self, applier: Applier) -> None:
        await self.bridge.run(lambda: _result(applier.apply()), shield=True)

    # For the reads.

    @property
    def _layers(self) -> Layers | None:
        return None if self.applier is None else self.applier.layers

    @property
    def _known_layers(self) -> Layers | None:
        applier = self.applier or self._last
        return None if applier is None else applier.layers

    async def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with explained(self._path):
            return await self.bridge.run(lambda: self._reader.fetch(sql, values))

    def _bind(self, texts: Iterable[str]) -> Sequence[Any]:
        return (orjson.dumps([*texts]),)

    def _bind_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Any]:
        return (orjson.dumps([*pairs]),)

    def _bind_one(self, text: str) -> Any:
        return text

    async def read_histories(self, instances: Sequence[int]) -> dict[int, list[bytes]]:
        """Give what ``read_history`` does, of several instances and in one round trip.

        Raises:
            StoreDamagedError: ``read_history`` would raise it of one of them.
        """
        await self.apply()
        rows, _ = await self._read(READ_HISTORIES, orjson.dumps([*instances]))
        found: dict[int, list[Any]] = {instance: [] for instance in instances}
        for *row, instance in rows:
            found[instance].append(row)
        histories: dict[int, list[bytes]] = {}
        for instance, its in found.items():
            chunks: dict[int, bytes] = {row[0]: row[1] for row in its}
            check_places(its, chunks, self._path)
            histories[instance] = [chunks[seq] for seq in sorted(chunks)]
        return histories

    async def read_timers(self, after: int, limit: int = SLICE_ROWS) -> list[TimerRow]:
        """Give the oldest messages that wait for their time, with ``n > after``."""
        await self.apply()
        rows, _ = await self._read(READ_TIMERS, after, limit)
        return [TimerRow._make(row) for row in rows]

    async def set_aside(self, rows: Sequence[SetAside]) -> None:
        """Keep copies of rows that nobody can read in the table ``damaged_row``; see ``place``."""
        self._check_open()
        if self.applier is not None:
            # It has the tables to itself for most of the time, but for those who wait for it.
            with suppress(StorageError, LeaseLostError):
                await self._apply(self.applier)
        with CancelScope(shield=True), explained(self._path):
            await to_thread.run_sync(set_aside, self._path, rows)

    async def apply(self) -> None:
        """Bring all that was committed by now into the tables."""
        self._check_open()
        applier = self.applier or self._last
        if applier is not None:
            await self._apply(applier)

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """Give one page of instances, ordered by (created, key)."""
        await self.apply()
        with explained(self._path):
            rows = await self.bridge.run(lambda: self._instance_rows(filter))
        return await in_slices(map_each(rows, lambda row: mend_instance(row, self._path)))

    async def count_instances(self, filter: InstanceFilter) -> int:
        """Count the instances that match, on all pages."""
        await self.apply()
        with explained(self._path):
            [row] = await self.bridge.run(lambda: self._counted(filter))
        return int(row[0])

    async def _counted(self, filter: InstanceFilter) -> list[Any]:
        return await self.querier.fetch(*instance_count(filter, await self._driver(filter)))

    async def _instance_rows(self, filter: InstanceFilter) -> list[Any]:
        return await self.querier.fetch(*instance_page(filter, await self._driver(filter)))

    async def _driver(self, filter: InstanceFilter) -> Candidate:
        candidates = instance_candidates(filter)
        driver = candidates[0]
        if len(candidates) > 1:
            [counts] = await self.querier.fetch(*count_matches(candidates))
            driver = choose(candidates, counts)
        return driver

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """Give one page of entities, ordered by (name, key)."""
        await self.apply()
        sql, values = entity_page(filter)
        with explained(self._path):
            rows = await self.bridge.run(lambda: self.querier.fetch(sql, values))
        return await in_slices(map_each(rows, lambda row: mend_entity(row, self._path)))

    async def find_unknown(self, known: Sequence[tuple[str, str | None]]) -> list[str]:
        """Give the keys of live instances whose name and version are none of those known."""
        await self.apply()
        rows, _ = await self._read(UNKNOWN, orjson.dumps([*known]))
        return [key for (key,) in rows if type(key) is str]

    async def waiting(self, actors: Sequence[str]) -> dict[str, int]:
        """Count the stored messages that wait for each of ``actors``, in one round trip."""
        await self.apply()
        rows, _ = await self._read(WAITING, orjson.dumps([*set(actors)]))
        return dict(rows)

    async def size(self) -> int:
        """Give the bytes of the partition's files and of their write-ahead logs."""
        await self._read("SELECT 1 FROM meta")  # refuses a closed store
        return await to_thread.run_sync(self._size)

    def _size(self) -> int:
        files = [self._path, self._journal_path]
        files += [log_of(path) for path in files]
        return sum(path.stat().st_size for path in files if path.exists())

    async def close(self) -> None:
        """Apply what was committed, and refuse every call from now on."""
        was_closed, self._closed = self._closed, True
        with CancelScope(shield=True):
            await to_thread.run_sync(self._takeover.wait)
            with explained(self._path):
                await self.bridge.run(self._close_readers)
            if self._commits_under_way:  # whose checkpoint has to come to the tables, too
                self._at_rest = Event()
                await to_thread.run_sync(self._at_rest.wait)  # they may be on another loop
            applier = self.applier
            if applier is not None:
                await to_thread.run_sync(applier.stop)
            if (
                applier is not None
                and applier.layers.applied == applier.layers.sequence
                and not was_closed
            ):
                await self._clear(applier.layers.applied)
            with explained(self._journal_path):
                await self.journal.close(for_good=True)
            lost = None if applier is None else applier.lost
            if lost is not None and not was_closed:
                raise StoreMovedError(str(lost))
            with explained(self._path):
                await to_thread.run_sync(self.fold_log)

    async def _clear(self, applied: int) -> None:
        """Empty the journal, which is tidy, and not needed."""
        try:
            await self.journal.execute(REMEMBER, (applied,))
            await self.journal.execute(CLEAR, (applied,))
        except (sqlite3.Error, ValueError) as error:
            _log.warning("the journal %s is not emptied: %s", self._journal_path, error)

    def fold_log(self) -> None:
        """Have SQLite fold the tables' log into their file; blocks."""
        # A log is folded into its file by the last connection, unless that only reads.
        if log_of(self._path).exists():
            with closing(connect(self._path)) as tables:
                tables.execute("SELECT 1 FROM meta")

    async def _close_readers(self) -> None:
        for connection in (self._reader, self.querier):
            await connection.close(for_good=True)

    async def _reopen(self) -> None:
        """Let go of connections that may be broken; the next use opens them again."""
        await self.bridge.run(self._reopen_readers)
        with suppress(sqlite3.Error):
            await self.journal.close(for_good=False)

    async def _reopen_readers(self) -> None:
        for connection in (self._reader, self.querier):
            with suppress(sqlite3.Error, ValueError):
                await connection.close(for_good=False)


def _folder_of(path: str | os.PathLike[str]) -> Path:
    kind: type = type(path)
    try:
        name: object = os.fspath(path)
    except Exception:  # of a user's class
        name = None
    if not isinstance(name, str):
        raise UsageError(f"path must be a str or a Path, not a {kind.__name__}")
    if not name or "\0" in name:
        raise UsageError(f"store: {name[:200]!r} is no path of a folder")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # ~somebody
        raise UsageError(f"store: {name[:200]!r} is no path of a folder: {error}") from error


_P = TypeVar("_P", bound=SqlitePartition)


async def _result(future: Future[_T]) -> _T:
    return await asyncio.wrap_future(future)


class SqliteStore:
    """A hub in a folder, two SQLite files per partition.

    Args:
        path: the folder; it and its parents are made if missing.
        synchronous: ``FULL`` makes a commit survive a power cut. ``NORMAL`` survives only the end
            of the process, and may lose the last commits in a power cut. ``OFF`` may lose all.

    Attributes:
        partitions: those that are open here.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL") -> None:
        given: object = synchronous
        if type(given) is not str or given not in get_args(Synchronous):
            shown = repr(given) if type(given) is str else f"a {type(given).__name__}"
            choices = ", ".join(get_args(Synchronous))
            raise UsageError(f"synchronous must be one of {choices}, not {shown}")
        self.path = _folder_of(path)
        self._synchronous = synchronous
        self._ownership: Ownership | None = None
        self._bridge = AsyncioBridge()
        self._committers = Committers()
        self.partitions: list[SqlitePartition] = []

    @property
    def durability(self) -> str:
        """How durable a commit is, in words for people."""
        return f"sqlite WAL synchronous={self._synchronous}"

    @property
    def location(self) -> str:
        """What another process names this store by."""
        if self._synchronous != "FULL":
            return f"sqlite:{self.path.absolute()}?synchronous={self._synchronous}"
        return f"sqlite:{self.path.absolute()}"

    @property
    def spec(self) -> str:
        """What ``open_store`` makes this store of."""
        return self.location

    async def read_mark(self) -> Mark | None:
        """Read that the hub moves, if it does."""
        return await to_thread.run_sync(read_mark, partition_file(self.path, 0))

    async def attach(self, partitions: int) -> Sequence[SqlitePartition]:
        """Give the partitions of a folder that another process of the hub owns.

        Each opens its file when it is first used.
        """
        return [self.partition(number, SqlitePartition) for number in range(partitions)]

    async def open(
        self, partitions: int, *, token: str | None = None, is_owned: bool = False
    ) -> Sequence[SqlitePartition]:
        """Take the folder over and give its partitions, making them if it is new.

        Args:
            partitions: how many.
            token: of the migration that goes on, by which the hub leaves, or comes, while it serves.
            is_owned: whether somebody else of this process has taken the folder, and keeps it.

        Raises:
            StoreInUseError: another hub owns it.
            StoreMovedError: its hub is not here any more, or not all of it.
            StoreVersionError: newer schema, or another number of partitions.
            StoreDamagedError: damaged, or not a Perdure store.
            StoreReadOnlyError: it cannot be written to.
            StorageError: SQLite is too old.
        """
        if self._ownership is not None:
            raise StoreInUseError(f"{self.path} is open already; close this store first")
        with CancelScope(shield=True):
            await to_thread.run_sync(self._take, partitions, token, is_owned)
            self.partitions = [
                self.partition(number, SqlitePartition) for number in range(partitions)
            ]
        return self.partitions

    def partition(self, number: int, kind: type[_P]) -> _P:
        """Give a partition anew; it opens its files when it is first used."""
        return kind(self.path, number, self._synchronous, self._bridge, self._committers)

    def renew(self, number: int, kind: type[_P]) -> _P:
        """Have a partition be another one of its kind, which is the one to be served next."""
        made = self.partitions[number] = self.partition(number, kind)
        return made

    def _take(self, partitions: int, token: str | None, is_owned: bool) -> None:
        check_sqlite()
        if is_owned:
            prepare(self.path, partitions, token=token)
            return
        ownership = Ownership(self.path)
        ownership.take()
        try:
            prepare(self.path, partitions, token=token)
        except BaseException:
            ownership.release()
            raise
        self._ownership = ownership

    async def close(self) -> None:
        """Give the folder up, with all that was committed in the tables. Idempotent."""
        partitions, self.partitions = self.partitions, []
        errors: list[StorageError] = []
        with CancelScope(shield=True):
            try:
                for partition in partitions:
                    try:
                        await partition.close()
                    except StorageError as error:
                        errors.append(error)
            finally:
                await to_thread.run_sync(self._fold_logs)
                await to_thread.run_sync(self._release)
        if errors:
            raise errors[0]

    def _fold_logs(self) -> None:
        # Of two processes that close a file at once neither may be the last, and its log stays.
        if self._ownership is None:
            return
        for log in self.path.glob("*.sqlite-wal"):
            with (
                suppress(sqlite3.Error),
                closing(connect(log.with_name(log.name.removesuffix("-wal")))) as file,
            ):
                file.execute("SELECT 1 FROM meta")

    def _release(self) -> None:
        self._bridge.close()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.release()
