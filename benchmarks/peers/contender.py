"""What every contender offers, so that one load generator serves all of them.

Only the standard library is imported here: this runs in the environments of the other frameworks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar

FANOUT_ACTIVITIES = 1_000


class NotAvailableError(Exception):
    """A contender cannot be had on this machine; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What has to be installed for a contender.

    Attributes:
        name: of the environment, which contenders may share; empty for that of the caller.
        python: requirements for pip.
        npm: packages for npm.
    """

    name: str = ""
    python: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a contender runs.

    Attributes:
        folder: empty at first, removed afterwards.
        programs: the folder that npm installed into, for those who need one.
    """

    folder: Path
    programs: Path


class Contender(ABC):
    """One framework, set up in one way. The requests run in the event loop that ``start`` ran in.

    Attributes:
        needs: what has to be installed.
        durability: what survives what, in words.
        tuning: what was set, and on whose advice.
        entity: what ``add`` is: an entity, or the nearest durable thing that the framework has.
        answers: whether ``add`` returns after the number is applied, or once it is accepted.
    """

    needs: ClassVar[Needs] = Needs()
    durability: str
    tuning: str
    entity: str
    answers: bool = True

    @abstractmethod
    async def start(self, place: Place) -> str:
        """Get ready for requests; gives the versions of all that takes part.

        Raises:
            NotAvailableError: something that pip and npm do not install is missing.
        """

    @abstractmethod
    async def hello(self, number: int) -> list[str]:
        """Run an orchestration of three activities, one after another; gives their results."""

    @abstractmethod
    async def fanout(self, start: int) -> list[int]:
        """Run an orchestration that doubles 1,000 numbers from ``start`` in activities at once."""

    @abstractmethod
    async def add(self, key: str, number: int) -> None:
        """Add a number to the entity of that key."""

    async def applied(self, counts: Mapping[str, int]) -> None:
        """Wait until so many numbers are applied to the entities of these keys."""
        assert self.answers, "a contender whose `add` does not wait has to say when it is applied"

    @abstractmethod
    async def totals(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Give the count and the sum of what each of these entities has added."""

    @abstractmethod
    async def stop(self) -> None:
        """End what ``start`` began, also when that failed half way."""


# Modules are imported late: in each environment only one of them can be used.
_CLASSES = {
    "perdure-sqlite": ("with_perdure", "PerdureSqlite"),
    "perdure-memory": ("with_perdure", "PerdureMemory"),
    "dbos-sqlite": ("with_dbos", "DbosSqlite"),
    "perdure-postgres": ("with_perdure", "PerdurePostgres"),
    "dbos-postgres": ("with_dbos", "DbosPostgres"),
    "restate": ("with_restate", "Restate"),
    "durabletask-memory": ("with_durabletask", "Durabletask"),
}
NAMES = tuple(_CLASSES)
OURS = NAMES[0]  # what the others are compared with


def contender_class(name: str) -> type[Contender]:
    """Give the contender of that name.

    Raises:
        KeyError: there is none.
    """
    module, attribute = _CLASSES[name]
    found: type[Contender] = getattr(import_module(f".{module}", __package__), attribute)
    return found


def greetings(number: int) -> list[str]:
    """Give what ``hello`` has to give."""
    return [f"Hello {city} {number}!" for city in ("Tokyo", "Seattle", "London")]


def doubles(start: int) -> list[int]:
    """Give what ``fanout`` has to give."""
    return [2 * number for number in range(start, start + FANOUT_ACTIVITIES)]
