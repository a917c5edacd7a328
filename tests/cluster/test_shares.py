"""Shares: from any state, members that look in turn come to a placement that stays."""

from __future__ import annotations

from math import ceil, floor
from random import Random
from typing import Any

from hypothesis import given, strategies as st

from perdure.runtime.cluster.shares import Knowledge, Plan, decide
from perdure.storage.membership import LeaseRow, MemberRow, View

GONE = 99  # a member of which there is no row any more


def member(
    number: int, *, weight: float = 1.0, draining: bool = False, expired: bool = False
) -> MemberRow:
    return MemberRow(
        number, f"h:{number}", "h", 1, "0", "app", "", None, weight, draining, 0, 0.0, expired
    )


def lease(partition: int, owner: int | None = None, wanted: int | None = None) -> LeaseRow:
    return LeaseRow(partition, 1, owner, wanted)


class Hub:
    """What a store would say, and do."""

    def __init__(self, members: list[MemberRow], leases: list[LeaseRow]) -> None:
        self.members = members
        self.leases = leases
        self.moves = 0

    def act(self, me: int, random: Random) -> Plan:
        plan = decide(View(self.members, list(self.leases)), me, random)
        for row in plan.take:
            assert self.leases[row.partition] == row
            self.leases[row.partition] = lease(row.partition, me)
        for partition, to in plan.let_go:
            assert self.leases[partition].owner == me
            self.leases[partition] = lease(partition, None, to)
        self.moves += len(plan.let_go)
        return plan

    def settle(self, random: Random) -> int:
        """Have members act in turn until none of them does anything; gives how often that was."""
        for turn in range(100):
            order = [row.member for row in self.members if not row.expired]
            random.shuffle(order)
            plans = [self.act(me, random) for me in order]
            if not any(plan.take or plan.let_go for plan in plans):
                return turn
        raise AssertionError("it never comes to rest")

    def owned(self) -> dict[int, int]:
        counts = {row.member: 0 for row in self.members}
        for row in self.leases:
            if row.owner is not None:
                counts[row.owner] = counts.get(row.owner, 0) + 1
        return counts


@st.composite
def hubs(draw: st.DrawFn, *, equal: bool = True) -> Hub:
    count = draw(st.integers(1, 6))
    weights = st.just(1.0) if equal else st.sampled_from([0.5, 1.0, 1.5, 2.0, 4.0])
    members = [
        member(n, weight=draw(weights), draining=draw(st.booleans()), expired=draw(st.booleans()))
        for n in range(1, count + 1)
    ]
    members.append(member(count + 1, weight=draw(weights)))
    whoever = st.sampled_from([None, GONE, *range(1, count + 2)])
    partitions = draw(st.integers(1, 40))
    return Hub(members, [lease(n, draw(whoever), draw(whoever)) for n in range(partitions)])


def check(hub: Hub) -> None:
    counts = hub.owned()
    active = [row for row in hub.members if not row.draining and not row.expired]
    assert sum(counts[row.member] for row in active) == len(hub.leases), "all are served"
    weight = sum(row.weight for row in active)
    for row in active:
        ideal = len(hub.leases) * row.weight / weight
        assert floor(ideal + 1e-6) <= counts[row.member] <= ceil(ideal - 1e-6)


@given(hubs(), st.randoms(use_true_random=False))
def test_members_come_to_equal_shares_of_everything_and_to_rest(hub: Hub, random: Random) -> None:
    assert hub.settle(random) <= 12
    check(hub)
    counts = hub.owned()
    shares = [counts[row.member] for row in hub.members if not (row.draining or row.expired)]
    assert max(shares) - min(shares) <= 1


@given(hubs(equal=False), st.randoms(use_true_random=False))
def test_members_come_to_shares_by_weight(hub: Hub, random: Random) -> None:
    assert hub.settle(random) <= 12
    check(hub)


@given(st.integers(1, 64), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_member_that_comes_costs_no_more_moves_than_its_share(
    partitions: int, count: int, random: Random
) -> None:
    members = [member(n) for n in range(1, count + 1)]
    hub = Hub(members, [lease(n) for n in range(partitions)])
    hub.settle(random)
    assert hub.moves == 0, "what is free is taken by whose it is"
    hub.members.append(member(count + 1))
    hub.settle(random)
    assert hub.moves <= ceil(partitions / (count + 1))
    check(hub)


@given(st.integers(1, 64), st.integers(2, 6), st.randoms(use_true_random=False))
def test_of_a_member_that_leaves_only_its_own_partitions_move(
    partitions: int, count: int, random: Random
) -> None:
    hub = Hub([member(n) for n in range(1, count + 1)], [lease(n) for n in range(partitions)])
    hub.settle(random)
    had = hub.owned()[1]
    hub.members[0] = member(1, draining=True)
    hub.settle(random)
    assert hub.moves == had
    check(hub)


def plan(leases: list[LeaseRow], members: list[MemberRow], me: int, **knows: Any) -> Plan:
    return decide(View(members, leases), me, Random(1), Knowledge(**knows))


TWO = [member(1), member(2)]


def test_nobody_is_judged_by_who_was_away() -> None:
    rows = [member(1), member(2, expired=True)]
    leases = [lease(0, 1), lease(1, 2)]
    assert plan(leases, rows, 1).take == [leases[1]]
    assert plan(leases, rows, 1, may_judge=False) == Plan([], [])


def test_what_a_member_that_has_ended_had_is_taken_before_it_expires() -> None:
    leases = [lease(0, 1), lease(1, 2)]
    assert plan(leases, TWO, 1).take == []
    assert plan(leases, TWO, 1, ended={2}).take == [leases[1]]


def test_a_wish_is_followed_and_what_it_gives_too_much_goes_back_as_another() -> None:
    leases = [lease(0, 1, 2), lease(1, 1), lease(2, 2), lease(3, 2)]
    assert plan(leases, TWO, 1).let_go == [(0, 2)]
    swapped = plan(leases, TWO, 2).let_go
    ((swapped_out, back_to),) = swapped
    assert swapped_out in (2, 3)
    assert back_to == 1
    after = [lease(0, 2), lease(1, 1), lease(2, 2), lease(3, 2)]
    for _ in range(10):
        ((partition, to),) = plan(after, TWO, 2, held={0}).let_go
        assert partition != 0, "what was wished for stays"
        assert to == 1


def test_what_is_kept_for_a_member_is_taken_by_others_when_it_is_overdue() -> None:
    leases = [lease(0, None, 2), lease(1, 1)]
    assert plan(leases, TWO, 1).take == []
    assert plan(leases, TWO, 1, overdue={0}).take == [leases[0]]
    assert plan(leases, TWO, 2).take == [leases[0]]


def test_what_is_kept_for_a_member_that_is_gone_is_free() -> None:
    leases = [lease(0, None, GONE)]
    assert plan(leases, [member(1)], 1).take == leases


def test_a_member_takes_what_it_had_before_others() -> None:
    leases = [lease(n) for n in range(8)]
    for _ in range(5):
        taken = {row.partition for row in plan(leases, TWO, 1, known={1, 3, 5, 7}).take}
        assert taken == {1, 3, 5, 7}


def test_the_last_member_keeps_all_though_it_drains() -> None:
    assert plan([lease(0, 1)], [member(1, draining=True)], 1) == Plan([], [])


def test_nothing_is_given_to_a_member_that_nobody_reaches() -> None:
    leases = [lease(n, 1) for n in range(4)]
    assert len(plan(leases, TWO, 1).let_go) == 2
    assert plan(leases, TWO, 1, refused={2}).let_go == []
    assert plan([*leases, lease(4, 2)], TWO, 1, refused={2}).take == []


def test_what_is_being_let_go_is_not_let_go_twice() -> None:
    leases = [lease(0, 1), lease(1, 1)]
    ((partition, to),) = plan(leases, TWO, 1).let_go
    assert plan(leases, TWO, 1, moving={partition: to}).let_go == []
