"""A hub's folder as one end of a migration."""

from __future__ import annotations

import sqlite3
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final

import orjson
from anyio import to_thread

from ...actors.errors import StorageError, StoreDamagedError, StoreInUseError, UsageError
from ..encoding import encode_parts, next_numbers
from ..marks import Mark
from ..mended import (
    MendedEntity,
    MendedInstance,
    is_count,
    is_json,
    mend_entity,
    mend_instance,
    read_text,
)
from ..migration import (
    DAMAGED,
    PORTION_ROWS,
    PORTION_SIZE,
    Content,
    DamagedRow,
    Found,
    Portion,
    Standing,
    Unhurried,
    unreadable,
)
from ..records import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityRow,
    InstanceRecord,
    MailRow,
    OutboxRow,
    PeerRow,
    ProgressRow,
    RequestRow,
    TimerRow,
)
from .connection import connect
from .faults import explained, lease_lost
from .folder import (
    Ownership,
    check_sqlite,
    identify,
    journal_file,
    make_hub,
    partition_file,
    prepare,
)
from .marks import arrive, read_mark, write_mark
from .presence import Presence
from .queries import WITH_PAYLOADS, WITH_STATES
from .schema import SCHEMA_VERSION
from .store import CLEAR, COMMIT, REMEMBER
from .takeover import DAMAGED_TABLE, ENTRIES, apply_entries, take_over

_INSTANCES: Final = (
    f"SELECT {WITH_PAYLOADS} FROM instance_row r LEFT JOIN input_row i ON i.id = r.id ORDER BY r.id"
)
_ENTITIES: Final = f"SELECT {WITH_STATES} FROM entity_row e ORDER BY e.id"

_Check = Callable[[Any], bool]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _is_text(value: Any) -> bool:
    return type(value) is str  # and not one whose bytes are no UTF-8


def _is_number(value: Any) -> bool:
    return type(value) is int


#: Of each other part: its table, what makes a row, what its columns are, and their order.
_PARTS: Final[tuple[tuple[str, str, Callable[..., Any], dict[str, _Check], str], ...]] = (
    (
        "history",
        "history_row",
        ChunkRow._make,
        {"instance": is_count, "seq": is_count, "body": is_json},
        "instance, seq",
    ),
    ("mail", "mail_row", MailRow._make, {"n": is_count, "actor": _is_text, "body": is_json}, "n"),
    (
        "timers",
        "timer_row",
        TimerRow._make,
        {"n": is_count, "due": _is_number, "actor": _is_text, "body": is_json},
        "n",
    ),
    (
        "outbox",
        "outbox_row",
        OutboxRow._make,
        {"n": is_count, "target": is_count, "last": is_count, "body": is_json},
        "n",
    ),
    (
        "peers",
        "peer_row",
        PeerRow._make,
        {"peer": is_count, "received": is_count, "sent": is_count},
        "peer",
    ),
    (
        "requests",
        "request_row",
        RequestRow._make,
        {"request": _is_text, "at": _is_number, "body": is_json},
        "request",
    ),
    (
        "activities",
        "activity_row",
        ActivityRow._make,
        {"n": is_count, "instance": is_count, "body": is_json},
        "n",
    ),
)

_VALUES: Final = ("actor", "due", "target", "last", "body")
_TEXT: Final = "CASE typeof({0}) WHEN 'text' THEN CAST({0} AS BLOB) ELSE {0} END"
_DAMAGED: Final = (
    "SELECT source, row, found, reason, {} FROM damaged_row ORDER BY source, row".format(
        ", ".join(f"typeof({name}), {_TEXT.format(name)}" for name in _VALUES)
    )
)
_TABLES: Final = (
    "instance_row",
    "input_row",
    "entity_row",
    *(table for _, table, *_ in _PARTS),
)
_STANDING: Final = "SELECT epoch, sequence, next_id, next_row FROM meta"


_ARRIVED_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS arrived (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " token TEXT NOT NULL)"
)
"""That a partition is valid here, in its tables: of a hub that comes while it serves."""
_HAS_ARRIVED_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'arrived'"
# Even, as that of an owner who has both files; what has an older one does nothing any more.
_TRY: Final = "UPDATE meta SET epoch = max(epoch, ?) / 2 * 2 + 2 RETURNING epoch"
_TRY_JOURNAL: Final = "UPDATE meta SET epoch = ?, sequence = 0"
_TAIL_ENTRIES: Final = 500
"""Checkpoints that are applied at once."""

Entry = tuple[Any, ...]
"""A checkpoint for the journal: its sequence, its two numbers and its parts."""


class MovableSqlite(Unhurried):
    """The folder that a place names; see ``Movable``, and ``Live``.

    Args:
        place: ``sqlite:PATH``.
    """

    def __init__(self, place: str) -> None:
        path, _, _ = place.removeprefix("sqlite:").partition("?synchronous=")
        if not path or "\0" in path:
            raise UsageError(f"{place!r} is no place of a folder")
        self._folder = Path(path).expanduser().absolute()
        self._main = partition_file(self._folder, 0)
        self._ownership: Ownership | None = None

    @property
    def location(self) -> str:
        """The folder, as a store."""
        return f"sqlite:{self._folder}"

    async def look(self) -> Found | None:
        """See which hub is there, and keep others out of the folder from now on."""
        return await to_thread.run_sync(self._look)

    async def look_within(self) -> Found:
        """See which hub is there, for the process that has it open."""

        def look() -> Found:
            first = identify(self._main)
            return Found(first.hub, first.partitions, first.created, read_mark(self._main))

        return await to_thread.run_sync(look)

    def _look(self) -> Found | None:
        check_sqlite()
        try:
            if not self._main.exists():
                return None
        except OSError as error:
            raise StorageError(f"{self._folder} cannot be read: {error.strerror}") from error
        self._take()
        first = identify(self._main)
        return Found(first.hub, first.partitions, first.created, read_mark(self._main))

    def _take(self) -> None:
        if self._ownership is not None:
            return
        ownership = Ownership(self._folder)
        try:
            ownership.take()
        except StoreInUseError as error:
            raise StoreInUseError(
                f"the hub of {self.location} runs: stop it, since this is done while it stands still"
            ) from error
        self._ownership = ownership

    async def unsettled(self, found: Found) -> list[int]:
        """Name the partitions whose journal has more than their tables, or whose files are older."""
        return await to_thread.run_sync(self._unsettled, found)

    def _unsettled(self, found: Found) -> list[int]:
        return [number for number in range(found.partitions) if not self._is_settled(number)]

    def _is_settled(self, number: int) -> bool:
        path, journal_path = self._files(number)
        if identify(path).version != SCHEMA_VERSION or not journal_path.exists():
            return False
        with explained(path), closing(connect(path)) as tables:
            [(epoch, sequence)] = tables.execute("SELECT epoch, sequence FROM meta").fetchall()
        last = "SELECT epoch, max(sequence, ifnull((SELECT max(sequence) FROM entry), 0)) FROM meta"
        with explained(journal_path), closing(connect(journal_path)) as journal:
            [(its_epoch, its_sequence)] = journal.execute(last).fetchall()
        return bool(epoch == its_epoch and epoch % 2 == 0 and its_sequence <= sequence)

    def _files(self, number: int) -> tuple[Path, Path]:
        return partition_file(self._folder, number), journal_file(self._folder, number)

    async def settle(self, found: Found) -> None:
        """Bring the journals into the tables, and the files to this version."""
        await to_thread.run_sync(self._settle, found)

    def _settle(self, found: Found) -> None:
        prepare(self._folder, found.partitions, migrates=True)
        for number in self._unsettled(found):
            take_over(*self._files(number), Presence(*self._files(number)), None).close()

    async def standing(self, partition: int) -> Standing:
        """Say how far a partition has come."""
        return await to_thread.run_sync(self._standing, partition)

    def _standing(self, partition: int) -> Standing:
        path = partition_file(self._folder, partition)
        with explained(path), closing(connect(path)) as tables:
            return Standing(*tables.execute(_STANDING).fetchall()[0])

    async def portions(self, partition: int) -> AsyncGenerator[Portion]:
        """Give all rows of a partition, as of one moment."""
        async with self.snapshot(partition) as (_, portions):
            async for portion in portions:
                yield portion

    @asynccontextmanager
    async def snapshot(
        self, partition: int
    ) -> AsyncGenerator[tuple[Standing, AsyncGenerator[Portion]]]:
        """Give how far a partition's tables are, and all rows of that moment, also if it is served."""
        path = partition_file(self._folder, partition)
        with explained(path), _connected(path) as tables:
            standing = Standing(*tables.execute(_STANDING).fetchall()[0])
            async with aclosing(_in_thread(_portions(tables, path))) as portions:
                yield standing, portions

    def check(self, portion: Portion, source: str) -> None:
        """Refuse nothing: whatever another store holds, this one can."""

    async def begin(self, hub: Found, mark: Mark) -> None:
        """Make the folder of a hub that comes, or mark the one there."""
        await to_thread.run_sync(self._begin, hub, mark)

    def _begin(self, hub: Found, mark: Mark) -> None:
        self._take()
        if not self._main.exists():
            make_hub(self._folder, hub.partitions, hub.hub, hub.created, mark)
            return
        prepare(self._folder, hub.partitions, migrates=True)
        write_mark(self._main, mark)

    async def set_out(self, mark: Mark) -> None:
        """Mark the folder of a hub that leaves while this process serves it."""
        await to_thread.run_sync(write_mark, self._main, mark)

    async def has(self, partition: int, standing: Standing) -> bool:
        """Whether a partition has come over, by what its files say."""
        settled = await to_thread.run_sync(self._is_settled, partition)
        return settled and await self.standing(partition) == _own(standing)

    async def load(
        self,
        partition: int,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        """Replace all that a partition has, in one transaction."""
        path, journal_path = self._files(partition)
        its = _own(standing)
        # The journal first: a partition with tables behind it is taken for one that has not come.
        await to_thread.run_sync(_empty_journal, journal_path, its)
        with explained(path), _connected(path) as tables:
            await self._fill(tables, path, its, portions, check)

    async def _fill(
        self,
        tables: sqlite3.Connection,
        path: Path,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        await to_thread.run_sync(_empty, tables)
        began = monotonic()
        async for portion in portions:
            await to_thread.run_sync(_put, tables, portion)
            began = await self.rest(began)
        content = Content()
        async with aclosing(_in_thread(_portions(tables, path))) as there:
            async for portion in there:
                content.add(portion)
                began = await self.rest(began)
        check(content)
        await to_thread.run_sync(_end, tables, standing)

    # A partition that comes while it is served. Each of these is for one try, by its epoch.

    async def arrived(self, token: str) -> list[int]:
        """Name the partitions that are valid here, of those that come one by one."""
        return await to_thread.run_sync(self._arrived, token)

    def _arrived(self, token: str) -> list[int]:
        hub = identify(self._main)
        return [number for number in range(hub.partitions) if self._has_arrived(number, token)]

    async def has_arrived(self, partition: int, token: str) -> bool:
        """Whether a partition is valid here: from now on no earlier try can make it so."""
        return await to_thread.run_sync(self._has_arrived, partition, token)

    def _has_arrived(self, partition: int, token: str) -> bool:
        path = partition_file(self._folder, partition)
        with explained(path), _connected(path) as tables:
            tables.execute("UPDATE meta SET epoch = epoch")  # what is under way has ended
            if (token,) in _tokens(tables):
                return True
            tables.execute(_TRY, (0,)).fetchall()
            tables.execute("COMMIT")
        return False

    async def begin_one(self, partition: int, epoch: int) -> int:
        """Begin a try: nothing that an earlier one has under way is stored from now on.

        Args:
            partition: which one comes.
            epoch: how often it was taken where it is.

        Returns:
            The epoch of the try.
        """
        return await to_thread.run_sync(self._begin_one, partition, epoch)

    def _begin_one(self, partition: int, epoch: int) -> int:
        path, journal_path = self._files(partition)
        with explained(path), _connected(path) as tables:
            [(its,)] = tables.execute(_TRY, (epoch,)).fetchall()
            if _tokens(tables):
                tables.execute("DELETE FROM arrived")  # of an earlier time
            tables.execute("COMMIT")
        with explained(journal_path), _connected(journal_path) as journal:
            journal.execute("DELETE FROM entry")
            journal.execute(_TRY_JOURNAL, (its,))
            journal.execute("COMMIT")
        return int(its)

    async def load_one(
        self,
        partition: int,
        epoch: int,
        standing: Standing,
        portions: AsyncIterator[Portion],
        check: Callable[[Content], None],
    ) -> None:
        """Replace all that a partition has but its journal, in one transaction; see ``load``.

        Raises:
            LeaseLostError: there has been another try.
        """
        path = partition_file(self._folder, partition)
        with explained(path), _connected(path) as tables:
            _check_try(tables, epoch, path)
            await self._fill(tables, path, standing._replace(epoch=epoch), portions, check)

    def entry(self, checkpoint: Checkpoint) -> tuple[Entry, int]:
        """Give what ``forward`` takes of a checkpoint, and its bytes."""
        parts = encode_parts(checkpoint)
        size = sum(len(part) for part in parts if isinstance(part, bytes))
        return (checkpoint.sequence, *next_numbers(checkpoint), *parts), size

    async def forward(self, partition: int, epoch: int, entries: Sequence[Entry]) -> None:
        """Put checkpoints into the journal.

        Raises:
            LeaseLostError: there has been another try.
        """
        await to_thread.run_sync(self._forward, partition, epoch, entries)

    def _forward(self, partition: int, epoch: int, entries: Sequence[Entry]) -> None:
        path = journal_file(self._folder, partition)
        with explained(path), _connected(path) as journal:
            # Those that come first may be in what is copied meanwhile, or follow it.
            journal.execute(
                "UPDATE meta SET sequence = ? WHERE sequence = 0 AND epoch = ?"
                " AND NOT EXISTS (SELECT 1 FROM entry)",
                (entries[0][0] - 1, epoch),
            )
            for sequence, *rest in entries:
                journal.execute(COMMIT, (sequence, epoch, 0, *rest))
            journal.execute("COMMIT")

    async def fold_one(self, partition: int, epoch: int) -> int:
        """Bring some of what the journal has into the tables; says how far these are.

        Raises:
            LeaseLostError: there has been another try.
            StoreDamagedError: a checkpoint is missing.
        """
        return await to_thread.run_sync(self._fold_one, partition, epoch)

    def _fold_one(self, partition: int, epoch: int) -> int:
        path, journal_path = self._files(partition)
        with (
            explained(path),
            closing(connect(path)) as tables,
            closing(connect(journal_path)) as journal,
        ):
            tables.execute("PRAGMA synchronous = FULL")
            settled = _check_try(tables, epoch, path)
            entries = journal.execute(f"{ENTRIES} LIMIT {_TAIL_ENTRIES}", (settled,)).fetchall()
            if not entries:
                return settled
            apply_entries(tables, entries, settled, epoch, journal_path)
            settled = int(entries[-1][0])
            journal.execute(REMEMBER, (settled,))
            journal.execute(CLEAR, (settled,))
        return settled

    async def arrive_one(self, partition: int, epoch: int, sequence: int, token: str) -> None:
        """Make a partition valid here, in one transaction: the point of no return.

        Raises:
            LeaseLostError: there has been another try, or it has not come so far; it is not valid.
            StorageError: it may be; ``has_arrived`` says so.
        """
        await to_thread.run_sync(self._arrive_one, partition, epoch, sequence, token)

    def _arrive_one(self, partition: int, epoch: int, sequence: int, token: str) -> None:
        path = partition_file(self._folder, partition)
        with explained(path), _connected(path) as tables:
            if _check_try(tables, epoch, path) != sequence:
                raise lease_lost(path)
            tables.execute(_ARRIVED_TABLE)
            tables.execute("INSERT OR REPLACE INTO arrived VALUES (1, ?)", (token,))
            tables.execute("COMMIT")

    async def leave(self, mark: Mark, standings: list[Standing]) -> None:
        """Mark the folder; nobody else had it meanwhile."""
        await to_thread.run_sync(write_mark, self._main, mark)

    async def analyze(self) -> None:
        """Do nothing: SQLite plans by the indices alone."""

    async def arrive(self, token: str) -> None:
        """Make the hub that has come valid."""
        if not await to_thread.run_sync(arrive, self._main, token):
            raise StoreDamagedError(f"{self._main} is not what has just been written there")

    async def bury(self, mark: Mark) -> None:
        """Say that the hub is valid elsewhere."""
        await to_thread.run_sync(write_mark, self._main, mark)

    async def close(self) -> None:
        """Give the folder up."""
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            await to_thread.run_sync(ownership.release)


async def _in_thread(portions: Generator[Portion]) -> AsyncGenerator[Portion]:
    while (portion := await to_thread.run_sync(next, portions, None)) is not None:
        yield portion


@contextmanager
def _connected(path: Path) -> Generator[sqlite3.Connection]:
    """Give a connection in a transaction, which ends without effect unless it is committed."""
    with closing(connect(path)) as tables:
        tables.execute("PRAGMA synchronous = FULL")
        tables.execute("BEGIN")
        try:
            yield tables
        finally:
            if tables.in_transaction:
                tables.rollback()


def _own(standing: Standing) -> Standing:
    # An odd epoch says that somebody is just taking the partition over.
    return standing._replace(epoch=standing.epoch + standing.epoch % 2)


def _portions(tables: sqlite3.Connection, path: Path) -> Generator[Portion, None, None]:
    tables.text_factory = read_text

    def portion(**rows: Any) -> Portion:
        return Portion(Checkpoint(sequence=0, epoch=0, **rows))

    with explained(path):
        for some in _gathered(_instances(tables, path)):
            yield portion(created=[row for row, _ in some], progress=[row for _, row in some])
        for some in _gathered(_entities(tables, path)):
            yield portion(entities=some)
        for part, table, make, checks, order in _PARTS:
            for some in _gathered(_rows(tables, path, table, make, checks, order)):
                yield portion(**{part: some})
        for some in _gathered(_damaged(tables, path)):
            yield Portion(Checkpoint(sequence=0, epoch=0), some)


def _gathered(rows: Iterable[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    size = 0
    for row in rows:
        some.append(row)
        size += _size(row)
        if len(some) >= PORTION_ROWS or size >= PORTION_SIZE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _size(row: Iterable[Any]) -> int:
    size = 0
    for value in row:
        if isinstance(value, (bytes, str)):
            size += len(value)
        elif value is not None and not isinstance(value, (int, float)):
            size += _size(value)  # of a tuple
    return size


def _instances(tables: sqlite3.Connection, path: Path) -> Iterator[tuple[CreatedRow, ProgressRow]]:
    for row in tables.execute(_INSTANCES):
        record: InstanceRecord = mend_instance(row, path)
        if isinstance(record, MendedInstance):
            raise _mended(path, "instance_row", record)
        yield CreatedRow._make(record[:12]), ProgressRow._make((record.id, *record[12:]))


def _entities(tables: sqlite3.Connection, path: Path) -> Iterator[EntityRow]:
    for row in tables.execute(_ENTITIES):
        record = mend_entity(row, path)
        if isinstance(record, MendedEntity):
            raise _mended(path, "entity_row", record)
        yield record


def _mended(path: Path, table: str, record: InstanceRecord | EntityRow) -> StoreDamagedError:
    reason = str(orjson.loads(record.parked or b"{}").get("reason", "it cannot be read"))
    why = reason.partition(f"row {record.id}: ")[2] or reason
    return unreadable(str(path), table, record.id, why)


def _rows(
    tables: sqlite3.Connection,
    path: Path,
    table: str,
    make: Callable[[Any], Any],
    checks: dict[str, _Check],
    order: str,
) -> Iterator[Any]:
    columns = ", ".join("CAST(body AS BLOB)" if name == "body" else name for name in checks)
    for number, *row in tables.execute(f"SELECT rowid, {columns} FROM {table} ORDER BY {order}"):
        for (name, is_sound), value in zip(checks.items(), row, strict=True):
            if not is_sound(value):
                shown = repr(value)
                shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
                raise unreadable(str(path), table, number, f"{name} is {shown}")
        yield make(row)


def _damaged(tables: sqlite3.Connection, path: Path) -> Iterator[DamagedRow]:
    there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'damaged_row'"
    if not tables.execute(there).fetchall():
        return
    for table, number, found, reason, *values in tables.execute(_DAMAGED):
        try:
            at = (datetime.fromisoformat(found) - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, TypeError) as error:
            raise unreadable(str(path), DAMAGED, number, f"found is {found!r}") from error
        kinds = zip(values[::2], values[1::2], strict=True)
        yield DamagedRow(table, number, at, reason.replace("\0", "\ufffd"), *kinds)


def _empty_journal(path: Path, standing: Standing) -> None:
    with explained(path), _connected(path) as journal:
        journal.execute("DELETE FROM entry")
        journal.execute(
            "UPDATE meta SET epoch = ?, sequence = ?", (standing.epoch, standing.sequence)
        )
        journal.execute("COMMIT")


def _empty(tables: sqlite3.Connection) -> None:
    for table in _TABLES:
        tables.execute(f"DELETE FROM {table}")
    tables.execute(DAMAGED_TABLE)
    tables.execute("DELETE FROM damaged_row")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _put(tables: sqlite3.Connection, portion: Portion) -> None:
    """Put rows into the tables: each JSON text as it is, without a look at it."""
    c = portion.checkpoint
    for origin, progress in zip(c.created, c.progress, strict=True):
        record = InstanceRecord._make((*origin, *progress[1:]))
        values = {
            name: _text(value) if isinstance(value, bytes) else value
            for name, value in record._asdict().items()
        }
        tables.execute("INSERT INTO input_row VALUES (?, ?)", (record.id, values.pop("input")))
        _insert(tables, "instance_row", values)
    for row in c.entities:
        values = {
            name: _text(value) if isinstance(value, bytes) else value
            for name, value in row._asdict().items()
        }
        _insert(tables, "entity_row", values)
    for part, table, _, checks, _ in _PARTS:
        marks = ", ".join("CAST(? AS TEXT)" if name == "body" else "?" for name in checks)
        tables.executemany(
            f"INSERT INTO {table} ({', '.join(checks)}) VALUES ({marks})",
            getattr(c, part),
        )
    _put_damaged(tables, portion.damaged)


def _insert(tables: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(values))
    tables.execute(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()]
    )


def _put_damaged(tables: sqlite3.Connection, rows: Iterable[DamagedRow]) -> None:
    for row in rows:
        kinds = row[4:]
        marks = ", ".join("CAST(? AS TEXT)" if kind == "text" else "?" for kind, _ in kinds)
        found = _EPOCH + timedelta(microseconds=row.at)
        tables.execute(
            f"INSERT INTO damaged_row (source, row, found, reason, {', '.join(_VALUES)})"
            f" VALUES (?, ?, ?, ?, {marks})",
            (
                row.table,
                row.row,
                found.isoformat().replace("+00:00", "Z"),
                row.reason,
                *(value for _, value in kinds),
            ),
        )


def _tokens(tables: sqlite3.Connection) -> list[tuple[str]]:
    if not tables.execute(_HAS_ARRIVED_TABLE).fetchall():
        return []
    return tables.execute("SELECT token FROM arrived").fetchall()


def _check_try(tables: sqlite3.Connection, epoch: int, path: Path) -> int:
    """See whether a try is the latest one; says how far its tables are.

    In a transaction no other one begins from here on.

    Raises:
        LeaseLostError: it is not.
    """
    held = "UPDATE meta SET epoch = epoch WHERE epoch = ? RETURNING sequence"
    found = tables.execute(held, (epoch,)).fetchall()
    if not found:
        raise lease_lost(path)
    return int(found[0][0])


def _end(tables: sqlite3.Connection, standing: Standing) -> None:
    tables.execute("UPDATE meta SET epoch = ?, sequence = ?, next_id = ?, next_row = ?", standing)
    tables.execute("COMMIT")
