from __future__ import annotations

import pytest

from perdure import HubStatistics, PartitionStatistics
from perdure.benchmarks.sharding import away_percent, balance_of, cross_percent, plan_signals


def test_a_plan_hands_out_every_operation_once_and_is_the_same_again() -> None:
    plan = plan_signals("x", 500, 1.0, 4)

    numbers = sorted(
        order.first + place * order.step
        for order in plan.orders.values()
        for place in range(len(order.drawn))
    )
    assert numbers == list(range(500))
    assert plan.operations == sum(count for count, _ in plan.wanted.values()) == 500
    assert sum(total for _, total in plan.wanted.values()) == sum(range(500))
    assert plan == plan_signals("x", 500, 1.0, 4)


def test_signals_cross_between_shards_and_not_inside_one() -> None:
    plan = plan_signals("x", 2_000, 0.0, 4)

    assert cross_percent(plan, [0, 0, 0, 0]) == 0
    assert cross_percent(plan, [0, 1, 0, 1]) == pytest.approx(50, abs=5)
    assert cross_percent(plan, [0, 1, 2, 3]) == pytest.approx(75, abs=5)


def counted(*messages: int, away: int = 0) -> HubStatistics:
    return HubStatistics(
        partitions=tuple(
            PartitionStatistics(
                index=index,
                shard=index % 2,
                commits=0,
                turns=0,
                messages=one,
                sent_away=away,
                failed_operations=0,
                failed_calls=0,
                waiting=0,
                activations=0,
                stored_bytes=0,
            )
            for index, one in enumerate(messages)
        )
    )


def test_balance_is_the_busiest_shard_over_the_mean() -> None:
    assert balance_of(counted(1, 1, 1, 1), counted(31, 11, 31, 11)) == pytest.approx(60 / 40)


def test_what_left_its_partition_is_a_share_of_all_messages() -> None:
    assert away_percent(counted(5, 5, away=1), counted(25, 25, away=11)) == pytest.approx(50)
