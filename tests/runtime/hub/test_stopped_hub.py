from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    Client,
    EntityId,
    Hub,
    InstanceNotFoundError,
    OrchestrationContext,
    RuntimeStatus,
    StoreDamagedError,
    UnavailableError,
    UsageError,
)
from perdure.storage.postgres import folding
from tests.storage.files import change

app = App("left")


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@app.orchestration
async def wait_for_go(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("Go")


@app.orchestration
async def double(ctx: OrchestrationContext, number: int) -> int:
    return 2 * number


async def leave_things(folder: Path) -> None:
    async with Hub(app, store=folder) as hub:
        await hub.client.start_new(wait_for_go, instance_id="waits")
        await (await hub.client.start_new(double, 4, instance_id="ended")).result(timeout=20)
        await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 3)
        if folder.name == "killed":
            print("left", flush=True)
            sys.stdin.read()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hub that stopped in order has left, and what one that was killed."""
    made = tmp_path_factory.mktemp("stopped")
    for name in ("in order", "killed"):
        place = f"import anyio, pathlib; from tests.runtime.hub import test_stopped_hub as t; anyio.run(t.leave_things, pathlib.Path({str(made / name)!r}))"
        child = subprocess.Popen(
            [sys.executable, "-c", place],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert child.stdout is not None
            child.stdout.read(1)
        finally:
            if name == "killed":
                child.kill()
            child.communicate(timeout=30)
    return made


@pytest.fixture(params=["in order", "killed"])
def folder(folders: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(folders / request.param, tmp_path / "hub"))


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.by_turns
async def test_what_a_hub_has_left_is_read_without_it_and_without_its_application(
    folder: Path,
) -> None:
    async with perdure.read_store(f"sqlite:{folder}") as client:
        found = [status async for status in client.query()]
        count = await client.count(statuses=["Running"])
        history = await client.get_history("waits")
        result = await client.get_handle("ended").result()
        entities = [status async for status in client.query_entities()]
        entity = await client.get_entity(EntityId("counter", "a"))
        state = await client.read_entity_state(EntityId("counter", "a"))

    assert [(one.instance_id, one.runtime_status, one.output) for one in found] == [
        ("waits", RuntimeStatus.RUNNING, None),
        ("ended", RuntimeStatus.COMPLETED, 8),
    ]
    assert count == 1
    assert history[0].event_type == "ExecutionStarted"
    assert result == 8
    assert [(str(one.entity_id), one.state) for one in entities] == [("@counter@a", {"value": 3})]
    assert entity == entities[0]
    assert state == {"value": 3}


@pytest.mark.by_turns
async def test_nothing_is_written_where_it_is_read(folder: Path) -> None:
    before = content(folder)

    async with perdure.read_store(folder) as client:
        await client.count()
        await client.get_status("waits")
        while_read = content(folder)

    assert while_read == before
    assert content(folder) == before


@pytest.mark.by_turns
async def test_what_is_waited_for_is_explained_with_its_line_where_the_application_is_given(
    folder: Path,
) -> None:
    async with perdure.read_store(folder, app) as client:
        explained = await client.explain("waits")
        entity = await client.explain(EntityId(Counter, "a"))
        steps = await client.trace("waits")
    async with perdure.read_store(folder) as client:
        without = await client.explain("waits")
        with pytest.raises(InstanceNotFoundError):
            await client.explain("nobody")

    [branch] = explained.branches
    assert branch.place is not None
    assert branch.place.text is not None
    assert "wait_for_external_event" in branch.place.text
    assert [event.name for event in explained.events] == ["Go"]
    assert entity.exists
    assert steps.steps
    assert without.runtime_status == RuntimeStatus.RUNNING
    assert "wait_for_go" in (without.code_trouble or "")


ASKED: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "start": lambda client: client.start_new("double", 1),
    "event": lambda client: client.raise_event("waits", "Go"),
    "terminate": lambda client: client.terminate("waits"),
    "restart": lambda client: client.restart("ended"),
    "purge": lambda client: client.purge(),
    "call": lambda client: client.call_entity(EntityId("counter", "a"), "add", 1),
    "signal": lambda client: client.signal_entity(EntityId("counter", "a"), "add", 1),
    "signals": lambda client: client.signal_entities([(EntityId("counter", "a"), "add", 1)]),
    "purge entity": lambda client: client.purge_entity(EntityId("counter", "a")),
    "clean": lambda client: client.clean_entity_storage(),
    "wait": lambda client: client.get_handle("waits").result(),
    "statistics": lambda client: client.statistics(),
    "move": lambda client: client.move_partition(0, 0),
    "nodes": lambda client: client.nodes(),
    "drain": lambda client: client.drain_node(0),
    "undrain": lambda client: client.undrain_node(0),
    "describe": lambda client: client.describe(),
    "changes": lambda client: anext(client.changes()),
    "by name": lambda client: client.ask("signal", {"entity": "@counter@a", "operation": "add"}),
}


@pytest.mark.parametrize("what", ASKED)
async def test_what_takes_a_hub_that_runs_is_refused_with_how_to_start_one(
    folders: Path, what: str
) -> None:
    async with perdure.read_store(folders / "in order") as client:
        with pytest.raises(UnavailableError, match=r"no hub runs at .*perdure serve"):
            await ASKED[what](client)


async def test_where_no_hub_has_been_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no hub has its files in"):
        async with perdure.read_store(tmp_path / "nowhere"):
            pass

    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("place", ["http://localhost:1", "", 5])
async def test_what_is_no_store_is_refused(place: Any) -> None:
    with pytest.raises(UsageError, match="place must be"):
        async with perdure.read_store(place):
            pass


async def test_damage_is_told_of_the_folder_and_not_of_its_copy(folder: Path) -> None:
    with (folder / "partition-01.sqlite").open("r+b") as file:
        file.write(b"x" * 4096)

    with pytest.raises(StoreDamagedError, match="partition-01") as caught:
        async with perdure.read_store(folder):
            pass

    assert str(folder) in str(caught.value)


async def test_files_that_lack_an_index_are_read_and_left_as_they_are(
    folders: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders / "in order", tmp_path / "hub"))
    change(folder / "partition-00.sqlite", "DROP INDEX instance_parked")
    before = content(folder)

    async with perdure.read_store(folder) as client:
        count = await client.count()

    assert count == 2
    assert content(folder) == before


async def test_who_reads_beside_a_hub_that_has_started_is_told(
    folders: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders / "in order", tmp_path / "hub"))
    async with perdure.read_store(folder) as client:
        before = await client.count()
        async with Hub(app, store=folder):
            with pytest.raises(UnavailableError, match="a hub is at work in"):
                await client.count()

    assert before == 2


@pytest.mark.by_turns
async def test_a_hub_that_listens_nowhere_is_read_while_it_rests(
    folders: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders / "in order", tmp_path / "hub"))
    async with Hub(app, store=folder) as hub:
        await hub.client.start_new(double, 1, instance_id="new")
        await hub.client.get_handle("new").result(timeout=20)

        async with perdure.read_store(folder) as client:
            status = await client.get_status("new")

    assert status is not None
    assert status.output == 2


async def test_a_trace_says_that_a_history_is_damaged_and_not_that_it_goes_on(
    folders: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders / "in order", tmp_path / "hub"))
    for number in range(4):
        change(folder / f"partition-{number:02}.sqlite", "DELETE FROM history_row")

    async with perdure.read_store(folder) as client:
        [first, *_] = (await client.query_page()).items
        with pytest.raises(StoreDamagedError, match="history"):
            await client.trace(first.instance_id)


@pytest.mark.by_turns
async def test_a_database_is_read_while_its_hub_serves_and_its_journal_is_not_folded(
    newest_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "GATHER_S", 3600.0)
    async with Hub(app, store=newest_postgres, partitions=4) as hub:
        await hub.client.start_new(wait_for_go, instance_id="waits")
        await (await hub.client.start_new(double, 4, instance_id="ended")).result(timeout=20)
        await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 3)
        async with perdure.read_store(newest_postgres) as client:
            found = {status.instance_id async for status in client.query()}
            count = await client.count(statuses=["Running"])
            history = await client.get_history("waits")
            state = await client.read_entity_state(EntityId("counter", "a"))
            nodes = await client.nodes()
            with pytest.raises(UnavailableError, match="perdure serve MODULE:APP --store"):
                await client.get_handle("waits").raise_event("Go")
        # It holds nothing of the hub's up.
        await hub.client.get_handle("waits").raise_event("Go", 1)
        assert await hub.client.get_handle("waits").result(timeout=20) == 1

    assert found == {"waits", "ended"}
    assert count == 1
    assert history[0].event_type == "ExecutionStarted"
    assert state == {"value": 3}
    assert len(nodes.nodes) == 1
