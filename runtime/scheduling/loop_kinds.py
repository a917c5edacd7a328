"""Which event loop runs, and how to run another of its kind."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

from ...actors.errors import UsageError
from .waiter import on_asyncio


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


def running_kind() -> tuple[str, bool]:
    """Give the backend that runs this code, and whether it is uvloop."""
    if not on_asyncio():
        return "trio", False
    return "asyncio", type(asyncio.get_running_loop()).__module__.startswith("uvloop")
