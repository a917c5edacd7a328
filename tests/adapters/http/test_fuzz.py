"""What means nothing is refused, in the family's words, and stores nothing."""

from __future__ import annotations

import json
import random
from typing import Any

import anyio
import pytest
from attrs import define

from tests.adapters.http.serving import SDK, WEBHOOKS, Served, ask_raw, served

REQUESTS = 250

WORDS = [
    "orchestrators", "instances", "entities", "makeprimary", "raiseEvent", "terminate", "suspend",
    "resume", "rewind", "restart", "echo", "count", "unknown", "counter", "anything", "nobody", "@x", "@counter@k",
    "", "$", "..", "%", "%2F", "%zz", "%00", "%ff", "%C3%28", "%ED%A0%80", "a%0Ab", "x" * 300, "%E2%80%AE",
]  # fmt: skip
NAMES = [
    "timeout", "pollingInterval", "version", "showHistory", "showInput", "createdTimeFrom",
    "createdTimeTo", "runtimeStatus", "instanceIdPrefix", "top", "reason", "op", "fetchState", "lastOperationTimeFrom",
    "returnInternalServerErrorOnFailure", "restartWithNewInstanceId", "code", "taskHub",
]  # fmt: skip
VALUES = [
    "", "0", "-1", "1e999", "nan", "0.001", "9" * 40, "true", "perhaps", "Running", "Completed,Dead", ",", "add",
    "2020-01-01", "2020-13-45", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999Z", "2020-01-01T00:00:00-25:00",
    "%ff", "%00", "%ED%A0%80", "\u00e9", "1;drop", "%", "x" * 300,
]  # fmt: skip
BODIES = [
    b"", b"{", b"\xff\xfe", b"null", b"[" * 5_000, b'"\\ud800"', b"1e999", b"NaN", b'{"a":1}', b"9" * 400, b'"{"',
    b'{"a":1,"a":2}', b"\x00", b'"5"', b'"\\u0000"', b"[]", b"-", b"tru",
]  # fmt: skip
TYPES = [
    "application/json",
    "application/json; charset=x",
    "text/plain",
    "",
    "application/xml",
    ";",
    "\u00e9",
]
ENDPOINTS = [
    "POST orchestrators/?", "POST orchestrators/?/?", "POST orchestrators/echo/?", "POST orchestrators/count", "GET instances",
    "DELETE instances", "GET instances/?", "DELETE instances/?", "POST instances/nobody/raiseEvent/?", "POST instances/?/?",
    "POST instances/nobody/suspend", "POST instances/nobody/rewind", "POST instances/?/restart",
    "GET entities", "GET entities/?", "POST entities/?/?", "POST entities/counter/?", "POST entities/anything/?",
    "DELETE entities/?/?", "GET entities/?/?",
]  # fmt: skip
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE"]
HEADERS = ["x-ms-continuation-token", "Idempotency-Key", "Traceparent", "Cookie", "Authorization"]


@define
class Asked:
    """One request, as it is sent."""

    method: str
    path: str
    body: bytes
    headers: list[tuple[bytes, bytes]]


def draw(seed: int) -> Asked:
    """Make a request out of good and bad pieces."""
    chance = random.Random(seed)
    prefix = chance.choice([WEBHOOKS, SDK])
    if chance.random() < 0.2:
        method = chance.choice(METHODS)
        segments = chance.choices(WORDS, k=chance.randint(0, 5))
    else:
        method, _, pattern = chance.choice(ENDPOINTS).partition(" ")
        segments = [chance.choice(WORDS) if one == "?" else one for one in pattern.split("/")]
    path = "/".join([prefix, *segments])
    query = "&".join(
        f"{chance.choice(NAMES)}={chance.choice(VALUES)}" for _ in range(chance.randint(0, 3))
    )
    headers = [(b"content-type", chance.choice(TYPES).encode())]
    if chance.random() < 0.3:
        value = chance.choice([b"", b"x", b"\xff\xfe", b"[1]", b"W10=", b"x" * 300])
        headers.append((chance.choice(HEADERS).lower().encode(), value))
    body = b"" if chance.random() < 0.3 else chance.choice(BODIES)
    return Asked(method, f"{path}?{query}", body, headers)


async def stored(it: Served) -> list[Any]:
    """Give all that is stored: instances, and entities with what waits for them."""
    instances = [one.to_dict() async for one in it.client.query()]
    entities = [one.to_dict() async for one in it.client.query_entities(include_empty=True)]
    return [instances, entities]


@pytest.mark.by_turns
@pytest.mark.parametrize("part", range(4))
async def test_no_request_fails_the_server_and_a_refused_one_stores_nothing(part: int) -> None:
    async with served() as it:
        await it.client.start_new("approval", instance_id="nobody")
        before = await stored(it)
        statuses: dict[int, int] = {}
        for number in range(REQUESTS):
            asked = draw(part * REQUESTS + number)
            status, answer = await ask_raw(
                it.web, asked.method, asked.path, [asked.body], asked.headers
            )
            statuses[status] = statuses.get(status, 0) + 1
            if status == 500:  # which the family's table has for an id that is live
                assert b"InstanceAlreadyExistsError" in answer, (asked, answer)
            if status >= 400:
                if asked.method != "HEAD":
                    assert json.loads(answer)["ExceptionMessage"], asked
                assert await stored(it) == before, asked
            else:
                before = await settled(it)

    assert {200, 202, 400, 404} <= statuses.keys(), statuses
    assert statuses[202] > REQUESTS / 50, statuses


async def settled(it: Served) -> list[Any]:
    """Give what is stored once what was asked for has been done: the hub does no more by itself."""
    with anyio.fail_after(10):
        last, quiet = None, 0
        while quiet < 4:
            await anyio.sleep(0.001)
            counted = await it.client.statistics()
            done = (counted.commits, counted.turns, counted.messages)
            rests = not counted.owed and not any(one.activities for one in counted.shards)
            quiet = quiet + 1 if rests and done == last else 0
            last = done
    return await stored(it)
