"""The testing kit, and checks before a deployment.

Names alone, as those of the package: what stands behind one is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .activities import ActivityRecord
    from .hub import TestHub
    from .recording import ReplayedHistory, record, replay
    from .store import Faults

__all__ = ["ActivityRecord", "Faults", "ReplayedHistory", "TestHub", "record", "replay"]

_HOMES = {
    "ActivityRecord": ".activities",
    "Faults": ".store",
    "ReplayedHistory": ".recording",
    "TestHub": ".hub",
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
