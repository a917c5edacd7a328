"""The description of the API, and the API held against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from openapi_spec_validator import validate

from perdure.adapters.http.openapi import document
from perdure.adapters.http.routes import ROUTES
from perdure.runtime.client.operations import OPERATIONS
from tests.adapters.http.serving import served

ROOT = Path(__file__).parent.parent.parent.parent


def test_the_description_is_one_of_openapi() -> None:
    validate(document("http://localhost/api/v1"))


def test_every_route_is_described_once() -> None:
    described = document("http://localhost/api/v1")["paths"]

    ids = [one["operationId"] for path in described.values() for one in path.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)
    assert all(one["summary"] for path in described.values() for one in path.values())


async def test_the_description_is_served_for_where_it_stands() -> None:
    async with served(root_path="/hub") as it:
        answer = await it.http.get("/hub/api/v1/openapi.json")
        other = await it.http.post("/hub/api/v1/openapi.json")

    assert answer.json()["servers"] == [{"url": "http://localhost/hub/api/v1"}]
    assert (answer.status_code, other.status_code) == (200, 405)


@pytest.mark.parametrize(
    "name",
    [
        "OrchestrationStatus",
        "EntityStatus",
        "HubStatistics",
        "Change",
        "InstanceExplanation",
        "Trace",
    ],
)
def test_facts_are_described_with_what_their_docstrings_say(name: str) -> None:
    schema = document("http://localhost/api/v1")["components"]["schemas"][name]

    described = [one for one in schema["properties"].values() if "description" in one]
    assert len(described) >= len(schema["properties"]) - 2


def test_every_route_and_operation_is_in_the_page() -> None:
    page = (ROOT / "docs" / "http.md").read_text("utf-8")

    together = {"terminate", "suspend", "resume", "rewind"}  # in the row of cancel
    missing = [
        route
        for route in ROUTES
        if route.operation not in together
        and f"| `{route.method} {route.path}` | `{route.operation}` |" not in page
    ]
    assert missing == []
    assert {route.operation for route in ROUTES} == set(OPERATIONS)
