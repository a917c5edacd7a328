"""With the application, what crosses has its types, whichever way it goes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from perdure import MISSING, Client, EntityId, EntityStatus, Hub, PayloadError, UsageError, connect
from tests.features.clients.application import (
    TENANT,
    Order,
    Shelf,
    Visitor,
    app,
    hello,
    order,
    tenant,
)
from tests.features.clients.conftest import PLAIN, TYPED, open_client
from tests.runtime.harness import until


@pytest.mark.parametrize("name", TYPED)
async def test_functions_and_objects_cross_as_what_they_are(name: str, tmp_path: Path) -> None:
    shelf = EntityId(Shelf, "s")
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(app, socket=tmp_path / "s"))
        client = await open_client(name, hub, tmp_path, stack)

        result = await (await client.start_new(order, Order("pen"))).result(10)
        stored = await client.call_entity(shelf, Shelf.put, Order("ink", 3))
        state = await client.read_entity_state(shelf)
        status = await client.get_entity(shelf)
        found = [one async for one in client.query(name=order)]
        shelves = [one async for one in client.query_entities(name=Shelf)]

    assert result == Order("pen", 2)
    assert stored == Order("ink", 3)
    assert isinstance(state, Shelf)
    assert state.orders == [Order("ink", 3)]
    assert isinstance(status, EntityStatus)
    assert isinstance(status.state, Shelf)
    assert len(found) == len(shelves) == 1


@pytest.mark.parametrize("name", TYPED)
async def test_context_variables_go_along(name: str, tmp_path: Path) -> None:
    visitor = EntityId(Visitor, "v")
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(app, socket=tmp_path / "s"))
        client = await open_client(name, hub, tmp_path, stack)
        token = TENANT.set("ümlaut & co")
        try:
            handle = await client.start_new(tenant)
            started = await handle.result(10)
            restarted = await (await handle.restart()).result(10)
            called = await client.call_entity(visitor, Visitor.come)
            await client.signal_entity(EntityId(Visitor, "one"), Visitor.come)
            await client.signal_entities([(EntityId(Visitor, "many"), "come", MISSING)])
        finally:
            TENANT.reset(token)
        for key in ("one", "many"):
            id = EntityId(Visitor, key)
            await until(partial(has_come, client, id))
        alone = await (await client.start_new(tenant)).result(10)

    assert [started, restarted, called] == ["ümlaut & co"] * 3
    assert alone == "nobody"


async def has_come(client: Client, id: EntityId[Visitor]) -> bool:
    state = await client.read_entity_state(id)
    return state is not None and state.last == "ümlaut & co"


@pytest.mark.parametrize("name", [*TYPED, *PLAIN])
async def test_what_goes_along_may_be_said_by_name(name: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(app, socket=tmp_path / "s"))
        client = await open_client(name, hub, tmp_path, stack)
        started = await client.ask("start", {"name": "tenant", "carried": {"tenant": "me"}})
        with pytest.raises(UsageError, match="no context variable 'nothing'"):
            await client.ask("start", {"name": "tenant", "carried": {"nothing": "me"}})

        assert await client.get_handle(started["instance_id"]).result(10) == "me"
        assert TENANT.get() == "nobody"


async def test_without_the_application_functions_are_refused_and_values_are_plain(
    tmp_path: Path,
) -> None:
    async with Hub(app, socket=tmp_path / "s") as hub, connect(tmp_path / "s") as client:
        with pytest.raises(UsageError, match="f must be the name of an orchestration"):
            await client.start_new(hello, "you")
        with pytest.raises(UsageError, match="op must be the name of an operation"):
            await client.signal_entity(EntityId(Shelf, "s"), Shelf.put, Order("ink"))
        with pytest.raises(UsageError, match="name must be the name of an orchestration"):
            await client.count(name=hello)
        with pytest.raises(PayloadError, match="the input of orchestration 'order'"):
            await client.start_new("order", {"itm": "pen"})
        handle = await client.start_new("order", {"item": "pen"})

        assert await handle.result(10) == {"item": "pen", "count": 2}
        assert await hub.client.count() == 1


@pytest.mark.by_turns
@pytest.mark.parametrize("workers", [0, 2])
async def test_a_hub_is_found_by_its_store_without_its_application(
    tmp_path_factory: pytest.TempPathFactory, workers: int
) -> None:
    folder = tmp_path_factory.mktemp("h")
    place = f"sqlite:{folder}/hub"
    socket = None if workers else folder / "hub" / "hub.sock"
    async with (
        Hub(
            "tests.features.clients.application:app",
            store=place,
            workers=workers,
            socket=socket,
            partitions=2,
        ),
        connect(place) as client,
    ):
        assert isinstance(client, Client)
        assert await (await client.start_new("hello", "you")).result(20) == "hello YOU"
        assert await client.call_entity(EntityId("counter", "c"), "add", 2) == 2
