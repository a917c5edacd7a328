"""Durable Functions' HTTP API: one case for each endpoint and status that its tables name."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import anyio
import anyio.lowlevel
import httpx
import pytest
from attrs import field, frozen

from perdure import EntityId, HistoryEvent, RuntimeStatus
from tests.adapters.http.serving import SDK, WEBHOOKS, Served, served

pytestmark = pytest.mark.by_turns

Prepare = Callable[[Served], Awaitable[None]]

SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@frozen
class Case:
    """A request, what is there before it, and what is answered."""

    ask: str
    status: int
    before: Prepare | None = None
    body: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str])
    gives: Any = ...  # the whole body, where it is not looked at apart

    @property
    def title(self) -> str:
        path = self.ask.replace("/", "_")
        prepared = getattr(self.before, "__name__", "")
        return f"{path}-{self.status}-{prepared}"[:90]


async def ended(it: Served) -> None:
    await it.run("echo", {"a": 1}, id="i")


async def failed(it: Served) -> None:
    await it.run("fail", id="i")


async def terminated(it: Served) -> None:
    await live(it)
    await it.client.terminate("i", "enough")


async def canceled(it: Served) -> None:
    await live(it)
    await it.client.cancel("i", "enough")
    await it.ended("i")


async def live(it: Served) -> None:
    await it.client.start_new("approval", {"a": 1}, instance_id="i")
    await it.reaches("i", RuntimeStatus.RUNNING)


async def purge(it: Served) -> None:
    await it.client.start_new("approval", instance_id="purge")


async def suspended(it: Served) -> None:
    await live(it)
    await it.client.suspend("i", "")
    await it.reaches("i", RuntimeStatus.SUSPENDED)


async def scheduled(it: Served) -> None:
    later = timedelta(hours=1)
    await it.client.start_new("echo", 1, instance_id="i", start_at=later)


async def counted(it: Served) -> None:
    await it.client.call_entity(EntityId("Counter", "k"), "add", 2)


FROM = "createdTimeFrom=2020-01-01"
LATE = "createdTimeFrom=2999-01-01T00:00:00Z"
JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}

TABLE = [
    # 1: start
    Case("POST /orchestrators/echo", 202),
    Case("POST /orchestrators/echo/", 202),
    Case("POST /orchestrators/echo/i", 202, body={"a": 1}),
    Case("POST /ORCHESTRATORS/echo/i", 202),
    Case("POST /orchestrators/versioned?version=2", 202),
    Case("POST /orchestrators/versioned?version=9", 400),
    Case("POST /orchestrators/echo/i?timeout=5&pollingInterval=1", 200, body=[1], gives=[1]),
    Case("POST /orchestrators/echo/i?timeout=5", 200, body="x", gives="x"),
    Case("POST /orchestrators/approval/i?timeout=0.01&pollingInterval=0.01", 202),
    Case("POST /orchestrators/fail/i?timeout=5", 200),
    Case("POST /orchestrators/fail/i?timeout=5&returnInternalServerErrorOnFailure=true", 500),
    Case("POST /orchestrators/echo/i?timeout=1&pollingInterval=2", 400),
    Case("POST /orchestrators/echo/i?timeout=soon", 400),
    Case("POST /orchestrators/echo/i", 400, content=b"{"),
    Case("POST /orchestrators/echo/i", 400, content=b"\xff"),
    Case("POST /orchestrators/unknown", 400),
    Case("POST /orchestrators/count", 400, body="no number"),
    Case("POST /orchestrators/echo/@i", 400),
    Case("POST /orchestrators/echo/i", 500, live),
    Case("POST /orchestrators/echo/i", 202, ended),
    Case("GET /orchestrators/echo", 404),
    # 2: status
    Case("GET /instances/i", 202, live),
    Case("GET /instances/i", 202, scheduled),
    Case("GET /instances/i", 202, suspended),
    Case("GET /instances/i", 200, ended),
    Case("GET /instances/i", 200, failed),
    Case("GET /instances/i", 200, terminated),
    Case("GET /instances/i", 200, canceled),
    Case("GET /instances/i?returnInternalServerErrorOnFailure=true", 500, failed),
    Case("GET /instances/i?returnInternalServerErrorOnFailure=true", 200, terminated),
    Case("GET /instances/i?showHistory=maybe", 400, ended),
    Case("GET /instances/nobody", 404),
    Case("GET /instances/@counter@k", 404, counted),
    Case("HEAD /instances/nobody", 404),
    # 3: list
    Case("GET /instances", 200, gives=[]),
    Case("GET /instances/", 200, gives=[]),
    Case(f"GET /instances/?{LATE}", 200, ended, gives=[]),
    Case("GET /instances?runtimeStatus=Running,pending", 200, ended, gives=[]),
    Case("GET /instances?instanceIdPrefix=j", 200, ended, gives=[]),
    Case("GET /instances?runtimeStatus=Dead", 400),
    Case("GET /instances?createdTimeFrom=yesterday", 400),
    Case("GET /instances?top=0", 400),
    Case("GET /instances", 400, headers={"x-ms-continuation-token": "no token"}),
    # 4: purge one
    Case("DELETE /instances/i", 200, ended, gives={"instancesDeleted": 1}),
    Case("DELETE /instances/i", 404),
    Case("DELETE /instances/i", 404, live),
    # 5: purge many
    Case(f"DELETE /instances?{FROM}", 200, ended, gives={"instancesDeleted": 1}),
    Case(f"DELETE /instances/?{FROM}&runtimeStatus=Failed", 200, failed),
    Case(f"DELETE /instances?{FROM}&runtimeStatus=Completed", 404, failed),
    Case(f"DELETE /instances?{FROM}", 404, live),
    Case(f"DELETE /instances?{FROM}&createdTimeTo=2020-01-02", 404, ended),
    Case(f"DELETE /instances?{LATE}", 404, ended),
    Case("DELETE /instances", 400, ended),
    Case(f"POST /instances/purge?{FROM}", 200, ended, gives={"instancesDeleted": 1}),
    Case(f"POST /instances/purge?{FROM}", 404),
    Case("GET /instances/purge", 202, purge),
    Case("DELETE /instances/purge", 404, purge),
    Case(f"DELETE /instances?{FROM}&runtimeStatus=Running", 400, ended),
    # 6: raise an event
    Case("POST /instances/i/raiseEvent/Approved", 202, live, body=True),
    Case("POST /instances/i/raiseevent/approved", 202, live, body=True),
    Case("POST /instances/i/raiseEvent/Approved", 202, live, headers=JSON),
    Case("POST /instances/i/raiseEvent/Other", 202, live, body=None, content=b"null", headers=JSON),
    Case("POST /instances/nobody/raiseEvent/Approved", 404, content=b"{", headers=TEXT),
    Case("POST /instances/i/raiseEvent/Approved", 410, ended, content=b"{", headers=TEXT),
    Case("POST /instances/i/raiseEvent/Approved", 410, failed, body=True),
    Case("POST /instances/i/raiseEvent/Approved", 410, canceled, body=True),
    Case("POST /instances/i/raiseEvent/Approved", 410, terminated, body=True),
    Case("POST /instances/i/raiseEvent/Approved", 400, live, content=b"true", headers=TEXT),
    Case("POST /instances/i/raiseEvent/Approved", 400, live, content=b"true"),
    Case("POST /instances/i/raiseEvent/Approved", 400, live, content=b"{", headers=JSON),
    # 7, 8, 9: terminate, suspend, resume
    *(
        Case(f"POST /instances/{id}/{what}{query}", status, before)
        for what in ("terminate", "suspend", "resume")
        for id, query, status, before in (
            ("i", "?reason=why", 202, live),
            ("i", "", 202, suspended),
            ("nobody", "?reason=why", 404, None),
            ("i", "?reason=why", 410, ended),
            ("i", "", 410, terminated),
        )
    ),
    # 10: rewind
    Case("POST /instances/i/rewind?reason=why", 202, failed),
    Case("POST /instances/nobody/rewind", 404),
    Case("POST /instances/i/rewind", 410, ended),
    Case("POST /instances/i/rewind", 410, terminated),
    Case("POST /instances/i/rewind", 410, canceled),
    Case("POST /instances/i/rewind", 400, live),
    # 11: restart
    Case("POST /instances/i/restart", 202, ended),
    Case("POST /instances/i/restart", 202, live),
    Case("POST /instances/i/restart?restartWithNewInstanceId=false", 202, ended),
    Case("POST /instances/i/restart?timeout=5&pollingInterval=1", 200, ended, gives={"a": 1}),
    Case("POST /instances/nobody/restart", 400),
    Case("POST /instances/i/restart?restartWithNewInstanceId=false", 500, live),
    # 12
    Case("POST /makeprimary/", 200),
    Case("POST /makeprimary", 200),
    # 13: signal
    Case("POST /entities/counter/k?op=add", 202, body=3),
    Case("POST /entities/Counter/k?OP=add", 202, body=3),
    Case("POST /entities/anything/k?op=said", 202, content=b"hello", headers=TEXT),
    Case("POST /entities/counter/k?op=add", 400, content=b"{", headers=JSON),
    Case("POST /entities/counter/k?op=add", 400, content=b"\xff", headers=TEXT),
    Case("POST /entities/counter/k?op=add", 400, content=b"three", headers=TEXT),
    Case("POST /entities/counter/k?op=unknown", 400),
    Case("POST /entities/counter/k", 400),
    Case("POST /entities/unknown/k?op=add", 400, body=3),
    # 14: delete
    Case("DELETE /entities/counter/k", 202, counted),
    Case("DELETE /entities/unknown/k", 400),
    # 15: state
    Case("GET /entities/counter/k", 200, counted, gives={"value": 2}),
    Case("GET /entities/Counter/k", 200, counted, gives={"value": 2}),
    Case("GET /entities/counter/nobody", 404),
    Case("GET /entities/counter/$", 404),
    Case("GET /entities/unknown/k", 404),
    # 16: list of entities
    Case("GET /entities", 200, gives=[]),
    Case("GET /entities/", 200, gives=[]),
    Case("GET /entities/counter", 200, gives=[]),
    Case("GET /entities?lastOperationTimeFrom=2999-01-01", 200, counted, gives=[]),
    Case("GET /entities?lastOperationTimeTo=2020-01-01", 200, counted, gives=[]),
    Case("GET /entities?top=many", 400),
    Case("GET /entities", 400, headers={"x-ms-continuation-token": "no token"}),
    # what is no endpoint
    Case("PUT /instances/i", 404, live),
    Case("POST /instances/i/unknown", 404, live),
    Case("GET /", 404),
]


async def send(it: Served, case: Case, prefix: str = WEBHOOKS) -> httpx.Response:
    method, _, path = case.ask.partition(" ")
    if case.body is not None:
        return await it.http.request(method, prefix + path, json=case.body, headers=case.headers)
    return await it.http.request(
        method, prefix + path, content=case.content, headers=dict(case.headers)
    )


@pytest.mark.parametrize(
    "case", TABLE, ids=[f"{number}-{case.title}" for number, case in enumerate(TABLE)]
)
async def test_every_endpoint_answers_as_the_tables_say(case: Case) -> None:
    async with served() as it:
        if case.before is not None:
            await case.before(it)
        answer = await send(it, case)

    assert answer.status_code == case.status, answer.text
    is_status = "runtimeStatus" in answer.text
    if case.status >= 400 and not is_status and not case.ask.startswith("HEAD"):
        body = answer.json()
        assert body["Message"]
        assert body["ExceptionMessage"]
    if case.gives is not ...:
        assert answer.json() == case.gives


async def test_a_start_answers_with_the_links_to_manage_it() -> None:
    async with served() as it:
        answer = await it.http.post(f"{WEBHOOKS}/orchestrators/approval/my%20id?code=abc%2B")

    links = answer.json()
    base = f"http://localhost{WEBHOOKS}/instances/my%20id"
    rest = "taskHub=perdure&connection=Storage&code=abc%2B"
    assert links == {
        "id": "my id",
        "statusQueryGetUri": f"{base}?{rest}",
        "sendEventPostUri": f"{base}/raiseEvent/{{eventName}}?{rest}",
        "terminatePostUri": f"{base}/terminate?reason={{text}}&{rest}",
        "rewindPostUri": f"{base}/rewind?reason={{text}}&{rest}",
        "purgeHistoryDeleteUri": f"{base}?{rest}",
        "restartPostUri": f"{base}/restart?{rest}",
        "suspendPostUri": f"{base}/suspend?reason={{text}}&{rest}",
        "resumePostUri": f"{base}/resume?reason={{text}}&{rest}",
    }
    assert answer.headers["location"] == links["statusQueryGetUri"]
    assert answer.headers["retry-after"] == "10"


async def test_the_links_of_a_start_lead_where_they_say() -> None:
    async with served() as it:
        links = (await it.http.post(f"{WEBHOOKS}/orchestrators/approval")).json()
        asked = {
            name: await it.http.post(links[name].replace("{text}", "why"))
            for name in ("suspendPostUri", "resumePostUri")
        }
        sent = await it.http.post(
            links["sendEventPostUri"].replace("{eventName}", "Approved"), json={"by": "me"}
        )
        await it.ended(links["id"])
        status = await it.http.get(links["statusQueryGetUri"])
        restarted = await it.http.post(links["restartPostUri"])
        purged = await it.http.delete(links["purgeHistoryDeleteUri"])
        gone = await it.http.post(links["terminatePostUri"])

    assert {name: one.status_code for name, one in asked.items()} == dict.fromkeys(asked, 202)
    assert (sent.status_code, sent.content) == (202, b"")
    assert status.json()["output"] == {"by": "me"}
    assert restarted.json()["id"] != links["id"]
    assert purged.json() == {"instancesDeleted": 1}
    assert gone.status_code == 404


async def test_a_status_is_written_as_the_family_writes_it() -> None:
    async with served() as it:
        await it.run("count", 21, id="c")
        body = (await it.http.get(f"{WEBHOOKS}/instances/c")).json()
        hidden = (await it.http.get(f"{WEBHOOKS}/instances/c?showInput=false")).json()

    created, updated = body.pop("createdTime"), body.pop("lastUpdatedTime")
    assert body == {
        "name": "count",
        "instanceId": "c",
        "runtimeStatus": "Completed",
        "input": 21,
        "customStatus": {"asked": 21},
        "output": 42,
        "historyEvents": None,
    }
    assert SECONDS.fullmatch(created)
    assert SECONDS.fullmatch(updated)
    assert hidden["input"] is None


async def test_a_live_instance_says_when_and_where_to_look_again() -> None:
    async with served() as it:
        await live(it)
        answer = await it.http.get(f"{WEBHOOKS}/instances/i?code=%41&showInput=false")

    assert answer.headers["retry-after"] == "5"
    assert answer.headers["location"] == (
        f"http://localhost{WEBHOOKS}/instances/i?code=%41&showInput=false"
    )


@pytest.mark.parametrize(
    ("before", "output"),
    [
        (failed, "Orchestrator function 'fail' failed: ValueError: no luck"),
        (terminated, "enough"),
        (canceled, "enough"),
    ],
)
async def test_the_output_of_what_did_not_complete_says_why(before: Prepare, output: str) -> None:
    async with served() as it:
        await before(it)
        answer = await it.http.get(f"{WEBHOOKS}/instances/i")

    assert answer.json()["output"] == output
    assert "Traceback" not in answer.text


async def test_a_history_has_what_was_scheduled_and_its_outcome_as_one() -> None:
    async with served() as it:
        await it.run("count", 21, id="c")
        url = f"{WEBHOOKS}/instances/c?showHistory=true"
        plain = (await it.http.get(url)).json()["historyEvents"]
        full = (await it.http.get(f"{url}&showHistoryOutput=true")).json()["historyEvents"]

    assert [one["EventType"] for one in plain] == [
        "ExecutionStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    started, task, completed = full
    assert started["FunctionName"] == "count"
    assert (task["FunctionName"], task["Result"]) == ("double", 42)
    assert EXACT.fullmatch(task["ScheduledTime"])
    assert EXACT.fullmatch(task["Timestamp"])
    assert (completed["OrchestrationStatus"], completed["Result"]) == ("Completed", 42)
    assert not any("Result" in one for one in plain)


async def test_a_history_shows_timers_and_events() -> None:
    async with served() as it:
        await it.run("timed", id="t")
        await live(it)
        await it.client.raise_event("i", "Approved", {"by": "me"})
        await it.ended("i")
        asked = "?showHistory=true"
        timed = (await it.http.get(f"{WEBHOOKS}/instances/t{asked}")).json()["historyEvents"]
        raised = (await it.http.get(f"{WEBHOOKS}/instances/i{asked}")).json()["historyEvents"]

    fired = next(one for one in timed if one["EventType"] == "TimerFired")
    event = next(one for one in raised if one["EventType"] == "EventRaised")
    assert EXACT.fullmatch(fired["FireAt"])
    assert "TimerCreated" not in {one["EventType"] for one in timed}
    assert (event["Name"], event["Input"]) == ("approved", {"by": "me"})


async def test_a_history_shows_a_failed_call_with_its_reason() -> None:
    from perdure import App, OrchestrationContext

    app = App()

    @app.activity
    def break_down() -> None:
        raise ValueError("no luck")

    @app.orchestration
    async def call(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(break_down)

    async with served(app) as it:
        await it.run("call", id="c")
        answer = await it.http.get(f"{WEBHOOKS}/instances/c?showHistory=true")

    failed = next(one for one in answer.json()["historyEvents"] if one["EventType"] == "TaskFailed")
    assert (failed["FunctionName"], failed["Reason"]) == ("break_down", "ValueError: no luck")
    assert failed["Details"] == "no luck"
    assert "Traceback" not in answer.text


async def test_a_list_goes_on_by_the_token_in_its_header() -> None:
    async with served() as it:
        for number in range(5):
            await it.run("echo", number, id=f"i{number}")
        ids: list[str] = []
        token, pages = "", 0
        while True:
            headers = {"x-ms-continuation-token": token} if token else {}
            page = await it.http.get(f"{WEBHOOKS}/instances?top=2", headers=headers)
            ids += [one["instanceId"] for one in page.json()]
            pages += 1
            token = page.headers.get("x-ms-continuation-token", "")
            if not token:
                break

    assert ids == [f"i{number}" for number in range(5)]
    assert pages == 3


async def test_a_list_of_entities_goes_on_by_the_token_in_its_header() -> None:
    async with served() as it:
        for number in range(5):
            await it.client.call_entity(EntityId("Counter", f"k{number}"), "add", number)
        found: list[Any] = []
        token = ""
        while True:
            headers = {"x-ms-continuation-token": token} if token else {}
            page = await it.http.get(
                f"{WEBHOOKS}/entities/Counter?top=2&fetchState=true", headers=headers
            )
            found += page.json()
            token = page.headers.get("x-ms-continuation-token", "")
            if not token:
                break
        plain = (await it.http.get(f"{WEBHOOKS}/entities")).json()

    assert [one["entityId"] for one in found] == [
        {"name": "counter", "key": f"k{number}"} for number in range(5)
    ]
    assert [one["state"] for one in found] == [{"value": number} for number in range(5)]
    assert EXACT.fullmatch(found[0]["lastOperationTime"])
    assert all("state" not in one for one in plain)


async def test_a_time_may_be_given_as_the_family_and_as_others_give_it() -> None:
    async with served() as it:
        await ended(it)
        now = datetime.now(UTC) + timedelta(minutes=1)
        for given in (
            now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            now.isoformat(),
            quote(now.isoformat()),
            now.strftime("%Y-%m-%d %H:%M:%S"),
        ):
            until = await it.http.get(f"{WEBHOOKS}/instances?createdTimeTo={given}")
            since = await it.http.get(f"{WEBHOOKS}/instances?createdTimeFrom={given}")
            assert ([len(until.json()), len(since.json())]) == [1, 0], given
        early = await it.http.get(f"{WEBHOOKS}/instances?createdTimeFrom=1-01-01T00:00:00.000000Z")

    assert len(early.json()) == 1


async def test_the_end_of_a_span_belongs_to_it() -> None:
    async with served() as it:
        await ended(it)
        status = await it.client.get_status("i")
        assert status is not None
        at = quote(status.created_time.isoformat())
        answer = await it.http.get(f"{WEBHOOKS}/instances?createdTimeFrom={at}&createdTimeTo={at}")

    assert len(answer.json()) == 1


async def test_a_request_under_one_idempotency_key_is_done_once() -> None:
    once = {"Idempotency-Key": "only once"}
    async with served() as it:
        started = [
            (await it.http.post(f"{WEBHOOKS}/orchestrators/echo", json=1, headers=once)).json()[
                "id"
            ]
            for _ in range(2)
        ]
        again = {"Idempotency-Key": "and once"}
        for _ in range(2):
            await it.http.post(f"{WEBHOOKS}/entities/counter/k?op=add", json=2, headers=again)
        value = await it.client.call_entity(EntityId("Counter", "k"), "get")
        other = await it.http.post(f"{WEBHOOKS}/orchestrators/echo", json=2, headers=once)
        restart = f"{WEBHOOKS}/instances/{started[0]}/restart"
        anew = {"Idempotency-Key": "anew"}
        restarted = [(await it.http.post(restart, headers=anew)).json()["id"] for _ in range(2)]
        for id in (started[0], restarted[0]):
            await it.ended(id)
        same = {"Idempotency-Key": "the same"}
        for _ in range(2):
            await it.http.post(f"{restart}?restartWithNewInstanceId=false", headers=same)
            await it.ended(started[0])
        statuses = [one async for one in it.client.query()]

    assert started[0] == started[1]
    assert restarted[0] == restarted[1] != started[0]
    executions = {one.instance_id: one.execution for one in statuses}
    assert executions == {started[0]: 2, restarted[0]: 1}
    assert value == 2
    assert other.status_code == 422


SDK_VALUES = [
    ('{"a": 1}', {"a": 1}),
    ("true", True),
    ("5", 5),
    ('"x"', "x"),
    ("plain words", "plain words"),
    ("null", None),
]


@pytest.mark.parametrize(("text", "value"), SDK_VALUES)
async def test_language_sdks_put_json_into_a_text_and_nobody_else_does(
    text: str, value: object
) -> None:
    async with served() as it:
        outputs = [
            (await it.http.post(f"{prefix}/orchestrators/echo?timeout=5", json=text)).json()
            for prefix in (SDK, WEBHOOKS)
        ]

    assert outputs == [value, text]


async def test_the_json_of_a_text_of_a_language_sdk_is_unwrapped_once() -> None:
    async with served() as it:
        answer = await it.http.post(f"{SDK}/orchestrators/echo?timeout=5", json='"5"')

    assert answer.json() == "5"


async def test_a_language_sdk_that_asks_for_no_page_is_given_a_large_one() -> None:
    async with served() as it:
        for number in range(101):
            await it.client.start_new("echo", number, instance_id=f"i{number}")
        mine = await it.http.get(f"{SDK}/instances/?")
        theirs = await it.http.get(f"{WEBHOOKS}/instances")

    assert (len(mine.json()), len(theirs.json())) == (101, 100)


async def test_a_signal_without_a_body_has_no_input_and_an_event_has_null() -> None:
    async with served() as it:
        await it.http.post(f"{SDK}/entities/anything/k?op=bare")
        await it.http.post(f"{SDK}/entities/anything/l?op=text", content=b"x", headers=TEXT)
        await live(it)
        await it.http.post(f"{SDK}/instances/i/raiseEvent/Approved", headers=JSON)
        await it.ended("i")
        states = [(await it.http.get(f"{SDK}/entities/anything/{key}")).json() for key in "kl"]
        output = (await it.http.get(f"{SDK}/instances/i")).json()["output"]

    assert states == [["bare", None], ["text", "x"]]
    assert output is None


async def test_others_have_their_turns_while_a_long_history_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = HistoryEvent(event_type="TimerFired", timestamp=datetime.now(UTC), fields={})
    turns: dict[int, int] = {}
    written: dict[int, int] = {}
    async with served() as it:
        await it.run("echo", id="i")
        for length in (1, 20_000):

            async def history(*_: object, length: int = length) -> list[HistoryEvent]:
                return [event] * length

            async def count(length: int = length) -> None:
                while True:
                    turns[length] = turns.get(length, 0) + 1
                    await anyio.lowlevel.checkpoint()

            monkeypatch.setattr(type(it.client), "get_history", history)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(count)
                answer = await it.http.get(f"{WEBHOOKS}/instances/i?showHistory=true")
                written[length] = len(answer.json()["historyEvents"])
                tasks.cancel_scope.cancel()

    assert written == {1: 1, 20_000: 20_000}
    assert turns[20_000] > turns[1] + 10
