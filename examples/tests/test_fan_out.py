"""Many things at once, of which some fail."""

import pytest

from examples.fan_out import BatchInput, BatchResult, app, collatz_steps, process_batch
from perdure import App
from perdure.testing import TestHub


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_what_fails_is_named_and_the_rest_is_summed_up(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(process_batch, BatchInput([0, 1, 2, 3], 3))

    assert await handle.result() == BatchResult(total=8, failed=[0])
    assert sorted(call.input for call in perdure_hub.calls(collatz_steps)) == [0, 1, 2, 3]
