"""A shop whose customers may not pay."""

from datetime import timedelta

import pytest

from examples.shop import Stock, app, order, ship
from perdure import App, EntityId
from perdure.testing import TestHub

TEA = EntityId(Stock, "tea")


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_what_nobody_pays_for_goes_back(perdure_hub: TestHub) -> None:
    await perdure_hub.client.call_entity(TEA, Stock.add, 3)
    handle = await perdure_hub.client.start_new(order, ("tea", 2))

    await perdure_hub.advance(timedelta(days=1))

    assert await handle.result() == "nobody paid"
    await perdure_hub.quiet()
    stock = await perdure_hub.client.read_entity_state(TEA)
    assert stock is not None
    assert stock.count == 3


async def test_a_carrier_that_fails_is_asked_again(perdure_hub: TestHub) -> None:
    perdure_hub.fake(ship, raises=ConnectionError("no carrier"))
    await perdure_hub.client.call_entity(TEA, Stock.add, 3)
    handle = await perdure_hub.client.start_new(order, ("tea", 2))
    await handle.raise_event("Paid")
    await perdure_hub.quiet()

    perdure_hub.unfake(ship)
    await perdure_hub.advance(timedelta(minutes=1))

    assert await handle.result() == "shipped 2 tea"
