"""What is found: an actor that the code at hand would break, and where."""

from __future__ import annotations

import linecache
from typing import Literal

from attrs import frozen

from ...runtime.facts import Fact

FindingKind = Literal[
    "differs",
    "unreadable",
    "unregistered",
    "raised",
    "timed_out",
    "crashed",
    "damaged",
    "skipped",
]
"""What is wrong.

``differs``: the code does something else than the history says. ``unreadable``: a stored input or
state is not what its class reads. ``unregistered``: the code is not there. ``raised``: the code
raised what no replay gives it. ``timed_out``: it went on for longer than it may. ``crashed``: it
ended its process. ``damaged``: what is stored is not what was written. ``skipped``: it was not
looked at, since others of its name have taken their processes with them.
"""


@frozen(kw_only=True)
class ReplayFinding(Fact):
    """An actor that the code at hand would break.

    Attributes:
        kind: what is wrong.
        actor: the instance id, or the entity's.
        name: the orchestration's or the entity's.
        version: the version that an instance was started with, or None.
        position: the number of the event in the history at which they part, from 0; None where it
            is none of a history.
        recorded: what the history has there.
        done: what the code did instead.
        file: the file of the code that did it, if that is known.
        line: the line there.
        text: that line.
        message: what is wrong, in words.
        note: how the inputs differ, where that is all that does; else None.
        parked: why the actor is parked already, if it is.
    """

    kind: FindingKind
    actor: str
    name: str
    version: str | None = None
    position: int | None = None
    recorded: str | None = None
    done: str | None = None
    file: str | None = None
    line: int | None = None
    text: str | None = None
    message: str
    note: str | None = None
    parked: str | None = None


def read_place(place: str | None) -> tuple[str | None, int | None, str | None]:
    """Read ``FILE:LINE``; gives the line's text as well, where it is a line of a file."""
    file, _, number = (place or "").rpartition(":")
    if not file or not number.isdecimal():
        return None, None, None
    return file, int(number), linecache.getline(file, int(number)).strip() or None
