"""A monitor, for a week."""

from datetime import timedelta

import pytest

from examples.monitor import Watch, app, monitor, read_temperature, send_alert
from perdure import App
from perdure.testing import TestHub


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_each_hot_day_is_told_of_once(perdure_hub: TestHub) -> None:
    perdure_hub.fake(read_temperature, calls=lambda look: 30 if look % 3 == 2 else 20)
    watch = Watch(limit=25, every=timedelta(days=1))
    handle = await perdure_hub.client.start_new(monitor, watch)

    await perdure_hub.advance(timedelta(days=5, hours=1))

    assert [call.input for call in perdure_hub.calls(send_alert)] == [30, 30]
    status = await handle.status()
    assert (status.custom_status, status.execution) == (6, 6)
