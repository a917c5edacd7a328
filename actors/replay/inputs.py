"""Comparing what a call is given at a replay with what it was given then.

The hash of an input says at once that nothing has changed. Where it differs, the reason may be
the class and not the code: a field with a default that is new. So the recorded input is read and
written by the classes of today, and that is compared.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..classes import class_of, is_a
from ..codec import Codec, codec_for
from ..errors import UsageError

#: What a call was given: its codec, and the value itself, for where the codec takes any.
Given = tuple[Codec[Any], object]


def same_input(recorded: Any, data: bytes, given: Given) -> bool:
    """Whether a recorded input, as parsed JSON, is today what the call is given.

    Args:
        recorded: what the history has.
        data: what the call is given, encoded.
        given: the same before it was encoded.
    """
    today = _canonical(orjson.loads(data))
    if _canonical(recorded) == today:
        return True
    try:
        return _canonical(_rewritten(recorded, *given)) == today
    except UsageError:
        return False  # the class of today cannot read it


def _rewritten(recorded: Any, codec: Codec[Any], value: Any) -> Any:
    if not codec.is_any:
        return orjson.loads(codec.encode(codec.from_json(recorded)))
    # Nobody declared a class, so those of the value itself are meant.
    if is_a(value, dict) and is_a(recorded, dict):
        values: dict[str, object] = {str(key): each for key, each in value.items()}
        return {key: _rewritten(each, codec, values.get(key)) for key, each in recorded.items()}
    if is_a(value, (list, tuple)) and is_a(recorded, list):
        if len(value) != len(recorded):
            return recorded
        return [_rewritten(one, codec, each) for one, each in zip(recorded, value, strict=True)]
    if value is None or is_a(value, (str, int, float, bool, dict, list, tuple)):
        return recorded
    own: Codec[Any] = codec_for(class_of(value))
    return recorded if own.is_any else _rewritten(recorded, own, value)


def _canonical(value: Any) -> bytes:
    # Python takes 1, 1.0 and True for the same; a history does not.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
