"""The SQLite store: a folder with one file per partition.

Invariants:

* A checkpoint is one statement outside any transaction, so SQLite applies all of it or nothing,
  and a caller that stops waiting in the middle cannot leave a transaction open.
* Only the writer connection writes. Reads of single actors and pages of queries have read-only
  connections of their own, so neither a long query nor a long page keeps the others waiting.
* After an error whose outcome is unknown the connections are not used again: ``recover`` opens
  new ones.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Final, Literal, get_args

import aiosqlite
import orjson
from anyio import CancelScope, to_thread

from ..actors.errors import (
    LeaseLostError,
    StorageError,
    StoreFullError,
    StoreInUseError,
    UsageError,
)
from .bridge import AsyncioBridge
from .faults import explained
from .folder import Ownership, check_sqlite, partition_file, prepare
from .queries import (
    WITH_PAYLOADS,
    WITH_STATES,
    choose,
    count_matches,
    entity_page,
    instance_candidates,
    instance_page,
)
from .records import (
    Checkpoint,
    CreatedRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    Recovered,
    RequestRow,
    TimerRow,
)

Synchronous = Literal["FULL", "NORMAL", "OFF", "EXTRA"]

COMMIT: Final = f"INSERT INTO checkpoint VALUES ({', '.join('?' * 18)})"
RECOVER: Final = "UPDATE meta SET epoch = epoch + 1 RETURNING sequence, epoch, next_id, next_row"
UNANSWERED: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_unanswered WHERE pending > 0 AND status"
    " NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated')"
)
PARKED: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_parked WHERE parked IS NOT NULL UNION ALL"
    " SELECT '@' || name || '@' || key FROM entity_row INDEXED BY entity_parked"
    " WHERE parked IS NOT NULL"
)
READ_INSTANCES: Final = (
    f"SELECT {WITH_PAYLOADS} FROM instance_row r LEFT JOIN input_row i ON i.id = r.id"
    " WHERE r.key IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
)
READ_ENTITIES: Final = (
    f"SELECT {WITH_STATES} FROM entity_row e WHERE (e.name, e.key) IN"
    " (SELECT value ->> 0, value ->> 1 FROM json_each(CAST(? AS TEXT)))"
)
READ_HISTORY: Final = "SELECT CAST(body AS BLOB) FROM history_row WHERE instance = ? ORDER BY seq"
READ_REQUEST: Final = "SELECT request, at, CAST(body AS BLOB) FROM request_row WHERE request = ?"

_dumps = orjson.dumps
_json = orjson.Fragment


def encode_checkpoint(checkpoint: Checkpoint) -> tuple[object, ...]:
    """Give the parameters of ``COMMIT``: one JSON text per part, ``None`` for an empty one."""
    c = checkpoint
    return (
        c.sequence,
        c.epoch,
        _dumps(c.purged) if c.purged else None,
        _dumps(c.rewritten) if c.rewritten else None,
        _encode_created(c.created) if c.created else None,
        _encode_progress(c.progress) if c.progress else None,
        _dumps([(i, seq, _json(body)) for i, seq, body in c.history]) if c.history else None,
        _encode_entities(c.entities) if c.entities else None,
        _dumps(c.entities_deleted) if c.entities_deleted else None,
        _dumps([(n, actor, _json(body)) for n, actor, body in c.mail]) if c.mail else None,
        _dumps(c.mail_deleted) if c.mail_deleted else None,
        _dumps([(n, due, actor, _json(body)) for n, due, actor, body in c.timers])
        if c.timers
        else None,
        _dumps(c.timers_deleted) if c.timers_deleted else None,
        _dumps([(n, target, last, _json(body)) for n, target, last, body in c.outbox])
        if c.outbox
        else None,
        _dumps(c.outbox_deleted) if c.outbox_deleted else None,
        _dumps([tuple(row) for row in c.peers]) if c.peers else None,
        _dumps([(id, at, _json(body)) for id, at, body in c.requests]) if c.requests else None,
        c.requests_deleted_before,
    )


# Below, ``x and (_json(x),)`` wraps optional JSON in an array, so that SQLite can tell the value
# null from no value. JSON is never empty, so ``and`` is as good as ``is not None``, and quicker.


def _encode_created(rows: list[CreatedRow]) -> bytes:
    return _dumps(
        [
            (a, b, c, d, e, f, g, h, i, tags and (_json(tags),), input and (_json(input),), start)
            for a, b, c, d, e, f, g, h, i, tags, input, start in rows
        ]
    )


def _encode_progress(rows: list[ProgressRow]) -> bytes:
    return _dumps(
        [
            (
                a,
                b,
                c,
                d,
                e,
                f,
                output and (_json(output),),
                failure and (_json(failure),),
                failure_type,
                custom and (_json(custom),),
                parked and (_json(parked),),
            )
            for a, b, c, d, e, f, output, failure, failure_type, custom, parked in rows
        ]
    )


def _encode_entities(rows: list[EntityRow]) -> bytes:
    return _dumps(
        [
            (
                id,
                name,
                key,
                updated,
                state and (_json(state),),
                lock and (_json(lock),),
                failures and (_json(failures),),
                parked and (_json(parked),),
            )
            for id, name, key, updated, state, lock, failures, parked in rows
        ]
    )


class _Connection:
    """An aiosqlite connection, with a thread of its own, that opens when it is first used."""

    def __init__(self, path: Path, mode: Literal["rw", "ro"], pragmas: str) -> None:
        self._path = path
        self._mode = mode
        self._pragmas = pragmas
        self._opened: aiosqlite.Connection | None = None
        self._closed = False

    async def fetch(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        opened = self._opened
        if opened is None:
            opened = await self._open()
        return list(await opened.execute_fetchall(sql, values))

    async def _open(self) -> aiosqlite.Connection:
        if self._closed:
            raise ValueError("closed")
        opening = _connection(f"{self._path.resolve().as_uri()}?mode={self._mode}")
        try:
            opened = await opening
            await opened.executescript(
                "PRAGMA mmap_size = 268435456; PRAGMA temp_store = MEMORY;" + self._pragmas
            )
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
        self._closed = self._closed or for_good
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()


def _connection(uri: str) -> aiosqlite.Connection:
    """Make an unopened connection whose thread does not keep the process alive.

    A thread is a daemon if the one that made it is, and aiosqlite gives no other way to say so.
    Without it a program that fails before it closes its hub would never end.
    """
    made: list[aiosqlite.Connection] = []

    def make() -> None:
        made.append(aiosqlite.connect(uri, uri=True, isolation_level=None))

    maker = Thread(target=make, daemon=True)
    maker.start()
    maker.join()
    return made[0]


class SqlitePartition:
    """One partition of a ``SqliteStore``."""

    def __init__(self, path: Path, synchronous: str, bridge: AsyncioBridge) -> None:
        self._path = path
        self._bridge = bridge
        self._writer = _Connection(
            path,
            "rw",
            f"PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 4000;"
            "PRAGMA cache_size = -65536; PRAGMA journal_size_limit = 67108864;",
        )
        self._reader = _Connection(path, "ro", "PRAGMA cache_size = -16384;")
        self._querier = _Connection(path, "ro", "PRAGMA cache_size = -16384;")
        self._broken = False

    async def recover(self) -> Recovered:
        """Read what is needed to go on, under a new epoch that is durable on return."""
        with explained(self._path):
            return await self._bridge.run(self._recover, shield=True)

    async def _recover(self) -> Recovered:
        if self._broken:
            await self._close(for_good=False)
        self._broken = True
        fetch = self._writer.fetch
        [(sequence, epoch, next_id, next_row)] = await fetch(RECOVER)
        mail = await fetch("SELECT n, actor, CAST(body AS BLOB) FROM mail_row ORDER BY n")
        timers = await fetch("SELECT n, due, actor, CAST(body AS BLOB) FROM timer_row ORDER BY n")
        outbox = await fetch(
            "SELECT n, target, last, CAST(body AS BLOB) FROM outbox_row ORDER BY n"
        )
        peers = await fetch("SELECT peer, received, sent FROM peer_row ORDER BY peer")
        recovered = Recovered(
            sequence=sequence,
            epoch=epoch,
            next_id=next_id,
            next_row=next_row,
            mail=[MailRow._make(row) for row in mail],
            timers=[TimerRow._make(row) for row in timers],
            outbox=[OutboxRow._make(row) for row in outbox],
            peers=[PeerRow._make(row) for row in peers],
            unanswered=[key for (key,) in await fetch(UNANSWERED)],
            parked=[key for (key,) in await fetch(PARKED)],
        )
        self._broken = False
        return recovered

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Apply the checkpoint, all of it or nothing, and sync it to the disk.

        A cancelled caller waits for the outcome first, except when asyncio's own
        ``Task.cancel`` hits the call itself: then the checkpoint still ends, applied or not.

        Raises:
            LeaseLostError: the stored epoch or sequence is not the expected one.
            StoreFullError: no space; nothing was written.
            StorageError: anything else; ``recover`` tells by ``sequence`` whether it was written.
        """
        values = encode_checkpoint(checkpoint)
        try:
            with explained(self._path):
                await self._bridge.run(lambda: self._writer.fetch(COMMIT, values), shield=True)
        except (LeaseLostError, StoreFullError):
            raise
        except StorageError:
            self._broken = True
            raise

    async def _read(self, sql: str, *values: object) -> list[Any]:
        with explained(self._path):
            return await self._bridge.run(lambda: self._reader.fetch(sql, values))

    async def read_instances(self, keys: Sequence[str]) -> list[InstanceRecord]:
        """Give the stored instances among ``keys``, in one round trip."""
        rows = await self._read(READ_INSTANCES, _dumps(list(keys)))
        return [InstanceRecord._make(row) for row in rows]

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """Give the stored entities among (name, key) ``ids``, in one round trip."""
        rows = await self._read(READ_ENTITIES, _dumps(list(ids)))
        return [EntityRow._make(row) for row in rows]

    async def read_history(self, instance: int) -> list[bytes]:
        """Give the chunks of an instance's history, oldest first."""
        return [body for (body,) in await self._read(READ_HISTORY, instance)]

    async def read_request(self, request: str) -> RequestRow | None:
        """Give what was recorded for a client's request id."""
        rows = await self._read(READ_REQUEST, request)
        return RequestRow._make(rows[0]) if rows else None

    async def query_instances(self, filter: InstanceFilter) -> list[InstanceRecord]:
        """Give one page of instances, ordered by (created, key)."""
        with explained(self._path):
            rows = await self._bridge.run(lambda: self._instance_rows(filter))
        return [InstanceRecord._make(row) for row in rows]

    async def _instance_rows(self, filter: InstanceFilter) -> list[Any]:
        candidates = instance_candidates(filter)
        driver = candidates[0]
        if len(candidates) > 1:
            [counts] = await self._querier.fetch(*count_matches(candidates))
            driver = choose(candidates, counts)
        return await self._querier.fetch(*instance_page(filter, driver))

    async def query_entities(self, filter: EntityFilter) -> list[EntityRow]:
        """Give one page of entities, ordered by (name, key)."""
        sql, values = entity_page(filter)
        with explained(self._path):
            rows = await self._bridge.run(lambda: self._querier.fetch(sql, values))
        return [EntityRow._make(row) for row in rows]

    async def waiting(self, actor: str) -> int:
        """Count the stored messages that wait for an actor."""
        [(count,)] = await self._read("SELECT count(*) FROM mail_row WHERE actor = ?", actor)
        return int(count)

    async def size(self) -> int:
        """Give the bytes of the partition's file and of its write-ahead log."""
        await self._read("SELECT 1 FROM meta")  # refuses a closed store
        return await to_thread.run_sync(self._size)

    def _size(self) -> int:
        log = Path(f"{self._path}-wal")
        return self._path.stat().st_size + (log.stat().st_size if log.exists() else 0)

    async def close(self) -> None:
        """Refuse every call from now on."""
        with explained(self._path):
            await self._bridge.run(lambda: self._close(for_good=True), shield=True)

    async def _close(self, *, for_good: bool) -> None:
        # The writer last: the last connection to close folds the log into the file.
        for connection in (self._reader, self._querier, self._writer):
            try:
                await connection.close(for_good=for_good)
            except sqlite3.Error:
                if for_good:
                    raise


class SqliteStore:
    """A hub in a folder, one SQLite file per partition.

    Args:
        path: the folder; it and its parents are made if missing.
        synchronous: ``FULL`` makes a commit survive a power cut. ``NORMAL`` survives only the end
            of the process, and may lose the last commits in a power cut. ``OFF`` may lose all.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL") -> None:
        if synchronous not in get_args(Synchronous):
            raise UsageError(
                f"synchronous={synchronous!r} is none of {', '.join(get_args(Synchronous))}"
            )
        self.path = Path(path)
        self._synchronous = synchronous
        self._ownership: Ownership | None = None
        self._bridge = AsyncioBridge()
        self._partitions: list[SqlitePartition] = []

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

    async def attach(self, partitions: int) -> Sequence[SqlitePartition]:
        """Give the partitions of a folder that another process of the hub owns.

        Each opens its file when it is first used.
        """
        return [
            SqlitePartition(partition_file(self.path, number), self._synchronous, self._bridge)
            for number in range(partitions)
        ]

    async def open(self, partitions: int) -> Sequence[SqlitePartition]:
        """Take the folder over and give its partitions, making them if it is new.

        Raises:
            StoreInUseError: another hub owns it.
            StoreVersionError: newer schema, or another number of partitions.
            StoreDamagedError: damaged, or not a Perdure store.
            StoreReadOnlyError: it cannot be written to.
            StorageError: SQLite is too old.
        """
        if self._ownership is not None:
            raise StoreInUseError(f"{self.path} is open already; close this store first")
        with CancelScope(shield=True):
            self._partitions = [
                SqlitePartition(path, self._synchronous, self._bridge)
                for path in await to_thread.run_sync(self._take, partitions)
            ]
        return self._partitions

    def _take(self, partitions: int) -> list[Path]:
        check_sqlite()
        ownership = Ownership(self.path)
        ownership.take()
        try:
            paths = prepare(self.path, partitions)
        except BaseException:
            ownership.release()
            raise
        self._ownership = ownership
        return paths

    async def close(self) -> None:
        """Give the folder up, with every write-ahead log folded into its file. Idempotent."""
        partitions, self._partitions = self._partitions, []
        with CancelScope(shield=True):
            try:
                for partition in partitions:
                    await partition.close()
            finally:
                await to_thread.run_sync(self._release)

    def _release(self) -> None:
        self._bridge.close()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.release()
