"""No request gives a 500, and none that is refused stores anything."""

from __future__ import annotations

import json
import random
from importlib import import_module
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from perdure import Client, EntityId, Hub
from perdure.adapters.http import create_app
from perdure.adapters.http.routes import ROUTES
from tests.adapters.http.serving import make_app

API = "/api/v1"
SEEDS = 6
REQUESTS = 120

TEXTS = [
    "", "a", "live", "@counter@c", "counter", "echo", "a/b", "ü☃", "%", "%2F", "..", ".", "\u202e", "\n",
    "x" * 300, "-1", "0", "1", "1e400", "99999999999999999999", "true", "null", "NaN", "Running", "newest",
    "2024-01-01T00:00:00Z", "2024-13-01", "0001-01-01T00:00:00+23:59", "key:value", ":", "\\:", "[]", "{}",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, 10**30, "", "a", "live", "@counter@c", [], [1], {}, {"a": 1}, {"": None},
    [[]], {"a": {"b": []}}, "2024-01-01", "\u0000", "é" * 200,
]  # fmt: skip
BODIES = [
    b"", b"{", b"[", b"null", b"\xff", b'"\\ud800"', b"1e400", b"NaN", b"[" * 2_000, b'{"a":1,"a":2}',
    b"{" + b'"a":' * 3 + b"1}", b" ", b"\x00",
]  # fmt: skip


class Fuzz:
    """Makes requests that are nearly right, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> tuple[str, str, bytes | None, dict[str, bytes]]:
        draw = self._random
        route = draw.choice(ROUTES)
        method = route.method if draw.random() < 0.95 else draw.choice(["PUT", "PATCH", "DELETE"])
        segments = [
            # A client would take a segment of dots out of the path by itself.
            quote(draw.choice(TEXTS), safe="").replace(".", "%2E") if one.startswith("{") else one
            for one in route.pattern
        ]
        names = [*route.readers, "code", "colour"]
        query = "&".join(
            f"{draw.choice(names)}={quote(draw.choice(TEXTS), safe='')}"
            for _ in range(draw.randrange(3))
        )
        # Else each of them would wait as long as it may.
        query = "&".join(one for one in query.split("&") if not one.startswith("wait="))
        if route.operation in ("changes", "call"):
            query += "&wait=0"
        path = f"{API}/{'/'.join(segments)}?{query}"
        headers = {"Idempotency-Key": draw.choice(TEXTS).encode()} if draw.random() < 0.2 else {}
        return method, path, self._body(route.in_body), headers

    def _body(self, names: frozenset[str]) -> bytes | None:
        draw = self._random
        if draw.random() < 0.2:
            return draw.choice(BODIES)
        if draw.random() < 0.2:
            return None
        if draw.random() < 0.3:
            return json.dumps(draw.choice(VALUES)).encode()
        fields: dict[str, Any] = {}
        for name in sorted(names):
            if draw.random() < 0.5:
                value = draw.choice([*VALUES, *TEXTS])
                # What waits for days is of no use here.
                fields[name] = (
                    0 if name == "start_at" and isinstance(value, (int, float)) else value
                )
        return json.dumps(fields).encode()


async def print_of(client: Client) -> tuple[Any, ...]:
    """Give all that the hub has stored, but for when."""
    instances = [
        (one.instance_id, one.execution, one.history_length, one.runtime_status)
        async for one in client.query()
    ]
    entities = [
        (str(one.entity_id), one.waiting, one.to_dict()["state"])
        async for one in client.query_entities(include_empty=True)
    ]
    return instances, entities


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_request_gives_a_500_and_a_refused_one_stores_nothing(seed: int) -> None:
    fuzz = Fuzz(seed)
    statuses: set[int] = set()
    async with Hub(make_app()) as hub:
        web = httpx.ASGITransport(create_app(hub))
        await hub.client.start_new("approval", instance_id="live")
        await hub.client.call_entity(EntityId("counter", "c"), "add", 1)
        async with httpx.AsyncClient(transport=web, base_url="http://localhost") as http:
            before = await print_of(hub.client)
            for _ in range(REQUESTS):
                method, path, body, headers = fuzz.request()
                url = httpx.URL("http://localhost").copy_with(raw_path=path.encode())
                with anyio.fail_after(10):
                    answer = await http.request(
                        method,
                        url,
                        content=body,
                        headers=[(name.encode(), value) for name, value in headers.items()],
                    )
                statuses.add(answer.status_code)
                assert answer.status_code < 500, (method, path, body, answer.text)
                if answer.status_code >= 400 and method != "HEAD":
                    assert answer.headers["content-type"] == "application/problem+json"
                    after = await print_of(hub.client)
                    assert after == before, (method, path, body, answer.text)
                else:
                    before = await settled(hub.client)

    assert {400, 404} <= statuses
    assert statuses & {200, 201, 202}


async def settled(client: Client) -> tuple[Any, ...]:
    """Give what is stored once it changes no more."""
    before = await print_of(client)
    while True:
        await anyio.sleep(0.002)
        after = await print_of(client)
        if after == before:
            return after
        before = after


#: What the description cannot say: which characters an id may have, and which names there are.
UNSAID = ("positive_data_acceptance", "negative_data_rejection")

# Its types are not for the strictest of checkers.
schemathesis: Any = import_module("schemathesis")
checks: Any = import_module("schemathesis.specs.openapi.checks")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_api_answers_as_it_is_described(mode: GenerationMode) -> None:
    excluded = [getattr(checks, name) for name in UNSAID]
    hub = Hub(make_app())
    with start_blocking_portal() as portal:
        portal.call(hub.start)
        try:
            web: Any = create_app(hub, allowed_hosts=["*"])
            schema = schemathesis.openapi.from_asgi(f"{API}/openapi.json", web)
            for found in schema.exclude(path="/changes").get_all_operations():
                operation = found.ok()
                if mode == GenerationMode.NEGATIVE and not (operation.query or operation.body):
                    continue  # any text is a segment of a path

                @settings(
                    max_examples=4,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def conform(case: Any) -> None:
                    if "wait" in (case.query or {}):
                        case.query["wait"] = 0
                    case.validate_response(case.call(), excluded_checks=excluded)

                conform()
        finally:
            portal.call(hub.stop)
