"""The testing kit, and checks before a deployment.

Names alone, as those of the package: what stands behind one is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .activities import ActivityRecord
    from .crashes import CrashDifference, crash_everywhere
    from .hub import TestHub
    from .recording import ReplayedHistory, record, replay
    from .store import Faults
    from .store_conformance import StoreConformance
    from .stored import Stored
    from .sync import Sync

__all__ = [
    "ActivityRecord",
    "CrashDifference",
    "Faults",
    "ReplayedHistory",
    "StoreConformance",
    "Stored",
    "Sync",
    "TestHub",
    "crash_everywhere",
    "record",
    "replay",
]

_HOMES = {
    "ActivityRecord": ".activities",
    "CrashDifference": ".crashes",
    "Faults": ".store",
    "ReplayedHistory": ".recording",
    "StoreConformance": ".store_conformance",
    "Stored": ".stored",
    "Sync": ".sync",
    "TestHub": ".hub",
    "crash_everywhere": ".crashes",
    "record": ".recording",
    "replay": ".recording",
}

# Type checkers go by the imports above, and would believe in any name if they saw this.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(_HOMES[name], __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
