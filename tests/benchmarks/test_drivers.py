from __future__ import annotations

import pytest

from perdure.benchmarks.drivers import drivers_in, key_in, place_in
from perdure.benchmarks.schedule import partition_of


@pytest.mark.parametrize("partitions", [1, 2, 4, 12])
def test_drivers_lie_in_their_partitions_in_equal_numbers(
    partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.benchmarks.drivers.PER_PARTITION", 4)

    ids = drivers_in(range(partitions), partitions, "x")

    places = [partition_of(id, partitions) for id in ids]
    last = partitions - 1
    assert sorted(places) == sorted([*range(partitions)] * 4)
    assert len(set(ids)) == len(ids)
    assert {partition_of(id, partitions) for id in drivers_in([last], partitions, "x")} == {last}
    assert partition_of(place_in(last, partitions, "x"), partitions) == last
    assert partition_of(f"@meter@{key_in(last, partitions, 'meter')}", partitions) == last
