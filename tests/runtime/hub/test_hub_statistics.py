from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure import App, Hub, HubStoppingError


async def test_a_hub_counts_what_it_does() -> None:
    app = App()

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> None:
            self.value += amount

    async with Hub(app, partitions=3) as hub:
        before = await hub.statistics()
        for key in ("a", "b"):
            await hub.client.signal_entity(perdure.EntityId(Counter, key), Counter.add, 1)
        after = await hub.statistics()

    assert [partition.index for partition in after.partitions] == [0, 1, 2]
    assert (before.commits, before.turns, before.activations) == (0, 0, 0)
    assert (after.commits, after.turns, after.activations) == (2, 2, 2)
    assert (after.waiting, after.failed_operations, after.stored_bytes) == (0, 0, 0)


async def test_a_hub_on_files_says_how_large_they_are(tmp_path: Path) -> None:
    async with Hub(App(), store=f"sqlite:{tmp_path / 'hub'}") as hub:
        stored = (await hub.statistics()).stored_bytes

    assert stored >= 4 * 4_096


async def test_a_hub_that_does_not_run_counts_nothing() -> None:
    async with Hub(App()) as hub:
        pass

    with pytest.raises(HubStoppingError, match="the hub is stopped"):
        await hub.statistics()
