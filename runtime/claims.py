"""What a client's request id was used for: a request under the id of another one is refused.

A *claim* is the id with a print of the request: its target, operation and input, the same in
every process. It goes with the message as its ``request``, and is stored with the answer. Of a
request whose target is in another partition than its id, that partition keeps the claim alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from ..actors.errors import RequestIdReusedError
from ..actors.messages import Command, Event, Message, Operation, Start
from ..actors.stripes import MARK

if TYPE_CHECKING:
    from .waiting import Waiter

_SEPARATOR = "\x1f"  # no id, name or key has a control character
_TEXT_MAX = 200


class Repetitions(list["Waiter"]):
    """Those who repeat a request that is under way, by its claim."""

    __slots__ = ("claim",)

    def __init__(self, claim: str) -> None:
        super().__init__()
        self.claim = claim


def claim_of(request: str, key: str, message: Message) -> str:
    """Give the claim that a message for an actor makes on a request id."""
    what, content = _describe(key.partition(MARK)[0], message)
    data = orjson.dumps([what, *content], option=orjson.OPT_SORT_KEYS)
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return _SEPARATOR.join((request, digest, what[:_TEXT_MAX]))


def id_of(claim: str) -> str:
    """Give the request id of a claim."""
    return claim.partition(_SEPARATOR)[0]


def check_claim(made: str, wanted: str) -> None:
    """Refuse a request if its id is used for another.

    Args:
        made: the claim that was made on the id; one without a print is of an older release.
        wanted: that of the request.

    Raises:
        RequestIdReusedError: they are of two requests.
    """
    request, *used = made.split(_SEPARATOR)
    if used and used[0] != wanted.split(_SEPARATOR)[1]:
        raise RequestIdReusedError(request, used[1])


def stored_claim(body: bytes, request: str) -> str:
    """Read the claim beside a stored answer; the id alone where an older release stored it."""
    try:
        fields = orjson.loads(body)
    except ValueError:
        return request  # it is damaged, which whoever reads the answer says
    return str(fields[2]) if len(fields) > 2 else request


def is_answered(body: bytes) -> bool:
    """Whether what is stored under an id is an answer, and no claim alone."""
    return not body.startswith(b'["claim"')


def body_of(kind: bytes, value: bytes, claim: str) -> bytes:
    """Give what is stored under a request id."""
    return b'["%b",%b,%b]' % (kind, value, orjson.dumps(claim))


def _describe(target: str, message: Message) -> tuple[str, list[Any]]:
    """Say what a request does, and give the rest that makes it the one it is.

    Times are left out, which a repetition counts from its own now, and the version of an
    orchestration, which may be the highest of another day.
    """
    if isinstance(message, Operation):
        kind = "a call" if message.call else "a signal"
        return f"{kind} of {target}.{message.name}", [_text(message.input)]
    if isinstance(message, Start):
        what = f"a start of orchestration {message.name!r} as {target!r}"
        return what, [_text(message.input), _text(message.tags), message.on_existing]
    if isinstance(message, Event):
        return f"event {message.name!r} for {target!r}", [_text(message.data)]
    assert isinstance(message, Command)
    return f"a {message.action} of {target}", [message.reason]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()
