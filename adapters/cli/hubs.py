"""Which hub a command means, and the way there."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure import UnavailableError, UsageError

if TYPE_CHECKING:
    from perdure import Client

VARIABLE = "PERDURE_HUB"
KEY_VARIABLE = "PERDURE_KEY"
#: Where ``perdure dev`` has its hub, and where one is looked for that nobody has named.
FOLDER = ".perdure"


def is_hub(text: str) -> bool:
    """Whether a command's first argument is a hub: an address, a store, its folder, or a socket."""
    if "://" in text or text.startswith("sqlite:"):
        return True
    try:
        return stat.S_ISSOCK(os.stat(text).st_mode) or _is_store(text)
    except (OSError, ValueError):
        return False


def _is_store(folder: str) -> bool:
    return Path(folder, "partition-00.sqlite").exists()


def choose_hub(given: str | None) -> str:
    """Give the hub that is meant: the one given, that of the environment, or the one here.

    Raises:
        UnavailableError: there is none.
    """
    place = given or os.environ.get(VARIABLE)
    if place:
        is_named = "://" in place or place.startswith("sqlite:")
        return place if is_named or not os.path.isdir(place) else f"sqlite:{place}"
    if _is_store(FOLDER):
        return f"sqlite:{FOLDER}"
    raise UnavailableError(
        f"no hub is named, and there is none in ./{FOLDER}: give one as the first argument "
        f"(sqlite:PATH, postgresql://HOST/DATABASE, http://HOST:PORT or a socket), or in {VARIABLE}"
    )


def is_database(place: str) -> bool:
    """Whether a hub is in a database, which several processes serve together."""
    return place.startswith(("postgresql://", "postgres://"))


def shown(place: str) -> str:
    """Give a place as it may be printed: without a password."""
    if "://" not in place:
        return place
    from ...storage.postgres.place import without_password

    return without_password(place)


def keys_of(place: str, key_file: Path | None) -> dict[str, Any]:
    """Give what ``perdure.connect`` is to be given of keys: for the HTTP interface, or for nodes.

    Raises:
        UsageError: the file cannot be read, or has no key.
    """
    if is_database(place):
        return {"node_key_file": key_file}
    key = read_key(key_file)
    return {"key": key if place.startswith(("http://", "https://")) else None}


def read_key(key_file: Path | None) -> str | None:
    """Give the key that a hub's HTTP interface is asked with, if there is one.

    The file has nothing but the key, or is the one that the hub has its keys from: then the first
    that may do anything is taken, else the first.

    Raises:
        UsageError: the file cannot be read, or has no key.
    """
    if key_file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        lines = [line.split() for line in key_file.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(f"--key-file {key_file} cannot be read: {error}") from None
    keys = [words for words in lines if words and not words[0].startswith("#")]
    for words in [words for words in keys if words[1:2] == ["full"]] + keys:
        return words[-1]
    raise UsageError(f"--key-file {key_file} has no key in it")


@asynccontextmanager
async def reach(
    place: str, keys: Mapping[str, Any], *, reads: bool, app: str | None = None
) -> AsyncGenerator[Client, None]:
    """Give a client of a hub: of the one that runs, or, to read, of what one has in its store.

    Args:
        place: the hub.
        keys: what it is asked with: what ``keys_of`` gave.
        reads: whether nothing but reading is wanted.
        app: the application of one that does not run, or where it is.

    Raises:
        UnavailableError: no hub runs there, and there is nothing to read or more is wanted.
    """
    import perdure

    async with AsyncExitStack() as entered:
        if reads and listens_nowhere(place):
            # What goes to a hub that runs need not even be loaded.
            yield await entered.enter_async_context(perdure.read_store(place, app))
            return
        try:
            client = await entered.enter_async_context(perdure.connect(place, **keys))
        except UnavailableError as error:
            if not (place.startswith("sqlite:") or (reads and is_database(place))):
                words, where = str(error), shown(place)
                raise UnavailableError(words if where in words else f"{where}: {words}") from error
            if not reads:
                raise UnavailableError(
                    f"no hub runs at {place}, so nothing can be changed: start one "
                    f"(perdure serve MODULE:APP --store {place}, or perdure dev)"
                ) from error
            client = await entered.enter_async_context(perdure.read_store(place, app))
        except UsageError:
            # To read a database takes no key of those who serve from it.
            if not (reads and is_database(place)) or keys.get("node_key_file") is not None:
                raise
            client = await entered.enter_async_context(perdure.read_store(place, app))
        yield client


def listens_nowhere(place: str) -> bool:
    """Whether a place is a store in whose folder there is no socket, nor word of one elsewhere."""
    scheme, _, folder = place.partition(":")
    return scheme == "sqlite" and not any(
        os.path.lexists(os.path.join(folder, name)) for name in ("hub.sock", "hub.sock.path")
    )
