"""What the person at the terminal of ``perdure dev`` is shown: failures, and what is logged."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from .words import in_one_line, place_of

if TYPE_CHECKING:
    from perdure import Change, Hub

    Beside = Callable[[Hub], AbstractAsyncContextManager[object]]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LONGEST = 300
#: A page that looks on asks every other second; and where it serves is printed.
_MUCH = ("perdure.http.access", "uvicorn", "hypercorn")
#: How many failures are remembered, so that none is told twice.
_KNOWN_MAX = 10_000


def with_failures(beside: Beside | None) -> Beside:
    """Give what ``perdure.run(beside=)`` takes, with a line for each instance that fails."""

    @asynccontextmanager
    async def told(hub: Hub) -> AsyncGenerator[None]:
        _show_logs()
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_tell_failures, hub)
            try:
                if beside is None:
                    yield
                else:
                    async with beside(hub):
                        yield
            except Exception as error:
                failed = error  # it comes out as it is, and not in a group
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    return told


def _show_logs() -> None:
    """Show what is logged from INFO on, unless the application has set that up itself."""
    root = logging.getLogger()
    if root.handlers:
        return
    # After the application is imported: set up before, its own basicConfig would do nothing.
    logging.basicConfig(level=logging.INFO, format=_FORMAT, datefmt="%H:%M:%S")
    for name in _MUCH:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


async def _tell_failures(hub: Hub) -> None:
    """Print a line for each instance that fails, as long as the hub runs."""
    told: set[tuple[object, ...]] = set()
    async for change in hub.client.changes(statuses=["Failed"]):
        status = change.status
        if status is None:
            continue
        one = status.instance_id, status.execution, status.rewinds
        if one not in told:
            if len(told) >= _KNOWN_MAX:
                told.clear()
            told.add(one)
            print(_line(change), file=sys.stderr, flush=True)


def _line(change: Change) -> str:
    assert change.status is not None
    status = change.status
    failure = status.failure
    words = "" if failure is None else f": {failure.error_type}: {failure.message}"
    at = None if failure is None else place_of(failure.stack_trace)
    text = f"failed {status.instance_id} ({status.name}){words}"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return in_one_line(text) + (f" ({in_one_line(at)})" if at else "")
