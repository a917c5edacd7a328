from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import HubNodes, NodePartition, NodeStatus, StorageError, UnavailableError
from perdure.adapters.cli import members
from perdure.adapters.cli.screen import Screen
from tests.adapters.cli.cluster import members_at
from tests.adapters.cli.shop import Run

SECRET = "hush-hush"


@pytest.fixture
def shared(newest_postgres: str) -> Iterator[str]:
    """The place of a hub that two members serve, with a password that nobody asks for."""
    with members_at(newest_postgres):
        yield newest_postgres


def with_password(place: str) -> str:
    return f"{place}&password={SECRET}"


def node(member: int = 1, **changes: Any) -> NodeStatus:
    given: dict[str, Any] = {
        "member": member,
        "address": "10.0.0.1:7000",
        "host": "north",
        "pid": 77,
        "software": "0.1.0",
        "app_hash": "abcdef",
        "is_other_version": False,
        "http": "http://10.0.0.1:80",
        "weight": 1.0,
        "is_draining": False,
        "joined": datetime(2026, 1, 1, tzinfo=UTC),
        "beat_age_s": 1.5,
        "is_expired": False,
        "is_this": False,
        "partitions": (),
    }
    return NodeStatus(**{**given, **changes})


def shown(seen: HubNodes, capfd: pytest.CaptureFixture[str]) -> str:
    members.show_nodes(Screen(), seen)
    return capfd.readouterr().out


def test_a_hub_with_one_owner_is_one_node(run: Run, place: str) -> None:
    ended = run("nodes", place, "--json")

    assert ended.status == 0
    seen = ended.value()
    assert seen["is_cluster"] is False
    assert [one["index"] for one in seen["nodes"][0]["partitions"]] == [0, 1, 2, 3]
    assert "0-3" in run("nodes", place).out


def test_a_hub_with_one_owner_is_not_drained(run: Run, place: str) -> None:
    ended = run("nodes", "drain", "0", place)

    assert ended.status == 2
    assert "cannot be drained" in ended.err
    assert ended.err.count("\n") == 1


def test_the_database_says_who_serves_what_and_one_is_drained(run: Run, shared: str) -> None:
    secret = with_password(shared)
    seen = run("nodes", secret, "--json").value()
    first, second = (one["member"] for one in seen["nodes"])
    table = run("nodes", secret)
    drained = run("nodes", "drain", str(first), secret)
    by = time.monotonic() + 10
    while len(run("nodes", shared, "--json").value()["nodes"][1]["partitions"]) < 8:
        assert time.monotonic() < by
    after = run("nodes", shared)
    nobody = run("nodes", secret, "drain", "999")
    undrained = run("nodes", secret, "undrain", str(first))

    assert seen["is_cluster"] is True
    assert sorted(part["index"] for one in seen["nodes"] for part in one["partitions"]) == [
        *range(8)
    ]
    assert table.status == 0
    assert [line.split()[:2] for line in table.out.splitlines()[1:]] == [
        [str(first), "serves"],
        [str(second), "serves"],
    ]
    assert drained == (0, f"member {first} lets its partitions go, and takes no more\n", "")
    assert "draining" in after.out
    assert "0-7" in after.out
    assert (nobody.status, nobody.out) == (2, "")
    assert "there is no member 999 now" in nobody.err
    assert undrained.status == 0
    for ended in (table, drained, nobody, undrained):
        assert SECRET not in ended.out + ended.err


def test_other_commands_reach_a_member_through_the_database(run: Run, shared: str) -> None:
    secret = with_password(shared)

    started = run("start", secret, "double", "4", "--wait", "20")
    listed = run("list", secret, "--count")
    shards = run("shards", secret, "--once", "--json").value()

    assert (started.status, started.out.strip()) == (0, "8")
    assert listed.out == "1\n"
    assert len(shards["shards"]) == 2
    assert len(shards["partitions"]) == 8


def test_a_hub_that_nobody_serves_says_so(run: Run, newest_postgres: str) -> None:
    never = run("nodes", newest_postgres)
    with members_at(newest_postgres):
        pass
    left = run("nodes", newest_postgres)
    drained = run("nodes", newest_postgres, "drain", "1")
    started = run("start", newest_postgres, "double", "4")

    assert never.status == 4
    assert "there is no hub in" in never.err
    assert left.status == 0
    assert "no process serves this hub" in left.out
    assert "nobody has 8 partitions: 0-7" in left.out
    for refused in (drained, started):
        assert refused.status == 4
        assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["drain"], ["drain", "one"], ["drain", "-1"], ["a", "b"], ["undrain", "1", "a", "b"]]
)
def test_what_is_no_member_is_refused(run: Run, words: list[str]) -> None:
    ended = run("nodes", *words)

    assert ended.status == 2
    assert ended.out == ""


def test_a_table_says_what_is_wrong(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    moving = NodePartition(index=3, epoch=9, wanted=2, unapplied=1_200)
    seen = HubNodes(
        is_cluster=True,
        nodes=(
            node(partitions=(NodePartition(index=0), NodePartition(index=1, unapplied=7), moving)),
            node(2, is_draining=True, is_other_version=True),
            node(3, is_expired=True, beat_age_s=700.0),
        ),
        free=(NodePartition(index=2),),
    )

    lines = shown(seen, capfd).splitlines()

    assert lines[1].split()[:6] == ["1", "serves", "1", "s", "3", "0-1,"]
    assert lines[1].split()[6:8] == ["3", "1,207"]
    assert "draining" in lines[2]
    assert "abcdef (another)" in lines[2]
    assert lines[3].split()[1:4] == ["expired", "11", "min"]
    assert lines[4].strip() == "nobody has 1 partition: 2"
    assert lines[5] == "on the way from member 1 to 2: 3"


@pytest.mark.parametrize("width", [160, 100, 80, 60, 40])
def test_a_table_fits_the_screen(
    width: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    partitions = tuple(NodePartition(index=number) for number in range(8))

    text = shown(HubNodes(is_cluster=True, nodes=(node(partitions=partitions),)), capfd)

    assert max(map(len, text.splitlines())) <= width
    assert "0-7" in text


def test_a_watch_looks_until_the_hub_is_gone(
    run: Run, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[HubNodes] = []

    def show(_: Screen, seen: HubNodes) -> None:
        looks.append(seen)
        if len(looks) == 3:
            raise UnavailableError("it is gone")

    monkeypatch.setattr(members, "show_nodes", show)

    ended = run("nodes", place, "--watch", "--interval", "0.01")

    assert (ended.status, ended.err.splitlines()[-1]) == (4, "perdure: it is gone")
    assert len(looks) == 3


def test_a_watch_goes_on_while_the_database_is_away(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = HubNodes(is_cluster=True, nodes=(node(),))
    answers: list[HubNodes | Exception] = [
        seen,
        StorageError("db cannot be reached"),
        seen,
        UnavailableError("it is gone"),
    ]

    async def read_nodes(_: str) -> HubNodes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(perdure, "read_nodes", read_nodes)
    ended = run("nodes", "postgresql://db/shop", "--watch", "--interval", "0.01")

    assert answers == []
    assert (ended.status, ended.err.splitlines()[-1]) == (4, "perdure: it is gone")
    # Off a terminal each look is printed, below the one before.
    assert ended.out.count("10.0.0.1:7000") == 3
    assert ended.out.count("as it was: db cannot be reached") == 1


def test_a_database_that_is_away_from_the_start_ends_a_watch(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_nodes(_: str) -> HubNodes:
        raise StorageError("db cannot be reached")

    monkeypatch.setattr(perdure, "read_nodes", read_nodes)

    assert run("nodes", "postgresql://db/shop", "--watch").status == 1


def test_a_wrong_key_between_nodes_is_one_line(
    run: Run, newest_postgres: str, tmp_path: Path
) -> None:
    right, wrong, open_ = (tmp_path / name for name in ("right", "wrong", "open"))
    for file, key in ((right, "a" * 32), (wrong, "b" * 32), (open_, "a" * 32)):
        file.write_text(key)
        file.chmod(0o600)
    open_.chmod(0o644)
    with members_at(newest_postgres, node_key=right):
        without = run("start", newest_postgres, "double", "1")
        with_wrong = run("list", newest_postgres, "--node-key-file", str(wrong))
        readable = run("list", newest_postgres, "--key-file", str(open_))
        with_right = run("list", newest_postgres, "--key-file", str(right))
        needs_none = [run("nodes", newest_postgres), run("list", newest_postgres, "--count")]

    assert with_right.status == 0
    assert [ended.status for ended in needs_none] == [0, 0]
    assert needs_none[1].out == "0\n"
    for refused in (without, with_wrong, readable):
        assert refused.status == 2
        assert refused.err.count("\n") == 1
        assert "key" in refused.err
