"""Starting under an id that is in use."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from perdure import App, InstanceAlreadyExistsError, OrchestrationContext, RuntimeStatus, UsageError
from tests.features.starts.application import app, holds
from tests.runtime.orchestrating import evict, quiet, running, status_of


async def test_a_live_instance_keeps_its_id_by_default() -> None:
    async with running(app) as hub:
        handle = await hub.client.start_new(holds, "first", instance_id="x")

        with pytest.raises(InstanceAlreadyExistsError, match="'x' is live"):
            await hub.client.start_new(holds, "second", instance_id="x")

        await handle.raise_event("go", 1)
        assert await handle.result(5) == "first 1"


async def test_reuse_gives_the_handle_of_the_live_instance() -> None:
    async with running(app) as hub:
        await hub.client.start_new(holds, "first", instance_id="x")

        again = await hub.client.start_new(holds, "second", instance_id="x", on_existing="reuse")

        await again.raise_event("go", 1)
        assert await again.result(5) == "first 1"


async def test_reuse_by_many_at_once_starts_one() -> None:
    async with running(app) as hub:
        async with anyio.create_task_group() as tasks:

            async def start(n: int) -> None:
                await hub.client.start_new(holds, str(n), instance_id="one", on_existing="reuse")

            for n in range(50):
                tasks.start_soon(start, n)

        status = await hub.client.get_handle("one").status()
        assert status.execution == 1


async def test_replace_terminates_the_live_instance_and_begins_another() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x", tags={"n": "1"})
        await first.raise_event("other", 1)

        second = await hub.client.start_new(holds, "second", instance_id="x", on_existing="replace")

        assert (await second.status()).execution == 2
        assert (await second.status()).tags == {}
        await second.raise_event("go", 2)
        assert await second.result(5) == "second 2"
        assert "other" not in [
            e.fields["name"] for e in await second.history() if e.event_type == "EventRaised"
        ]


async def test_replacing_a_suspended_instance_drops_what_it_held() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x")
        await first.suspend()
        await first.raise_event("go", "for the first")

        second = await hub.client.start_new(holds, "second", instance_id="x", on_existing="replace")
        await second.raise_event("go", "for the second")

        assert await second.result(5) == "second for the second"


async def test_replace_ends_the_children_of_the_replaced() -> None:
    local = App()

    @local.orchestration
    async def parent(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(child, instance_id="c")

    @local.orchestration
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    @local.orchestration
    async def other(ctx: OrchestrationContext) -> str:
        return "other"

    async with running(local) as hub:
        await hub.client.start_new(parent, instance_id="p")
        await quiet(hub)

        handle = await hub.client.start_new(other, instance_id="p", on_existing="replace")
        await quiet(hub)

        assert await handle.result(5) == "other"
        assert await status_of(hub.client.get_handle("c")) == RuntimeStatus.TERMINATED


@pytest.mark.parametrize("on_existing", ["reject", "reuse", "replace"])
@pytest.mark.parametrize("ending", ["Completed", "Terminated"])
@pytest.mark.parametrize("evicted", [False, True])
async def test_an_instance_that_has_ended_is_replaced(
    on_existing: Any, ending: str, evicted: bool
) -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x")
        if ending == "Completed":
            await first.raise_event("go", 1)
        else:
            await first.terminate("enough")
        await quiet(hub)
        if evicted:
            await evict(hub)

        second = await hub.client.start_new(
            holds, "second", instance_id="x", on_existing=on_existing
        )

        status = await second.status()
        assert (status.runtime_status, status.execution) == (RuntimeStatus.RUNNING, 2)
        assert (status.output, status.failure, status.completed_time) == (None, None, None)
        await second.raise_event("go", 2)
        assert await second.result(5) == "second 2"


async def test_who_waits_for_a_replaced_instance_gets_the_result_of_the_new_one() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "first", instance_id="x")
        results: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                results.append(await first.result(5))

            tasks.start_soon(wait)
            await quiet(hub)

            second = await hub.client.start_new(
                holds, "second", instance_id="x", on_existing="replace"
            )
            await second.raise_event("go", 2)

        assert results == ["second 2"]


async def test_an_unknown_way_is_refused() -> None:
    async with running(app) as hub:
        wrong: Any = "overwrite"

        with pytest.raises(UsageError, match="on_existing"):
            await hub.client.start_new(holds, "x", instance_id="x", on_existing=wrong)

        assert await hub.client.get_status("x") is None
