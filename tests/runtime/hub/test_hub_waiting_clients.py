"""Clients that wait while the hub stops."""

from __future__ import annotations

from typing import Any

import anyio

from perdure import Hub, HubStoppingError, OutcomeUnknownError, PerdureError, Settings, Store
from tests.runtime.harness import partition_here, until_true
from tests.runtime.hub.application import COUNTER, app, new_gate, wait_for_go


async def test_whoever_waits_for_a_result_is_told_that_the_hub_stopped(store: Store) -> None:
    errors: list[PerdureError] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # noqa: SIM117 (the hub ends first)
            async with Hub(app, store=store) as hub:
                handle = await hub.client.start_new(wait_for_go)

                async def wait() -> None:
                    try:
                        await handle.result()
                    except PerdureError as error:
                        errors.append(error)

                tasks.start_soon(wait)
                partition = partition_here(hub, handle.instance_id)
                await until_true(lambda: bool(partition.watchers))

    assert [type(error) for error in errors] == [HubStoppingError]


async def test_whoever_waits_for_a_call_that_outlasts_the_drain_is_told(store: Store) -> None:
    _, begun = new_gate("op")
    errors: list[PerdureError] = []

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # noqa: SIM117 (the hub ends first)
            async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
                client = hub.client

                async def call(op: str, input: Any, request_id: str | None) -> None:
                    try:
                        await client.call_entity(COUNTER, op, input, request_id=request_id)
                    except PerdureError as error:
                        errors.append(error)

                tasks.start_soon(call, "add_slowly", "op", "r1")
                await begun.wait()
                tasks.start_soon(call, "add", 10, None)
                tasks.start_soon(call, "add_slowly", "op", "r1")
                await anyio.lowlevel.checkpoint()

    opened, _ = new_gate("op")
    opened.set()
    assert len(errors) == 3
    assert all(isinstance(error, (OutcomeUnknownError, HubStoppingError)) for error in errors)
    assert any(isinstance(error, OutcomeUnknownError) for error in errors)
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, "add_slowly", "op", request_id="r1") == 1
