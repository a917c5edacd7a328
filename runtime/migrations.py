"""Migrations: how far a hub is that goes to another store while it serves."""

from __future__ import annotations

from attrs import frozen

from .facts import Fact


@frozen(kw_only=True)
class MigrationStatus(Fact):
    """How far a hub is on its way from one store to another.

    Attributes:
        source: where it was.
        target: where it goes, without a password.
        pid: the process that serves it meanwhile.
        partitions: how many it has.
        moved: those that are there.
        partition: the one that is on its way; None where none is.
        step: what becomes of that: ``copied`` while it is served, or ``switched`` while it is not.
        rows: how many rows of it have been copied.
        copied_rows: how many rows this process has copied of all, and again where it had to.
        longest_pause_s: for how long a partition was not served, at most.
        trouble: why it does not get on, and is tried again; None where it does.
    """

    source: str
    target: str
    pid: int
    partitions: int
    moved: tuple[int, ...]
    partition: int | None
    step: str | None
    rows: int
    copied_rows: int
    longest_pause_s: float
    trouble: str | None

    @property
    def has_ended(self) -> bool:
        """Whether all of it is there: the next process that serves it is to be given that store."""
        return len(self.moved) == self.partitions
