"""Runs a hub as a program of its own, until a signal says that it should stop."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import anyio

from ..actors.app import App
from ..actors.errors import UsageError
from .hub import Hub
from .tuning import tune

if TYPE_CHECKING:
    from ..storage import Store
    from .settings import Settings

_log = logging.getLogger("perdure.hub")


def run(
    app: App | str,
    *,
    store: str | Store = "memory:",
    partitions: int = 4,
    settings: Settings | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
    uvloop: bool | None = None,
    tuned: bool = True,
    on_ready: Callable[[Hub], None] | None = None,
) -> None:
    """Run a hub in this thread, the main one, until SIGINT or SIGTERM; then drain it and return.

    A second signal ends the process at once. That loses nothing: what was under way goes on when
    a hub next opens the store.

    Args:
        app: the application, or where it is: ``"module:name"``, looked for from the current
            folder as well.
        store: ``memory:``, ``sqlite:PATH`` (a folder), or a ``Store``.
        partitions: how many partitions a new store gets; an existing one must have as many.
        settings: the limits.
        backend: which event loop.
        uvloop: whether asyncio runs on uvloop; by default where it is installed.
        tuned: whether the interpreter is set up for a hub, see ``perdure.tune``.
        on_ready: called once, with the hub, when it serves.

    Raises:
        UsageError: a bad argument, no such application, or no uvloop.
        StorageError: the store cannot be opened (in use, newer, damaged, ...), or was lost.
    """
    if backend not in ("asyncio", "trio"):
        raise UsageError(f"backend must be asyncio or trio, not {backend!r}")
    found = load_app(app) if isinstance(app, str) else app
    hub = Hub(found, store=store, partitions=partitions, settings=settings)
    options = backend_options(backend, uvloop)
    if tuned:
        tune()
    anyio.run(_serve, hub, on_ready, backend=backend, backend_options=options)


def load_app(place: str) -> App:
    """Import the application that ``"module:name"`` means.

    Raises:
        UsageError: there is no such module, or no such application in it.
    """
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{place!r} does not say where the app is: give 'module:name'")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, and imports something that is not
        raise UsageError(f"there is no module {module_name!r} here or on sys.path") from error
    app: Any = module
    for name in attribute.split("."):
        app = getattr(app, name, None)
    if not isinstance(app, App):
        raise UsageError(f"{place!r} is no perdure.App but {app!r}")
    return app


def backend_options(backend: str, uvloop: bool | None) -> dict[str, Any]:
    """Choose anyio's options for the event loop.

    Raises:
        UsageError: uvloop is asked for where it cannot be.
    """
    if backend != "asyncio":
        if uvloop:
            raise UsageError("uvloop is an event loop for asyncio: leave it out on trio")
        return {}
    installed = importlib.util.find_spec("uvloop") is not None
    if uvloop and not installed:
        raise UsageError("uvloop is not installed: pip install 'perdure[uvloop]'")
    return {"use_uvloop": installed if uvloop is None else uvloop}


async def _serve(hub: Hub, on_ready: Callable[[Hub], None] | None) -> None:
    async with hub:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            if on_ready is not None:
                on_ready(hub)
            received = await anext(aiter(signals))
        # Given back before draining: the next signal does what it does in any program.
        _log.info("stopping on %s", received.name)
