"""Connections between the members of a cluster: the channels of ``channels.py``, over TCP.

Both ends greet each other first (``greeting.py``). Until that is done a connection takes some
hundred bytes, for ``GREETING_S`` at most, and there are ``STRANGERS_MAX`` of them at most.

``Dialler.dial`` is what a ``Router`` needs, once the address of each member is known; a listener is
made with ``listen_node`` before its address is told, and answers from ``serve_nodes`` on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ...actors.errors import UsageError
from ...actors.logs import Log
from ..scheduling.hidden_tasks import TaskGroup
from .channels import Channel, SocketChannel, contain
from .greeting import (
    CLAIM_SIZE,
    HEAD_SIZE,
    HELLO_SIZE,
    KEY_SIZE_MIN,
    PROOF_SIZE,
    VERDICT_SIZE,
    Credentials,
    Dialling,
    GreetingError,
    Listening,
    RefusedError,
    StrangerError,
    VersionsDifferError,
    WrongKeyError,
)
from .sockets import path_of
from .tcp import TcpListener, TcpStream, dial_tcp, listen_tcp, split_address

if TYPE_CHECKING:
    from ..scheduling.keeper import Keeper

_log = Log("perdure.nodes")

#: Seconds for a greeting, from the first byte to the last.
GREETING_S = 5.0
#: Connections that have not greeted yet; one more ends the oldest.
STRANGERS_MAX = 64
#: Hosts of whom it is remembered that something was said.
_COMPLAINTS_MAX = 1_000

LISTEN_FLAG = "--node-listen"

#: Gives who this is by now; None while it is no member.
WhoAmI = Callable[[], Credentials | None]
#: Takes a connection that has greeted, and which member dialled: None for a client.
OnNode = Callable[[Channel, int | None], Awaitable[Any]]


class Complaints:
    """What is wrong with each host, said once until it is well."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._said)

    def say(self, where: str, error: GreetingError, message: str, *values: Any) -> None:
        """Log what is wrong there, unless it was."""
        one = (where, type(error).__name__)
        if one in self._said:
            return
        if len(self._said) >= _COMPLAINTS_MAX:
            self._said.clear()  # of strangers, mostly: rather say something again
        self._said.add(one)
        _log.error(message, *values)

    def forget(self, where: str) -> None:
        """Take note that all is well there."""
        if self._said:
            self._said = {one for one in self._said if one[0] != where}


# Dialling.


class Dialler:
    """Makes the connections of a member, or a client, to members.

    Args:
        who: gives who dials; a member that has expired and joined again is another one.
    """

    def __init__(self, who: WhoAmI) -> None:
        self._who = who
        self._complaints = Complaints()

    async def dial(self, member: int, address: str) -> SocketChannel:
        """Connect to a member; what is wrong with keys or versions is logged, once an address.

        Args:
            member: its number. Who else answers at its address is refused.
            address: where it listens: ``HOST:PORT``.

        Raises:
            ConnectionRefusedError: the host says that nobody listens there: the process is gone.
            NotThatMemberError: another one listens there by now: the process is gone, too.
            GreetingError: another key, or another version.
            OSError: it cannot be reached, or does not answer in time, which proves nothing.
        """
        me = self._who()
        if me is None:
            raise ConnectionError("this process is no member of the hub now")
        try:
            channel = await dial_node(member, address, me)
        except (StrangerError, WrongKeyError, VersionsDifferError) as error:
            self._complaints.say(
                address, error, "no connection to the node at %s: %s", address, error
            )
            raise
        self._complaints.forget(address)
        return channel


async def dial_node(member: int, address: str, me: Credentials) -> SocketChannel:
    """Connect to a member, and greet it; see ``Dialler.dial``."""
    try:
        host, port = split_address(address, "its address")
    except UsageError as error:  # in the store, where nobody checks it
        raise ConnectionError(f"member {member} cannot be dialled: {error}") from None
    try:
        with anyio.fail_after(GREETING_S):
            stream = await dial_tcp(host, port, GREETING_S / 2)
            try:
                await _greet(stream, Dialling(me, member))
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        raise ConnectionResetError(f"{address} ended the connection during the greeting") from None
    return SocketChannel(stream)


async def _greet(stream: TcpStream, greeting: Dialling) -> None:
    await stream.send(greeting.hello())
    head = await stream.receive_exactly(HEAD_SIZE)
    greeting.check_head(head)
    proof = head + await stream.receive_exactly(PROOF_SIZE - HEAD_SIZE)
    try:
        claim = greeting.claim(proof)
    except WrongKeyError:
        await stream.send(greeting.refusal())
        raise
    await stream.send(claim)
    greeting.check(await stream.receive_exactly(VERDICT_SIZE))


# Listening.


async def listen_node(address: str = "127.0.0.1:0", *, name: str = LISTEN_FLAG) -> TcpListener:
    """Listen for other nodes.

    Args:
        address: ``HOST:PORT``; with port 0 the system chooses, and the listener's ``port`` says it.
        name: what the address was given as.

    Raises:
        UsageError: it is no address, or nobody can listen there.
    """
    host, port = split_address(address, name)
    return await listen_tcp(host, port, name)


async def serve_nodes(
    listener: TcpListener, key: bytes, who: WhoAmI, on_channel: OnNode, keeper: Keeper
) -> None:
    """Give each connection whose dialler has greeted to ``on_channel``, for ever.

    Args:
        listener: closed at the end.
        key: the hub's.
        who: gives who listens.
        on_channel: serves a connection until that ends.
        keeper: says when no more could be taken, and begins anew.
    """
    door = _Door(key, who)

    async def handle(stream: TcpStream) -> None:
        async with stream:
            is_known, member = await door.admit(stream)
            if is_known:
                await contain(partial(_pass, on_channel, member), SocketChannel(stream))

    async def take() -> None:
        while True:
            tasks.start_soon(handle, await listener.accept())

    try:
        async with TaskGroup() as tasks:
            await keeper.persist("the taking of connections of nodes", take)
    finally:
        listener.close()


async def _pass(on_channel: OnNode, member: int | None, channel: Channel) -> None:
    await on_channel(channel, member)


class _Door:
    """Where who dials a node is met."""

    def __init__(self, key: bytes, who: WhoAmI) -> None:
        self._key = key
        self._who = who
        self._strangers: dict[TcpStream, anyio.CancelScope] = {}  # the oldest first
        self._complaints = Complaints()

    async def admit(self, stream: TcpStream) -> tuple[bool, int | None]:
        """Greet whoever dialled; gives whether to go on, and which member it is."""
        if len(self._strangers) >= STRANGERS_MAX:
            # Who means well needs milliseconds, so the oldest does not.
            self._strangers.pop(next(iter(self._strangers))).cancel()
        peer = stream.peer
        with anyio.move_on_after(GREETING_S) as scope:
            self._strangers[stream] = scope
            try:
                member = await self._greet(stream)
            except GreetingError as error:
                self._refuse(peer, error)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                _log.debug("%s went away during the greeting", peer)
            else:
                self._complaints.forget(peer)
                return True, member
            finally:
                self._strangers.pop(stream, None)
        if scope.cancelled_caught:
            _log.debug("%s did not greet in time", peer)
        return False, None

    def _refuse(self, peer: str, error: GreetingError) -> None:
        if isinstance(error, RefusedError) and error.is_known:
            _log.debug("refused a node at %s: %s", peer, error)  # the address was reused
        else:
            self._complaints.say(peer, error, "refused a connection from %s: %s", peer, error)

    async def _greet(self, stream: TcpStream) -> int | None:
        greeting = Listening(self._key)
        head = await stream.receive_exactly(HEAD_SIZE)
        try:
            greeting.check_head(head)
        except VersionsDifferError:
            await stream.send(greeting.head())
            raise
        hello = head + await stream.receive_exactly(HELLO_SIZE - HEAD_SIZE)
        await stream.send(greeting.proof(hello))
        claim = await stream.receive_exactly(CLAIM_SIZE)
        try:
            verdict, member = greeting.judge(claim, self._who())
        except RefusedError as refused:
            await stream.send(refused.verdict)
            raise
        await stream.send(verdict)
        return member


# Keys.


def read_node_key(file: object, name: str = "node_key") -> bytes:
    """Give the key in a file, without the white space around it.

    Raises:
        UsageError: it cannot be read, others may read it, or it is too short.
    """
    path = path_of(file, name)
    how = f"make one with: openssl rand -hex 32 > {path}; chmod 600 {path}"
    try:
        with path.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise UsageError(
                    f"others may read the key in {path} ({name}, mode {mode:04o}), and whoever has "
                    f"it can run operations: chmod 600 {path}, and make a new key if they have"
                )
            key = opened.read(65_536).strip()
    except OSError as error:
        raise UsageError(
            f"cannot read the key in {path} ({name}): {error.strerror}: {how}"
        ) from None
    return check_node_key(key, f"{name}: {path}", how)


def check_node_key(key: bytes, name: str = "node_key", how: str = "") -> bytes:
    """Give a key back that is long enough.

    Raises:
        UsageError: it is too short.
    """
    if len(key) < KEY_SIZE_MIN:
        raise UsageError(
            f"a key between nodes has {KEY_SIZE_MIN} bytes at least, and this one {len(key)} "
            f"({name}){': ' * bool(how)}{how}"
        )
    return key
