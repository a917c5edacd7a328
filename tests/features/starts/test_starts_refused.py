"""Starts that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import RuntimeStatus, UnknownNameError, UsageError
from tests.features.starts.application import app, countdown, holds
from tests.runtime.orchestrating import running, status_of


async def test_a_bad_start_is_refused_and_nothing_is_stored() -> None:
    async with running(app, max_payload=50) as hub:
        bad: Any = "text"
        number: Any = 5
        for start in (
            lambda: hub.client.start_new("unknown"),
            lambda: hub.client.start_new(countdown, 1, version="9"),
        ):
            with pytest.raises(UnknownNameError):
                await start()
        for start in (
            lambda: hub.client.start_new(countdown, bad),
            lambda: hub.client.start_new(holds, "x" * 100),
            lambda: hub.client.start_new("countdown"),
            lambda: hub.client.start_new(countdown, 1, instance_id="@entity"),
            lambda: hub.client.start_new(countdown, 1, instance_id=""),
            lambda: hub.client.start_new(countdown, 1, instance_id="a\x00b"),
            lambda: hub.client.start_new(countdown, 1, instance_id="x" * 257),
            lambda: hub.client.start_new(countdown, 1, tags={"a": number}),
        ):
            with pytest.raises(UsageError):
                await start()

        assert [status async for status in hub.client.query()] == []


async def test_a_start_repeated_under_its_request_id_is_applied_once() -> None:
    async with running(app) as hub:
        first = await hub.client.start_new(holds, "x", request_id="r")
        again = await hub.client.start_new(holds, "x", request_id="r")
        named = await hub.client.start_new(holds, "n", instance_id="named", request_id="q")
        await named.raise_event("go")
        await named.result(5)

        repeated = await hub.client.start_new(holds, "n", instance_id="named", request_id="q")

        assert first.instance_id == again.instance_id
        assert await status_of(repeated) == RuntimeStatus.COMPLETED
        assert len([status async for status in hub.client.query()]) == 2
