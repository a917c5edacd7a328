"""What is answered instead of the thing asked for: a status, and words that say why."""

from __future__ import annotations

from collections.abc import Mapping

from perdure import (
    FailedError,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    MailboxFullError,
    NondeterminismError,
    OutcomeUnknownError,
    ParkedError,
    PayloadTooLargeError,
    RequestIdReusedError,
    StorageError,
    StoreFullError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)

#: Seconds after which to ask again what was refused for now.
RETRY_AFTER_S = 1

# The first that fits counts.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (FailedError, 424),
    (PayloadTooLargeError, 413),
    (RequestIdReusedError, 422),
    (UnknownNameError, 404),
    (InstanceNotFoundError, 404),
    (InstanceAlreadyExistsError, 409),
    (InstanceFinishedError, 409),
    (InstanceNotFinishedError, 409),
    (ParkedError, 409),
    (NondeterminismError, 409),
    (UsageError, 400),
    (MailboxFullError, 429),
    (UnavailableError, 503),
    (OutcomeUnknownError, 504),
    (TimeoutError, 504),
    (StoreFullError, 507),
    (StorageError, 503),
)


class Refusal(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        message: why, for the caller to read.
        error: what was raised, if it was something else than this.
        headers: what stands in the answer's head besides.
        trace: the traceback of the error, where answers may show it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error: Exception | None = None,
        headers: Mapping[str, str] | None = None,
        trace: str = "",
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.error = error
        self.headers = dict(headers or {})
        self.trace = trace

    @property
    def type(self) -> str:
        """The name of the error's class."""
        return type(self).__name__ if self.error is None else type(self.error).__name__


def status_of(error: Exception) -> int:
    """Give the HTTP status that an error of a client's method means."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def refusal_of(error: Exception) -> Refusal:
    """Say over HTTP what a client's method raised."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return Refusal(status, str(error), error=error, headers=headers)
