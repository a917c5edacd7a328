"""Failures as data: from an exception to what is stored, and back.

An exception is a user's object: its text, its cause, its members and its class may all be broken.
Describing one never raises; what cannot be had is replaced by words that say so.
"""

from __future__ import annotations

from typing import Any

import orjson
from attrs import evolve

from .errors import FailedError, FailureDetails, NonRetryableError
from .printing import class_name, stack_of, text_of, type_name

_STACK_LIMIT = 8_000
_DEPTH_MAX = 5
_MEMBERS_MAX = 20
_DESCRIBED_MAX = (
    50  # exceptions in one failure, causes and members together, also those of elsewhere
)
_BASES_MAX = 30

# The slots of the built-in classes: a subclass may have put properties over them that raise.
_cause_of: Any = BaseException.__dict__["__cause__"].__get__
_context_of: Any = BaseException.__dict__["__context__"].__get__
_suppresses: Any = BaseException.__dict__["__suppress_context__"].__get__
_members_of: Any = BaseExceptionGroup.__dict__["exceptions"].__get__
_order_of: Any = type.__dict__["__mro__"].__get__


def failure_of(error: BaseException) -> FailureDetails:
    """Describe an exception, with what it was raised from and the members of a group."""
    return _describe(error, 0, [_DESCRIBED_MAX])


def _describe(error: BaseException, depth: int, left: list[int]) -> FailureDetails:
    left[0] -= 1
    inner: FailureDetails | None = None
    members: list[FailureDetails] = []
    if depth < _DEPTH_MAX:
        cause = _cause_of(error)
        if cause is None and not _suppresses(error):
            cause = _context_of(error)
        if cause is not None:
            inner = _describe(cause, depth + 1, left) if left[0] > 0 else None
        elif issubclass(type(error), FailedError) and left[0] > 0:
            failure = _failure_in(error)
            inner = None if failure is None else _cut(failure, left)
        if issubclass(type(error), BaseExceptionGroup):
            for member in _members_of(error)[:_MEMBERS_MAX]:
                if left[0] <= 0:
                    break
                members.append(_describe(member, depth + 1, left))
    return FailureDetails(
        type_name(error),
        text_of(error),
        stack_of(error, _STACK_LIMIT),
        inner,
        issubclass(type(error), NonRetryableError),
        tuple(class_name(base) for base in _order_of(type(error))[1:-1][:_BASES_MAX]),
        tuple(members),
    )


def _failure_in(error: Any) -> FailureDetails | None:
    try:
        failure = error.failure
    except Exception:
        return None  # a user's subclass that forgot to call the initialiser
    return failure if type(failure) is FailureDetails else None


def _cut(failure: FailureDetails, left: list[int]) -> FailureDetails:
    """Leave out of a failure from elsewhere what would be too much: its chain may have no end."""
    left[0] -= 1
    cause = failure.cause
    if cause is not None:
        cause = _cut(cause, left) if left[0] > 0 else None
    members: list[FailureDetails] = []
    for member in failure.members:
        if left[0] <= 0:
            break
        members.append(_cut(member, left))
    return evolve(failure, cause=cause, members=tuple(members))


def encode_failure(failure: FailureDetails) -> bytes:
    """Give the failure as one JSON text."""
    return orjson.dumps(_plain(failure))


def _plain(failure: FailureDetails) -> list[Any]:
    cause = None if failure.cause is None else _plain(failure.cause)
    fields: list[Any] = [
        failure.error_type,
        failure.message,
        failure.stack_trace,
        cause,
        failure.non_retryable,
    ]
    if failure.bases or failure.members:
        fields += [failure.bases, [_plain(member) for member in failure.members]]
    return fields


def read_failure(fields: Any) -> FailureDetails:
    """Read a failure back, from its JSON text or its parsed form."""
    if isinstance(fields, bytes):
        fields = orjson.loads(fields)
    error_type, message, stack_trace, cause, non_retryable, *rest = fields
    inner = None if cause is None else read_failure(cause)
    bases, members = rest or ((), ())  # not written before failures knew them, nor where empty
    return FailureDetails(
        error_type,
        message,
        stack_trace,
        inner,
        non_retryable,
        tuple(bases),
        tuple(read_failure(member) for member in members),
    )
