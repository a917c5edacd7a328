"""Pages of what a query finds, and the tokens that go on behind one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson
from attrs import frozen

from ..actors.context import timestamp
from ..actors.errors import UsageError
from ..actors.values import RuntimeStatus

R = TypeVar("R")


@frozen
class Page(Generic[R]):
    """Some of what a query found.

    Attributes:
        items: what was found.
        continuation_token: what to pass to get the next page; None if there is none.
    """

    items: list[R]
    continuation_token: str | None


def check_page_size(size: int) -> int:
    """Give a page's size back if it may be one."""
    if not 1 <= size <= 10_000:
        raise UsageError(f"a page has 1 to 10,000 items, not {size}")
    return size


def optional_time(when: datetime | None) -> int | None:
    """Give a bound of a query as a time, if there is one."""
    return None if when is None else timestamp(when, "a query's time")


def read_statuses(statuses: Iterable[RuntimeStatus | str]) -> list[str]:
    """Give statuses as they are stored, each once.

    Raises:
        UsageError: one of them is no status.
    """
    known = {status.value for status in RuntimeStatus}
    wanted = dict.fromkeys(str(status) for status in statuses)
    for status in wanted:
        if status not in known:
            raise UsageError(f"{status!r} is no status; there are: {', '.join(RuntimeStatus)}")
    return list(wanted)


def make_token(*position: Any) -> str:
    """Give the token of the page that begins behind a position."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def read_token(token: str | None) -> list[Any] | None:
    """Give the position that a token stands for.

    Raises:
        UsageError: it is no token.
    """
    if token is None:
        return None
    try:
        position = orjson.loads(base64.urlsafe_b64decode(token.encode()))
        created, key = position
        if type(created) is not int or type(key) is not str or not 0 <= created < 2**63:
            raise ValueError(position)
        return [created, key]
    except (ValueError, TypeError, binascii.Error):
        raise UsageError("that is no continuation token of a query of this hub") from None
