"""State that is annotated ``Any`` is plain JSON as soon as it is stored, not only once it is read."""

from __future__ import annotations

import collections
from datetime import date
from typing import Any, ClassVar

import anyio.lowlevel
import attrs
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    EntityOperationError,
    Hub,
    MemoryStore,
    OrchestrationContext,
    RegistrationError,
)

app = App()


@attrs.define
class Item:
    name: str
    more: Any = None


VALUES: dict[str, Any] = {
    "a tuple": (1, (2,)),
    "a set": {1},
    "an object": Item("a", (1,)),
    "objects": [Item("a"), {"b": Item("b", {1})}],
    "a date": date(2024, 2, 29),
    "bytes": b"abc",
    "a deque": collections.deque([1], 3),
    "much": ["x" * 9000, (1,)],
    "plain": {"a": [1, None, 2.5, "x"]},
}


@app.entity
class Holder:
    anything: Any = None
    anobject: object = None
    items: list = []  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownVariableType]
    table: dict = {}  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownVariableType]
    by_name: dict[str, Any] = {}
    item: Item = Item("")
    count: int = 0

    def put(self, name: str, ctx: EntityContext) -> None:
        """Put a value into the field that the entity's key names."""
        self.count += 1
        value = VALUES[name]
        if ctx.key == "item":
            self.item.more = value
        elif ctx.key == "items":
            self.items.append(value)  # pyright: ignore[reportUnknownMemberType]
        elif ctx.key in ("table", "by_name"):
            getattr(self, ctx.key)["a"] = value
        else:
            setattr(self, ctx.key, value)

    async def put_slowly(self, name: str, ctx: EntityContext) -> None:
        await anyio.lowlevel.checkpoint()
        self.put(name, ctx)

    def put_and_fail(self, name: str, ctx: EntityContext) -> None:
        self.put(name, ctx)
        raise ValueError

    def put_what_cannot_be_stored(self) -> None:
        self.by_name["big"] = ["x" * 9000]
        self.item.more = [object()]

    def show(self) -> str:
        return repr(self)


FIELDS = ["anything", "anobject", "items", "table", "by_name", "item"]


@app.entity
def keeper(ctx: EntityContext) -> None:
    if ctx.operation_name == "put":
        ctx.set_state([VALUES[ctx.get_input()]])
    ctx.set_result(repr(ctx.get_state()))


@app.activity
def make(name: str) -> Any:
    return VALUES[name]


@app.orchestration
async def see(ctx: OrchestrationContext, name: Any) -> str:
    made = await ctx.call_activity(make, name)
    handed = await ctx.call_sub_orchestrator(pass_on, VALUES[name])
    first = repr((made, handed))
    await ctx.wait_for_external_event("go")
    return first


@app.orchestration
async def pass_on(ctx: OrchestrationContext, value: Any) -> Any:
    return [value, await ctx.wait_for_external_event("data")] if value == 0 else value


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("put", ["put", "put_slowly"])
async def test_an_entity_sees_of_it_what_it_sees_after_a_restart(name: str, put: str) -> None:
    store = MemoryStore()
    seen: dict[str, str] = {}
    async with Hub(app, store=store) as hub:
        for field in FIELDS:
            id = EntityId(Holder, field)
            await hub.client.call_entity(EntityId[Any]("Holder", field), put, name)
            seen[field] = await hub.client.call_entity(id, Holder.show)
            with pytest.raises(EntityOperationError):
                await hub.client.call_entity(id, Holder.put_and_fail, name)
            assert await hub.client.call_entity(id, Holder.show) == seen[field]

    async with Hub(app, store=store) as hub:
        for field in FIELDS:
            assert await hub.client.call_entity(EntityId(Holder, field), Holder.show) == seen[field]


@pytest.mark.parametrize("name", VALUES)
async def test_a_function_entity_sees_of_it_what_it_sees_after_a_restart(name: str) -> None:
    store = MemoryStore()
    id = EntityId[Any]("keeper", "a")
    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(id, "put", name)
        seen = await hub.client.call_entity(id, "show")

    async with Hub(app, store=store) as hub:
        assert await hub.client.call_entity(id, "show") == seen


async def test_a_part_that_cannot_be_stored_is_refused_with_its_path_in_a_large_state_too() -> None:
    async with Hub(app) as hub:
        id = EntityId(Holder, "items")
        await hub.client.call_entity(id, Holder.put, "much")
        with pytest.raises(EntityOperationError, match=r"at \$\.item\.more\[0\]: a bare object"):
            await hub.client.call_entity(id, Holder.put_what_cannot_be_stored)

        assert "object object" not in await hub.client.call_entity(id, Holder.show)


@pytest.mark.parametrize("name", ["a tuple", "an object", "plain"])
async def test_an_orchestration_sees_of_untyped_values_what_a_replay_sees(name: str) -> None:
    store = MemoryStore()
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(see, name, instance_id="a")
        await handle.raise_event("go")
        live = await handle.result(timeout=10)
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(see, name, instance_id="b")

    async with Hub(app, store=store) as hub:
        handle = hub.client.get_handle("b")
        await handle.raise_event("go")
        assert await handle.result(timeout=10) == live


async def test_what_upgrade_gives_is_plain_json_at_once() -> None:
    def defined(version: int) -> App:
        renewed = App()

        @renewed.entity(name="Old")
        class Old:
            schema_version: ClassVar[int] = version
            data: Any = None

            def set(self) -> None:
                self.data = 1

            def show(self) -> str:
                return repr(self.data)

            @classmethod
            def upgrade(cls, stored: dict[str, Any], version: int) -> dict[str, Any]:
                return {"data": (stored["data"], {2})}

        return renewed

    store, id = MemoryStore(), EntityId[Any]("Old", "a")
    async with Hub(defined(1), store=store) as hub:
        await hub.client.call_entity(id, "set")
    async with Hub(defined(2), store=store) as hub:
        assert await hub.client.call_entity(id, "show") == "[1, [2]]"


@pytest.mark.parametrize(
    "default", [(1,), Item("a"), {"a": {1}}, [date(2024, 2, 29)]], ids=range(4)
)
def test_a_default_that_would_be_read_back_as_something_else_is_refused(default: Any) -> None:
    class Holding:
        data: Any = default

        def show(self) -> None: ...

    with pytest.raises(RegistrationError, match=r"\$\.data.* would come back as .*annotate"):
        App().entity(Holding)
