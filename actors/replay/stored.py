"""Stored messages and histories, read with the question whether they are what was written.

What reads them otherwise trusts them. A row that something else has changed may be JSON of the
wrong shape, which would only show later, in the middle of somebody's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeGuard, get_args

import orjson

from ..carried import checked_carried
from ..messages import Action, ActivityCall, Message, decode_call, decode_message
from .history import ANSWERS, IDENTITY, SILENT, parse_history

_Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return type(value) is str


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) is int


def _flag(value: Any) -> bool:
    return type(value) is bool


def _listed(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list


def _packed(value: Any) -> bool:
    return _listed(value) and len(value) <= 1


def _caller(value: Any) -> bool:
    return (
        _listed(value)
        and len(value) == 3
        and _text(value[0])
        and _number(value[1])
        and _number(value[2])
    )


def _texts(value: Any) -> bool:
    return _listed(value) and all(map(_text, value))


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _anything(value: Any) -> bool:
    return True


_ACTIONS = frozenset(get_args(Action))

#: What the fields of each message are; further fields are not looked at.
_MESSAGES: dict[str, tuple[_Check, ...]] = {
    "operation": (_text, _packed, _flag, _or_none(_caller)),
    "lock": (_caller, _texts, _number),
    "unlock": (_caller, _texts, _number),
    "fold": (_number, _flag),
    "folded": (_number, _number, _packed, _or_none(_listed), _or_none(_texts)),
    "start": (
        _text,
        _or_none(_text),
        _packed,
        _or_none(_caller),
        _packed,
        _or_none(_number),
        _text,
    ),
    "fork": (_text, _or_none(_text), _packed, _text, _count, _packed, _packed),
    "begin": (_count,),
    "completion": (lambda value: _text(value) and value in ANSWERS, _count, _count, _anything),
    "timer": (_count, _count),
    "event": (_text, _anything),
    "command": (lambda value: _text(value) and value in _ACTIONS, _text, _flag, _count),
}


def read_message(fields: Any) -> Message:
    """Read a stored message, from its JSON text or its parsed form.

    Raises:
        ValueError: it is none.
    """
    if isinstance(fields, bytes):
        fields = orjson.loads(fields)
    if not _listed(fields) or len(fields) < 2 or not _text(fields[0]):
        raise ValueError("it is no message")
    last: object = fields[-1]
    carried: Any = fields[-1] if type(last) is dict else None
    tag, *content, request = fields if carried is None else fields[:-1]
    if carried is not None and checked_carried(carried) is None:
        raise ValueError(f"what goes along with this {tag} are no texts")
    checks = _MESSAGES.get(tag)
    if checks is None:
        raise ValueError(f"a message of the unknown kind {tag!r}")
    if len(content) < len(checks) or not all(
        check(value) for check, value in zip(checks, content, strict=False)
    ):
        raise ValueError(f"the fields of this {tag} are not those of one")
    if not (request is None or _text(request)):
        raise ValueError(f"the request id of this {tag} is no text")
    try:
        return decode_message(fields)
    except Exception as error:
        raise ValueError(f"the fields of this {tag} are not those of one: {error}") from error


def _table(value: Any) -> TypeGuard[dict[Any, Any]]:
    return type(value) is dict


def _labels(value: Any) -> bool:
    return _table(value) and all(map(_text, [*value, *value.values()]))


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


#: What the fields of a call of an activity are.
_CALL: tuple[_Check, ...] = (
    lambda caller: _caller([*caller]),
    _text,
    _or_none(lambda value: type(value) is bytes),
    _or_none(_seconds),
    _count,
    _or_none(_labels),
    _count,
    _or_none(lambda value: checked_carried(value) is not None),
)


def check_call(call: ActivityCall) -> ActivityCall:
    """Give a call of an activity back that was read, if it is one.

    Raises:
        ValueError: it is none.
    """
    if not all(check(value) for check, value in zip(_CALL, call, strict=True)):
        raise ValueError("the fields of this call of an activity are not those of one")
    return call


def read_call(body: bytes) -> ActivityCall:
    """Read a stored call of an activity.

    Raises:
        ValueError: it is none.
    """
    try:
        call = decode_call(body)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"it is no call of an activity: {error}") from error
    return check_call(call)


def check_actor(key: Any) -> str:
    """Give an actor's key back if it may be one.

    Raises:
        ValueError: it is none.
    """
    if type(key) is not str or not key or (key[0] == "@" and "@" not in key[1:]):
        raise ValueError(f"{key!r} is no actor")
    return key


#: Events without a number behind the time.
_UNNUMBERED = frozenset(
    {
        "ExecutionStarted",
        "EventRaised",
        "CancelRequested",
        "ExecutionTerminated",
        "ContinueAsNew",
        "ExecutionCompleted",
        *SILENT,
    }
)


def read_history(chunks: list[bytes], count: int | None) -> Generator[None, None, list[list[Any]]]:
    """Read a stored history; pauses behind each chunk.

    Args:
        chunks: what is stored of it.
        count: how many events the instance says that it has, if that can be read.

    Returns:
        Its events.

    Raises:
        ValueError: it is none, or not whole.
    """
    events: list[list[Any]] = []
    for chunk in chunks:
        try:
            more = parse_history([chunk])
        except (ValueError, TypeError) as error:
            raise ValueError(f"its history is no JSON of events ({error})") from error
        for place, event in enumerate(more, len(events)):
            if not _is_event(event):
                raise ValueError(
                    f"event {place} of its history is {str(event)[:60]!r}, which is none"
                )
        events += more
        yield
    if count is not None and len(events) != count:
        raise ValueError(f"its history has {len(events)} events of {count}")
    return events


def _is_event(event: Any) -> bool:
    if not _listed(event) or len(event) < 2 or not _text(event[0]) or not _count(event[1]):
        return False
    kind = event[0]
    if kind in _UNNUMBERED:
        return True
    if kind in ANSWERS:
        return len(event) >= 3 and _count(event[2])
    fields = IDENTITY.get(kind)
    return fields is not None and len(event) >= 2 + fields and _count(event[2])
