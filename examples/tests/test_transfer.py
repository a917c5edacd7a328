"""Transfers, of which none makes or loses money."""

import pytest

from examples.transfer import Account, Transfer, app, transfer
from perdure import App, EntityId
from perdure.testing import TestHub

ANN, BEN = EntityId(Account, "ann"), EntityId(Account, "ben")


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_money_moves_once_and_not_beyond_what_is_there(perdure_hub: TestHub) -> None:
    client = perdure_hub.client
    await client.call_entity(ANN, Account.deposit, 100)

    there = await client.start_new(transfer, Transfer("ann", "ben", 70), instance_id="there")
    assert await there.result()
    again = await client.start_new(transfer, Transfer("ann", "ben", 70), instance_id="again")
    assert not await again.result()

    balances = [await client.call_entity(account, Account.get) for account in (ANN, BEN)]
    assert balances == [30, 70]
