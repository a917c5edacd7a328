"""From PostgreSQL's errors to the package's, so that each says what to do next."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from ...actors.errors import (
    LeaseLostError,
    PerdureError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreMovedError,
    StoreReadOnlyError,
)
from .links import driver


def explain(error: BaseException, where: str) -> StorageError | LeaseLostError:
    """Give the package's exception for one that came out of what a store calls."""
    asyncpg = driver()
    if isinstance(error, asyncpg.DataError):
        return StorageError(f"{where}: PostgreSQL does not take a value ({error})")
    if isinstance(error, ValueError):
        return StorageError(f"the store at {where} is closed ({error}); open it again")
    if isinstance(error, asyncpg.PostgresError):
        return _answered(error, where, asyncpg)
    if isinstance(
        error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    ):
        why = str(error) or type(error).__name__
        return StorageError(
            f"{where} cannot be reached ({why}): see that the server runs, and accepts connections "
            "from here"
        )
    return StorageError(f"{where}: {type(error).__name__}: {error}")


MOVED: Final = "PD001"
"""The SQLSTATE that guards of a hub's tables raise where the hub has moved elsewhere."""
PASS: Final = "perdure.migration"
"""The setting by which they let those pass who move it: its value is the migration's token."""


def _answered(error: Any, where: str, asyncpg: Any) -> StorageError:
    if error.sqlstate == MOVED:
        return StoreMovedError(str(error))
    if isinstance(error, (asyncpg.DiskFullError, asyncpg.OutOfMemoryError)):
        return StoreFullError(f"no space left for {where} ({error}); free some, then go on")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return StoreReadOnlyError(
            f"{where} takes no writes ({error}): it is a standby, or set to read only; give the "
            "address of the primary"
        )
    if isinstance(
        error, asyncpg.InvalidSQLStatementNameError | asyncpg.DuplicatePreparedStatementError
    ):
        return StorageError(
            f"{where}: {error}: a pooler lies between; say so with pooled=1 in the store's address"
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StorageError(
            f"{where} refuses the user or the password ({error}); give others, the password in "
            "PGPASSWORD or a password file"
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StorageError(f"{where}: {error}; make the database, or name another")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StorageError(
            f"{where}: {error}: the user needs CREATE on the database to make the schema, and all "
            "rights on what is in it"
        )
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return StoreDamagedError(f"{where} is not a whole hub of Perdure ({error})")
    if isinstance(error, asyncpg.DataCorruptedError | asyncpg.IndexCorruptedError):
        return StoreDamagedError(f"{where} is damaged ({error}): restore a copy")
    return StorageError(f"{where}: {type(error).__name__}: {error}")


def lease_lost(where: str) -> LeaseLostError:
    """Give the error for a partition that has another owner."""
    return LeaseLostError(
        f"{where} has another epoch or sequence than this owner expects; the checkpoint was "
        "refused: recover, or stop"
    )


def unheard(where: str, what: str) -> StorageError:
    """Give the error for what the server said with a warning: it may not be durable."""
    return StorageError(
        f"{where}: the server stopped waiting for its synchronous standby, so it is not known "
        f"whether {what} is durable"
    )


@contextmanager
def explained(where: str) -> Generator[None, None, None]:
    """Raise the package's exceptions instead of whatever else comes out."""
    try:
        yield
    except PerdureError:
        raise
    except Exception as error:
        raise explain(error, where) from error
