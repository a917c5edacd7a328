"""Where the sockets of a hub and of its shards are."""

from __future__ import annotations

from pathlib import Path, PurePath

from ...actors.arguments import is_a, refusal, text
from ...storage import split_place


def shard_socket(hub: Path, shard: int) -> Path:
    """Name the socket of a shard, given the hub's.

    Raises:
        UsageError: the hub's has no name: it is a folder.
    """
    if not hub.name:
        raise refusal("socket", "the path of a file", str(hub))
    return hub.with_name(f"{hub.name}.{shard}")


def path_of(value: object, name: str) -> Path:
    """Give a path that was given as text or as a path.

    Raises:
        UsageError: it is neither, or empty, or no file can have such a name.
    """
    taken = "a path, as a str or a Path"
    if is_a(value, PurePath):
        value = str(value)
    elif not is_a(value, str):
        raise refusal(name, taken, value)
    given = text(value, name)
    if not given or "\0" in given:
        raise refusal(name, f"{taken}, without zero bytes and not empty", given)
    return Path(given)


def socket_of(place: str | Path) -> Path:
    """Give the path of a hub's socket, named by itself or by the hub's ``sqlite:PATH``.

    Raises:
        UsageError: it is named by nothing, or by what cannot be looked at.
    """
    path = path_of(place, "place")
    if is_a(place, str) and str(place).startswith("sqlite:"):
        folder, _ = split_place(str(place))
        if not folder:
            raise refusal("place", "the hub's socket, or its store as 'sqlite:PATH'", place)
        return Path(folder) / "hub.sock"
    try:
        return path / "hub.sock" if path.is_dir() else path
    except OSError as error:
        raise refusal("place", f"a path that can be looked at ({error.strerror})", place) from None
