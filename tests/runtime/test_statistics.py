from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.runtime.statistics import HubStatistics, ShardStatistics, SilentShard, read_counts

COUNTED = {
    "commits": 1,
    "turns": 2,
    "messages": 3,
    "sent_away": 4,
    "failed_operations": 5,
    "failed_calls": 6,
    "waiting": 7,
    "stored": 8,
    "owed": 9,
    "activations": 10,
    "stored_bytes": 11,
}


def partition(index: int, shard: int = 0, **other: Any) -> dict[str, Any]:
    """What a shard says of a partition, whose counters are the greater the higher its number."""
    counts = {name: count * (index + 1) for name, count in COUNTED.items()}
    return {"index": index, "shard": shard, "hottest": [], "fullest": [], **counts, **other}


def shard(index: int, *partitions: dict[str, Any]) -> dict[str, Any]:
    numbers = [one["index"] for one in partitions]
    says = {"index": index, "pid": 77, "busy_s": 0.5, "activities": 3, "partitions": numbers}
    return {"shard": says, "partitions": list(partitions)}


def crossed(counts: list[dict[str, Any]]) -> HubStatistics:
    """Read counts that came from another process."""
    found: list[dict[str, Any]] = json.loads(json.dumps(counts))
    return read_counts(found)


@pytest.mark.parametrize("name", COUNTED)
def test_a_hub_has_done_what_its_partitions_have(name: str) -> None:
    found = crossed([shard(0, partition(0), partition(2)), shard(1, partition(1, 1))])

    assert getattr(found, name) == COUNTED[name] * (1 + 2 + 3)
    assert [getattr(one, name) for one in found.partitions] == [
        COUNTED[name] * factor for factor in (1, 2, 3)
    ]


def test_partitions_come_in_order_whoever_serves_them() -> None:
    found = crossed([shard(0, partition(2), partition(0)), shard(1, partition(1, 1))])

    assert [(one.index, one.shard) for one in found.partitions] == [(0, 0), (1, 1), (2, 0)]
    assert found.shards == (
        ShardStatistics(index=0, pid=77, busy_s=0.5, activities=3, partitions=(2, 0)),
        ShardStatistics(index=1, pid=77, busy_s=0.5, activities=3, partitions=(1,)),
    )


def test_what_crossed_as_json_equals_what_did_not() -> None:
    counts = [
        shard(0, partition(0, hottest=[("@counter@a", 9)], fullest=[("i", 8), ("j", 7)])),
        {"silent": {"index": 1, "silent_s": 2.5}},
        {"restarted": 3},
    ]

    assert crossed(counts) == read_counts(counts)
    [one] = crossed(counts).partitions
    assert (one.hottest, one.fullest) == ((("@counter@a", 9),), (("i", 8), ("j", 7)))


def test_who_did_not_answer_is_named_and_counts_for_nothing() -> None:
    found = crossed([{"silent": {"index": 1, "silent_s": 2.5}}, shard(0, partition(0))])

    assert found.silent == (SilentShard(index=1, silent_s=2.5),)
    assert [one.index for one in found.shards] == [0]
    assert found.commits == 1


def test_loops_of_the_hub_that_began_anew_are_told_of_it() -> None:
    assert crossed([shard(0), {"restarted": 3}]).restarted == 3
    assert crossed([shard(0)]).restarted == 0


def test_counts_say_of_themselves_what_they_are_as_json() -> None:
    found = crossed([shard(0, partition(0, hottest=[("i", 9)]))]).to_dict()

    assert json.loads(json.dumps(found)) == found
    assert found["partitions"][0]["hottest"] == [["i", 9]]
