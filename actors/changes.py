"""What an actor tells at the seal: its change, frozen, and all that is durable of it.

An actor goes on from these and from nothing else: one that was made anew and takes a stored state
by ``load`` does with every message what the one does that told it by ``seal``. Whoever runs actors
writes the changes down and gives the states back; what is in them only the actor knows.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import orjson

from .values import Status

# What the class of a named tuple does, without the Python function in between: these are made by
# the thousand.
make = cast("Any", tuple).__new__


class EntityState(NamedTuple):
    """All of an entity that is durable: what it tells, since any change is of all of it."""

    id: int
    name: str
    key: str
    updated: int
    state: bytes | None  # JSON; None while there is none (it is only locked, say)
    lock: bytes | None  # JSON: who holds the lock, and for people who waits
    failures: bytes | None  # JSON: the last failed signals
    parked: bytes | None  # see encode_parked()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep any more."""
        return self[4:] == (None, None, None, None)


class InstanceOrigin(NamedTuple):
    """What an execution of an orchestration instance began with; it stays while that runs."""

    id: int
    key: str  # the instance id
    name: str
    version: str | None
    execution: int
    created: int
    parent: str | None  # the instance id of the parent
    parent_task: int
    parent_execution: int
    tags: bytes | None
    input: bytes | None
    start_at: int | None


class InstanceProgress(NamedTuple):
    """What changes while it runs, besides its history, which has so many ``events``."""

    id: int
    status: Status
    updated: int
    completed: int | None
    pending: int
    events: int
    output: bytes | None
    failure: bytes | None
    failure_type: str | None
    custom_status: bytes | None
    parked: bytes | None  # see encode_parked()
    notes: bytes | None
    waits: bytes | None = None  # JSON array of texts: what it waits for, in short
    attempts: int | None = None  # of the call that was tried most, if more than once


class InstanceState(NamedTuple):
    """All of an orchestration instance that is durable, besides its history."""

    origin: InstanceOrigin
    progress: InstanceProgress


class InstanceEvents(NamedTuple):
    """What came to an instance's history: a JSON array of events, the first of them number ``seq``."""

    instance: int
    seq: int
    body: bytes


InstanceChange = tuple[
    InstanceOrigin | None,
    bool,
    InstanceEvents | list[InstanceEvents] | None,
    InstanceProgress | None,
]
"""What became of an instance since it told last.

That is what its execution began with, if it is new; whether its stored history is not to be kept;
what came to its history, if anything did, in parts if that is much; and all the rest, None if there is no such instance any
more. It has no names of its own because one is made for every turn.
"""


def encode_parked(kind: str | None, reason: str) -> bytes:
    """Give the durable form of why an actor is parked."""
    return orjson.dumps({"type": kind, "reason": reason})


def read_parked(parked: bytes | None) -> tuple[str, str]:
    """Read why an actor is parked: the kind of trouble, and the reason."""
    try:
        why: Any = orjson.loads(parked or b"null")
        kind, reason = why["type"], why["reason"]
    except (ValueError, TypeError, LookupError):
        return "StoreDamagedError", "why it was parked cannot be read"
    return str(kind), str(reason)
