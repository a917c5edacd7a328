"""Guarantee 10: what is accepted is read back equal, and what would not be is refused at the call."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pydantic")

from pydantic import BaseModel, Field, SecretStr

from perdure import (
    ActivityError,
    App,
    EntityId,
    EntityOperationError,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    PayloadError,
)
from tests.faults import everything, settle, within

app = App()


class Login(BaseModel):
    user: str
    password: SecretStr = SecretStr("")
    note: str = Field(default="", exclude=True)


VALUES: dict[str, Any] = {
    "true": True,
    "five": 5,
    "secret": Login(user="ada", password=SecretStr("hunter2")),
    "excluded": [{"a": Login(user="ada", note="kept")}],
    "pairs": {(1, 2)},
}
TAKEN = ["true", "five"]
REFUSED = ["secret", "excluded", "pairs"]


@app.entity
class Box:
    either: int | str = 0
    anything: Any = None
    tags: set = set()  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownVariableType]

    def put(self, name: str) -> None:
        value = VALUES[name]
        if name in TAKEN:
            self.either = value
        elif name == "pairs":
            self.tags = value
        else:
            self.anything = value


@app.activity
async def give(name: str) -> int | str:
    value: int | str = VALUES[name]
    return value


@app.activity
async def give_any(name: str) -> Any:
    return VALUES[name]


@app.activity
async def give_set(name: str) -> set[Any]:
    value: set[Any] = VALUES[name]
    return value


@app.orchestration
async def ask(ctx: OrchestrationContext, name: str) -> str:
    activity: Any = give_set if name == "pairs" else give if name in TAKEN else give_any
    try:
        return repr(await ctx.call_activity(activity, name))
    except ActivityError as error:
        return f"{error.error_type}: {error.message}"


@app.orchestration
async def take(ctx: OrchestrationContext, given: int | str) -> str:
    await ctx.wait_for_external_event("go")
    return repr(given)


@app.orchestration
async def take_any(ctx: OrchestrationContext, given: Any) -> str:
    return repr(given)


def hub_on(store: MemoryStore) -> Hub:
    return Hub(app, store=store, partitions=2, clock=ManualClock())


@pytest.mark.parametrize("name", TAKEN)
async def test_what_is_taken_is_read_by_another_hub_as_it_was(name: str) -> None:
    store = MemoryStore()
    box = EntityId(Box, "b")
    async with within(), hub_on(store) as hub:
        await hub.client.call_entity(box, Box.put, name)
        await hub.client.start_new(take, VALUES[name], instance_id="taker")
        asked = await hub.client.start_new(ask, name)
        assert await asked.result() == repr(VALUES[name])

    async with within(), hub_on(store) as hub:
        state = await hub.client.read_entity_state(box)
        assert state is not None
        assert repr(state.either) == repr(VALUES[name])
        await hub.client.call_entity(box, Box.put, "five")
        await hub.client.raise_event("taker", "go")
        assert await hub.client.get_handle("taker").result() == repr(VALUES[name])


@pytest.mark.parametrize("name", REFUSED)
async def test_what_would_not_be_read_back_is_refused_and_nothing_is_stored(name: str) -> None:
    store = MemoryStore()
    async with within(), hub_on(store) as hub:
        await settle()
        before = everything(store)
        with pytest.raises(EntityOperationError, match=r"PayloadError: what operation .* at "):
            await hub.client.call_entity(EntityId(Box, "b"), Box.put, name)
        if name != "pairs":
            with pytest.raises(PayloadError):
                await hub.client.start_new(take_any, VALUES[name], instance_id="taker")
        await settle()
        assert everything(store) == before


@pytest.mark.parametrize("name", REFUSED)
async def test_an_activity_whose_result_would_not_be_read_back_fails_as_any_that_fails(
    name: str,
) -> None:
    async with within(), hub_on(MemoryStore()) as hub:
        asked = await hub.client.start_new(ask, name)
        said = await asked.result()

    assert said.startswith("PayloadError: the result of activity ")
    assert ", at $" in said
    assert "hunter2" not in said


class Wider(BaseModel):
    new: int


def app_of(result: Any) -> App:
    changing = App()

    async def find() -> Any:
        return {"old": 1}

    find.__annotations__["return"] = result
    activity: Any = changing.activity(find)

    @changing.orchestration
    async def look(ctx: OrchestrationContext) -> list[str]:
        found = ctx.call_activity(activity)
        await ctx.wait_for_external_event("go")
        said: list[str] = []
        for _ in range(2):
            try:
                said.append(repr(await found))
            except PayloadError as error:
                said.append(error.path)
        return said

    return changing


async def test_a_result_that_its_class_cannot_read_is_refused_each_time_it_is_awaited() -> None:
    store = MemoryStore()
    async with within(), Hub(app_of(dict[str, int]), store=store, clock=ManualClock()) as hub:
        await hub.client.start_new("look", instance_id="looks")
        await settle()

    async with within(), Hub(app_of(Wider), store=store, clock=ManualClock()) as hub:
        await hub.client.raise_event("looks", "go")
        assert await hub.client.get_handle("looks").result() == ["$.new", "$.new"]
