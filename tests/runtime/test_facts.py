from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import frozen

from perdure import App, EntityId, Hub, OrchestrationContext, RuntimeStatus
from perdure.runtime.facts import Fact, json_form

app = App()


@app.entity
class Box:
    items: int = 0


@app.orchestration
async def rest(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")


@frozen
class Place:
    street: str
    number: int


@frozen(kw_only=True)
class Told(Fact):
    name: str
    at: datetime
    children: tuple[Told, ...] = ()
    _client: object = None


AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, None),
        (1.5, 1.5),
        (AT, "2026-01-02T03:04:05+00:00"),
        (RuntimeStatus.COMPLETED, "Completed"),
        (Shouting("low"), "low"),
        (EntityId(Box, "b"), "@box@b"),
        ((1, (AT,)), [1, ["2026-01-02T03:04:05+00:00"]]),
        ({1: (2,), "a": {"b": AT}}, {"1": [2], "a": {"b": "2026-01-02T03:04:05+00:00"}}),
        (Place("Elm", 7), {"street": "Elm", "number": 7}),
    ],
    ids=repr,
)
def test_each_value_has_its_form_in_json(value: Any, form: Any) -> None:
    found = json_form(value)

    assert found == form
    assert type(found) is type(form)
    assert json.loads(json.dumps(found)) == form


def test_a_fact_tells_all_but_what_is_its_own() -> None:
    make: Any = Told
    fact: Told = make(name="one", at=AT, children=(Told(name="two", at=AT),), client=object())

    assert fact.to_dict() == {
        "name": "one",
        "at": "2026-01-02T03:04:05+00:00",
        "children": [{"name": "two", "at": "2026-01-02T03:04:05+00:00", "children": []}],
    }
    assert json_form([fact]) == [fact.to_dict()]


async def test_a_status_tells_every_field_though_it_is_written_by_hand() -> None:
    async with Hub(app) as hub:
        await hub.client.start_new("rest", instance_id="i")
        status = await hub.client.get_status("i")

    assert status is not None
    assert status.to_dict() == Fact.to_dict(status)
