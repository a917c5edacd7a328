from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from perdure import (
    Client,
    EntityId,
    ForkError,
    HistoryEvent,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidIdError,
    InvalidTimeError,
    OrchestrationCanceledError,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    PayloadError,
    PayloadTooLargeError,
    RequestIdReusedError,
    RuntimeStatus,
    UnknownNameError,
    UsageError,
)
from tests.features.clients.conftest import Way

pytestmark = pytest.mark.by_turns


async def told(error: type[Exception], way: Way, method: str, *args: object, **kw: object) -> str:
    """Give the text of what a method of a way's client raises, which is that of the hub's own."""
    raised: list[BaseException] = []
    for client in (way.client, way.hub.client):
        with pytest.raises(error) as caught:
            await getattr(client, method)(*args, **kw)
        raised.append(caught.value)
    one, other = raised
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert one.args == other.args
    return str(one)


async def test_a_start_gives_its_result(client: Client) -> None:
    handle = await client.start_new("hello", "you")

    assert await handle.result(10) == "hello YOU"
    assert await client.get_handle(handle.instance_id).result(10) == "hello YOU"


async def test_every_option_of_a_start_is_kept(client: Client) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    handle = await client.start_new(
        "versioned", instance_id="late/1", version="1", tags={"a": "b:c"}, start_at=at
    )

    status = await handle.status()

    assert (status.instance_id, status.version, status.tags) == ("late/1", "1", {"a": "b:c"})
    assert status.runtime_status == RuntimeStatus.PENDING
    assert await (await client.start_new("versioned")).result(10) == "two"


async def test_a_start_of_a_live_instance_is_refused_reused_or_replaces_it(way: Way) -> None:
    await way.client.start_new("listen", instance_id="one")

    await told(InstanceAlreadyExistsError, way, "start_new", "listen", instance_id="one")
    await way.client.start_new("listen", instance_id="one", on_existing="reuse")
    await way.client.start_new("listen", instance_id="one", on_existing="replace")

    status = await way.client.get_status("one")
    assert status is not None
    assert status.execution == 2


async def test_a_start_is_applied_once_for_each_request_id(way: Way) -> None:
    first = await way.client.start_new("hello", "a", request_id="r1")
    again = await way.client.start_new("hello", "a", request_id="r1")

    assert first.instance_id == again.instance_id
    assert await way.client.count() == 1
    await told(RequestIdReusedError, way, "start_new", "hello", "b", request_id="r1")


async def test_what_is_not_there_is_refused_as_in_the_hubs_process(way: Way) -> None:
    await told(UnknownNameError, way, "start_new", "hallo", "you")
    await told(UnknownNameError, way, "start_new", "versioned", version="9")
    await told(PayloadError, way, "start_new", "hello", 5)
    await told(UsageError, way, "start_new", "hello")
    await told(InvalidIdError, way, "start_new", "hello", "you", instance_id="@a")
    await told(InvalidTimeError, way, "start_new", "hello", "you", start_at=-1)
    await told(PayloadTooLargeError, way, "start_new", "hello", "x" * 2_000_000)
    await told(InstanceNotFoundError, way, "wait", "nobody")
    await told(InstanceNotFoundError, way, "terminate", "nobody")
    await told(InstanceNotFoundError, way, "get_history", "nobody")
    await told(UsageError, way, "query_page", page_size=0)
    await told(UsageError, way, "query_page", continuation_token="none")
    assert await way.client.get_status("nobody") is None
    assert await way.client.count() == 0


async def test_an_instance_that_fails_tells_why(way: Way) -> None:
    await way.client.start_new("fail", "no luck", instance_id="bad")

    text = await told(OrchestrationFailedError, way, "wait", "bad")

    assert text == "orchestration 'bad' failed: LookupError: no luck"
    status, own = await way.client.get_status("bad"), await way.hub.client.get_status("bad")
    assert status == own
    assert status is not None
    assert status.failure is not None
    assert status.failure.is_caused_by(LookupError)


async def test_an_event_ends_a_wait(client: Client) -> None:
    handle = await client.start_new("listen")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.raise_event, handle.instance_id, "End", {"n": [1, None]})
        assert await handle.result(10) == {"n": [1, None]}


async def test_an_end_that_does_not_come_in_time_says_what_is_in_its_way(way: Way) -> None:
    await way.client.start_new("listen", instance_id="one")
    await way.client.suspend("one", "later")

    text = await told(TimeoutError, way, "wait", "one", timeout=0.05)

    assert text.endswith("within 0.05 seconds; it is suspended")


async def test_an_instance_is_suspended_and_goes_on(client: Client) -> None:
    handle = await client.start_new("listen")
    await handle.suspend("later")
    suspended = await handle.status()
    await handle.resume()
    await handle.raise_event("end", 1, request_id="e1")
    await handle.raise_event("end", 1, request_id="e1")

    assert (suspended.runtime_status, suspended.suspended) == (RuntimeStatus.SUSPENDED, "later")
    assert await handle.result(10) == 1


async def test_an_instance_is_terminated_or_cancelled(way: Way) -> None:
    for act, error in (
        ("terminate", OrchestrationTerminatedError),
        ("cancel", OrchestrationCanceledError),
    ):
        await way.client.start_new("listen", instance_id=act)
        await getattr(way.client, act)(act, "enough")
        await told(error, way, "wait", act)
        await told(InstanceFinishedError, way, act, act, "again")


async def test_a_failed_instance_is_rewound_and_restarted(way: Way) -> None:
    await way.client.start_new("fail", "once", instance_id="bad")
    with pytest.raises(OrchestrationFailedError):
        await way.client.wait("bad")

    await way.client.rewind("bad", "again")
    with pytest.raises(OrchestrationFailedError):
        await way.client.wait("bad")
    status = await way.client.get_status("bad")
    other = await way.client.restart("bad")

    assert status is not None
    assert status.rewinds == 1
    assert other.instance_id != "bad"
    assert (await way.client.restart("bad", with_new_instance_id=False)).instance_id == "bad"
    await way.client.start_new("listen", instance_id="live")
    await told(InstanceNotFinishedError, way, "rewind", "live")


async def test_what_has_ended_is_purged(way: Way) -> None:
    for number in range(3):
        await (await way.client.start_new("hello", "a", tags={"n": str(number)})).result(10)
    await way.client.start_new("listen", instance_id="live")

    await told(InstanceNotFinishedError, way, "purge_instance", "live")
    assert await way.client.purge(tags={"n": "1"}) == 1
    assert await way.client.purge(statuses=["Completed"]) == 2
    await way.client.terminate("live")
    assert await way.client.get_handle("live").purge() == 1
    assert await way.client.count() == 0


async def test_a_history_is_the_same_whoever_reads_it(way: Way) -> None:
    handle = await way.client.start_new("hello", "you")
    await handle.result(10)
    await way.client.start_new("fail", "why", instance_id="bad")
    with pytest.raises(OrchestrationFailedError):
        await way.client.wait("bad")

    for instance_id in (handle.instance_id, "bad"):
        events = await way.client.get_history(instance_id)
        assert events == await way.hub.client.get_history(instance_id)
        assert events[0].event_type == "ExecutionStarted"


@pytest.mark.parametrize("size", [1, 2, 100])
async def test_pages_of_a_history_give_all_of_it_from_either_end(client: Client, size: int) -> None:
    handle = await client.start_new("hello", "you")
    await handle.result(10)
    events = await handle.history()

    for order, all_events in (("oldest", events), ("newest", events[::-1])):
        read: list[HistoryEvent] = []
        numbers: list[int] = []
        after = None
        while True:
            page = await client.get_history_page(
                handle.instance_id,
                after=after,
                page_size=size,
                order="oldest" if order == "oldest" else "newest",
            )
            read += page.items
            numbers.append(page.first)
            assert page.total == len(events)
            after = page.after
            if after is None:
                break
        assert read == all_events
        assert numbers[0] == (0 if order == "oldest" else len(events) - 1)
        assert len(numbers) == -(-len(events) // size)


async def test_queries_find_the_same_page_by_page_in_either_order(way: Way) -> None:
    for number in range(5):
        await way.client.start_new(
            "listen", instance_id=f"q{number}", tags={"even": str(number % 2 == 0)}
        )

    found = {
        order: [one.instance_id async for one in way.client.query(page_size=2, order=order)]
        for order in ("oldest", "newest")
    }
    even = [one async for one in way.client.query(tags={"even": "True"}, payloads=False)]

    assert found["oldest"] == [f"q{number}" for number in range(5)]
    assert found["newest"] == found["oldest"][::-1]
    assert even == [
        one async for one in way.hub.client.query(tags={"even": "True"}, payloads=False)
    ]
    assert await way.client.count(tags={"even": "True"}) == 3
    assert await way.client.count(statuses=["Running"], name="listen", parked=False) == 5
    now = datetime.now(UTC)
    assert await way.client.count(created_from=now) == 0
    assert await way.client.count(created_to=now, instance_id_prefix="q") == 5


async def test_changes_are_followed_and_gone_on_with(client: Client) -> None:
    with anyio.fail_after(20):
        stream = client.changes(name="listen")
        first = await anext(stream)
        await client.start_new("listen", instance_id="one")
        change = await anext(stream)
        await client.raise_event("one", "end", 5)
        again = client.changes(after=change.id, name="listen")
        ended = await anext(again)
        while ended.status is None or not ended.status.is_completed:
            ended = await anext(again)

    assert (first.kind, change.kind, change.instance_id) == ("reset", "changed", "one")
    assert (ended.instance_id, ended.status.output) == ("one", 5)


async def test_changes_of_one_instance_are_followed(way: Way) -> None:
    with anyio.fail_after(20):
        stream = way.client.changes(instance_id="one")
        await anext(stream)
        await way.client.start_new("listen", instance_id="other")
        await way.client.start_new("listen", instance_id="one")
        assert (await anext(stream)).instance_id == "one"
        with pytest.raises(UsageError, match="after must be the id of a change"):
            await anext(way.client.changes(after="soon"))


async def test_why_an_instance_waits_and_how_it_came_there_is_told_alike(way: Way) -> None:
    handle = await way.client.start_new("listen", instance_id="waits")
    with anyio.fail_after(10):
        while not (await handle.explain()).events:
            await anyio.sleep(0.001)

    here = way.hub.client
    assert await way.client.explain("waits") == await here.explain("waits")
    assert await way.client.trace("waits") == await here.trace("waits")
    page = await way.client.trace("waits", after=1, limit=1)
    assert page == await here.trace("waits", after=1, limit=1)
    thing = EntityId("thing", "x")
    assert await way.client.explain(thing) == await here.explain(thing)
    await told(InstanceNotFoundError, way, "explain", "nobody")
    await told(InstanceNotFoundError, way, "trace", "nobody")


IDS = [".", "..", "a/b", "a%2Fb", "%", "ü☃", "?x=1#y", "a b+c", "history", "actions", "x" * 256]


async def test_an_id_may_hold_what_a_path_means_something_by(way: Way) -> None:
    for id in IDS:
        handle = await way.client.start_new("listen", instance_id=id)
        await handle.raise_event("end", id)
        assert await handle.result(10) == id
        assert await way.hub.client.get_status(id) == await handle.status()
    assert await way.client.count() == len(IDS)


@pytest.mark.parametrize("method", ["query_page", "count", "purge", "query_entities_page"])
async def test_a_condition_that_there_is_not_is_refused_and_not_left_out(
    client: Client, method: str
) -> None:
    await (await client.start_new("hello", "you", instance_id="kept")).result(10)

    with pytest.raises(TypeError, match="instance_id_prefx"):
        await getattr(client, method)(instance_id_prefx="none")

    assert await client.get_status("kept") is not None


async def test_an_instance_is_forked(way: Way) -> None:
    handle = await way.client.start_new("listen", instance_id="one")
    count = (await way.client.get_history_page("one")).total

    fork = await handle.fork(at=count - 1, instance_id="two", request_id="r")
    again = await way.client.fork("one", at=count - 1, new_instance_id="two", request_id="r")
    other = await way.client.fork("one", at=count - 1)
    await fork.raise_event("end", 5)

    assert (fork.instance_id, again.instance_id) == ("two", "two")
    assert other.instance_id not in ("one", "two")
    assert await fork.result(10) == 5
    assert (await handle.status()).runtime_status == RuntimeStatus.RUNNING
    await told(ForkError, way, "fork", "one", at=count)
    await told(InstanceNotFoundError, way, "fork", "nobody", at=0)
    await told(
        InstanceAlreadyExistsError,
        way,
        "fork",
        "one",
        at=count - 1,
        new_instance_id=other.instance_id,
    )
    await told(UsageError, way, "fork", "one", at=-1)
    await told(UsageError, way, "fork", "one", at=0, new_instance_id="one")
