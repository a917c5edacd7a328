from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from perdure import EntityId, Hub
from perdure.storage.postgres import PostgresStore
from tests.adapters.cli.conftest import QUICK
from tests.adapters.cli.shop import Counter, Run, app, double, wait_for_go


def test_what_only_reads_is_read_from_the_files_where_no_hub_runs(run: Run, stopped: str) -> None:
    listed = run("list", stopped, "--json").values
    count = run("list", stopped, "--count")
    shown = run("show", stopped, "ended")
    events = run("history", stopped, "ended", "--json").values
    entities = run("entities", stopped, "--json").values
    entity = run("entity", stopped, "@counter@a")
    parked = run("parked", stopped)
    result = run("wait", stopped, "ended")

    assert [one["instance_id"] for one in listed] == ["ended", "works", "waits"]
    assert count.out == "3\n"
    assert "Completed" in shown.out
    assert [event["event_type"] for event in events] == ["ExecutionStarted", "ExecutionCompleted"]
    assert [one["entity_id"] for one in entities] == ["@counter@a"]
    assert '{"value":3}' in entity.out
    assert parked == (0, "", "nothing is parked\n")
    assert result.out == "8\n"


def test_what_is_stored_is_explained_and_with_the_application_the_lines_as_well(
    run: Run, stopped: str
) -> None:
    without = run("explain", stopped, "waits")
    explained = run("explain", stopped, "waits", "--app", "tests.adapters.cli.shop:app")
    works = run("explain", stopped, "works")

    assert without.status == explained.status == 0
    assert "--app MODULE:APP" in without.out
    assert 'return await ctx.wait_for_external_event("Go")' in explained.out
    assert "Go, since" in explained.out
    assert "hang, attempt 1: has not ended, and no hub runs it, called" in works.out


def test_what_has_ended_is_said_to_wait_for_nothing(run: Run, stopped: str) -> None:
    explained = run("explain", stopped, "ended")

    assert "it has ended and waits for nothing; perdure show says how" in explained.out
    assert "no word of its code" not in explained.out


def test_one_who_wants_a_change_is_told_how_to_start_a_hub(run: Run, stopped: str) -> None:
    ended = run("raise-event", stopped, "waits", "Go")

    assert f"perdure serve MODULE:APP --store {stopped}" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "double", "1"),
        ("raise-event", "waits", "Go"),
        ("signal", "@counter@a", "add", "1"),
        ("call", "@counter@a", "add", "1"),
        ("cancel", "waits"),
        ("terminate", "waits", "--yes"),
        ("purge", "ended", "--yes"),
        ("retry", "waits"),
        ("wait", "waits"),
        ("shards", "--once"),
    ],
    ids=lambda one: one[0],
)
def test_what_takes_a_running_hub_says_that_none_runs(
    run: Run, stopped: str, arguments: tuple[str, ...]
) -> None:
    command, *rest = arguments

    ended = run(command, stopped, *rest)

    assert ended.status == 4
    assert ended.err.startswith("perdure: no hub ")


def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    ended = run("list", f"sqlite:{tmp_path / 'none'}")

    assert ended.status == 4
    assert "no hub has its files in" in ended.err
    assert not (tmp_path / "none").exists()


@pytest.fixture
def database(newest_postgres: str) -> str:
    """A hub on PostgreSQL that nobody serves."""

    async def leave() -> None:
        async with Hub(app, store=newest_postgres, partitions=4, settings=QUICK) as hub:
            await hub.client.start_new(wait_for_go, instance_id="waits")
            await (await hub.client.start_new(double, 4, instance_id="ended")).result(timeout=20)
            await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 3)

    anyio.run(leave)
    return newest_postgres


def test_code_is_held_against_a_database_where_no_member_runs(run: Run, database: str) -> None:
    app = "tests.adapters.cli.shop:app"
    secret = f"{database}&password=hush-hush"

    ended = run("check", "--replay", secret, app, "--jobs", "1")

    words = " ".join(ended.out.split())
    assert words.startswith("Nothing found in 1 live instance and 1 entity of postgresql://")
    assert "hush-hush" not in ended.out + ended.err
    assert (ended.status, ended.err) == (0, "")  # its messages were looked at, too


def test_what_only_reads_is_read_from_the_database_where_no_member_runs(
    run: Run, database: str
) -> None:
    listed = run("list", database, "--json").values
    count = run("list", database, "--count")
    shown = run("show", database, "ended")
    events = run("history", database, "ended", "--json").values
    entities = run("entities", database, "--json").values
    entity = run("entity", database, "@counter@a")
    parked = run("parked", database)
    result = run("wait", database, "ended")
    explained = run("explain", database, "waits", "--app", "tests.adapters.cli.shop:app")

    assert [one["instance_id"] for one in listed] == ["ended", "waits"]
    assert count.out == "2\n"
    assert "Completed" in shown.out
    assert [event["event_type"] for event in events] == ["ExecutionStarted", "ExecutionCompleted"]
    assert [one["entity_id"] for one in entities] == ["@counter@a"]
    assert '{"value":3}' in entity.out
    assert parked == (0, "", "nothing is parked\n")
    assert result.out == "8\n"
    assert 'return await ctx.wait_for_external_event("Go")' in explained.out


@pytest.mark.parametrize(
    "arguments",
    [("start", "double", "1"), ("raise-event", "waits", "Go"), ("wait", "waits"), ("shards",)],
    ids=lambda one: one[0],
)
def test_what_takes_a_member_says_that_none_answers(
    run: Run, newest_postgres: str, arguments: tuple[str, ...]
) -> None:
    anyio.run(_make_hub, newest_postgres)
    command, *rest = arguments

    ended = run(command, newest_postgres, *rest)

    assert ended.status in (3, 4)
    if command != "wait":  # which reads, and there is no such instance
        assert "start one" in ended.err
        assert ended.status == 4


async def _make_hub(place: str) -> None:
    store = PostgresStore(place)
    await store.open(4)
    await store.close()


def test_no_hub_is_made_in_a_database_that_has_none(run: Run, newest_postgres: str) -> None:
    first, second = run("list", newest_postgres), run("list", newest_postgres)

    assert first.status == second.status == 4
    assert "there is no hub in" in second.err
