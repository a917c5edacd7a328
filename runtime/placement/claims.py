"""What a client's request id was used for: a request under the id of another one is refused.

A *claim* is the id with a print of the request: its target, operation and input, the same in
every process. It goes with the message as its ``request``, and is stored with the answer. Of a
request whose target is in another partition than its id, that partition keeps the claim alone.

The class of an input may write it differently another day: with a field that is new and has a
default, say. So a claim has the request itself, too: of a larger one with a hash for each long
text, and packed. If the prints differ, the input is read and written by the class of today, as a
replay does it, and compared then. Of one that takes much even so there is a hash instead, for
which only the order of keys does not matter.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ...actors.entities.stripes import MARK
from ...actors.errors import RequestIdReusedError, StoreDamagedError, UsageError
from ...actors.failures import read_failure
from ...actors.messages import Command, Event, Fork, Message, Operation, Start
from ...actors.registry.definitions import operation_of

if TYPE_CHECKING:
    from ...actors.codec import Codec
    from ...actors.registry.lookup import Lookup
    from ..scheduling.waiter import Waiter

_SEPARATOR = "\x1f"  # no id, name or key has a control character
_TEXT_MAX = 200
WHOLE_MAX = 1_000  # of a larger request long texts are kept as hashes
_LONG = 256  # of a text; its hash is shorter, and so no long text itself
PACKED_MAX = 16_000  # one that takes more when it is packed is kept as a hash
_UNPACKED_MAX = 1 << 18
_PACKED = "~"
_DEEP = frozenset[type]({str, list, dict})


class Repetitions(list["Waiter"]):
    """Those who repeat a request that is under way, by its claim."""

    __slots__ = ("claim",)

    def __init__(self, claim: str) -> None:
        super().__init__()
        self.claim = claim


def claim_of(request: str, key: str, message: Message) -> str:
    """Give the claim that a message for an actor makes on a request id."""
    target = key.partition(MARK)[0]
    what, content = _describe(target, message)
    data = orjson.dumps([what, *content], option=orjson.OPT_SORT_KEYS)
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    whole = [_receiver(target, message), content[1:], what]
    if isinstance(message, Command):
        whole.append(content[0])
    elif content[0] is not None:  # no input is another one than null
        whole.append(orjson.loads(content[0]))
    return _SEPARATOR.join((request, digest, what[:_TEXT_MAX], _packed(whole)))


def id_of(claim: str) -> str:
    """Give the request id of a claim."""
    return claim.partition(_SEPARATOR)[0]


def check_claim(made: str, wanted: str, lookup: Lookup) -> None:
    """Refuse a request if its id is used for another.

    Args:
        made: the claim that was made on the id; one without a print is of an older release.
        wanted: that of the request.
        lookup: finds what the request is for, whose class may have changed since.

    Raises:
        RequestIdReusedError: they are of two requests.
    """
    request, *used = made.split(_SEPARATOR)
    _, *now = wanted.split(_SEPARATOR)
    if not used or used[0] == now[0]:
        return
    if len(used) < 3 or len(now) < 3 or not _is_same(used[2], now[2], lookup):
        raise RequestIdReusedError(request, used[1])


def _is_same(made: str, wanted: str, lookup: Lookup) -> bool:
    if made == wanted:
        return True
    was, now = _unpacked(made), _unpacked(wanted)
    return (
        was is not None
        and now is not None
        and _condensed(now) in (_condensed(was), _rewritten(was, lookup))
    )


class Recorded(NamedTuple):
    """What is stored under a request id.

    Attributes:
        claim: whose id it is; the id alone where an older release stored it.
        is_answer: whether the request was applied; else its target is in another partition.
        outcome: the answer, in the form in which waiters get it.
    """

    claim: str
    is_answer: bool
    outcome: Any


def read_recorded(body: bytes, place: str, request: str) -> Recorded:
    """Read what is stored under a request id.

    Raises:
        StoreDamagedError: nobody can.
    """
    try:
        match orjson.loads(body):
            case ["ok" | "failed" | "claim" as kind, value]:
                claim = request
            case ["ok" | "failed" | "claim" as kind, value, str(claim)] if id_of(claim) == request:
                pass
            case _:
                raise ValueError("it is none")
        outcome = read_failure(value) if kind == "failed" else orjson.dumps(value)
    except Exception as error:
        raise StoreDamagedError(
            f"{place}: the answer recorded for request {request!r} cannot be read ({error}); the "
            "request was applied, and is not applied again"
        ) from error
    return Recorded(claim, kind != "claim", outcome)


def body_of(kind: bytes, value: bytes, claim: str) -> bytes:
    """Give what is stored under a request id."""
    return b'["%b",%b,%b]' % (kind, value, orjson.dumps(claim))


def _packed(whole: list[Any]) -> str:
    """Give a request as text, whatever the order of its keys; the hash of it if it is large."""
    try:
        data = orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an input nested as deeply as it may be is too deep with a list around it
        parts = [orjson.dumps(part, option=orjson.OPT_SORT_KEYS) for part in whole]
        return hashlib.blake2b(b",".join(parts)).hexdigest()
    if len(data) > WHOLE_MAX:
        data = _condensed(whole)
    if len(data) <= WHOLE_MAX:
        return data.decode()
    if len(data) <= _UNPACKED_MAX:
        packed = base64.b64encode(zlib.compress(data, 1)).decode()
        if len(packed) <= PACKED_MAX:
            return _PACKED + packed
    return hashlib.blake2b(data).hexdigest()


def _unpacked(text: str) -> list[Any] | None:
    """Give the request of such a text; None if it is a hash, or has no input."""
    try:
        if text.startswith(_PACKED):
            packed = base64.b64decode(text[len(_PACKED) :])
            whole = orjson.loads(zlib.decompressobj().decompress(packed, _UNPACKED_MAX))
        else:
            whole = orjson.loads(text)
    except (ValueError, zlib.error):
        return None
    return whole if isinstance(whole, list) and len(whole) == 4 else None  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _condensed(whole: list[Any]) -> bytes:
    """Give a request with a hash for each long text, whatever the order of its keys."""
    return orjson.dumps(_shortened(whole), option=orjson.OPT_SORT_KEYS)


def _shortened(value: Any) -> Any:
    cls = value.__class__
    if cls is str:
        if len(value) <= _LONG:
            return value
        return hashlib.blake2b(value.encode(), digest_size=32).hexdigest()
    if cls is list:
        return [_shortened(one) if one.__class__ in _DEEP else one for one in value]
    if cls is dict:
        return {
            key: _shortened(one) if one.__class__ in _DEEP else one for key, one in value.items()
        }
    return value


def _rewritten(whole: list[Any], lookup: Lookup) -> bytes | None:
    """Give a request as the class of today writes it; None if that cannot be told."""
    receiver, rest, what, given = whole
    try:
        codec = _codec_of(receiver, lookup)
        if codec is None or given is None:
            return None
        today = orjson.loads(codec.encode(codec.from_json(given)))
    except (UsageError, ValueError):
        return None  # not registered any more, or the class of today cannot read it
    return _condensed([receiver, rest, what, today])


def _receiver(target: str, message: Message) -> list[str]:
    """Say who reads the input, by name: an operation of an entity, or an orchestration."""
    if isinstance(message, Operation):
        return [target.split("@")[1], message.name]
    return [message.name] if type(message) is Start else []


def _codec_of(receiver: object, lookup: Lookup) -> Codec[Any] | None:
    match receiver:
        case [str(name)]:
            return lookup.registry.find_orchestration(name).input
        case [str(name), str(operation)]:
            return operation_of(lookup.registry.find_entity(name), operation).input
        case _:
            return None


def _describe(target: str, message: Message) -> tuple[str, list[Any]]:
    """Say what a request does, and give the rest that makes it the one it is.

    Times are left out, which a repetition counts from its own now, and the version of an
    orchestration, which may be the highest of another day.
    """
    if isinstance(message, Operation):
        kind = "a call" if message.call else "a signal"
        return f"{kind} of {target}.{message.name}", [_text(message.input)]
    if isinstance(message, Fork):
        # What its history is up to that event stays.
        return f"a fork of {message.source!r} as {target!r}", [str(message.at)]
    if isinstance(message, Start):
        what = f"a start of orchestration {message.name!r} as {target!r}"
        return what, [_text(message.input), _text(message.tags), message.on_existing]
    if isinstance(message, Event):
        return f"event {message.name!r} for {target!r}", [_text(message.data)]
    assert isinstance(message, Command)
    return f"a {message.action} of {target}", [message.reason]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()
