"""How two ends of a connection between nodes prove to each other that both have the hub's key.

Who can send frames to a member can run operations, so nobody is heard before that. Four messages of
fixed sizes, of which nothing is kept and nothing parsed but what has its place:

1. the dialler: that it is one, and a number that nobody used before;
2. the listener: such a number of its own, and the proof that it has the key;
3. the dialler: as what it comes, of which hub, who it is and whom it means, and the proof;
4. the listener: whether it is welcome, and the proof.

The dialler says nothing of the hub before the listener has proved itself. Each proof is an HMAC-SHA256
over the version, both numbers, what the message says and which of the four it is. So what was
overheard is of no use with other numbers, and nothing that one end said can be said back to it.

It tells who is at the other end when a connection begins. What goes over that is neither hidden nor
sealed: whoever can change packets on their way needs to be kept off the network.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from hashlib import sha256

from attrs import field, frozen

#: Of the greeting, and of what is said after it. Both ends have the same or do not talk.
VERSION = 1
#: A key has as many bytes at least.
KEY_SIZE_MIN = 16

_MAGIC = b"perdure\0"
_NOBODY = -1  # the number of a client

_HEAD = struct.Struct("!8sH")
_HELLO = struct.Struct("!8sH32s")
_PROOF = struct.Struct("!8sH32s32s")
_CLAIM = struct.Struct("!B32sqq32s")
_VERDICT = struct.Struct("!B32s")

#: Bytes of what begins the first two messages, in every version.
HEAD_SIZE = _HEAD.size
#: Bytes of each message.
HELLO_SIZE, PROOF_SIZE, CLAIM_SIZE, VERDICT_SIZE = (
    _HELLO.size,
    _PROOF.size,
    _CLAIM.size,
    _VERDICT.size,
)

# As what the dialler comes.
_IS_MEMBER, _IS_CLIENT, _DISTRUSTS = 1, 2, 255
# What becomes of it.
_WELCOME, _NOT_THAT_MEMBER, _WRONG_KEY = 1, 2, 3

# What a proof is of: one is never good for another.
_OF_LISTENER, _OF_DIALLER, _OF_VERDICT = (b"listener", b"dialler", b"verdict")


class GreetingError(ConnectionError):
    """The ends of a connection did not come to know each other."""


class StrangerError(GreetingError):
    """What is at the other end is nobody of a hub."""


class WrongKeyError(GreetingError):
    """The other end has another key."""


class VersionsDifferError(GreetingError):
    """The other end speaks another version."""


class NotThatMemberError(GreetingError):
    """The other end has the key, and is not the member that was meant, or not of that hub."""


@frozen
class Credentials:
    """What one end of a connection says of itself.

    Attributes:
        hub: the id of the hub.
        member: its number; None for a client.
        key: the hub's.
    """

    hub: str
    member: int | None
    key: bytes = field(repr=False)

    @property
    def number(self) -> int:
        """The member's number as it is sent."""
        return _NOBODY if self.member is None else self.member

    def prove(self, what: bytes, *parts: bytes) -> bytes:
        """Give the proof that somebody with the key says all that."""
        head = b"perdure node " + what + b"\0" + VERSION.to_bytes(2, "big")
        return hmac.digest(self.key, head + b"".join(parts), "sha256")

    def is_proof(self, given: bytes, what: bytes, *parts: bytes) -> bool:
        """Whether somebody with the key said all that."""
        return hmac.compare_digest(given, self.prove(what, *parts))


def _digest(hub: str) -> bytes:
    return sha256(hub.encode()).digest()


class Dialling:
    """One greeting, as the dialler has it.

    Args:
        me: who dials.
        member: whom it means.
    """

    def __init__(self, me: Credentials, member: int) -> None:
        self._me = me
        self._member = member
        self._nonce = secrets.token_bytes(32)
        self._said = b""  # by both, but for the proofs

    def hello(self) -> bytes:
        """Give the first message."""
        return _HELLO.pack(_MAGIC, VERSION, self._nonce)

    def check_head(self, head: bytes) -> None:
        """Take the head of the second message.

        Raises:
            GreetingError: no node of this version answers.
        """
        _check_head(head)

    def claim(self, proof: bytes) -> bytes:
        """Take the second message; gives the third.

        Raises:
            WrongKeyError: the listener has not the key; ``refusal`` tells it.
        """
        _, _, nonce, given = _PROOF.unpack(proof)
        if not self._me.is_proof(given, _OF_LISTENER, self._nonce, nonce):
            raise WrongKeyError("the node that answers has another key")
        role = _IS_CLIENT if self._me.member is None else _IS_MEMBER
        said = (role, _digest(self._me.hub), self._me.number, self._member)
        self._said = _CLAIM.pack(*said, b"")[:-32] + self._nonce + nonce
        return _CLAIM.pack(*said, self._me.prove(_OF_DIALLER, self._said))

    @staticmethod
    def refusal() -> bytes:
        """Give the third message to a listener that has not the key."""
        return _CLAIM.pack(_DISTRUSTS, b"", _NOBODY, _NOBODY, b"")

    def check(self, verdict: bytes) -> None:
        """Take the last message.

        Raises:
            GreetingError: the listener does not take the connection.
        """
        what, given = _VERDICT.unpack(verdict)
        if not self._me.is_proof(given, _OF_VERDICT, bytes([what]), self._said):
            raise WrongKeyError("the node that answers has another key")
        if what != _WELCOME:
            raise NotThatMemberError(f"who answers is not member {self._member} of the hub")


class Listening:
    """One greeting, as the listener has it.

    Args:
        key: the hub's.
    """

    def __init__(self, key: bytes) -> None:
        self._by_key = Credentials("", None, key)
        self._nonce = secrets.token_bytes(32)
        self._other = b""

    def check_head(self, head: bytes) -> None:
        """Take the head of the first message.

        Raises:
            StrangerError: it is none.
            VersionsDifferError: it is of another version; ``head`` tells the dialler.
        """
        _check_head(head)

    @staticmethod
    def head() -> bytes:
        """Give what says the version, in every version."""
        return _HEAD.pack(_MAGIC, VERSION)

    def proof(self, hello: bytes) -> bytes:
        """Take the first message; gives the second."""
        self._other = _HELLO.unpack(hello)[2]
        proof = self._by_key.prove(_OF_LISTENER, self._other, self._nonce)
        return _PROOF.pack(_MAGIC, VERSION, self._nonce, proof)

    def judge(self, claim: bytes, me: Credentials | None) -> tuple[bytes, int | None]:
        """Take the third message; gives the last, and which member dials: None for a client.

        Args:
            claim: the message.
            me: who listens; None while that is no member.

        Raises:
            RefusedError: the dialler is not taken; the error has the last message.
        """
        role, hub, number, member, given = _CLAIM.unpack(claim)
        if role == _DISTRUSTS:
            raise RefusedError("a node that dials has another key", b"")
        said = claim[:-32] + self._other + self._nonce
        if role not in (_IS_MEMBER, _IS_CLIENT) or not self._by_key.is_proof(
            given, _OF_DIALLER, said
        ):
            raise RefusedError("who dials has not the hub's key", _VERDICT.pack(_WRONG_KEY, b""))
        is_me = me is not None and (hub, member) == (_digest(me.hub), me.number)
        what = _WELCOME if is_me else _NOT_THAT_MEMBER
        verdict = _VERDICT.pack(what, self._by_key.prove(_OF_VERDICT, bytes([what]), said))
        if not is_me:
            raise RefusedError(f"member {member} was meant", verdict, is_known=True)
        return verdict, number if role == _IS_MEMBER else None


class RefusedError(GreetingError):
    """A listener does not take a connection.

    Attributes:
        verdict: what it tells the dialler.
        is_known: whether that has the key.
    """

    def __init__(self, why: str, verdict: bytes, *, is_known: bool = False) -> None:
        super().__init__(why)
        self.verdict = verdict
        self.is_known = is_known


def _check_head(head: bytes) -> None:
    magic, version = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise StrangerError("what came is no greeting of a node")
    if version != VERSION:
        raise VersionsDifferError(
            f"the other node speaks version {version} of the protocol between nodes, and this one "
            f"version {VERSION}: run the same release of Perdure on both"
        )
