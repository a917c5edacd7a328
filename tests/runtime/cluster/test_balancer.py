from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given, strategies as st

from perdure import Rebalance, UnavailableError, UsageError
from perdure.runtime.cluster.balancer import Balancer, Load, Move, choose_move
from tests.runtime.harness import until_true

SHARES = st.floats(0, 1, allow_nan=False)


@st.composite
def placed_loads(draw: st.DrawFn) -> dict[int, Load]:
    """Draw how busy some shards are, and with which partitions."""
    shards = draw(st.integers(2, 5))
    owners = draw(st.lists(st.integers(0, shards - 1), min_size=1, max_size=12))
    loads: dict[int, Load] = {}
    for shard in range(shards):
        mine = [number for number, owner in enumerate(owners) if owner == shard]
        messages = {number: draw(st.integers(0, 1_000)) for number in mine}
        loads[shard] = Load(draw(SHARES) if any(messages.values()) else 0.0, messages)
    return loads


RULES = st.builds(Rebalance, busy=st.floats(0.05, 1), gain=st.floats(0.01, 0.9))


def share_of(load: Load, partition: int) -> float:
    return load.busy * load.messages[partition] / sum(load.messages.values())


def after(loads: dict[int, Load], move: Move) -> dict[int, Load]:
    """Give the loads as they are once the partition has moved, all else being the same.

    Messages are scaled to what they cost, so that a partition's share of its shard stays right.
    """
    costs = {
        shard: {
            number: share_of(load, number) if sum(load.messages.values()) else 0.0
            for number in load.messages
        }
        for shard, load in loads.items()
    }
    source = next(shard for shard, load in loads.items() if move.partition in load.messages)
    costs[move.to][move.partition] = costs[source].pop(move.partition)
    return {
        shard: Load(
            sum(of.values()), {number: round(cost * 1_000_000) for number, cost in of.items()}
        )
        for shard, of in costs.items()
    }


@given(placed_loads(), RULES)
def test_a_move_leaves_the_busier_of_both_shards_less_busy_by_the_gain(
    loads: dict[int, Load], rules: Rebalance
) -> None:
    move = choose_move(loads, rules)

    if move is not None:
        high = max(load.busy for load in loads.values())
        [source] = [shard for shard, load in loads.items() if move.partition in load.messages]
        moved = after(loads, move)
        assert loads[source].busy == high
        assert max(moved[source].busy, moved[move.to].busy) <= high - rules.gain + 1e-5
        assert max(load.busy for load in moved.values()) <= high + 1e-5


@given(placed_loads(), RULES)
def test_a_move_goes_from_the_busiest_shard_to_the_idlest(
    loads: dict[int, Load], rules: Rebalance
) -> None:
    move = choose_move(loads, rules)

    if move is not None:
        assert loads[move.to].busy == min(load.busy for load in loads.values())
        assert move.partition not in loads[move.to].messages


@given(placed_loads(), RULES)
def test_nothing_moves_off_shards_that_are_not_busy(
    loads: dict[int, Load], rules: Rebalance
) -> None:
    if max(load.busy for load in loads.values()) < rules.busy:
        assert choose_move(loads, rules) is None


@given(placed_loads(), RULES, st.frozensets(st.integers(0, 11)))
def test_a_partition_that_rests_stays(
    loads: dict[int, Load], rules: Rebalance, resting: frozenset[int]
) -> None:
    move = choose_move(loads, rules, resting)

    assert move is None or move.partition not in resting


@given(placed_loads(), RULES)
def test_moves_under_a_load_that_stays_the_same_come_to_an_end(
    loads: dict[int, Load], rules: Rebalance
) -> None:
    moves, most = 0, len(loads) / (2 * (rules.gain - 1e-5) ** 2)
    while (move := choose_move(loads, rules)) is not None:
        loads = after(loads, move)
        moves += 1
        # Each takes twice the gain's square off the sum of the squares, which is all there is.
        assert moves <= most


@given(placed_loads(), RULES)
def test_a_partition_never_goes_back_and_forth(loads: dict[int, Load], rules: Rebalance) -> None:
    move = choose_move(loads, rules)

    if move is not None:
        again = choose_move(after(loads, move), rules)
        assert again is None or again.partition != move.partition


@pytest.mark.parametrize(
    ("loads", "move"),
    [
        ({0: Load(0.9, {0: 50, 1: 50}), 1: Load(0.0, {})}, Move(0, 1)),
        ({0: Load(0.9, {0: 90, 1: 10}), 1: Load(0.0, {})}, None),  # 0.81 there is no gain
        ({0: Load(0.9, {0: 80, 1: 20}), 1: Load(0.0, {})}, Move(0, 1)),  # as good as Move(1, 1)
        ({0: Load(0.9, {0: 100}), 1: Load(0.0, {})}, None),  # the heat would only move
        ({0: Load(0.4, {0: 50, 1: 50}), 1: Load(0.0, {})}, None),  # idle enough
        ({0: Load(0.9, {0: 50, 1: 50}), 1: Load(0.85, {2: 1})}, None),
        ({0: Load(0.9, {}), 1: Load(0.0, {})}, None),  # busy with none of them
        ({0: Load(0.2, {3: 1}), 1: Load(0.9, {0: 5, 1: 5}), 2: Load(0.1, {})}, Move(0, 2)),
    ],
    ids=range(8),
)
def test_choices(loads: dict[int, Load], move: Move | None) -> None:
    assert choose_move(loads, Rebalance()) == move


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_s": 0},
        {"busy": 0},
        {"busy": 1.1},
        {"gain": 0},
        {"gain": 1},
        {"rest_s": -1},
    ],
    ids=str,
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Rebalance(**wrong)


def test_rules_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Rebalance().busy = 0.1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class FakeCrew:
    """Shards whose load the test makes up; each look finds them as busy as it says."""

    leads = True

    def __init__(self, busy: list[float], owners: dict[int, int]) -> None:
        self.in_service = range(len(busy))
        self.busy = busy
        self.owners = owners
        self.worked = [0.0] * len(busy)
        self.messages = dict.fromkeys(owners, 0)
        self.moves: list[tuple[int, int]] = []
        self.looks = 0
        self.trouble: Exception | None = None
        self.looked_at = anyio.current_time()

    async def ask_soon(self, shard: int, verb: str) -> Any:
        assert verb == "load"
        if self.trouble is not None:
            error, self.trouble = self.trouble, None
            raise error
        if shard == 0:
            now = anyio.current_time()
            for number, busy in enumerate(self.busy):
                self.worked[number] += busy * (now - self.looked_at)
            self.looked_at = now
            self.looks += 1
            for number in self.messages:
                self.messages[number] += 10
        mine = [(n, self.messages[n]) for n, owner in self.owners.items() if owner == shard]
        return self.worked[shard], mine

    async def move(self, partition: int, to: int) -> None:
        self.moves.append((partition, to))
        self.owners[partition] = to


async def balanced(crew: FakeCrew, rules: Rebalance, looks: int) -> None:
    """Balance until the load was looked at so many times, and something has moved.

    Where the machine stands still in the middle of a look, that finds a shard less busy.
    """
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Balancer(rules, crew).run)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            await until_true(lambda: crew.looks >= looks and bool(crew.moves))
            tasks.cancel_scope.cancel()


async def test_the_balancer_moves_what_the_policy_chooses() -> None:
    crew = FakeCrew([0.9, 0.0], {0: 0, 1: 0})

    await balanced(crew, Rebalance(interval_s=0.02), 4)

    assert crew.moves[:1] == [(0, 1)]


async def test_the_balancer_goes_on_after_a_look_that_failed() -> None:
    crew = FakeCrew([0.9, 0.0], {0: 0, 1: 0})
    crew.trouble = UnavailableError("a shard is being restarted")

    await balanced(crew, Rebalance(interval_s=0.02), 4)

    assert crew.moves[:1] == [(0, 1)]


@pytest.mark.by_turns
async def test_a_partition_rests_where_the_balancer_has_moved_it() -> None:
    class Seesaw(FakeCrew):
        async def move(self, partition: int, to: int) -> None:
            await FakeCrew.move(self, partition, to)
            self.busy = [0.0, 0.0]
            self.busy[to] = 0.9  # whoever gets one is busy from then on

    crew = Seesaw([0.9, 0.0], {0: 0, 1: 0, 2: 0, 3: 0})

    await balanced(crew, Rebalance(interval_s=0.02, rest_s=60.0), 12)

    moved = [partition for partition, _ in crew.moves]
    assert moved
    assert len(set(moved)) == len(moved)
