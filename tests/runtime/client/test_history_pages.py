"""A page of a history costs what the page costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure import App, Hub, MemoryStore, OrchestrationContext, SqliteStore, Store
from tests.runtime.harness import partition_here

app = App()


@app.activity
async def work(number: int) -> int:
    return number


@app.orchestration
async def many_turns(ctx: OrchestrationContext, count: int) -> None:
    for number in range(count):
        await ctx.call_activity(work, number)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


@pytest.mark.by_turns
async def test_a_page_of_a_history_reads_no_more_of_it_than_the_page(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(many_turns, 300)
        await handle.result()
        events = await handle.history()
        guarded = partition_here(hub, handle.instance_id).store

        async def read_history(*_: Any) -> Any:
            raise AssertionError("all of it is read")

        monkeypatch.setattr(guarded, "read_history", read_history)

        for after in (None, 0, 100, 550, len(events) - 2):
            page = await hub.client.get_history_page(handle.instance_id, after=after, page_size=10)
            first = 0 if after is None else after + 1
            assert [*page.items] == events[first : first + 10]
            assert (page.first, page.total) == (first, len(events))
