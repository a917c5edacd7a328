"""Approvals that take two days, in no time."""

from datetime import timedelta

import pytest

from examples.approval import Approval, Request, app, approve, tell
from perdure import App
from perdure.testing import TestHub

REQUEST = Request("a laptop", timedelta(hours=48))


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_nobody_answers_for_two_days(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(approve, REQUEST)

    await perdure_hub.advance(timedelta(hours=47, minutes=59))
    assert not (await handle.status()).is_completed

    await perdure_hub.advance(timedelta(minutes=1))
    assert await handle.result() == "timeout"
    assert told(perdure_hub) == ["please approve: a laptop", "nobody answered: a laptop"]


@pytest.mark.perdure_crash_everywhere
async def test_an_answer_ends_the_wait(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(approve, REQUEST)
    await perdure_hub.advance(timedelta(hours=30))

    await handle.raise_event("ApprovalEvent", Approval(True))

    assert await handle.result() == "approved"
    await perdure_hub.advance(timedelta(days=365))
    assert told(perdure_hub) == ["please approve: a laptop", "done: a laptop"]


@pytest.mark.perdure_hub(auto_advance=True)
async def test_time_need_not_be_turned_by_hand(perdure_hub: TestHub) -> None:
    began = perdure_hub.now

    handle = await perdure_hub.client.start_new(approve, REQUEST)

    assert await handle.result() == "timeout"
    assert perdure_hub.now - began == timedelta(hours=48)


def told(hub: TestHub) -> list[object]:
    return [call.input for call in hub.calls(tell)]
