from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import (
    MISSING,
    Client,
    EntityId,
    EntityOperationError,
    InvalidIdError,
    PayloadError,
    RequestIdReusedError,
    UnknownNameError,
    UsageError,
)
from tests.features.clients.conftest import Way
from tests.features.clients.test_clients_orchestrations import told
from tests.runtime.harness import until

pytestmark = pytest.mark.by_turns

CLICKS: EntityId[Any] = EntityId("Counter", "a/b?c=d#é")


async def test_a_call_gives_its_result(client: Client) -> None:
    assert await client.call_entity(CLICKS, "add", 2) == 2
    assert await client.call_entity(CLICKS, "get", timeout=10) == 2


async def test_a_call_is_applied_once_for_each_request_id(way: Way) -> None:
    for _ in range(2):
        assert await way.client.call_entity(CLICKS, "add", 2, request_id="c1") == 2

    await told(RequestIdReusedError, way, "call_entity", CLICKS, "add", 3, request_id="c1")


async def test_an_operation_that_raises_is_told_and_taken_back(way: Way) -> None:
    with pytest.raises(EntityOperationError, match="ValueError: no") as caught:
        await way.client.call_entity(CLICKS, "fail", "no")

    assert caught.value.target == f"{CLICKS}.fail"
    assert caught.value.failure.is_caused_by(ValueError)


async def test_what_is_not_there_is_refused_as_in_the_hubs_process(way: Way) -> None:
    unknown: EntityId[Any] = EntityId("nothing", "k")
    await told(UnknownNameError, way, "call_entity", unknown, "get")
    await told(UnknownNameError, way, "call_entity", CLICKS, "multiply", 2)
    await told(PayloadError, way, "call_entity", CLICKS, "add", "two")
    await told(UsageError, way, "signal_entity", CLICKS, "add")
    await told(UsageError, way, "signal_entities", [(CLICKS, "add", 1), (CLICKS, "add", "two")])
    await told(InvalidIdError, way, "call_entity", CLICKS, "get", request_id="")
    await told(UnknownNameError, way, "get_entity", unknown)
    assert await way.client.get_entity(CLICKS) is None


async def test_signals_arrive_once(client: Client) -> None:
    await client.signal_entity(CLICKS, "add", 1)
    for _ in range(2):
        await client.signal_entity(CLICKS, "add", 10, request_id="s1")
    await client.signal_entity(CLICKS, "add", 100, at=timedelta(hours=1))
    await client.signal_entities(
        [(CLICKS, "add", 2), (CLICKS, "add", 3, 0), (CLICKS, "get", MISSING)]
    )

    async def came() -> bool:
        return bool(await client.call_entity(CLICKS, "get") == 16)

    await until(came)


async def test_a_state_is_read(way: Way) -> None:
    await way.client.call_entity(CLICKS, "add", 7)

    status = await way.client.get_entity(CLICKS)
    state = await way.client.read_entity_state(CLICKS)

    assert status is not None
    own = await way.hub.client.get_entity(CLICKS)
    assert own is not None
    assert status.to_dict() == own.to_dict()
    assert state == ({"value": 7} if way.is_plain else own.state)
    assert await way.client.read_entity_state(EntityId("counter", "nobody")) is None


async def test_a_function_entity_takes_any_operation(client: Client) -> None:
    box: EntityId[Any] = EntityId("box", "b")

    assert await client.call_entity(box, "anything at all", [1, {"a": None}]) == ["anything at all"]
    assert await client.read_entity_state(box) == [1, {"a": None}]


async def test_entities_are_found_page_by_page(way: Way) -> None:
    for number in range(5):
        await way.client.call_entity(EntityId("counter", f"k{number}"), "add", number)
    await way.client.call_entity(EntityId("box", "b"), "set", 1)

    found = [one async for one in way.client.query_entities(name="Counter", page_size=2)]
    page = await way.client.query_entities_page(page_size=4)
    rest = await way.client.query_entities_page(
        page_size=4, continuation_token=page.continuation_token
    )

    assert [one.entity_id.key for one in found] == [f"k{number}" for number in range(5)]
    assert [str(one.entity_id) for one in [*page.items, *rest.items]] == [
        "@box@b",
        *(f"@counter@k{number}" for number in range(5)),
    ]
    assert rest.continuation_token is None
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert [one async for one in way.client.query_entities(updated_to=hour_ago)] == []
    await told(
        UsageError,
        way,
        "query_entities_page",
        continuation_token=page.continuation_token,
        name="counter",
    )


async def test_an_entity_is_purged(client: Client) -> None:
    await client.call_entity(CLICKS, "add", 7)

    await client.purge_entity(CLICKS)

    assert await client.read_entity_state(CLICKS) is None
    assert (await client.clean_entity_storage()).orphaned_locks_released == 0


async def test_the_hub_says_what_it_has_and_does(way: Way) -> None:
    await way.client.call_entity(CLICKS, "add", 7)

    description = await way.client.describe()
    statistics = await way.client.statistics(hottest=3)
    await way.client.move_partition(0, 0)

    assert description.orchestrations["versioned"] == ("1", "2")
    assert description.entities == {
        "counter": ("add", "delete", "fail", "get"),
        "shelf": ("delete", "put"),
        "visitor": ("come", "delete"),
        "box": (),
    }
    assert description.activities == ("shout",)
    assert len(statistics.partitions) == 2
    assert sum(one.messages for one in statistics.partitions) >= 1
    assert [name for one in statistics.partitions for name, _ in one.hottest] == [str(CLICKS)]
    await told(UsageError, way, "move_partition", 5, 0)


async def test_a_hub_whose_store_has_one_owner_is_its_one_node(way: Way) -> None:
    seen = await way.client.nodes()

    assert not seen.is_cluster
    assert seen.free == ()
    (node,) = seen.nodes
    assert (node.member, node.pid, node.is_this, node.address) == (0, os.getpid(), True, None)
    assert [one.index for one in node.partitions] == [0, 1]
    assert {one.epoch for one in node.partitions} == {None}
    await told(UsageError, way, "drain_node", 0)
    await told(UsageError, way, "undrain_node", 0)


async def test_many_are_acted_on_at_once(way: Way) -> None:
    for number in range(4):
        await way.client.start_new("listen", instance_id=f"m{number}")

    dry = await way.client.ask(
        "actions", {"action": "terminate", "filter": {"name": "listen"}, "dry_run": True}
    )
    some = await way.client.ask("actions", {"action": "suspend", "ids": ["m0", "nobody"]})
    done = await way.client.ask(
        "actions", {"action": "terminate", "filter": {"instance_id_prefix": "m"}, "reason": "x"}
    )

    assert (dry["count"], dry["done"]) == (4, 0)
    assert (some["done"], some["failed"]) == (1, 1)
    assert some["failures"][0]["type"] == "InstanceNotFoundError"
    assert (done["done"], done["failed"]) == (4, 0)
    assert await way.client.count(statuses=["Terminated"]) == 4


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("fly", {}, "operation must be one of"),
    ("start", {"name": 5}, "name must be a str, not 5"),
    ("start", {}, "start needs the argument name"),
    ("start", {"name": "hello", "nmae": 1}, "start takes no argument 'nmae'; it takes: name,"),
    ("start", {"name": "hello", "tags": {"a": 1}}, "tags must be an object of str to str"),
    ("start", {"name": "hello", "on_existing": "keep"}, "on_existing"),
    ("start", {"name": "hello", "start_at": "soon"}, "start_at must be a time"),
    ("start", {"name": "hello", "input": "a", "wait": -1}, "wait must be"),
    ("query", {"statuses": "Running"}, "statuses must be a list"),
    ("query", {"created_from": "2024-01-01"}, "created_from must be a timezone-aware"),
    ("query", {"limit": True}, "limit must be an int"),
    ("signals", {"signals": [{"entity": "@a@b", "operation": 1}]}, "operation must be a str"),
    ("signals", {"signals": [{"entity": "a", "operation": "b"}]}, "no entity id"),
    ("call", {"entity": 3, "operation": "b"}, "entity must be the id of an entity"),
    ("actions", {"action": "fly", "ids": []}, "action"),
    ("actions", {"action": "cancel"}, "either ids or a filter"),
    ("actions", {"action": "cancel", "filter": {"nmae": 1}}, "no argument 'filter.nmae'"),
]


async def test_bad_arguments_are_refused_by_their_names(client: Client) -> None:
    for operation, arguments, text in BAD:
        with pytest.raises(UsageError) as caught:
            await client.ask(operation, arguments)

        assert text in str(caught.value), (operation, arguments)
    assert await client.count() == 0


async def test_what_a_filter_finds_is_acted_on_some_at_a_time(way: Way) -> None:
    for number in range(5):
        await way.client.start_new("listen", instance_id=f"m{number}")
    asked = {"action": "suspend", "filter": {"instance_id_prefix": "m"}, "limit": 2}

    answers = [await way.client.ask("actions", asked)]
    while answers[-1]["cursor"] is not None:
        cursor = answers[-1]["cursor"]
        answers.append(await way.client.ask("actions", {**asked, "cursor": cursor}))

    assert [one["done"] for one in answers] == [2, 2, 1]
    assert [one["more"] for one in answers] == [True, True, False]


async def test_a_key_may_hold_what_a_path_means_something_by(client: Client) -> None:
    for key in [".", "..", "a/b", "a%2Fb", "%", "ü☃", "?x=1#y", "@a@b", "state", "x" * 256]:
        id: EntityId[Any] = EntityId("counter", key)
        assert await client.call_entity(id, "add", 1) == 1
        assert await client.read_entity_state(id) is not None
    assert await client.call_entity(EntityId("box", "b"), "../a?b", 1) == ["../a?b"]
