"""``perdure migrate``: what it says, and what it ends with."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.adapters.cli.shop import Run
from tests.storage.migrating import PARTITIONS, fill


def test_a_hub_is_moved_and_compared(run: Run, tmp_path: Path, newest_postgres: str) -> None:
    folder = tmp_path / "hub"
    anyio.run(fill, f"sqlite:{folder}")

    moved = run("migrate", str(folder), newest_postgres)
    again = run("migrate", f"sqlite:{folder}", newest_postgres, "--json")
    same = run("migrate", str(folder), newest_postgres, "--check")

    assert (moved.status, moved.err) == (0, "")
    assert f"{PARTITIONS} partitions came over: 9 instance_row" in moved.out
    assert "has moved to postgres" in moved.out
    assert json.loads(again.out)["had_ended"] is True
    assert (same.status, same.out) == (0, "both stores have the same\n")
    assert "already" in run("migrate", str(folder), newest_postgres).out


@pytest.mark.parametrize(
    "words", [["call", "Counter@a", "get"], ["nodes"], ["shards"], ["list"]], ids=" ".join
)
def test_who_asks_a_folder_that_a_hub_has_left_is_told_where_it_is(
    run: Run, tmp_path: Path, words: list[str]
) -> None:
    folder, other = tmp_path / "hub", tmp_path / "other"
    anyio.run(fill, f"sqlite:{folder}")
    assert run("migrate", str(folder), str(other)).status == 0

    asked = run(words[0], f"sqlite:{folder}", *words[1:])

    assert asked.status != 0
    assert asked.err.startswith(f"perdure: the hub of sqlite:{folder} has moved to sqlite:{other}")


def test_what_differs_is_told_with_a_status(run: Run, tmp_path: Path) -> None:
    folder, other = tmp_path / "hub", tmp_path / "other"
    anyio.run(fill, f"sqlite:{folder}")
    assert run("migrate", str(folder), str(other)).status == 0
    with closing(sqlite3.connect(other / "partition-00.sqlite")) as tables, tables:
        tables.execute("DELETE FROM timer_row")
        tables.execute("UPDATE entity_row SET state = '2'")

    found = run("migrate", str(folder), str(other), "--check")
    listed = run("migrate", str(folder), str(other), "--check", "--json")

    assert found.status == listed.status == 1
    assert found.out.splitlines() == [
        "partition 0, entity_row: 2 and 2 rows, not the same",
        "partition 0, timer_row: 1 and 0 rows",
    ]
    assert [json.loads(line)["table"] for line in listed.out.splitlines()] == [
        "entity_row",
        "timer_row",
    ]


def test_what_is_refused_ends_with_the_status_of_its_kind(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hub"

    assert run("migrate", str(folder), str(folder)).status == 2
    assert run("migrate", "http://127.0.0.1:1", str(folder)).status == 2
    nothing = run("migrate", str(folder), str(tmp_path / "other"))
    assert (nothing.status, nothing.err) == (4, f"perdure: there is no hub in sqlite:{folder}\n")
