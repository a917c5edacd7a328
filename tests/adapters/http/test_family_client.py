"""The unmodified client of Durable Functions finds its host here: each of its methods is called.

It is asyncio's and goes over a socket, so there is a server, and no trio.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from perdure import EntityId, Hub, RuntimeStatus
from perdure.adapters.http import Address, Keys, ServerOptions, client_binding, listen
from tests.adapters.http.serving import KEYS, Served, make_app

# They have no types.
func: Any = import_module("azure.functions")
family_package: Any = import_module("azure.durable_functions")
http_utils: Any = import_module("azure.durable_functions.models.utils.http_utils")
DurableOrchestrationClient: Any = family_package.DurableOrchestrationClient
FamilyEntityId: Any = family_package.EntityId
FamilyStatus: Any = family_package.OrchestrationRuntimeStatus

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@frozen
class Family:
    """A hub that is served, and the family's client of it."""

    hub: Hub
    url: str
    client: Any

    @property
    def served(self) -> Served:
        nothing: Any = None
        return Served(self.hub, nothing, nothing)


@pytest.fixture
async def family(anyio_backend: str) -> AsyncGenerator[Family, None]:
    urls: list[str] = []
    with listen(ServerOptions(address=Address("127.0.0.1", 0)), announce=urls.append) as server:
        async with Hub(make_app()) as hub, server.beside(hub):
            binding = json.dumps(client_binding(urls[0]))
            yield Family(hub, urls[0], DurableOrchestrationClient(binding))
            await http_utils._close_session()


def request(url: str) -> Any:
    return func.HttpRequest("POST", f"{url}/api/start", body=b"")


INPUTS: list[Any] = [{"a": [1, None]}, [1], "text", '{"b": 1}', "5", 5, 1.5, True]


@pytest.mark.parametrize("input", INPUTS, ids=repr)
async def test_start_new_gives_the_orchestration_its_input(family: Family, input: Any) -> None:
    id = await family.client.start_new("echo", None, input)
    await family.served.ended(id)

    status = await family.client.get_status(id, show_input=True)
    assert status.output == input
    assert status.input_ == input


async def test_start_new_takes_an_id_and_a_version(family: Family) -> None:
    id = await family.client.start_new("versioned", "mine", version="2")
    await family.served.ended(id)

    status = await family.hub.client.get_status("mine")
    assert id == "mine"
    assert status is not None
    assert status.version == "2"


async def test_start_new_says_that_there_is_no_such_orchestration(family: Family) -> None:
    with pytest.raises(Exception, match="no orchestration 'unknown'"):
        await family.client.start_new("unknown")


async def test_start_new_raises_for_an_id_that_is_live(family: Family) -> None:
    await family.client.start_new("approval", "i")

    with pytest.raises(Exception, match="'i' is live already"):
        await family.client.start_new("approval", "i")


async def test_raise_event_brings_the_data(family: Family) -> None:
    nothings: list[Any] = [0, None, [], False]
    for number, data in enumerate([*INPUTS, *nothings]):
        id = await family.client.start_new("approval", f"i{number}")
        await family.client.raise_event(id, "Approved", data)
        await family.served.ended(id)
        assert (await family.client.get_status(id)).output == data


async def test_raise_event_says_what_is_wrong_with_the_instance(family: Family) -> None:
    await family.served.run("echo", id="i")

    with pytest.raises(Exception, match="No instance with ID nobody found"):
        await family.client.raise_event("nobody", "Approved", 1)
    with pytest.raises(Exception, match="Instance with ID i is gone"):
        await family.client.raise_event("i", "Approved", 1)


async def test_get_status_shows_an_instance(family: Family) -> None:
    await family.served.run("count", 21, id="c")

    status = await family.client.get_status(
        "c", show_history=True, show_history_output=True, show_input=True
    )

    assert (status.name, status.instance_id, status.output) == ("count", "c", 42)
    assert status.runtime_status is FamilyStatus.Completed
    assert status.custom_status == {"asked": 21}
    assert status.input_ == 21
    assert abs(status.created_time - datetime.now(UTC)) < timedelta(minutes=1)
    kinds = [event["EventType"] for event in status.historyEvents]
    assert kinds == ["ExecutionStarted", "TaskCompleted", "ExecutionCompleted"]


async def test_get_status_of_nobody_is_false(family: Family) -> None:
    assert not await family.client.get_status("nobody")


async def test_get_status_reads_every_status(family: Family) -> None:
    served = family.served
    await served.run("fail", id="failed")
    for id in ("terminated", "canceled", "suspended", "running"):
        await family.hub.client.start_new("approval", instance_id=id)
    await family.hub.client.terminate("terminated")
    await family.hub.client.cancel("canceled")
    await family.hub.client.suspend("suspended")
    await served.ended("canceled")
    await served.reaches("suspended", RuntimeStatus.SUSPENDED)

    found = {id: await family.client.get_status(id) for id in ("failed", "terminated", "canceled")}
    found |= {id: await family.client.get_status(id) for id in ("suspended", "running")}

    assert {id: status.runtime_status.name.lower() for id, status in found.items()} == {
        id: id for id in found
    }


async def test_get_status_all_and_by_find_instances(family: Family) -> None:
    for id in ("a1", "a2", "b"):
        await family.served.run("echo", id, id=id)
    await family.hub.client.start_new("approval", instance_id="live")
    before, after = datetime(1, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)

    everything = await family.client.get_status_all()
    by_prefix = await family.client.get_status_by(instance_id_prefix="a")
    by_status = await family.client.get_status_by(
        created_time_from=before, created_time_to=after, runtime_status=[FamilyStatus.Completed]
    )
    by_time = await family.client.get_status_by(created_time_from=after)

    assert sorted(one.instance_id for one in everything) == ["a1", "a2", "b", "live"]
    assert sorted(one.instance_id for one in by_prefix) == ["a1", "a2"]
    assert sorted(one.instance_id for one in by_status) == ["a1", "a2", "b"]
    assert by_time == []


async def test_get_status_all_finds_more_than_a_usual_page(family: Family) -> None:
    for number in range(120):
        await family.hub.client.start_new("echo", number)

    assert len(await family.client.get_status_all()) == 120


async def test_purge_instance_history_deletes_what_has_ended(family: Family) -> None:
    await family.served.run("echo", id="i")

    first = await family.client.purge_instance_history("i")
    again = await family.client.purge_instance_history("i")

    assert (first.instances_deleted, again.instances_deleted) == (1, 0)


async def test_purge_instance_history_by_deletes_what_matches(family: Family) -> None:
    await family.served.run("echo", id="a")
    await family.served.run("fail", id="b")

    none = await family.client.purge_instance_history_by(datetime.now(UTC) + timedelta(hours=1))
    failed = await family.client.purge_instance_history_by(
        datetime(2020, 1, 1, tzinfo=UTC), None, [FamilyStatus.Failed]
    )
    rest = await family.client.purge_instance_history_by(
        datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)
    )

    assert [one.instances_deleted for one in (none, failed, rest)] == [0, 1, 1]


async def test_terminate_ends_an_instance(family: Family) -> None:
    id = await family.client.start_new("approval")

    await family.client.terminate(id, "that is enough & more")
    await family.client.terminate(id, "once more")

    status = await family.client.get_status(id)
    assert status.runtime_status is FamilyStatus.Terminated
    assert status.output == "that is enough & more"
    with pytest.raises(Exception, match="No instance with ID 'nobody' found"):
        await family.client.terminate("nobody", "why")


async def test_suspend_and_resume_hold_an_instance_and_let_it_go(family: Family) -> None:
    id = await family.client.start_new("approval")

    await family.client.suspend(id, "wait")
    await family.served.reaches(id, RuntimeStatus.SUSPENDED)
    await family.client.raise_event(id, "Approved", 7)
    await family.client.resume(id, "go on")
    await family.served.ended(id)

    assert (await family.client.get_status(id)).output == 7
    for act in (family.client.suspend, family.client.resume):
        await act(id, "too late")
        with pytest.raises(Exception, match="No instance with ID 'nobody' found"):
            await act("nobody", "why")


async def test_rewind_takes_a_failed_instance_back(family: Family) -> None:
    await family.served.run("fail", id="f")
    await family.served.run("echo", id="e")

    await family.client.rewind("f", "again", task_hub_name="hub", connection_name="Storage")
    await family.served.ended("f")

    status = await family.hub.client.get_status("f")
    assert status is not None
    assert status.rewinds == 1
    with pytest.raises(Exception, match="only supported on failed"):
        await family.client.rewind("e", "again")
    with pytest.raises(Exception, match="No instance with ID nobody found"):
        await family.client.rewind("nobody", "again")


async def test_restart_starts_it_anew(family: Family) -> None:
    await family.served.run("echo", {"a": 1}, id="i")

    # What it gives is what its host answers, which is the links.
    anew = (await family.client.restart("i"))["id"]
    await family.served.ended(anew)
    same = (await family.client.restart("i", restart_with_new_instance_id=False))["id"]

    assert anew != "i"
    assert same == "i"
    assert (await family.client.get_status(anew)).output == {"a": 1}
    with pytest.raises(Exception, match="unexpected status code 400"):
        await family.client.restart("nobody")


async def test_wait_for_completion_gives_the_output_or_the_links(family: Family) -> None:
    asked = request(family.url)
    ended = await family.client.start_new("echo", None, {"a": 1})
    failed = await family.client.start_new("fail")
    live = await family.client.start_new("approval")
    wait = family.client.wait_for_completion_or_create_check_status_response

    answers = [await wait(asked, id, 5000, 10) for id in (ended, failed)]
    pointed = await wait(asked, live, 20, 10)

    assert [one.status_code for one in answers] == [200, 500]
    assert json.loads(answers[0].get_body()) == {"a": 1}
    assert pointed.status_code == 202
    assert json.loads(pointed.get_body())["id"] == live


async def test_the_links_that_it_makes_lead_here(family: Family) -> None:
    id = await family.client.start_new("approval")

    response = family.client.create_check_status_response(request(family.url), id)
    payload = family.client.create_http_management_payload(id)
    links = family.client.get_client_response_links(request(family.url), id)

    assert response.status_code == 202
    assert json.loads(response.get_body()) == payload == links
    assert response.headers["Location"] == payload["statusQueryGetUri"]
    status, body = await http_utils.get_async_request(payload["statusQueryGetUri"])
    assert (status, body["instanceId"]) == (202, id)
    sent = payload["sendEventPostUri"].replace("{eventName}", "Approved")
    assert (await http_utils.post_async_request(sent, {"by": "me"}))[0] == 202
    await family.served.ended(id)


async def test_it_reaches_a_server_with_keys_by_the_address_that_asks_for_none(
    anyio_backend: str,
) -> None:
    here = Address("127.0.0.1", 0)
    options = ServerOptions(address=here, keys=Keys.parse(KEYS), local_rpc=here)
    with listen(options, announce=lambda _: None) as server:
        async with Hub(make_app()) as hub, server.beside(hub):
            binding = client_binding(server.url, code="work-secret", local_rpc=server.local_rpc_url)
            client = DurableOrchestrationClient(json.dumps(binding))
            id = await client.start_new("approval")
            links = client.create_http_management_payload(id)
            status, _ = await http_utils.get_async_request(links["statusQueryGetUri"])
            refused, _ = await http_utils.get_async_request(f"{server.url}/durabletask/instances")
            await http_utils._close_session()

    assert (status, refused) == (202, 401)


async def test_signal_entity_and_read_entity_state(family: Family) -> None:
    counter = FamilyEntityId("Counter", "k")

    missing = await family.client.read_entity_state(counter)
    await family.client.signal_entity(counter, "add", 5)
    value = await family.hub.client.call_entity(EntityId("Counter", "k"), "get")
    state = await family.client.read_entity_state(counter, "hub", "Storage")

    assert not missing.entity_exists
    assert value == 5
    assert (state.entity_exists, state.entity_state) == (True, {"value": 5})


@pytest.mark.parametrize("input", INPUTS, ids=repr)
async def test_signal_entity_brings_the_input(family: Family, input: Any) -> None:
    anything = FamilyEntityId("anything", "k")

    await family.client.signal_entity(anything, "said", input)
    await family.client.signal_entity(FamilyEntityId("anything", "empty"), "said", 0)
    await family.served.reaches_state("anything", "k")

    state = await family.client.read_entity_state(anything)
    assert state.entity_state == ["said", input]


async def test_signal_entity_raises_for_what_is_no_entity(family: Family) -> None:
    with pytest.raises(Exception, match="unexpected status code 400"):
        await family.client.signal_entity(FamilyEntityId("unknown", "k"), "add", 5)


def test_every_method_of_the_client_is_called_here(anyio_backend: str) -> None:
    source = Path(__file__).read_text("utf-8")
    names: list[str] = dir(DurableOrchestrationClient)
    methods = {
        name
        for name in names
        if callable(getattr(DurableOrchestrationClient, name)) and not name.startswith("_")
    }

    missing = {name for name in methods if f"family.client.{name}" not in source}

    assert len(methods) > 15
    assert missing == set()
