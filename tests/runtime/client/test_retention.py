"""Instances that ended long enough ago are deleted in the background."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from perdure import (
    App,
    Hub,
    InvalidTimeError,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    UsageError,
)

app = App()


@app.orchestration
async def ends(ctx: OrchestrationContext, well: bool) -> None:
    if not well:
        raise ValueError("badly")


async def test_instances_are_deleted_once_they_are_older_than_their_status_is_kept() -> None:
    clock, store = ManualClock(), MemoryStore()
    async with Hub(app, store=store, clock=clock) as hub:
        await (await hub.client.start_new(ends, True, instance_id="old")).result()
        failed = await hub.client.start_new(ends, False, instance_id="failed")
        with pytest.raises(OrchestrationFailedError):
            await failed.result()
        clock.advance(3 * 86_400)
        await (await hub.client.start_new(ends, True, instance_id="young")).result()

    kept = {"Completed": timedelta(days=2)}
    async with Hub(app, store=store, clock=clock, retention=kept) as hub:
        with anyio.fail_after(5):
            while await hub.client.get_status("old") is not None:
                await anyio.sleep(0.001)
        left = {status.instance_id async for status in hub.client.query()}

    assert left == {"failed", "young"}


def test_a_retention_of_no_terminal_status_is_refused() -> None:
    with pytest.raises(UsageError, match=r"retention must be one of .*Running"):
        Hub(app, retention={"Running": timedelta(days=1)})
    with pytest.raises(UsageError, match=r"retention must be one of .*Done"):
        Hub(app, retention={"Done": timedelta(days=1)})


def test_a_negative_retention_is_refused() -> None:
    with pytest.raises(InvalidTimeError):
        Hub(app, retention={"Completed": timedelta(days=-1)})
