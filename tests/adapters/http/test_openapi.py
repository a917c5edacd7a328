"""The description of the API, and the API held against it."""

from __future__ import annotations

import pytest
from openapi_spec_validator import validate

from perdure.adapters.http.openapi import document
from perdure.adapters.http.routes import ROUTES
from tests.adapters.http.serving import served


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
