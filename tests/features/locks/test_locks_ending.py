"""The end of a lock."""

from __future__ import annotations

import pytest

import perdure
from perdure import App, Client, Hub, OrchestrationContext, OrchestrationFailedError, Store
from tests.features.locks.application import (
    Account,
    account,
    app,
    clean_up_when_cancelled,
    end_inside,
    hold,
    holder,
    keep_lock_open,
    notes,
    until_free,
    until_locked,
)
from tests.runtime.harness import until


@pytest.mark.by_turns
@pytest.mark.parametrize("how", ["raise", "fail", "return", "continue"])
async def test_a_lock_is_released_however_its_block_is_left(store: Store, how: str) -> None:
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(end_inside, how)

        try:
            result = await handle.result(10)
        except OrchestrationFailedError as error:
            result = error.error_type

        await until_free(hub.client, "a", "b")
        assert (
            result
            == {
                "raise": "ValueError",
                "fail": "EntityOperationError",
                "return": "from inside",
                "continue": "second round",
            }[how]
        )
        assert await hub.client.call_entity(account("b"), Account.add, 1, timeout=10) == 1


@pytest.mark.parametrize("how", ["complete", "continue"])
async def test_a_lock_that_nobody_released_ends_with_the_execution(
    client: Client, how: str
) -> None:
    handle = await client.start_new(keep_lock_open, how)
    await handle.result(10)

    await until_free(client, "a")

    assert await client.call_entity(account("a"), Account.add, 1, timeout=10) == 1


@pytest.mark.by_turns
@pytest.mark.parametrize("restart", [False, True])
async def test_a_lock_is_released_at_termination(store: Store, restart: bool) -> None:
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(end_inside, "wait", instance_id="holder")
        await until_locked(handle)
        if not restart:
            await handle.terminate("enough")
            await until_free(hub.client, "a", "b")

    async with Hub(app, store=store) as hub:
        if restart:
            await hub.client.get_handle("holder").terminate("enough")
        assert await hub.client.call_entity(account("b"), Account.add, 1, timeout=10) == 1
        await until_free(hub.client, "a", "b")


async def test_a_lock_of_a_suspended_instance_is_released_at_termination(client: Client) -> None:
    handle = await client.start_new(end_inside, "wait")
    await until_locked(handle)
    await handle.suspend()

    await handle.terminate()

    await until_free(client, "a", "b")
    assert await client.call_entity(account("a"), Account.add, 1, timeout=10) == 1


async def test_a_cancelled_holder_compensates_inside_and_outside_its_lock(client: Client) -> None:
    handle = await client.start_new(clean_up_when_cancelled)
    await until_locked(handle)

    await handle.cancel("no more")
    with pytest.raises(perdure.OrchestrationCanceledError):
        await handle.result(10)

    await until_free(client, "a", "b")
    assert await notes(client, "a") == ["compensated inside"]
    assert await notes(client, "b") == ["compensated outside"]


@pytest.mark.by_turns
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.parametrize("blocked", ["a", "b", "c"])
async def test_a_request_that_is_still_travelling_is_taken_back(
    store: Store, blocked: str, how: str, restart: bool
) -> None:
    async with Hub(app, store=store) as hub:
        client = hub.client
        first = await client.start_new(hold, blocked, instance_id="first")
        await until_locked(first)
        second = await client.start_new(hold, "abc", instance_id="second")
        await until_held(client, "abc", blocked)
        if not restart:
            await getattr(second, how)()

    async with Hub(app, store=store) as hub:
        client = hub.client
        if restart:
            await getattr(client.get_handle("second"), how)()
        await client.get_handle("first").raise_event("go")
        assert await client.get_handle("first").result(10) == "released"

        for key in "abc":
            assert await client.call_entity(account(key), Account.add, 1, timeout=10) == 1
        await until_free(client, "a", "b", "c")


async def until_held(client: Client, keys: str, blocked: str) -> None:
    """Return when second's lock has come up to the entity that first has locked."""
    before = keys[: keys.index(blocked)]

    async def there() -> bool:
        status = await client.get_entity(account(blocked))
        return (
            status is not None
            and status.waiting == 1
            and [await holder(client, key) for key in before] == ["second"] * len(before)
        )

    await until(there)


async def test_a_failing_operation_inside_a_lock_leaves_the_lock_as_it_is(client: Client) -> None:
    own = App()
    own.include(app)

    @own.orchestration
    async def go_on_after_failure(ctx: OrchestrationContext) -> int:
        a = account("a")
        async with ctx.lock_entities(a):
            try:
                await ctx.call_entity(a, Account.add, -1)
            except perdure.EntityOperationError:
                return await ctx.call_entity(a, Account.add, 1)
        return 0

    async with Hub(own) as hub:
        handle = await hub.client.start_new(go_on_after_failure)
        assert await handle.result(10) == 1
