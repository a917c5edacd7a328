"""The ways of a client to a hub: over its socket, or to the members of a cluster.

A hub that several nodes serve has no place of its own. Its store says who serves it, and each of
these answers for all of it; so a client goes to any that answers, and to another when that is gone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio import to_thread

from ...actors.arguments import is_a, refusal
from ...actors.errors import StorageError, UnavailableError, UsageError
from ...actors.logs import Log
from ...storage import is_database, open_store, refuse_moved
from ...storage.membership import ClusterStore, MemberRow
from ..transport.channels import Channel, check_socket, dial, dial_shard
from ..transport.greeting import Credentials, NotThatMemberError, WrongKeyError
from ..transport.nodes import Dialler, read_node_key
from ..transport.sockets import folder_of, shard_socket, socket_of

_log = Log("perdure.nodes")

#: Seconds between two looks into the store for who serves the hub.
LOOK_AGAIN_S = 1.0


class Access(Protocol):
    """A way to a hub and its shards.

    Attributes:
        is_lasting: whether shards are the same when another run of the hub answers.
    """

    is_lasting: bool

    async def first(self) -> Channel:
        """Connect to the hub.

        Raises:
            UnavailableError: nobody answers.
        """
        ...

    async def hub(self) -> Channel:
        """Connect to the hub again.

        Raises:
            OSError: nobody answers now.
        """
        ...

    async def shard(self, shard: int, run: str) -> Channel:
        """Connect to a shard of a run of the hub.

        Raises:
            OSError: it does not answer now.
        """
        ...

    def note(self, where: Mapping[str, Any]) -> None:
        """Take what the hub says of where it is."""
        ...


class SocketAccess:
    """The way over the socket of a hub.

    Args:
        path: the socket.
        folder: of the hub's store, if it was named by that.
    """

    is_lasting = False

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self._path = path
        self._folder = folder

    async def first(self) -> Channel:
        """See ``Access``."""
        try:
            return await self.hub()
        except OSError as error:
            if self._folder is not None:
                await to_thread.run_sync(refuse_moved, self._folder)
            raise UnavailableError(
                f"no hub listens at {self._path} ({error.strerror}): start one with a socket, or "
                "with workers, or by perdure serve"
            ) from error

    async def hub(self) -> Channel:
        """See ``Access``."""
        return await dial(self._path)

    async def shard(self, shard: int, run: str) -> Channel:
        """See ``Access``."""
        return await dial_shard(shard_socket(self._path, shard), run)

    def note(self, where: Mapping[str, Any]) -> None:
        """See ``Access``."""


def check_target(place: object) -> str:
    """Refuse what a hub cannot be moved to.

    Raises:
        UsageError: it is no folder and no database.
    """
    if is_database(place) or (is_a(place, str) and str(place).startswith("sqlite:")):
        return str(place)
    taken = "a database, 'postgresql://HOST/DATABASE', or a folder, 'sqlite:PATH'"
    raise refusal("target", taken, place)


class ClusterAccess:
    """The way to the members of a hub, which are found in its store.

    Args:
        place: the store.
        key_file: the key between nodes, if they were given one.

    Raises:
        UsageError: the file has no key, or others may read it.
    """

    def __init__(self, place: str, key_file: str | Path | None) -> None:
        self._place = place
        self._key = None if key_file is None else read_node_key(key_file, "node_key_file")
        self._me: Credentials | None = None
        self._dialler = Dialler(lambda: self._me)
        self._members: dict[int, MemberRow] = {}  # that live, as the store said
        self._addresses: dict[int, str] = {}
        self._at: MemberRow | None = None  # who answers for the hub
        self._location = ""
        self.is_lasting = False
        self._look_at = 0.0

    async def first(self) -> Channel:
        """See ``Access``.

        Raises:
            UsageError: the members have another key; or the place is no store of a cluster.
            StorageError: the store cannot be reached.
        """
        await self._look()
        try:
            return await self._any()
        except WrongKeyError as error:
            raise UsageError(
                "the members of the hub have another key: give the file that they were given, as "
                "node_key_file"
                if self._key is None
                else f"the key in node_key_file is not that of the hub's members: {error}"
            ) from error
        except OSError as error:
            raise UnavailableError(
                f"no member of the hub in {self._location} answers ({error}): start one with "
                "perdure serve"
            ) from error

    async def hub(self) -> Channel:
        """See ``Access``."""
        await self._look_again()
        return await self._any()

    async def _any(self) -> Channel:
        rows = [*self._members.values()]
        random.shuffle(rows)
        # Whoever it was may stand still, and then takes seconds to be given up again.
        last = None if self._at is None else self._at.member
        rows.sort(key=lambda row: (row.member == last, row.draining))
        failed: OSError = ConnectionError("it has no members")
        for row in rows:
            try:
                channel = await self._dialler.dial(row.member, row.address)
            except OSError as error:
                failed = failed if isinstance(failed, WrongKeyError) else error
            else:
                self._at = row
                return channel
        raise failed

    async def shard(self, shard: int, run: str) -> Channel:
        """See ``Access``."""
        if not self.is_lasting and self._at is not None:
            return await self._dialler.dial(self._at.member, self._at.address)
        address = self._addresses.get(shard)
        if address is None:
            await self._look_again()
            address = self._addresses.get(shard)
        if address is None:
            raise ConnectionRefusedError(f"member {shard} is gone")
        try:
            return await self._dialler.dial(shard, address)
        except (ConnectionRefusedError, NotThatMemberError):
            self._addresses.pop(shard, None)  # it may have gone
            raise

    def note(self, where: Mapping[str, Any]) -> None:
        """See ``Access``."""
        # A member that says nothing of others passes on to them what it is asked.
        self.is_lasting = "addresses" in where
        for member, address in where.get("addresses", {}).items():
            self._addresses[int(member)] = address

    async def _look_again(self) -> None:
        """Look once more, if the last time is long enough ago."""
        if anyio.current_time() < self._look_at:
            return
        try:
            await self._look()
        except (StorageError, UnavailableError) as error:
            # Those that are known may answer all the same.
            _log.debug("cannot look for the members of the hub: %s", error)

    async def _look(self) -> None:
        self._look_at = anyio.current_time() + LOOK_AGAIN_S
        store = open_store(self._place)
        if not isinstance(store, ClusterStore):
            raise UsageError("place must be a store that several nodes share")
        self._location = store.location
        try:
            found, view = await store.identify(), await store.view()
        finally:
            # No connection to a database stays open for who asks once.
            await store.close()
        if found is None:
            raise UnavailableError(
                f"there is no hub in {self._location} yet: start one with perdure serve"
            )
        self._me = Credentials(found.hub, None, self._key or found.secret)
        self._members = {row.member: row for row in view.members if not row.expired}
        self._addresses = {row.member: row.address for row in self._members.values()}


def refuse_node_key(file: object) -> None:
    """Refuse the key between nodes where no node is dialled.

    Raises:
        UsageError: one was given.
    """
    if file is not None:
        taken = "left out: only the nodes of a hub on PostgreSQL ask for a key"
        raise refusal("node_key_file", taken, file)


def access_to(place: str | Path, key_file: str | Path | None = None) -> Access:
    """Give the way to a hub, named by its socket or its store.

    Raises:
        UsageError: it is named by nothing, or there is a key where nobody asks for one.
    """
    if is_database(place):
        return ClusterAccess(str(place), key_file)
    refuse_node_key(key_file)
    return SocketAccess(check_socket(socket_of(place)), folder_of(place))
