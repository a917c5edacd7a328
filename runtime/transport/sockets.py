"""Where the sockets of a hub and of its shards are.

A hub is found by its store: its socket is ``hub.sock`` in the store's folder, or lies where the file
``hub.sock.path`` beside that says, since systems take only short paths for a socket.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path, PurePath

from ...actors.arguments import is_a, refusal, text
from ...actors.errors import UsageError
from ...storage import SharedStore, split_place

NAME = "hub.sock"
#: Holds the path of the socket that a hub listens at, where that lies elsewhere.
NOTE = "hub.sock.path"

_SHARD_MAX = 1_023

#: Bytes of a socket's path: ``sun_path``, less its closing zero byte.
LENGTH_MAX = 107 if sys.platform == "linux" else 103


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


def folder_of(store: object) -> Path | None:
    """Give the folder of a store that has one, and that clients can name."""
    location = store.location if isinstance(store, SharedStore) else store
    if is_a(location, PurePath):
        return Path(str(location))
    if not is_a(location, str) or not str(location).startswith("sqlite:"):
        return None
    folder, _ = split_place(str(location))
    return Path(folder) if folder else None


def has_sockets() -> bool:
    """Whether this system has sockets that lie in a folder."""
    return hasattr(socket, "AF_UNIX")


def own_socket(folder: Path) -> Path:
    """Give the path at which a hub listens by itself: in its store's folder, if that is short."""
    path = folder.absolute() / NAME
    return path if _fits(shard_socket(path, _SHARD_MAX)) else _short(folder)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LENGTH_MAX


def _short(folder: Path) -> Path:
    import hashlib  # here, as hardly a hub needs it

    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return _user_folder() / f"{name}.sock"


def _user_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        return Path(runtime, "perdure")
    import tempfile

    owner = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir(), f"perdure-{owner}")


def make_room(path: Path) -> None:
    """Make the folder of this user's short sockets, if that is where a socket is to lie.

    Raises:
        UsageError: there is one that somebody else may write to.
    """
    folder = _user_folder()
    if path.parent != folder:
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not stat.S_ISDIR(found.st_mode) or not is_mine or found.st_mode & 0o077:
        raise UsageError(
            f"{folder} is not a folder of this user alone (mode 0700), so no socket can lie there: "
            "remove it, or give the hub a socket elsewhere"
        )


def leave_note(store: object, listens_at: Path) -> None:
    """Have a hub that listens be found by its store, wherever its socket lies."""
    folder = folder_of(store)
    if folder is None or not folder.is_dir():
        return
    note, path = folder / NOTE, listens_at.absolute()
    if path == folder.absolute() / NAME:
        note.unlink(missing_ok=True)  # of a hub before
    else:
        unfinished = folder / f"{NOTE}.new"
        unfinished.write_bytes(os.fsencode(path))
        unfinished.rename(note)


def remove_note(store: object, listened_at: Path) -> None:
    """Take the note about a socket back, when nobody listens there any more."""
    folder = folder_of(store)
    if folder is not None and _noted(folder) == listened_at.absolute():
        with suppress(OSError):
            (folder / NOTE).unlink(missing_ok=True)


def _noted(folder: Path) -> Path | None:
    try:
        path = os.fsdecode((folder / NOTE).read_bytes())
    except OSError:
        return None
    return Path(path) if path and "\0" not in path else None


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
        return _socket_in(Path(folder))
    try:
        return _socket_in(path) if path.is_dir() else path
    except OSError as error:
        raise refusal("place", f"a path that can be looked at ({error.strerror})", place) from None


def _socket_in(folder: Path) -> Path:
    if (noted := _noted(folder)) is not None:
        return noted
    path = folder / NAME
    return path if _fits(path) else _short(folder)
