from __future__ import annotations

from pathlib import Path

import pytest

from perdure import UsageError
from perdure.runtime.transport.sockets import path_of, shard_socket, socket_of


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
