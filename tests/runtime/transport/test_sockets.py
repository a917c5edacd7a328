from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from perdure import App, Hub, UsageError, connect
from perdure.runtime.transport.sockets import (
    has_sockets,
    leave_note,
    make_room,
    own_socket,
    path_of,
    remove_note,
    shard_socket,
    socket_of,
)


def test_the_sockets_of_shards_lie_beside_their_hubs_one_for_each() -> None:
    hub = Path("run", "shop.sock")

    assert [shard_socket(hub, shard) for shard in (0, 11)] == [
        Path("run", "shop.sock.0"),
        Path("run", "shop.sock.11"),
    ]


@pytest.mark.parametrize("path", ["/", "."])
def test_a_hub_s_socket_has_a_name_from_which_those_of_its_shards_are_made(path: str) -> None:
    with pytest.raises(UsageError, match="socket must be the path of a file"):
        shard_socket(Path(path), 0)


@pytest.mark.parametrize("given", ["run/hub.sock", Path("run/hub.sock")])
def test_a_path_is_given_as_text_or_as_a_path(given: str | Path) -> None:
    assert path_of(given, "socket") == Path("run/hub.sock")


@pytest.mark.parametrize("given", ["", "a\0b", Path("a\0b"), "\ud800", b"run", None, 3])
def test_what_no_file_can_be_called_is_refused_by_name(given: object) -> None:
    with pytest.raises(UsageError, match="the_socket must be"):
        path_of(given, "the_socket")


def test_a_socket_is_named_by_itself_or_by_the_folder_it_lies_in(tmp_path: Path) -> None:
    assert socket_of(str(tmp_path / "my.sock")) == tmp_path / "my.sock"
    assert socket_of(tmp_path) == tmp_path / "hub.sock"
    assert socket_of(str(tmp_path)) == tmp_path / "hub.sock"


def test_the_socket_of_a_store_lies_in_its_folder_whether_that_is_there_or_not() -> None:
    assert socket_of("sqlite:/no/such/shop") == Path("/no/such/shop/hub.sock")
    assert socket_of("sqlite:/shop?synchronous=NORMAL") == Path("/shop/hub.sock")
    assert socket_of("sqlite:~/shop") == Path.home() / "shop" / "hub.sock"


@pytest.mark.parametrize("place", ["sqlite:", "sqlite:?synchronous=NORMAL"])
def test_a_store_without_a_folder_has_no_socket(place: str) -> None:
    with pytest.raises(UsageError, match="place must be"):
        socket_of(place)


def test_a_path_that_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(UsageError, match="place must be a path that can be looked at"):
        socket_of("x" * 5_000)


def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("x" * 100) / "hub"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> Path:
    folder = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def test_a_hub_listens_in_its_store_s_folder_where_that_is_short(tmp_path: Path) -> None:
    assert own_socket(tmp_path) == tmp_path / "hub.sock"


def test_not_every_system_has_sockets_in_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    before = has_sockets()
    monkeypatch.delattr(socket, "AF_UNIX")

    assert before
    assert not has_sockets()


def test_where_the_folder_s_path_is_long_the_socket_lies_where_the_user_s_do(
    tmp_path: Path, runtime_folder: Path
) -> None:
    folder = long_folder(tmp_path)

    path = own_socket(folder)

    assert path.parent == runtime_folder / "perdure"
    assert path.suffix == ".sock"
    assert path != own_socket(folder.parent)
    assert socket_of(f"sqlite:{folder}") == path


def test_without_a_runtime_folder_they_lie_in_a_temporary_one_of_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = own_socket(long_folder(tmp_path))

    make_room(path)

    assert path.parent.parent == tmp_path
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_for_sockets_that_others_may_write_to_is_refused(
    tmp_path: Path, runtime_folder: Path
) -> None:
    (runtime_folder / "perdure").mkdir(mode=0o755)

    with pytest.raises(UsageError, match="this user alone"):
        make_room(own_socket(long_folder(tmp_path)))


@pytest.mark.parametrize("place", ["store", "folder", "path"])
def test_a_socket_elsewhere_is_found_by_the_store_while_a_hub_listens_there(
    tmp_path: Path, place: str
) -> None:
    named: dict[str, str | Path] = {
        "store": f"sqlite:{tmp_path}",
        "folder": str(tmp_path),
        "path": tmp_path,
    }
    elsewhere = tmp_path / "other" / "my.sock"

    leave_note(f"sqlite:{tmp_path}", elsewhere)
    found = socket_of(named[place])
    remove_note(f"sqlite:{tmp_path}", elsewhere)

    assert found == elsewhere
    assert socket_of(named[place]) == tmp_path / "hub.sock"


def test_a_hub_takes_back_its_own_note_alone_and_one_in_the_folder_has_none(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}"
    leave_note(store, tmp_path / "second.sock")

    remove_note(store, tmp_path / "first.sock")
    kept = socket_of(store)
    leave_note(store, tmp_path / "hub.sock")

    assert kept == tmp_path / "second.sock"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.by_turns
async def test_a_hub_whose_folder_s_path_is_long_is_found_by_its_store(
    tmp_path: Path, runtime_folder: Path
) -> None:
    folder = long_folder(tmp_path)
    async with (
        Hub(App(), store=folder, socket=own_socket(folder)),
        connect(f"sqlite:{folder}") as client,
    ):
        described = await client.describe()

    assert described.activities == ()
    assert [*(runtime_folder / "perdure").iterdir()] == []
    assert not (folder / "hub.sock.path").exists()
