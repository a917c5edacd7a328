"""``/api/v1``: each endpoint with each status that it answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from attrs import field, frozen

from perdure import App, EntityContext, EntityId, Hub, OrchestrationContext, RuntimeStatus, Settings
from perdure.adapters.http import Limits, create_app
from perdure.adapters.http.entrance import Entrance
from tests.adapters.http.serving import KEYS, Served, make_app, served
from tests.runtime.harness import until

pytestmark = pytest.mark.by_turns

API = "/api/v1"
IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


@frozen
class Case:
    """A request, and what is answered.

    Attributes:
        ask: method and path.
        status: the status of the answer.
        body: what is sent as JSON, if anything.
        gives: members of the answer's body that must be so.
        headers: what is sent besides.
    """

    ask: str
    status: int
    body: Any = ...
    gives: Mapping[str, Any] = field(factory=dict[str, Any])
    headers: Mapping[str, str] = field(factory=dict[str, str])


def make_api_app() -> App:
    """Make the application of all tests here, with an entity that fails."""
    app = make_app()

    @app.entity
    def fragile(ctx: EntityContext) -> None:
        raise ValueError(ctx.operation_name)

    @app.orchestration
    async def calling(ctx: OrchestrationContext) -> None:
        await ctx.call_entity(EntityId("fragile", "c"), "break")

    return app


@asynccontextmanager
async def furnished(**options: Any) -> AsyncGenerator[Served, None]:
    """Serve a hub that has one of each."""
    async with served(make_api_app(), **options) as it:
        await it.run("echo", "said", id="done")
        await it.run("fail", id="failed")
        await it.client.start_new("approval", instance_id="live", tags={"who": "me"})
        await it.client.start_new("approval", instance_id="a/b")
        await it.client.call_entity(EntityId("counter", "c/1"), "add", 3)
        await it.reaches("live", RuntimeStatus.RUNNING)
        await it.reaches("a/b", RuntimeStatus.RUNNING)
        yield it


def problem(kind: str) -> dict[str, str]:
    return {"type": f"urn:perdure:{kind}"}


COUNTER = f"/entities/Counter/{quote('c/1', safe='')}"

CASES = [
    # starts
    Case("POST /instances", 201, {"name": "echo", "instance_id": "new"}, {"instance_id": "new"}),
    Case("POST /instances?wait=20", 200, {"name": "echo", "input": [1]}, {"output": [1]}),
    Case("POST /instances?wait=20", 200, {"name": "fail"}, {"runtime_status": "Failed"}),
    Case("POST /instances?wait=0", 202, {"name": "approval"}),
    Case(
        "POST /instances",
        201,
        {"name": "echo", "start_at": IN_AN_HOUR, "tags": {"a": "b"}, "version": None},
        {"runtime_status": "Pending", "tags": {"a": "b"}},
    ),
    Case("POST /instances", 201, {"name": "echo", "start_at": 3600}),
    Case("POST /instances", 409, {"name": "echo", "instance_id": "live"}, problem("InstanceAlreadyExistsError")),
    Case("POST /instances", 201, {"name": "approval", "instance_id": "live", "on_existing": "reuse"}),
    Case("POST /instances", 201, {"name": "approval", "instance_id": "live", "on_existing": "replace"}, {"execution": 2}),
    Case("POST /instances", 404, {"name": "nothing"}, problem("UnknownNameError")),
    Case("POST /instances", 404, {"name": "echo", "version": "9"}, problem("UnknownNameError")),
    Case("POST /instances", 400, {"name": "count", "input": "five"}, problem("PayloadError")),
    Case("POST /instances", 400, {"name": "echo", "instance_id": "@a"}, problem("InvalidIdError")),
    Case("POST /instances", 400, {"name": "echo", "start_at": "2024-01-01"}, problem("InvalidTimeError")),
    Case("POST /instances", 400, {"name": "echo", "colour": 1}, problem("UsageError")),
    Case("POST /instances", 400, [], problem("UsageError")),
    Case("POST /instances?wait=soon", 400, {"name": "echo"}, problem("UsageError")),
    Case("POST /instances?colour=1", 400, {"name": "echo"}, problem("UsageError")),
    Case("POST /instances", 413, {"name": "echo", "input": "x" * 2_000_000}, problem("PayloadTooLargeError") | {"limit": 1_048_576}),
    Case("POST /instances", 400, {"name": "echo"}, headers={"Perdure-Context": "{"}),
    Case("POST /instances", 400, {"name": "echo"}, headers={"Perdure-Context": "[1]"}),
    Case("POST /instances", 400, {"name": "echo"}, headers={"Perdure-Context": '{"no": "one"}'}),
    Case("GET /instances", 400, headers={"Perdure-Context": "{}"}),
    # queries
    Case("GET /instances?statuses=Running&order=newest&limit=1", 200),
    Case("GET /instances?statuses=Running,Failed&count=true&limit=0", 200, gives={"count": 3, "items": []}),
    Case("GET /instances?tag=who:me&count=true&limit=0", 200, gives={"count": 1}),
    Case("GET /instances?created_from=2024-01-01T00:00:00Z&parked=false", 200),
    Case("GET /instances?statuses=Asleep", 400, gives=problem("UsageError")),
    Case("GET /instances?limit=0", 400, gives=problem("UsageError")),
    Case("GET /instances?cursor=none", 400, gives=problem("UsageError")),
    Case("GET /instances?tag=who", 400, gives=problem("UsageError")),
    Case("GET /instances?parked=perhaps", 400, gives=problem("UsageError")),
    # one instance
    Case("GET /instances/done", 200, gives={"runtime_status": "Completed", "output": "said"}),
    Case("GET /instances/done?wait=5", 200, gives={"runtime_status": "Completed"}),
    Case("GET /instances/live?wait=0", 202, gives={"runtime_status": "Running"}),
    Case("GET /instances/a%2Fb", 200, gives={"instance_id": "a/b"}),
    Case("GET /instances/nobody", 404, gives=problem("InstanceNotFoundError") | {"instance_id": "nobody"}),
    Case("GET /instances/nobody?wait=1", 404, gives=problem("InstanceNotFoundError")),
    Case("GET /instances/%FF", 400),
    Case("DELETE /instances/done", 200, gives={"deleted": 1}),
    Case("DELETE /instances/live", 409, gives=problem("InstanceNotFinishedError")),
    Case("DELETE /instances/nobody?recursive=false", 404),
    Case("GET /instances/done/history?order=newest&limit=1", 200, gives={"after": 1, "total": 2}),
    Case("GET /instances/nobody/history", 404),
    # events and commands
    Case("POST /instances/live/events/Approved", 202, {"by": "me"}),
    Case("POST /instances/live/events/Approved", 202),
    Case("POST /instances/done/events/Approved", 409, 1, problem("InstanceFinishedError")),
    Case("POST /instances/nobody/events/Approved", 404, 1),
    *(
        case
        for action in ("cancel", "terminate", "suspend", "resume")
        for case in (
            Case(f"POST /instances/live/{action}", 202, {"reason": "so"}),
            Case(f"POST /instances/live/{action}", 202),
            Case(f"POST /instances/done/{action}", 409, {}, problem("InstanceFinishedError")),
            Case(f"POST /instances/nobody/{action}", 404, {}),
            Case(f"POST /instances/live/{action}", 400, {"reason": 5}),
        )
    ),
    Case("POST /instances/failed/rewind", 202, {"force": True}),
    Case("POST /instances/live/rewind", 409, {}, problem("InstanceNotFinishedError")),
    Case("POST /instances/done/restart", 201, {"with_new_instance_id": False}, {"instance_id": "done"}),
    Case("POST /instances/live/restart", 409, {"with_new_instance_id": False}),
    Case("POST /instances/nobody/restart", 404),
    Case("POST /instances/live/fork?at=0", 201, {"new_instance_id": "fork"}, {"instance_id": "fork"}),
    Case("POST /instances/live/fork?at=1", 400, {}, problem("ForkError")),
    Case("POST /instances/live/fork?at=99", 400, {}, problem("ForkError")),
    Case("POST /instances/live/fork", 400, {}),
    Case("POST /instances/live/fork?at=-1", 400, {}),
    Case("POST /instances/live/fork?at=0", 400, {"new_instance_id": "live"}, problem("UsageError")),
    Case("POST /instances/nobody/fork?at=0", 404, {}),
    Case("POST /instances/nobody/retry", 404),
    Case("POST /instances/live/retry", 202),
    # many
    Case("POST /instances/actions", 200, {"action": "terminate", "ids": ["live", "nobody"]}, {"done": 1, "failed": 1}),
    Case("POST /instances/actions", 200, {"action": "terminate", "filter": {"name": "approval"}, "dry_run": True}, {"count": 2, "done": 0}),
    Case("POST /instances/actions", 400, {"action": "fly", "ids": []}),
    Case("POST /instances/purge", 200, {"statuses": ["Completed", "Failed"]}, {"deleted": 2}),
    Case("POST /instances/purge", 400, {"statuses": []}),
    # entities
    Case("GET /entities?name=COUNTER", 200),
    Case("GET /entities?limit=0", 400),
    Case(f"GET {COUNTER}", 200, gives={"entity_id": "@counter@c/1", "state": {"value": 3}}),
    Case("GET /entities/counter/nobody", 404, gives={"type": "about:blank"}),
    Case("GET /entities/nothing/k", 404, gives=problem("UnknownNameError")),
    Case("GET /entities/a@b/k", 400),
    Case(f"GET {COUNTER}/state", 200, gives={"state": {"value": 3}}),
    Case("GET /entities/counter/nobody/state", 404, gives={"type": "about:blank"}),
    Case(f"DELETE {COUNTER}", 200),
    Case(f"POST {COUNTER}/call/get", 200, gives={"ended": True, "result": 3}),
    Case(f"POST {COUNTER}/call/add?wait=20", 200, 4, {"ended": True, "result": None}),
    Case(f"POST {COUNTER}/call/add", 400, "four", problem("PayloadError")),
    Case("POST /entities/fragile/f/call/break", 424, gives=problem("EntityOperationError")),
    Case(f"POST {COUNTER}/call/fly", 404, 1, problem("UnknownNameError")),
    Case(f"POST {COUNTER}/signal/add?at=3600", 202, 1),
    Case(f"POST {COUNTER}/signal/add?at={quote(IN_AN_HOUR)}", 202, 1),
    Case(f"POST {COUNTER}/signal/add", 202, 1),
    Case(f"POST {COUNTER}/signal/add?at=-1", 400, 1, problem("InvalidTimeError")),
    Case(f"POST {COUNTER}/signal/add", 400, "four"),
    Case(f"POST {COUNTER}/retry", 202),
    Case("POST /signals", 202, [{"entity": "@counter@x", "operation": "add", "input": 1, "at": 0}], {"accepted": 1}),
    Case("POST /signals", 400, [{"entity": "@counter@x", "operation": "add", "input": "1"}]),
    Case("POST /signals", 400, {}),
    Case("POST /signals", 400),
    Case("POST /entities/clean", 200, gives={"empty_entities_removed": 0, "orphaned_locks_released": 0}),
    # the hub
    Case("GET /parked", 200, gives={"entities": {"items": [], "cursor": None}}),
    Case("GET /shards?hottest=2", 200),
    Case("POST /partitions/0/move", 200, {"to": 0}),
    Case("POST /partitions/99/move", 400, {"to": 0}),
    Case("POST /partitions/first/move", 400, {"to": 0}),
    Case("GET /nodes", 200, gives={"is_cluster": False, "free": []}),
    Case("POST /nodes/0/drain", 400, gives=problem("UsageError")),
    Case("POST /nodes/0/undrain", 400, gives=problem("UsageError")),
    Case("POST /nodes/first/drain", 400),
    Case("POST /nodes/9223372036854775808/drain", 400),
    Case("GET /application", 200, gives={"activities": ["double"]}),
    Case("GET /changes?wait=0", 200),
    Case("GET /changes?after=soon", 400),
    # paths and methods
    Case("GET /nothing", 404),
    Case("PUT /instances", 405),
    Case("GET /instances/live/cancel", 405),
    Case("GET /Instances", 404),
    Case("HEAD /instances/done", 200),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{number}-{one.ask[:50]}-{one.status}" for number, one in enumerate(CASES)]
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_endpoint_answers_with_its_status(case: Case) -> None:
    method, path = case.ask.split(" ", 1)
    content = None if case.body is ... else json.dumps(case.body).encode()
    async with furnished() as it:
        answer = await it.http.request(method, API + path, content=content, headers=case.headers)

    assert answer.status_code == case.status, answer.text
    if method == "HEAD":
        return
    body = answer.json()
    assert {name: body.get(name) for name in case.gives} == case.gives
    kind = answer.headers["content-type"]
    assert kind == ("application/problem+json" if case.status >= 400 else "application/json")
    if case.status >= 400:
        assert body["status"] == case.status
        assert {"type", "title", "detail"} <= body.keys()
        assert "Traceback" not in answer.text


async def test_a_request_id_makes_a_start_safe_to_repeat_and_is_for_one_request() -> None:
    async with served() as it:
        headers = {"Idempotency-Key": "k1"}
        start = {"name": "echo", "input": 1}
        first = await it.http.post(f"{API}/instances?wait=10", json=start, headers=headers)
        again = await it.http.post(f"{API}/instances?wait=10", json=start, headers=headers)
        other = await it.http.post(f"{API}/instances", json={"name": "fail"}, headers=headers)
        nowhere = await it.http.get(f"{API}/instances", headers=headers)
        empty = await it.http.post(f"{API}/instances", json=start, headers={"Idempotency-Key": ""})

        assert first.json()["instance_id"] == again.json()["instance_id"]
        assert await it.client.count() == 1
    assert (other.status_code, nowhere.status_code, empty.status_code) == (422, 400, 400)
    assert other.json()["type"] == "urn:perdure:RequestIdReusedError"
    assert other.json()["request_id"] == "k1"


async def test_keys_say_who_may_look_and_who_may_act() -> None:
    async with served(keys=KEYS) as it:
        asked = {
            (key, method): (
                await it.http.request(
                    method,
                    f"{API}/instances",
                    json={"name": "echo"} if method == "POST" else None,
                    headers={"Authorization": f"Bearer {key}"},
                )
            ).status_code
            for key in ("look-secret", "work-secret", "wrong")
            for method in ("GET", "POST")
        }
        refused = await it.http.get(f"{API}/instances")

    assert asked == {
        ("look-secret", "GET"): 200,
        ("look-secret", "POST"): 403,
        ("work-secret", "GET"): 200,
        ("work-secret", "POST"): 201,
        ("wrong", "GET"): 401,
        ("wrong", "POST"): 401,
    }
    assert refused.json()["type"] == "urn:perdure:UsageError"


@pytest.mark.parametrize("expose", [False, True])
async def test_tracebacks_are_shown_only_where_they_may_be(expose: bool) -> None:
    async with served(make_api_app(), expose_errors=expose) as it:
        await it.run("fail", id="failed")
        await it.run("calling", id="calling")
        answers = [
            await it.http.get(f"{API}/instances/failed"),
            await it.http.get(f"{API}/instances"),
            await it.http.get(f"{API}/instances/calling/history"),
            await it.http.post(f"{API}/entities/fragile/c/call/break"),
        ]

    assert [one.status_code for one in answers] == [200, 200, 200, 424]
    assert [("serving.py" in one.text) or ("File" in one.text) for one in answers] == [expose] * 4


async def test_a_full_mailbox_is_told_with_when_to_ask_again() -> None:
    hub = Hub(make_app(), settings=Settings(mailbox_messages_max=1))
    async with hub:
        web = httpx.ASGITransport(create_app(hub))
        await hub.client.start_new("approval", instance_id="live")
        await hub.client.suspend("live")
        async with httpx.AsyncClient(transport=web, base_url="http://localhost") as http:
            answers = [
                await http.post(f"{API}/instances/live/events/e", content=b"1") for _ in range(3)
            ]

    full = answers[-1]
    assert full.status_code == 429
    assert full.headers["Retry-After"] == "1"
    assert full.json()["type"] == "urn:perdure:MailboxFullError"


async def test_a_hub_that_does_not_run_is_told_with_when_to_ask_again() -> None:
    web = httpx.ASGITransport(create_app(Hub(make_app())))
    async with httpx.AsyncClient(transport=web, base_url="http://localhost") as http:
        answer = await http.get(f"{API}/instances")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["type"] == "urn:perdure:HubStoppingError"


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with served(limits=Limits(body_bytes_max=100)) as it:
        answer = await it.http.post(f"{API}/signals", content=b"[" + b" " * 200 + b"]")

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/instances/live?wait=60", 503),
        ("POST", "/instances?wait=60", 504),
    ],
)
async def test_a_wait_is_broken_off_where_the_server_stops(
    method: str, path: str, status: int
) -> None:
    async with Hub(make_app()) as hub:
        web = create_app(hub)
        entrance: Entrance = web.state.entrance
        await hub.client.start_new("approval", instance_id="live")
        answers: list[httpx.Response] = []

        async def ask() -> None:
            transport = httpx.ASGITransport(web)
            body = {"name": "approval", "instance_id": "other"} if method == "POST" else None
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                answers.append(await http.request(method, API + path, json=body))

        async def is_waiting() -> bool:
            count = 2 if method == "POST" else 1
            return entrance.waiting > 0 and await hub.client.count() == count

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(is_waiting)
            entrance.close()

    assert [one.status_code for one in answers] == [status]
