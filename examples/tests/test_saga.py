"""A saga that undoes what it did, wherever the hub crashes."""

import pytest

from examples import saga
from examples.saga import app, order, process_payment, release_inventory, reserve_inventory
from perdure import App, FailedError
from perdure.testing import TestHub


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_what_was_reserved_is_released_where_the_payment_fails(perdure_hub: TestHub) -> None:
    piano: saga.Order = {"id": "o-2", "items": ["piano"], "total": 9000}
    handle = await perdure_hub.client.start_new(order, piano)

    with pytest.raises(FailedError, match="the card was declined"):
        await handle.result()

    calls = [len(perdure_hub.calls(f)) for f in (reserve_inventory, release_inventory)]
    assert calls == [1, 1]


@pytest.mark.perdure_crash_everywhere
async def test_an_order_that_is_paid_keeps_what_was_reserved(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(order, {"id": "o", "items": ["tea"], "total": 8})

    assert await handle.result() == "shipped"
    assert not perdure_hub.calls(release_inventory)


async def test_a_warehouse_that_is_away_is_asked_again(perdure_hub: TestHub) -> None:
    tries: list[str] = []

    def reserve(order: saga.Order) -> None:
        tries.append(str(perdure_hub.now.time()))
        if len(tries) < 3:
            raise ConnectionError("the warehouse does not answer")

    perdure_hub.fake(reserve_inventory, calls=reserve)
    perdure_hub.fake(process_payment, returns=None)
    handle = await perdure_hub.client.start_new(order, {"id": "o", "items": ["tea"], "total": 8})

    await perdure_hub.advance(10)

    assert await handle.result() == "shipped"
    [call] = perdure_hub.calls(reserve_inventory)
    assert call.attempts == len(tries) == 3
