"""The exceptions and the cancellation of a hub's body."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from perdure import Hub, HubStoppingError, Settings, Store
from tests.runtime.hub.application import COUNTER, Counter, app, keys_seen, new_gate, run_work


async def test_an_exception_of_the_body_comes_out_as_itself_and_the_hub_drains(
    store: Store,
) -> None:
    opened, begun = new_gate("body")
    error = RuntimeError("body")

    with pytest.raises(RuntimeError) as caught:  # noqa: PT012
        async with Hub(app, store=store) as hub:
            await hub.client.start_new(run_work, "body", instance_id="i")
            await begun.wait()
            opened.set()
            raise error

    assert caught.value is error
    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == ["worked body", "after"]
        assert keys_seen.count("i/1/1") == 1


async def test_a_body_whose_task_group_fails_gives_that_group() -> None:
    async def fail() -> None:
        raise ValueError("child")

    with pytest.raises(ExceptionGroup) as caught:
        async with Hub(app), anyio.create_task_group() as tasks:
            tasks.start_soon(fail)

    assert [type(one) for one in caught.value.exceptions] == [ValueError]


async def test_cancelling_the_task_that_holds_the_hub_stops_it_cleanly(store: Store) -> None:
    running = anyio.Event()
    hubs: list[Hub] = []

    async def hold_hub() -> None:
        async with Hub(app, store=store) as hub:
            hubs.append(hub)
            await hub.client.signal_entity(COUNTER, Counter.add, 5)
            running.set()
            await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_hub)
            await running.wait()
            tasks.cancel_scope.cancel()

    with pytest.raises(HubStoppingError, match="stopped"):
        _ = hubs[0].client
    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(COUNTER, Counter.get) == 5


async def test_a_timeout_around_a_hub_is_that_timeout(store: Store) -> None:
    with anyio.move_on_after(0.02) as scope:
        async with Hub(app, store=store):
            await anyio.sleep_forever()

    assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a task of asyncio itself
async def test_cancelling_an_asyncio_task_that_holds_the_hub_stops_it(store: Store) -> None:
    running = anyio.Event()

    async def hold_hub() -> None:
        async with Hub(app, store=store):
            running.set()
            await asyncio.sleep(3_600)

    task = asyncio.ensure_future(hold_hub())
    await running.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    async with Hub(app, store=store):
        pass


async def test_a_cancelled_hub_keeps_to_its_bound_while_an_activity_goes_on(
    store: Store,
) -> None:
    _, begun = new_gate("stuck")

    with anyio.fail_after(10):
        with anyio.CancelScope() as scope:
            async with Hub(app, store=store, settings=Settings(drain_s=0.05)) as hub:
                await hub.client.start_new(run_work, "stuck", instance_id="i")
                await begun.wait()
                scope.cancel()
                await anyio.lowlevel.checkpoint()

    opened, _ = new_gate("stuck")
    opened.set()
    async with Hub(app, store=store) as hub:
        assert await hub.client.get_handle("i").result(10) == ["worked stuck", "after"]
