"""What an async operation is working on is not lost."""

from __future__ import annotations

import anyio
import pytest

import perdure
from perdure import EntityId, Hub, OrchestrationContext
from tests.features.entities.application import Counter, Journal, app, new_gate, seen
from tests.runtime.harness import FaultyStore, disk_error


@app.orchestration
async def call_slow(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_entity(EntityId(Journal, "j"), Journal.slow_note, text)


async def test_a_message_in_an_async_operation_survives_a_recovery_of_its_partition() -> None:
    store = FaultyStore()
    opened, begun = new_gate("slow")
    async with Hub(app, store=store, partitions=1) as hub:
        handle = await hub.client.start_new(call_slow, "slow")
        await begun.wait()
        # This commit is durable with the operation under way; the next one fails.
        await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
        store.faults.commit = disk_error()
        with pytest.raises(perdure.UnavailableError):
            await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 1)

        store.faults.commit = None
        opened.set()

        assert await handle.result(10) == "slow"
        assert await seen(hub.client, "j") == ["begun slow", "done slow"]


@pytest.mark.parametrize("stored", [False, True])
async def test_a_client_whose_call_is_in_an_async_operation_hears_of_a_recovery(
    stored: bool,
) -> None:
    store = FaultyStore()
    opened, begun = new_gate("slow")
    outcomes: list[str] = []
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client

        async def call() -> None:
            try:
                outcomes.append(
                    await client.call_entity(EntityId(Journal, "j"), Journal.slow_note, "slow")
                )
            except perdure.UnavailableError:
                outcomes.append("nothing happened")

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                if not stored:
                    store.faults.commit = disk_error()
                tasks.start_soon(call)
                await begun.wait()
                if stored:
                    await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
                store.faults.commit = disk_error()
                with pytest.raises(perdure.UnavailableError):
                    await client.call_entity(EntityId(Counter, "a"), Counter.add, 1)
                store.faults.commit = None
                opened.set()

        assert outcomes == ["slow" if stored else "nothing happened"]
        assert await seen(client, "j") == (["begun slow", "done slow"] if stored else [])
