"""A hub inside a web application of one's own: ``python -m examples.web``.

``uvicorn examples.web:web`` serves it: ``POST /orders/tea``, and the hub's own paths under ``/hub``.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from perdure import App, Hub, OrchestrationContext
from perdure.adapters.http import create_app

app = App("orders")


@app.activity
async def ship(what: str) -> str:
    return f"shipped {what}"


@app.orchestration
async def order(ctx: OrchestrationContext, what: str) -> str:
    try:
        await ctx.wait_for_external_event("Paid", timeout=timedelta(days=3))
    except TimeoutError:
        return f"nobody paid for {what}"
    return await ctx.call_activity(ship, what)


def make_web(hub: Hub) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with hub:  # what is mounted has no lifespan of its own
            yield

    web = FastAPI(lifespan=lifespan)
    web.mount("/hub", create_app(hub))

    @web.post("/orders/{what}", status_code=202)
    async def begin(what: str) -> str:
        return (await hub.client.start_new(order, what)).instance_id

    return web


web = make_web(Hub(app))


async def main() -> None:
    hub = Hub(app)
    web = make_web(hub)
    local = AsyncClient(transport=ASGITransport(web), base_url="http://localhost")
    async with web.router.lifespan_context(web), local as http:
        id = (await http.post("/orders/tea")).json()
        instance = f"/hub/runtime/webhooks/durabletask/instances/{id}"
        print((await http.get(instance)).status_code)
        await http.post(f"{instance}/raiseEvent/Paid", json=True)
        await hub.client.get_handle(id).result(timeout=60)
        print((await http.get(instance)).json()["output"])


if __name__ == "__main__":
    anyio.run(main)
