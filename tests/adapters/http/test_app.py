"""The application as a whole: areas, raw paths, health, and where it may be mounted."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure import (
    EntityId,
    Hub,
    HubStatistics,
    PartitionStatistics,
    SilentShard,
    UsageError,
    connect,
)
from perdure.adapters.http import create_app, readiness
from tests.adapters.http.serving import SDK, WEBHOOKS, make_app, served


async def test_an_orchestration_is_started_and_looked_at() -> None:
    async with served() as it:
        started = await it.http.post(f"{WEBHOOKS}/orchestrators/count/c1", json=21)
        await it.ended("c1")
        status = await it.http.get(started.json()["statusQueryGetUri"])

    assert started.status_code == 202
    assert status.status_code == 200
    assert status.json()["output"] == 42


async def test_what_stands_nowhere_is_not_found() -> None:
    async with served() as it:
        answers = [await it.http.get(path) for path in ("/nothing", f"{WEBHOOKS}/nothing")]

    assert [one.status_code for one in answers] == [404, 404]


async def test_a_server_is_healthy_and_ready_while_the_hub_serves() -> None:
    async with served() as it:
        healthy, ready = await it.http.get("/healthz"), await it.http.get("/readyz")

    assert (healthy.status_code, ready.status_code) == (200, 200)


async def test_a_server_whose_hub_does_not_run_is_healthy_and_not_ready() -> None:
    transport = httpx.ASGITransport(create_app(Hub(make_app())))

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        healthy, ready = await http.get("/healthz"), await http.get("/readyz")
        asked = await http.get(f"{WEBHOOKS}/instances/x")

    assert (healthy.status_code, ready.status_code) == (200, 503)
    assert asked.status_code == 503
    assert "Retry-After" in asked.headers


IDS = ["a/b", "a%2Fb", "ü ☃", "a?b#c", "..", "%", "a+b", "instances"]


@pytest.mark.by_turns
@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("root", ["", "/hub/of mine"])
async def test_an_id_may_hold_what_a_path_means_something_by(id: str, root: str) -> None:
    from urllib.parse import quote

    segment = quote(id, safe="").replace(".", "%2E")
    mount = quote(root)
    async with served(root_path=root) as it:
        url = httpx.URL(f"http://localhost{mount}{WEBHOOKS}/orchestrators/echo/{segment}")
        started = await it.http.post(url, json=1)
        status = await it.client.get_status(id)
        seen = await it.http.get(f"{mount}{WEBHOOKS}/instances/{segment}")

    assert started.json()["id"] == id
    assert started.json()["statusQueryGetUri"].startswith(f"http://localhost{mount}{WEBHOOKS}/")
    assert status is not None
    assert seen.json()["instanceId"] == id


async def test_it_is_mounted_in_an_application_of_the_users() -> None:
    hub = Hub(make_app())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        async with hub:
            yield

    outer = Starlette(routes=[Mount("/hub/{name}", create_app(hub))], lifespan=lifespan)
    transport = httpx.ASGITransport(outer)
    async with (
        lifespan(outer),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        started = await http.post(f"/hub/a%20b{SDK}/orchestrators/echo/x%2Fy", json="1")
        links = started.json()
        seen = await http.get(links["statusQueryGetUri"])

    assert links["statusQueryGetUri"].startswith(f"http://localhost/hub/a%20b{SDK}/instances/x%2Fy")
    assert seen.json()["instanceId"] == "x/y"


@pytest.mark.parametrize("bad", [{"keys": "secret"}, {"allowed_hosts": "localhost"}])
def test_a_bad_argument_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        create_app(Hub(make_app()), **bad)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_what_is_no_hub_is_refused() -> None:
    with pytest.raises(UsageError, match="hub_or_client"):
        create_app(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("has_app", [False, True])
async def test_it_stands_in_front_of_a_client_as_well(tmp_path: Path, has_app: bool) -> None:
    app = make_app()
    async with (
        Hub(app, socket=tmp_path / "s") as hub,
        connect(tmp_path / "s", app if has_app else None) as client,
    ):
        transport = httpx.ASGITransport(create_app(client))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            ended = await http.post(f"{WEBHOOKS}/orchestrators/count/c?timeout=10", json=21)
            failed = await http.post(f"{WEBHOOKS}/orchestrators/fail/f?timeout=10")
            history = await http.get(f"{WEBHOOKS}/instances/c?showHistory=true")
            listed = await http.get(f"{WEBHOOKS}/instances?runtimeStatus=Failed")
            signalled = await http.post(f"{WEBHOOKS}/entities/counter/k?op=add", json=3)
            await hub.client.call_entity(EntityId("counter", "k"), "get")
            state = await http.get(f"{WEBHOOKS}/entities/counter/k")
            entities = await http.get(f"{WEBHOOKS}/entities?fetchState=true")
            unknown = await http.post(f"{WEBHOOKS}/orchestrators/unknown")
            nobody = await http.post(f"{WEBHOOKS}/instances/nobody/terminate")
            purged = await http.delete(f"{WEBHOOKS}/instances?createdTimeFrom=2020-01-01")
            ready = await http.get("/readyz")

    assert (ended.status_code, ended.json()) == (200, 42)
    assert failed.json()["output"] == "Orchestrator function 'fail' failed: ValueError: no luck"
    assert [one["EventType"] for one in history.json()["historyEvents"]] == [
        "ExecutionStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    assert [one["instanceId"] for one in listed.json()] == ["f"]
    assert signalled.status_code == 202
    assert state.json() == {"value": 3}
    assert [one["state"] for one in entities.json()] == [{"value": 3}]
    assert (unknown.status_code, nobody.status_code) == (400, 404)
    assert purged.json() == {"instancesDeleted": 2}
    assert ready.status_code == 200


def counted(partitions: Sequence[int], silent: Sequence[int] = ()) -> HubStatistics:
    """Give the statistics of shards that answer, and of some that do not."""
    count: dict[str, Any] = {}
    count |= dict.fromkeys(["commits", "turns", "messages", "sent_away", "failed_operations"], 0)
    count |= dict.fromkeys(["failed_calls", "waiting", "activations", "stored_bytes"], 0)
    return HubStatistics(
        partitions=tuple(
            PartitionStatistics(index=index, shard=0, **count) for index in partitions
        ),
        silent=tuple(SilentShard(index=index, silent_s=3.0) for index in silent),
    )


@pytest.mark.parametrize(
    ("statistics", "status"),
    [
        (counted([0, 1, 2, 3]), 200),
        (counted([0, 1, 3]), 503),  # a worker is started again
        (counted([0, 1, 2]), 503),
        (counted([0, 1, 2, 3], silent=[1]), 503),
    ],
    ids=str,
)
async def test_it_is_ready_while_shards_that_answer_serve_every_partition(
    statistics: HubStatistics, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told() -> HubStatistics:
        return statistics

    async with served() as it:
        monkeypatch.setattr(it.hub, "statistics", told)
        answer = await it.http.get("/readyz")

    assert answer.status_code == status


async def test_a_hub_that_does_not_say_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LOOK_S", 0.01)
    async with served() as it:
        monkeypatch.setattr(it.hub, "statistics", anyio.sleep_forever)
        answer = await it.http.get("/readyz")

    assert answer.status_code == 503


async def test_middleware_that_is_added_stands_before_it() -> None:
    seen: list[str] = []

    class Middleware:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["path"])
            await self._app(scope, receive, send)

    async with Hub(make_app()) as hub:
        web = create_app(hub)
        web.add_middleware(Middleware)
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answer = await http.get("/healthz")

    assert answer.status_code == 200
    assert seen == ["/healthz"]


async def test_prometheus_reads_the_hubs_figures() -> None:
    async with served() as it:
        await it.hub.client.call_entity(EntityId("counter", "k"), "add", 1)
        answer = await it.http.get("/metrics")
        below = await it.http.get("/metrics/x")
        posted = await it.http.post("/metrics")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'perdure_turns_total{partition="0"}' in answer.text
    assert (below.status_code, posted.status_code) == (404, 405)


async def test_figures_need_a_key_where_there_are_any() -> None:
    async with served(keys="look read look-secret") as it:
        without = await it.http.get("/metrics")
        answer = await it.http.get("/metrics", headers={"Authorization": "Bearer look-secret"})

    assert (without.status_code, answer.status_code) == (401, 200)


async def test_figures_of_a_hub_that_does_not_run_are_not_available() -> None:
    transport = httpx.ASGITransport(create_app(Hub(make_app())))

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/metrics")

    assert answer.status_code == 503


async def test_without_the_extra_the_figures_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "perdure.adapters.telemetry.metrics", None)

    async with served() as it:
        answer = await it.http.get("/metrics")

    assert answer.status_code == 501
    assert "pip install 'perdure[otel]'" in answer.text
