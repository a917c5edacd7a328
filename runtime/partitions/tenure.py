"""Tenure: whether this process still has what it serves, where others may take it over.

A commit finds out by itself, since the store refuses it under an older epoch. What is answered
without one may come from what was the truth before somebody else took the partition, so it waits
until this process is sure. In a hub of one process nobody else can have it, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio

from ...actors.errors import StorageError, StoreDamagedError, UnavailableError
from ...actors.printing import text_of
from ..placement.places import AskedRecords, MovedError
from ..scheduling.timers import backoff

if TYPE_CHECKING:
    from ..placement.places import Records
    from .gate import Gate

T = TypeVar("T")

#: Seconds that a request waits for a store that is away.
STORE_PATIENCE_S = 30.0


class Tenure(Protocol):
    """Says whether others may have taken over what this process serves."""

    def is_sure(self) -> bool:
        """Whether nobody can have, as of now."""
        ...

    async def until_sure(self) -> None:
        """Return when nobody can have.

        Raises:
            MovedError: somebody may have by now.
            UnavailableError: it cannot be said for too long.
        """
        ...


async def surely(tenure: Tenure, read: Callable[[], Awaitable[T]]) -> T:
    """Read from a store, once nobody can have taken over what is read.

    Raises:
        MovedError: somebody may have.
        UnavailableError: it cannot be said for too long.
    """
    if not tenure.is_sure():
        await tenure.until_sure()
    return await read()


async def patiently(gate: Gate, read: Callable[[], Awaitable[T]]) -> T:
    """Read from a store, and again while it cannot be reached.

    Args:
        gate: of the partition that is read.
        read: does it.

    Raises:
        MovedError: the partition has left.
        StoreDamagedError: what was read is damaged.
        UnavailableError: the store cannot be reached for too long.
    """
    tries = 0
    deadline = anyio.current_time() + STORE_PATIENCE_S
    while True:
        if gate.has_moved:
            raise gate.refusal()
        try:
            return await gate.read(read())
        except StoreDamagedError:
            raise
        except StorageError as error:
            if anyio.current_time() > deadline:
                raise UnavailableError(
                    f"the store has not been well for {STORE_PATIENCE_S:g} seconds "
                    f"({text_of(error)}); repeat it"
                ) from error
        await anyio.sleep(backoff(tries))
        tries += 1


class SureRecords(AskedRecords):
    """What is stored of a partition, read by who is sure to have it: see ``Records``.

    Where it has left, it is read where it is by then; and a store that is away is waited for.

    Args:
        records: what is read here.
        gate: the partition's.
        tenure: says whether it is this process's.
        elsewhere: what is read where the partition is elsewhere.
        is_here: waits a little, and says whether the partition is, or comes.
    """

    def __init__(
        self,
        records: Records,
        gate: Gate,
        tenure: Tenure,
        elsewhere: Records,
        is_here: Callable[[], Awaitable[bool]],
    ) -> None:
        self._records = records
        self._gate = gate
        self._tenure = tenure
        self._elsewhere = elsewhere
        self._is_here = is_here

    async def _read(self, verb: str, *arguments: Any) -> Any:
        read = partial(getattr(self._records, verb), *arguments)
        while True:
            try:
                return await patiently(self._gate, partial(surely, self._tenure, read))
            except MovedError:
                if await self._is_here():
                    continue
            return await getattr(self._elsewhere, verb)(*arguments)
