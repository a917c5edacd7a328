from __future__ import annotations

from pathlib import Path

import pytest

from perdure import UsageError
from perdure.adapters.cli.hubs import read_key
from tests.adapters.cli.shop import KEY, Live, Run


def test_the_hub_is_that_of_the_environment_or_the_one_here_where_none_is_given(
    run: Run, stopped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = run("list")
    monkeypatch.setenv("PERDURE_HUB", stopped)
    by_place = run("list", "--count")
    monkeypatch.setenv("PERDURE_HUB", stopped.removeprefix("sqlite:"))
    by_folder = run("list", "--count")
    monkeypatch.delenv("PERDURE_HUB")
    Path(stopped.removeprefix("sqlite:")).rename(tmp_path / ".perdure")
    here = run("list", "--count")

    assert nowhere.status == 4
    assert "PERDURE_HUB" in nowhere.err
    assert by_place.out == by_folder.out == here.out == "3\n"


def test_the_hub_may_stand_behind_options_and_a_value_of_one_is_none(
    run: Run, stopped: str
) -> None:
    found = run("list", "--prefix", "sqlite:hub", "--status=Running", stopped, "--json")
    behind = run("show", "--json", stopped, "--", "waits")

    assert found == (0, "", "")
    assert behind.value()["instance_id"] == "waits"


def test_the_folder_of_a_store_is_a_hub_and_what_is_none_is_told_how_one_is_given(
    run: Run, stopped: str
) -> None:
    by_folder = run("list", stopped.removeprefix("sqlite:"), "--count")
    elsewhere = run("list", "nothing-of-that-name")
    silent = run("list", "http://127.0.0.1:1")

    assert by_folder.out == "3\n"
    assert elsewhere.status == 2
    assert "a hub is sqlite:PATH" in " ".join(elsewhere.err.split())
    assert silent.status == 4
    assert silent.err.count("http://127.0.0.1:1") == 1


def test_a_socket_is_a_hub(run: Run, live: Live) -> None:
    ended = run("list", f"{live.socket.removeprefix('sqlite:')}/hub.sock", "--count")

    assert ended.status == 0


@pytest.mark.parametrize(
    "text",
    [f"{KEY}\n", f"# ours\nweb read other\nshop full {KEY}\n", f"\nweb read {KEY}\n"],
    ids=["alone", "the first that may do anything", "else the first"],
)
def test_a_key_is_read_from_a_file(run: Run, live: Live, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, "utf-8")

    assert read_key(tmp_path / "key") == KEY
    assert run("list", live.http, "--count", "--key-file", str(tmp_path / "key")).status == 0
    assert run("list", live.http, "--count").status == 2


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("# none\n", "utf-8")

    with pytest.raises(UsageError, match="has no key in it"):
        read_key(tmp_path / "key")
    with pytest.raises(UsageError, match="cannot be read"):
        read_key(tmp_path / "none")


def test_where_nobody_listens_that_is_said_with_the_status(run: Run) -> None:
    ended = run("list", "http://127.0.0.1:1")

    assert ended.status == 4
    assert "http://127.0.0.1:1" in ended.err
    assert ended.err.count("\n") == 1
