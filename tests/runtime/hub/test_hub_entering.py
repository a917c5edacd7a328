"""A hub is entered and left."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from perdure import Hub, HubStoppingError, Settings, UsageError
from tests.runtime.hub.application import COUNTER, Counter, app, sleep


async def test_a_hub_serves_between_entering_and_leaving_and_not_before_or_after() -> None:
    hub = Hub(app)
    with pytest.raises(HubStoppingError, match="async with"):
        _ = hub.client

    async with hub:
        client = hub.client
        assert await client.call_entity(COUNTER, Counter.add, 1) == 1

    with pytest.raises(HubStoppingError):
        _ = hub.client
    with pytest.raises(HubStoppingError):
        await client.call_entity(COUNTER, Counter.add, 1)
    with pytest.raises(HubStoppingError):
        await client.signal_entity(COUNTER, Counter.add, 1)
    with pytest.raises(HubStoppingError):
        await client.signal_entities([(COUNTER, Counter.add, 1)])
    with pytest.raises(HubStoppingError):
        await client.read_entity_state(COUNTER)
    with pytest.raises(HubStoppingError):
        await client.start_new(sleep, 1.0)
    with pytest.raises(HubStoppingError):
        await client.get_handle("x").result()
    with pytest.raises(HubStoppingError):
        [one async for one in client.query_entities()]
    with pytest.raises(HubStoppingError):
        [one async for one in client.query()]
    with pytest.raises(HubStoppingError):
        await client.purge_entity(COUNTER)
    with pytest.raises(HubStoppingError):
        await hub.statistics()


def test_a_hub_may_be_made_before_an_event_loop_runs() -> None:
    hub = Hub(app)

    async def main() -> int:
        async with hub:
            return await hub.client.call_entity(COUNTER, Counter.add, 1)

    assert anyio.run(main) == 1


async def test_a_hub_is_entered_only_once() -> None:
    hub = Hub(app)
    async with hub:
        with pytest.raises(UsageError, match="only once"):
            await hub.__aenter__()

        assert await hub.client.call_entity(COUNTER, Counter.add, 1) == 1

    with pytest.raises(UsageError, match="only once"):
        await hub.__aenter__()


@pytest.mark.parametrize("partitions", [0, -1, 1_025])
def test_a_bad_number_of_partitions_is_refused(partitions: int) -> None:
    with pytest.raises(UsageError, match="partitions"):
        Hub(app, partitions=partitions)


@pytest.mark.parametrize("spec", ["", "sqlite", "sqlite:", "memory", "postgres:x", "/tmp/hub"])
def test_a_bad_store_spec_is_refused_with_the_ones_that_are_understood(spec: str) -> None:
    with pytest.raises(UsageError, match=r"sqlite:PATH"):
        Hub(app, store=spec)


@pytest.mark.parametrize(
    "bad",
    [
        {"drain_s": 0},
        {"drain_s": -1},
        {"mailbox_messages_max": 0},
        {"on_nondeterminism": "ignore"},
        {"crashes_max": 0},
    ],
)
def test_a_bad_setting_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        Settings(**bad)


async def test_two_hubs_on_stores_of_their_own_run_side_by_side() -> None:
    async with Hub(app) as first, Hub(app) as second:
        await first.client.call_entity(COUNTER, Counter.add, 1)

        assert await second.client.call_entity(COUNTER, Counter.get) == 0
