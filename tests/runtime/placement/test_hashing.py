from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from perdure import App, Hub, OrchestrationContext
from perdure.runtime.placement.hashing import partition_of


@given(st.text(), st.integers(1, 1_024))
def test_a_key_has_one_place_among_the_partitions(key: str, partitions: int) -> None:
    place = partition_of(key, partitions)

    assert 0 <= place < partitions
    assert partition_of(key, partitions) == place


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("123456789", 0xCBF43926 % 1_000),  # the check value that CRC-32 is published with
        ("123456789::and more", 0xCBF43926 % 1_000),
        ("", 0),
        ("@counter@clicks", 670),
        ("@counter@größe", 951),
    ],
)
def test_the_place_never_changes_since_stores_depend_on_it(key: str, place: int) -> None:
    assert partition_of(key, 1_000) == place


def test_the_place_is_the_same_in_every_process() -> None:
    code = "from perdure.runtime.placement.hashing import partition_of; print(partition_of('a key', 1024))"

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert int(found) == partition_of("a key", 1024)


@given(st.text().filter(lambda text: "::" not in text), st.text(), st.integers(1, 1_024))
def test_what_follows_a_double_colon_does_not_count(place: str, rest: str, partitions: int) -> None:
    key = f"{place}::{rest}"

    found = partition_of(key, partitions)

    # A place that ends in a colon begins the separator one character earlier.
    assert found == partition_of(key.partition("::")[0], partitions)


@pytest.mark.parametrize("partitions", [2, 4, 16, 100])
def test_keys_are_spread_evenly(partitions: int) -> None:
    counts = Counter(partition_of(f"@counter@{i}", partitions) for i in range(20_000))

    mean = 20_000 / partitions
    assert len(counts) == partitions
    assert all(mean * 0.7 < count < mean * 1.3 for count in counts.values())


async def test_children_live_beside_their_parents() -> None:
    app = App()

    @app.orchestration
    async def child(ctx: OrchestrationContext) -> str:
        return ctx.instance_id

    @app.orchestration
    async def parent(ctx: OrchestrationContext) -> str:
        return await ctx.call_sub_orchestrator(child)

    async with Hub(app, partitions=16) as hub:
        for i in range(10):
            handle = await hub.client.start_new(parent, instance_id=f"parent-{i}")
            child_id = await handle.result(10)

            assert partition_of(child_id, 16) == partition_of(f"parent-{i}", 16)
