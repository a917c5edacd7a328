"""The rules, one class for each: see ``docs/rules`` for what they say, and why."""

from __future__ import annotations

from .cancellation import Cancellation, Handlers
from .clock import Chance, Clock, Environment, Uuids
from .continuing import Continuing
from .direct_calls import DirectCalls
from .dropped import Dropped
from .files import Files, Network, Processes
from .locks import Locks
from .order import Identity, SetOrder
from .printing import Printing
from .replaying import Replaying
from .rule import Rule
from .shared import Shared
from .undurable import Undurable
from .waiting import Blocking, Sleeping, Threads
from .yields import Mixed, Yields

__all__ = ["RULES", "Rule"]

#: All of them, by their codes.
RULES: tuple[type[Rule], ...] = (
    Clock,
    Chance,
    Uuids,
    Environment,
    Files,
    Network,
    Processes,
    Threads,
    Sleeping,
    Blocking,
    SetOrder,
    Identity,
    DirectCalls,
    Undurable,
    Shared,
    Cancellation,
    Handlers,
    Locks,
    Continuing,
    Dropped,
    Replaying,
    Yields,
    Mixed,
    Printing,
)
