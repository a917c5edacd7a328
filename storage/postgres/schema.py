"""A hub's schema: made where there is none, and looked at before anything is written."""

from __future__ import annotations

import secrets
import uuid
from importlib.resources import files
from time import time_ns
from typing import Any, Final

from attrs import frozen

from ...actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)
from ..marks import Mark
from .links import Connection, transaction
from .place import Place

VERSION: Final = 1
SOFTWARE: Final = "perdure"
OLDEST: Final = 15
"""The oldest major version of PostgreSQL that is served."""
PARTITIONS_MAX: Final = 1_024

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_THERE: Final = "SELECT to_regclass($1) IS NOT NULL"
_TABLES: Final = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)"
_SETTINGS: Final = (
    "SELECT current_setting('server_version_num')::int / 10000 AS major,"
    " current_setting('server_version') AS version,"
    " current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"
    " current_setting('synchronous_commit') AS synchronous_commit,"
    " current_setting('synchronous_standby_names') AS standbys,"
    " current_setting('server_encoding') AS encoding,"
    " pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only"
)


@frozen
class Identity:
    """Which hub a schema has.

    Attributes:
        id: a UUID.
        secret: what only who may read the database knows.
        partitions: how many it has.
    """

    id: str
    secret: str
    partitions: int


async def read_durability(connection: Connection, place: Place) -> str:
    """Say how durable a commit is on this server.

    Raises:
        StoreReadOnlyError: it takes no writes.
        StorageError: it is too old, or may lose what it has committed and nobody agreed to that.
    """
    row = await connection.fetchrow(_SETTINGS)
    version = row["version"].partition(" ")[0]
    if row["major"] < OLDEST:
        raise StorageError(
            f"{place.location} is PostgreSQL {version}, and a hub needs {OLDEST} or newer"
        )
    if row["read_only"]:
        raise StoreReadOnlyError(
            f"{place.location} takes no writes: it is a standby, or set to read only; give the "
            "address of the primary"
        )
    if row["encoding"] != "UTF8":
        raise StorageError(
            f"{place.location} keeps texts as {row['encoding']}, and a hub's may have any character: "
            "make a database with ENCODING 'UTF8' TEMPLATE template0"
        )
    commit, standbys = row["synchronous_commit"], row["standbys"].strip()
    unsafe = [
        f"{name}=off"
        for name, value in (("fsync", row["fsync"]), ("synchronous_commit", commit))
        if value == "off"
    ]
    if unsafe and not place.relaxed:
        raise StorageError(
            f"{place.location} runs with {' and '.join(unsafe)}, so a crash loses what was "
            "acknowledged: turn it on, or say durability=relaxed in the store's address"
        )
    if row["fsync"] == "off":
        return f"postgresql {version} fsync=off: a crash of the machine may lose or damage all"
    said = f"postgresql {version} synchronous_commit={commit}"
    if commit == "off":
        return f"{said}: a crash may lose the last commits"
    if not standbys or commit == "local":
        return f"{said}, no synchronous standby: a failover may lose the last commits"
    how = " in memory" if commit == "remote_write" else ""
    return f"{said}, synchronous standby{how}: {standbys}"


async def prepare(
    connection: Connection, place: Place, partitions: int, token: str | None = None
) -> Identity:
    """Make the hub's schema if there is none, and check it.

    Args:
        connection: to the server.
        place: the hub's.
        partitions: how many the hub has; 0 for as many as there are.
        token: of the migration that it is opened by, if it is.

    Raises:
        StoreMovedError: the hub is not here any more, or not yet.
        StoreVersionError: a newer schema, or another number of partitions.
        StoreDamagedError: something else is in the schema.
        UsageError: it has to be made, and nobody says how many partitions.
    """
    async with transaction(connection):
        await lock(connection, place)
        if not await is_there(connection, place):
            await make(connection, place, partitions)
        row = await connection.fetchrow(f"SELECT * FROM {place.quoted}.hub")
        mark = await read_mark(connection, place)
    if mark is not None:
        mark.refuse(place.location, token)
    return checked(row, place, partitions)


async def lock(connection: Connection, place: Place) -> None:
    """Keep others from looking for the hub and making it, until the transaction ends."""
    # Nodes that start together do not make it twice.
    await connection.execute(_LOCK, f"perdure {place.schema}")


async def is_there(connection: Connection, place: Place) -> bool:
    """Whether the schema has a hub.

    Raises:
        StoreDamagedError: something else is in it.
    """
    if await connection.fetchval(_THERE, f"{place.quoted}.hub"):
        return True
    if await connection.fetchval(_TABLES, place.quoted):
        raise StoreDamagedError(
            f"schema {place.schema} of {place.location} has something else in it: name "
            "another, as in ?schema=shop"
        )
    return False


async def read_mark(connection: Connection, place: Place) -> Mark | None:
    """Read that a hub moves, if it does."""
    if not await connection.fetchval(_THERE, f"{place.quoted}.migration"):
        return None
    row = await connection.fetchrow(f"SELECT state, token, place FROM {place.quoted}.migration")
    return None if row is None else Mark(*row)


def checked(row: Any, place: Place, partitions: int) -> Identity:
    """Give which hub the row of its table says.

    Raises:
        StoreVersionError: a newer schema, or another number of partitions.
        StoreDamagedError: there is no row.
    """
    if row is None:
        raise StoreDamagedError(f"{place.location}, table hub is empty: restore a copy")
    if row["schema_version"] > VERSION:
        raise StoreVersionError(
            f"{place.location} has schema version {row['schema_version']}, of a newer Perdure; this "
            f"one knows {VERSION}: upgrade"
        )
    if partitions and row["partitions"] != partitions:
        raise StoreVersionError(
            f"{place.location} has {row['partitions']} partitions, not {partitions}: open it with "
            f"partitions={row['partitions']} (perdure serve --partitions {row['partitions']})"
        )
    return Identity(str(row["id"]), row["secret"], row["partitions"])


async def make(
    connection: Connection,
    place: Place,
    partitions: int,
    hub: uuid.UUID | None = None,
    created: int | None = None,
) -> None:
    """Make the hub's schema, in a transaction: a new hub's, or that of one that comes from elsewhere."""
    check_partitions(partitions)
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {place.quoted}")
    script = files("perdure.storage.postgres").joinpath("schema.sql").read_text()
    await connection.execute(script.replace("{s}", place.quoted))
    # Without lz4 a server makes large bodies smaller in a way that takes most of the commit.
    how = "COMPRESSION lz4" if await _has_lz4(connection) else "STORAGE EXTERNAL"
    await connection.execute(f"ALTER TABLE {place.quoted}.journal ALTER body SET {how}")
    await connection.execute(
        f"INSERT INTO {place.quoted}.hub (id, secret, schema_version, partitions, created,"
        " software) VALUES ($1, $2, $3, $4, $5, $6)",
        hub or uuid.uuid4(),
        secrets.token_hex(32),
        VERSION,
        partitions,
        time_ns() // 1_000 if created is None else created,
        SOFTWARE,
    )
    for table in ("partition", "folded"):
        await connection.execute(
            f"INSERT INTO {place.quoted}.{table} (partition) SELECT generate_series(0, $1::int)",
            partitions - 1,
        )


async def _has_lz4(connection: Connection) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
        )
    )


def check_partitions(partitions: int) -> None:
    """Refuse a number of partitions that no hub has.

    Raises:
        UsageError: it is none.
    """
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise UsageError(f"partitions must be from 1 to {PARTITIONS_MAX}, not {partitions}")
