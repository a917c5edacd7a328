"""What the store of a hub has of the processes that serve it, for whoever looks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ...actors.arguments import refusal
from ...actors.errors import UnavailableError
from ...actors.times import to_datetime
from ...storage import is_database, open_store
from ...storage.membership import ClusterStore
from ..nodes import HubNodes, NodePartition, NodeStatus

if TYPE_CHECKING:
    from ...storage.membership import LeaseRow, MemberRow, View


async def read_nodes(place: str) -> HubNodes:
    """Give the processes that serve a hub, as its database has them.

    No process of the hub is asked, so it needs no key of theirs, and works while none of them does.

    Args:
        place: the store that they share: ``postgresql://...``.

    Raises:
        UnavailableError: there is no hub in it yet.
        StoreMovedError: the hub is not there any more: where it is.
        UsageError: it is no store that several processes have open at once.
        StorageError: it cannot be reached, or read.
    """
    if not is_database(place):
        raise refusal("place", "a store that several nodes share: 'postgresql://...'", place)
    store = open_store(place)
    assert isinstance(store, ClusterStore)
    try:
        if await store.identify() is None:
            raise UnavailableError(
                f"there is no hub in {store.location} yet: start one with perdure serve"
            )
        return read_view(await store.view())
    finally:
        await store.close()


def read_view(view: View, me: int | None = None) -> HubNodes:
    """Put together what a store has of its members.

    Args:
        view: what it has.
        me: the member that is asked, if one is.
    """
    has: defaultdict[int | None, list[NodePartition]] = defaultdict(list)
    members = {row.member for row in view.members}
    for lease in view.leases:
        # The row of a member that is gone for long is forgotten before all that it had is taken.
        has[lease.owner if lease.owner in members else None].append(_partition(lease))
    usual = _usual_hash(view, me)
    return HubNodes(
        is_cluster=True,
        nodes=tuple(_node(row, me, usual, tuple(has[row.member])) for row in view.members),
        free=tuple(has[None]),
    )


def _partition(lease: LeaseRow) -> NodePartition:
    return NodePartition(
        index=lease.partition, epoch=lease.epoch, wanted=lease.wanted, unapplied=lease.unapplied
    )


def _usual_hash(view: View, me: int | None) -> str | None:
    """Give the application's hash that others are compared with."""
    by_member = {row.member: row.app_hash for row in view.members}
    if me in by_member:
        return by_member[me]
    living = [row.member for row in view.members if not row.expired] or [*by_member]
    return by_member[max(living)] if living else None


def _node(
    row: MemberRow, me: int | None, usual: str | None, partitions: tuple[NodePartition, ...]
) -> NodeStatus:
    return NodeStatus(
        member=row.member,
        address=row.address,
        host=row.host,
        pid=row.pid,
        software=row.software,
        app_hash=row.app_hash,
        is_other_version=row.app_hash != usual,
        http=row.http,
        weight=row.weight,
        is_draining=row.draining,
        joined=to_datetime(row.joined),
        beat_age_s=max(row.beat_age_s, 0.0),
        is_expired=row.expired,
        is_this=row.member == me,
        partitions=partitions,
    )
