"""Failures as data: from an exception to what is stored, and back."""

from __future__ import annotations

import traceback
from typing import Any

import orjson

from .errors import FailedError, FailureDetails, NonRetryableError

_STACK_LIMIT = 8_000
_MESSAGE_LIMIT = 4_000


def failure_of(error: BaseException, depth: int = 0) -> FailureDetails:
    """Describe an exception, with what it was raised from (five levels at most)."""
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if isinstance(error, FailedError) and cause is None:
        inner: FailureDetails | None = error.failure
    else:
        inner = failure_of(cause, depth + 1) if cause is not None and depth < 5 else None
    stack = "".join(traceback.format_tb(error.__traceback__))
    return FailureDetails(
        type(error).__name__,
        _printable(str(error))[:_MESSAGE_LIMIT],
        _printable(stack)[-_STACK_LIMIT:],
        inner,
        isinstance(error, NonRetryableError),
    )


def _printable(text: str) -> str:
    # An exception's text may hold lone surrogates, which JSON cannot.
    return text.encode("utf-8", "backslashreplace").decode()


def encode_failure(failure: FailureDetails) -> bytes:
    """Give the failure as one JSON text."""
    return orjson.dumps(_plain(failure))


def _plain(failure: FailureDetails) -> list[Any]:
    cause = None if failure.cause is None else _plain(failure.cause)
    return [failure.error_type, failure.message, failure.stack_trace, cause, failure.non_retryable]


def read_failure(fields: Any) -> FailureDetails:
    """Read a failure back, from its JSON text or its parsed form."""
    if isinstance(fields, bytes):
        fields = orjson.loads(fields)
    error_type, message, stack_trace, cause, non_retryable = fields
    inner = None if cause is None else read_failure(cause)
    return FailureDetails(error_type, message, stack_trace, inner, non_retryable)
