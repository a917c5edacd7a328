"""Nodes: the processes that serve a hub together, and what each of them has."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from .facts import Fact


@frozen(kw_only=True)
class NodePartition(Fact):
    """A partition, as its node has it.

    Attributes:
        index: which partition.
        epoch: how often it was taken over, so that each value is one node's; None where the hub
            has one owner, whose epochs nobody compares.
        wanted: the member that it is to go to.
        unapplied: checkpoints that are in its journal, and not in the tables yet; None where the
            hub has one owner, whose statistics say it.
    """

    index: int
    epoch: int | None = None
    wanted: int | None = None
    unapplied: int | None = None


@frozen(kw_only=True)
class NodeStatus(Fact):
    """One of the processes that serve a hub.

    Attributes:
        member: its number, which no other process ever had; that of its shard.
        address: what the others dial; None where the hub has one owner.
        host: the host, the same for all processes on it.
        pid: the process.
        software: the version of Perdure.
        app_hash: of the application's definitions; None where the hub has one owner.
        is_other_version: whether that is another one than this process has, or where no process of
            the hub is asked, than the one has that joined last.
        http: where its HTTP API is, as a URL; None if it has none, or does not say.
        weight: how much of the hub it takes, beside the others.
        is_draining: whether it lets its partitions go, and takes no others.
        joined: since when it is there; None where the hub has one owner.
        beat_age_s: seconds since it said last that it lives, by the store's clock.
        is_expired: whether that is so long ago that others take what it has.
        is_this: whether it is the one that was asked.
        partitions: what it has.
    """

    member: int
    address: str | None
    host: str
    pid: int
    software: str
    app_hash: str | None
    is_other_version: bool
    http: str | None
    weight: float
    is_draining: bool
    joined: datetime | None
    beat_age_s: float
    is_expired: bool
    is_this: bool
    partitions: tuple[NodePartition, ...]


@frozen(kw_only=True)
class HubNodes(Fact):
    """Which processes serve a hub, at one moment.

    Attributes:
        is_cluster: whether several may: a hub whose store has one owner has one node, itself.
        nodes: all of them.
        free: the partitions that none of them has.
    """

    is_cluster: bool
    nodes: tuple[NodeStatus, ...]
    free: tuple[NodePartition, ...] = ()
