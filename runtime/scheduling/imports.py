"""Modules that most programs never need: imported at first use, beside the loop.

An import takes longer than a loop may be held, where it makes many classes.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from anyio import CapacityLimiter, to_thread

EXPLAINING: Final = (
    "cattrs",
    "perdure.runtime.explanations",
    "perdure.runtime.partitions.explanation",
    "perdure.runtime.partitions.tracing",
)
"""What tells and reads why actors wait, and how they came to where they stand."""

_imported: Final = set[str]()


async def imported(*names: str) -> None:
    """Import modules in a thread, unless they are there; whoever needs them may import them then."""
    for name in names:
        if name not in _imported:
            # Not one of the threads that users' calls may all have.
            await to_thread.run_sync(import_module, name, limiter=CapacityLimiter(1))
            _imported.add(name)
