"""Finding instances: every filter, the order, pages and their tokens."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    App,
    Hub,
    HubStoppingError,
    InvalidTimeError,
    ManualClock,
    OrchestrationContext,
    RuntimeStatus,
    UsageError,
)
from tests.runtime.orchestrating import HOUR, advance, quiet, running

app = App()


@app.orchestration
async def alpha(ctx: OrchestrationContext, how: str) -> str:
    if how == "wait":
        await ctx.wait_for_external_event("go")
    if how == "key":
        raise KeyError("k")
    if how == "value":
        raise ValueError("v")
    return how.upper()


@app.orchestration
async def beta(ctx: OrchestrationContext, how: str) -> str:
    return await ctx.call_sub_orchestrator(alpha, how, instance_id=f"child-of-{ctx.instance_id}")


KINDS = pytest.mark.parametrize("kind", ["memory", "sqlite"])

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def populated(kind: str, tmp_path: Path) -> AsyncGenerator[Hub, None]:
    """A hub with an instance each minute: done, failed, waiting, scheduled, with and without tags."""
    store = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/hub"
    clock = ManualClock(int(START.timestamp()) * 1_000_000)
    async with running(app, store, clock=clock, partitions=3) as hub:
        client = hub.client
        await client.start_new(alpha, "done", instance_id="a-done", tags={"team": "x"})
        await advance(hub, clock, 60)
        await client.start_new(alpha, "key", instance_id="a-key", tags={"team": "x", "p": "1"})
        await advance(hub, clock, 60)
        await client.start_new(alpha, "value", instance_id="a-value", tags={"team": "y"})
        await advance(hub, clock, 60)
        await client.start_new(alpha, "wait", instance_id="a-wait")
        await advance(hub, clock, 60)
        await client.start_new(beta, "wait", instance_id="b-wait", tags={"team": "x"})
        await advance(hub, clock, 60)
        await client.start_new(alpha, "wait", instance_id="a-later", start_at=100 * HOUR)
        await advance(hub, clock, 60)
        ended = await client.start_new(alpha, "wait", instance_id="a-ended")
        await ended.terminate("enough")
        held = await client.start_new(alpha, "wait", instance_id="a-held")
        await held.suspend()
        await advance(hub, clock, 60)
        await client.raise_event("a-wait", "other")  # updated in the seventh minute
        await quiet(hub)
        yield hub


async def found(hub: Hub, **conditions: Any) -> list[str]:
    """The ids that a query finds, in its order."""
    return [status.instance_id async for status in hub.client.query(**conditions)]


ALL = [
    "a-done",
    "a-key",
    "a-value",
    "a-wait",
    "b-wait",
    "child-of-b-wait",
    "a-later",
    "a-ended",
    "a-held",
]

CONDITIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ALL),
    ({"statuses": ["Completed"]}, ["a-done"]),
    ({"statuses": [RuntimeStatus.FAILED]}, ["a-key", "a-value"]),
    ({"statuses": ["Running"]}, ["a-wait", "b-wait", "child-of-b-wait"]),
    ({"statuses": ["Pending", "Terminated", "Suspended"]}, ["a-later", "a-ended", "a-held"]),
    ({"statuses": ["Canceled"]}, []),
    ({"name": "beta"}, ["b-wait"]),
    ({"name": "Beta"}, []),
    ({"instance_id_prefix": "a-"}, [name for name in ALL if name.startswith("a-")]),
    ({"instance_id_prefix": "child"}, ["child-of-b-wait"]),
    ({"instance_id_prefix": "nothing"}, []),
    ({"created_from": START + 2 * MINUTE, "created_to": START + 4 * MINUTE}, ["a-value", "a-wait"]),
    ({"created_to": START + MINUTE}, ["a-done"]),
    ({"updated_from": START + 7 * MINUTE}, ["a-wait"]),
    ({"updated_from": START + MINUTE, "updated_to": START + 3 * MINUTE}, ["a-key", "a-value"]),
    ({"completed_from": START + MINUTE}, ["a-key", "a-value", "a-ended"]),
    ({"completed_to": START + MINUTE}, ["a-done"]),
    ({"parent_instance_id": "b-wait"}, ["child-of-b-wait"]),
    ({"parent_instance_id": "a-wait"}, []),
    ({"tags": {"team": "x"}}, ["a-done", "a-key", "b-wait"]),
    ({"tags": {"team": "x", "p": "1"}}, ["a-key"]),
    ({"tags": {"team": "z"}}, []),
    ({"failure_type": "KeyError"}, ["a-key"]),
    ({"failure_type": "Terminated"}, ["a-ended"]),
    ({"parked": True}, []),
    ({"parked": False}, ALL),
    ({"name": "alpha", "tags": {"team": "x"}, "statuses": ["Failed"]}, ["a-key"]),
]


@pytest.mark.by_turns
@KINDS
async def test_a_query_finds_what_meets_every_condition_oldest_first(
    kind: str, tmp_path: Path
) -> None:
    async with populated(kind, tmp_path) as hub:
        for conditions, expected in CONDITIONS:
            assert await found(hub, **conditions) == expected, conditions


@pytest.mark.by_turns
@KINDS
@pytest.mark.parametrize("size", [1, 2, 3, 9, 10])
async def test_pages_together_give_everything_once_in_order(
    kind: str, size: int, tmp_path: Path
) -> None:
    async with populated(kind, tmp_path) as hub:
        token: str | None = None
        pages: list[list[str]] = []
        while True:
            page = await hub.client.query_page(page_size=size, continuation_token=token)
            pages.append([status.instance_id for status in page.items])
            token = page.continuation_token
            if token is None:
                break

        assert [name for page in pages for name in page] == ALL
        assert all(len(page) == size for page in pages[: len(ALL) // size])
        assert await found(hub, page_size=size) == ALL


@KINDS
async def test_pages_keep_their_conditions_and_survive_changes_behind_them(
    kind: str, tmp_path: Path
) -> None:
    async with populated(kind, tmp_path) as hub:
        first = await hub.client.query_page(name="alpha", page_size=3)
        assert [s.instance_id for s in first.items] == ["a-done", "a-key", "a-value"]
        await hub.client.get_handle("a-done").purge()
        await hub.client.get_handle("a-key").purge()

        second = await hub.client.query_page(
            name="alpha", page_size=3, continuation_token=first.continuation_token
        )

        assert [s.instance_id for s in second.items] == ["a-wait", "child-of-b-wait", "a-later"]


@pytest.mark.by_turns
@KINDS
async def test_instances_of_one_moment_are_paged_by_id(kind: str, tmp_path: Path) -> None:
    store = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/hub"
    names = sorted(f"i{n:02}" for n in range(25))
    async with running(app, store, clock=ManualClock(), partitions=4) as hub:
        for name in reversed(names):
            await hub.client.start_new(alpha, "wait", instance_id=name)

        assert await found(hub, page_size=7) == names


@KINDS
async def test_an_empty_hub_has_one_empty_page(kind: str, tmp_path: Path) -> None:
    store = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        page = await hub.client.query_page()

        assert (page.items, page.continuation_token) == ([], None)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "????",
        "ünïcode",
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"[1]").decode(),
        base64.urlsafe_b64encode(b'["x","y"]').decode(),
        base64.urlsafe_b64encode(b"[99999999999999999999999,1]").decode(),
        base64.urlsafe_b64encode(b'[1e400,"x"]').decode(),
        base64.urlsafe_b64encode(b"not json").decode(),
    ],
)
@KINDS
async def test_a_bad_token_is_refused(token: str, kind: str, tmp_path: Path) -> None:
    store = "memory:" if kind == "memory" else f"sqlite:{tmp_path}/hub"
    async with running(app, store) as hub:
        with pytest.raises(UsageError, match="continuation_token"):
            await hub.client.query_page(continuation_token=token)


@pytest.mark.by_turns
@KINDS
async def test_a_token_of_another_query_is_refused(kind: str, tmp_path: Path) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    async with populated(kind, tmp_path) as hub:
        query = hub.client.query_page
        page = await query(page_size=2, name="alpha", statuses=["Completed", "Running"])
        assert page.continuation_token is not None
        same: dict[str, Any] = {
            "name": "alpha",
            "statuses": ["Running", "Completed"],
            "continuation_token": page.continuation_token,
        }

        others: list[dict[str, Any]] = [
            {"order": "newest"},
            {"name": None},
            {"name": "beta"},
            {"statuses": None},
            {"statuses": ["Running"]},
            {"instance_id_prefix": "a"},
            *({f"{what}_from": moment} for what in ("created", "updated", "completed")),
            *({f"{what}_to": moment} for what in ("created", "updated", "completed")),
            {"parent_instance_id": "a"},
            {"failure_type": "ValueError"},
            {"tags": {"a": "b"}},
            {"parked": False},
        ]
        for other in others:
            with pytest.raises(UsageError, match="the same query gave"):
                await query(**(same | other))
        rest = await query(page_size=9, payloads=False, **same)
        assert [s.instance_id for s in (*page.items, *rest.items)] == await found(
            hub, name="alpha", statuses=["Completed", "Running"]
        )


async def test_a_token_is_taken_as_it_was_given_alone() -> None:
    async with running(app) as hub:
        for _ in range(3):
            await hub.client.start_new(alpha, "wait")
        token = (await hub.client.query_page(page_size=2)).continuation_token
        assert token is not None

        for other in (f" {token}", f"{token}\n", f"{token}=", token[:4] + "!" + token[4:]):
            with pytest.raises(UsageError, match="continuation_token"):
                await hub.client.query_page(continuation_token=other)


async def test_bad_conditions_are_refused() -> None:
    async with running(app) as hub:
        for size in (0, -1, 10_001):
            with pytest.raises(UsageError, match="page"):
                await hub.client.query_page(page_size=size)
        with pytest.raises(UsageError, match="Runing"):
            await hub.client.query_page(statuses=["Runing"])
        with pytest.raises(UsageError, match="Runing"):
            await hub.client.purge(statuses=["Runing"])
        with pytest.raises(InvalidTimeError):
            await hub.client.query_page(created_from=datetime(2030, 1, 1))  # noqa: DTZ001

        assert await found(hub) == []


@pytest.mark.by_turns
@KINDS
async def test_payloads_can_be_left_out(kind: str, tmp_path: Path) -> None:
    async with populated(kind, tmp_path) as hub:
        whole = {s.instance_id: s async for s in hub.client.query()}
        lean = {s.instance_id: s async for s in hub.client.query(payloads=False)}

        assert (whole["a-done"].input, whole["a-done"].output) == ("done", "DONE")
        assert (lean["a-done"].input, lean["a-done"].output) == (None, None)
        assert lean["a-done"].runtime_status == RuntimeStatus.COMPLETED
        assert lean["a-key"].tags == {"team": "x", "p": "1"}


@pytest.mark.by_turns
@KINDS
async def test_a_status_tells_everything(kind: str, tmp_path: Path) -> None:
    async with populated(kind, tmp_path) as hub:
        child = await hub.client.get_handle("child-of-b-wait").status()
        failed = await hub.client.get_handle("a-key").status()

        assert (child.name, child.parent_instance_id) == ("alpha", "b-wait")
        assert child.created_time == child.last_updated_time == START + 4 * MINUTE
        assert child.created_time.tzinfo is not None
        assert (child.completed_time, child.output, child.failure) == (None, None, None)
        assert (child.execution, child.version, child.is_completed) == (1, None, False)
        assert failed.completed_time == START + MINUTE
        assert failed.is_completed
        assert failed.failure is not None
        assert failed.failure.error_type == "KeyError"


async def test_a_stopped_hub_refuses_everything() -> None:
    async with running(app) as hub:
        client = hub.client
        handle = await client.start_new(alpha, "wait")

    with pytest.raises(HubStoppingError):
        await client.start_new(alpha, "done")
    with pytest.raises(HubStoppingError):
        await handle.raise_event("go")
    with pytest.raises(HubStoppingError):
        await handle.status()
    with pytest.raises(HubStoppingError):
        await client.query_page()
    with pytest.raises(HubStoppingError):
        _ = hub.client


async def test_no_status_at_all_is_refused_where_it_could_stand_for_all_of_them() -> None:
    async with Hub(app) as hub:
        for ask in (hub.client.query_page, hub.client.count, hub.client.purge):
            with pytest.raises(UsageError, match="statuses must be one status or more"):
                await ask(statuses=[])
