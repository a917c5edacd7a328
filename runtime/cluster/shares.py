"""Which partitions a member should take, and which it should let go: the policy, without any clock.

Every member decides alone, from its own view. Who sees the same comes to the same plan for all of
them, so what they do fits together; where views differ for a moment, the next ones repair it.

Invariants:

* A member's share is its weight's part of all partitions, rounded up or down: those that have more
  already keep it, so that nothing moves for a rest.
* A partition that is on its way to a member counts as that member's.
* Once all members have what is theirs, nobody does anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import floor
from random import Random
from typing import NamedTuple

from attrs import frozen

from ...storage.membership import LeaseRow, MemberRow, View


class Plan(NamedTuple):
    """What one member is to do."""

    take: list[LeaseRow]  # what nobody has, in this order
    let_go: list[tuple[int, int]]  # partitions, each with the member that it is for


@frozen(kw_only=True)
class Knowledge:
    """What a member knows that no view says.

    Attributes:
        may_judge: whether a member that seems to have expired has.
        ended: members whose processes are known to be gone.
        refused: members that cannot be given anything now, since nobody listens there.
        overdue: partitions that nobody has had for so long that anybody may take them.
        moving: partitions that are being let go, each with the member that it is for.
        held: partitions that are to stay for now, if others can go instead.
        known: partitions that this member had, and takes before others.
    """

    may_judge: bool = True
    ended: Collection[int] = frozenset()
    refused: Collection[int] = frozenset()
    overdue: Collection[int] = frozenset()
    moving: Mapping[int, int] = {}
    held: Collection[int] = frozenset()
    known: Collection[int] = frozenset()


def is_alive(row: MemberRow, knows: Knowledge) -> bool:
    """Whether a member has what it is said to have."""
    return row.member not in knows.ended and not (row.expired and knows.may_judge)


def decide(view: View, me: int, random: Random, knows: Knowledge = Knowledge()) -> Plan:
    """Decide what a member is to take, and to let go.

    Args:
        view: what it sees.
        me: which member it is.
        random: chooses among what is equal.
        knows: what it knows besides.
    """
    alive = {row.member: row for row in view.members if is_alive(row, knows)}
    if me not in alive:
        return Plan([], [])
    places = _Places(view.leases, me, alive, knows)
    counts = places.count()
    due = _shares(len(view.leases), [*places.active.values()], counts)
    slots = _slots({member: share - counts[member] for member, share in due.items()})
    random.shuffle(places.free)
    places.free.sort(key=lambda row: row.partition not in knows.known)  # stable
    take = places.reserved + _taken(places.free, slots, me, knows)
    let_go = places.wished
    if me not in places.active or counts[me] > due[me]:
        excess = _excess(places, counts, due)
        receivers = _receivers(excess, slots[len(places.free) :], me)
        own = places.own.get(me, [])
        random.shuffle(own)
        own.sort(key=lambda partition: partition in knows.held)
        let_go = let_go + list(zip(own, receivers, strict=False))
    return Plan(take, let_go)


class _Places:
    """Where each partition is, or is going.

    Attributes:
        active: the members that may get partitions.
        free: what nobody has, and is for nobody.
        reserved: what nobody has, and is for this member.
        wished: what this member has, and is to go to another.
        own: what each member has and is to go nowhere.
        coming: how many partitions are on their way to each member.
    """

    def __init__(
        self,
        leases: Sequence[LeaseRow],
        me: int,
        alive: Mapping[int, MemberRow],
        knows: Knowledge,
    ) -> None:
        self.active = {
            member: row
            for member, row in alive.items()
            if not row.draining and member not in knows.refused
        }
        self.free: list[LeaseRow] = []
        self.reserved: list[LeaseRow] = []
        self.wished: list[tuple[int, int]] = []
        self.own: dict[int, list[int]] = {member: [] for member in alive}
        self.coming: dict[int, int] = dict.fromkeys(alive, 0)
        self._me = me
        self._knows = knows
        for lease in leases:
            self._add(lease)

    def _add(self, lease: LeaseRow) -> None:
        partition, owner = lease.partition, lease.owner
        # One that drains lets it go again, and with all that was brought along to it alone.
        takers = self.active if owner in self.own else self.own
        wanted = lease.wanted if lease.wanted in takers else None
        if owner == self._me and partition in self._knows.moving:
            to = self._knows.moving[partition]
            if to in self.coming:
                self.coming[to] += 1
        elif owner is not None and owner in self.own:
            if wanted is None or wanted == owner:
                self.own[owner].append(partition)
                return
            self.coming[wanted] += 1
            if owner == self._me:
                self.wished.append((partition, wanted))
        elif wanted is None or partition in self._knows.overdue:
            self.free.append(lease)
        elif wanted == self._me:
            self.coming[wanted] += 1
            self.reserved.append(lease)
        else:
            self.coming[wanted] += 1

    def count(self) -> dict[int, int]:
        """Give how many partitions each member has, or will have."""
        return {member: len(own) + self.coming[member] for member, own in self.own.items()}


def _shares(
    partitions: int, members: Sequence[MemberRow], counts: Mapping[int, int]
) -> dict[int, int]:
    """Give how many partitions each member should have, all of them together."""
    weights = {row.member: max(row.weight, 0.0) for row in members}
    total = sum(weights.values())
    if not total:
        weights, total = dict.fromkeys(weights, 1.0), float(len(weights))
    ideal = {one: round(partitions * weight / total, 9) for one, weight in weights.items()}
    shares = {member: floor(value) for member, value in ideal.items()}

    def rank(member: int) -> tuple[bool, bool, float, int]:
        rest = ideal[member] - shares[member]
        return not rest, counts[member] <= shares[member], -rest, member

    for member in sorted(shares, key=rank)[: partitions - sum(shares.values())]:
        shares[member] += 1
    return shares


def _slots(missing: Mapping[int, int]) -> list[int]:
    """Give the members that should have more, each as often as that; all in turn."""
    slots: list[int] = []
    for turn in range(max(missing.values(), default=0)):
        slots += (member for member in sorted(missing) if missing[member] > turn)
    return slots


def _taken(
    free: Sequence[LeaseRow], slots: Sequence[int], me: int, knows: Knowledge
) -> list[LeaseRow]:
    count = slots[: len(free)].count(me)
    late = [row for row in free[count:] if row.partition in knows.overdue]
    return [*free[:count], *late]


def _excess(
    places: _Places, counts: Mapping[int, int], due: Mapping[int, int]
) -> Iterator[tuple[int, int]]:
    """Give who has more than he should, and how much of it; those that drain come first."""
    for member in sorted(places.own, key=lambda member: (member in due, member)):
        most = len(places.own[member])
        yield member, min(most, max(0, counts[member] - due.get(member, 0)))


def _receivers(excess: Iterator[tuple[int, int]], slots: Sequence[int], me: int) -> Sequence[int]:
    """Give whom this member's part of what is too much is for."""
    start = 0
    for member, count in excess:
        if member == me:
            return slots[start : start + count]
        start += count
    return ()
