"""An entity, with what counts in it."""

import pytest

from examples.counter import Counter, app, count_characters
from perdure import App, EntityId
from perdure.testing import TestHub


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_clicks_are_counted_once(perdure_hub: TestHub) -> None:
    clicks = EntityId(Counter, "clicks")

    await perdure_hub.client.signal_entity(clicks, Counter.add, 2)

    assert await perdure_hub.client.call_entity(clicks, Counter.add, 3) == 5
    await perdure_hub.evict(clicks)
    assert await perdure_hub.client.call_entity(clicks, Counter.get) == 5


@pytest.mark.perdure_crash_everywhere
async def test_characters_are_counted_once(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(count_characters, ["to last", "through anything"])

    assert await handle.result() == 23
