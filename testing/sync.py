"""The methods of a ``TestHub`` for code that has no event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from ..actors.ids import EntityId
    from .hub import TestHub

T = TypeVar("T")


class Sync:
    """What ``TestHub.sync`` is: each method waits, in its thread, for the hub's event loop.

    So it is for other threads than that of the hub: for a test with a web framework's test client,
    whose application runs in a thread of its own, hub and all.

    Raises:
        UsageError: by all methods, in the thread of the hub's event loop: await the hub's own.
        HubStoppingError: by all methods: the hub does not run.
    """

    def __init__(self, hub: TestHub) -> None:
        self._hub = hub

    def quiet(self) -> None:
        """See ``TestHub.quiet``."""
        self._hub.from_thread(self._hub.quiet)

    def advance(self, by: float | timedelta) -> None:
        """See ``TestHub.advance``."""
        self._hub.from_thread(partial(self._hub.advance, by))

    def crash(self) -> None:
        """See ``TestHub.crash``."""
        self._hub.from_thread(self._hub.crash)

    def evict(self, actor: str | EntityId[Any]) -> bool:
        """See ``TestHub.evict``."""
        return self._hub.from_thread(partial(self._hub.evict, actor))

    def record(self, path: str | Path, *instance_ids: str) -> list[Path]:
        """See ``TestHub.record``."""
        return self._hub.from_thread(partial(self._hub.record, path, *instance_ids))

    def run(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Await anything on the hub's event loop: ``hub.sync.run(hub.client.get_status, id)``."""
        return self._hub.from_thread(partial(function, *arguments))
