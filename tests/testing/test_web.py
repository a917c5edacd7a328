"""A hub under a web application, driven by that framework's test client: in a thread of its own."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from perdure import EntityId
from perdure.adapters.http import create_app
from perdure.testing import TestHub
from tests.testing.shop import Order, Stock, app, approval, buy, charge, tick

with warnings.catch_warnings():
    # It asks for another httpx than the one that the extra `web` brings, and does with this one.
    warnings.simplefilter("ignore")
    TestClient: Any = import_module("fastapi.testclient").TestClient

Backend = Literal["asyncio", "trio"]


def web_app(hub: TestHub) -> FastAPI:
    """A shop whose users ask for an approval, and give it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with hub:
            yield

    web = FastAPI(lifespan=lifespan)

    async def ask(id: str) -> dict[str, str]:
        await hub.client.start_new(approval, 48.0, instance_id=id)
        return {"id": id}

    async def approve(id: str) -> None:
        await hub.client.raise_event(id, "approved", True)

    async def look(id: str) -> dict[str, Any]:
        status = await hub.client.get_status(id)
        assert status is not None
        return {"status": status.runtime_status, "output": status.output}

    async def result(id: str) -> dict[str, Any]:
        return {"output": await hub.client.wait(id)}

    async def wait_a_month() -> dict[str, Any]:
        handle = await hub.client.start_new(tick, 37)
        return {"output": await handle.result()}

    def take(item: str) -> dict[str, int]:
        """In a thread of the framework's, without a loop."""
        left = hub.sync.run(hub.client.call_entity, EntityId(Stock, item), Stock.take, 1)
        return {"left": left}

    web.post("/approvals/{id}")(ask)
    web.post("/approvals/{id}/approve")(approve)
    web.get("/approvals/{id}")(look)
    web.get("/approvals/{id}/result")(result)
    web.post("/months")(wait_a_month)
    web.post("/stock/{item}")(take)
    return web


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_time_passes_under_a_web_application_when_the_test_says_so(backend: Backend) -> None:
    hub = TestHub(app)
    with TestClient(web_app(hub), backend=backend) as client:
        client.post("/approvals/a-1").raise_for_status()
        hub.sync.advance(timedelta(hours=47))
        waiting = client.get("/approvals/a-1").json()
        hub.sync.advance(timedelta(hours=1))

        assert waiting == {"status": "Running", "output": None}
        assert client.get("/approvals/a-1").json() == {"status": "Completed", "output": "too late"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_waits_across_a_crash_under_a_web_application(backend: Backend) -> None:
    hub = TestHub(app)
    with TestClient(web_app(hub), backend=backend) as client:
        client.post("/approvals/a-1").raise_for_status()
        hub.sync.crash()
        client.post("/approvals/a-1/approve").raise_for_status()
        hub.sync.quiet()

        assert client.get("/approvals/a-1/result").json() == {"output": "approved"}
        assert client.post("/stock/book").json() == {"left": 9}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_time_advances_by_itself_under_a_web_application(backend: Backend) -> None:
    hub = TestHub(app, auto_advance=True)
    with TestClient(web_app(hub), backend=backend) as client:
        fired = client.post("/months").json()["output"]
        client.post("/approvals/a-1").raise_for_status()

        assert len(fired) == 37
        assert client.get("/approvals/a-1/result").json() == {"output": "too late"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_management_api_of_a_test_hub_is_served(backend: Backend) -> None:
    hub = TestHub(app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with hub:
            yield

    web = Starlette(
        routes=[Mount("/perdure", create_app(hub, allowed_hosts=("testserver",)))],
        lifespan=lifespan,
    )
    hub.fake(charge, returns="paid")
    with TestClient(web, backend=backend) as client:
        order = {"name": "buy", "input": {"item": "book", "price": 3}, "instance_id": "buy-1"}
        assert client.post("/perdure/api/v1/instances", json=order).status_code == 201
        hub.sync.advance(timedelta(days=1))

        status = client.get("/perdure/api/v1/instances/buy-1").json()
        assert status["output"] == "paid, packed book"
    assert [call.input for call in hub.calls(charge)] == [Order("book", 3)]
    assert buy.__name__ == "buy"


async def test_a_web_application_is_asked_on_the_loop_of_the_test() -> None:
    import httpx

    hub = TestHub(app)
    async with hub:
        transport = httpx.ASGITransport(web_app(hub))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            (await client.post("/approvals/a-1")).raise_for_status()
            await hub.advance(timedelta(hours=48))

            assert (await client.get("/approvals/a-1")).json()["output"] == "too late"
