"""Pages of what a query finds, and the tokens that go on behind one."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Generic, Literal, TypeVar

import orjson
from attrs import astuple, evolve, frozen

from ...actors.arguments import refusal, several, text, whole
from ...actors.ids import EntityId
from ...actors.values import RuntimeStatus
from ...storage.records import EntityFilter, InstanceFilter
from ..facts import Fact
from .status import HistoryEvent

R = TypeVar("R")

Order = Literal["oldest", "newest"]


@frozen
class Page(Generic[R]):
    """Some of what a query found.

    Attributes:
        items: what was found.
        continuation_token: what to pass to the same query to get the next page; None if there is
            none.
    """

    items: list[R]
    continuation_token: str | None


@frozen(kw_only=True)
class HistoryPage(Fact):
    """Some events of an instance's history.

    Attributes:
        items: the events, in the order asked for.
        first: the number of the first of them; the first event of a history has the number 0.
        total: how many events the history has.
        after: what to pass to get the next page; None if there is none.
    """

    items: tuple[HistoryEvent, ...]
    first: int
    total: int
    after: int | None


def span_of(total: int, after: int | None, size: int, order: Order) -> tuple[int, int]:
    """Give the numbers of the events of a page: the first, and the one behind the last."""
    if order == "oldest":
        begin = 0 if after is None else min(after + 1, total)
        return begin, min(begin + size, total)
    end = total if after is None else min(after, total)
    return max(end - size, 0), end


def history_page(
    items: Iterable[HistoryEvent], begin: int, end: int, total: int, order: Order
) -> HistoryPage:
    """Give the page of the events from the number ``begin`` up to ``end``."""
    events = tuple(items)
    if order == "oldest":
        after = end - 1 if begin < end < total else None
        return HistoryPage(items=events, first=begin, total=total, after=after)
    after = begin if 0 < begin < end else None
    return HistoryPage(items=events[::-1], first=max(end - 1, 0), total=total, after=after)


def check_page_size(size: object) -> int:
    """Give a page's size back if it may be one."""
    return whole(size, "page_size", least=1, most=10_000)


def read_statuses(statuses: Iterable[RuntimeStatus | str] | None) -> list[str]:
    """Give statuses as they are stored, each once; none for None, which stands for all.

    Raises:
        UsageError: one of them is no status, or there is none: a list that was computed and came
            out empty must not stand for all.
    """
    if statuses is None:
        return []
    known = tuple(status.value for status in RuntimeStatus)
    wanted: dict[str, None] = {}
    for status in several(statuses, "statuses", "statuses in a list"):
        try:
            wanted[known[known.index(status)]] = None
        except Exception:  # of a comparison, too
            taken = f"one of {', '.join(known)}"
            raise refusal("each of statuses", taken, status) from None
    if not wanted:
        raise refusal("statuses", "one status or more, or left out for all of them", statuses)
    return list(wanted)


def read_wait(waiting_for: str | None) -> str | None:
    """Give what instances wait for as it is stored.

    Raises:
        UsageError: it is nothing that one waits for.
    """
    if waiting_for is None:
        return None
    given = text(waiting_for, "waiting_for")
    kind, _, what = given.partition(":")
    if given in ("child", "timer") or (kind == "activity" and what):
        return given
    if kind == "event" and what:
        return f"event:{what.casefold()}"
    if kind in ("entity", "lock"):
        return f"{kind}:{EntityId.parse(what)}"
    taken = (
        "child, timer, event:NAME, activity:NAME, entity:@NAME@KEY or lock:@NAME@KEY, as in "
        "event:approval"
    )
    raise refusal("waiting_for", taken, waiting_for)


def read_attempts(min_attempts: int | None) -> int | None:
    """Give how often a call was tried at least; None for no matter how often.

    Raises:
        UsageError: it is no number from 2: the first attempt is not a repeated one.
    """
    return None if min_attempts is None else whole(min_attempts, "min_attempts", least=2)


def make_token(created: int, key: str, query: InstanceFilter) -> str:
    """Give the token of the page of a query that begins behind a position."""
    return base64.urlsafe_b64encode(orjson.dumps((created, key, _digest(query)))).decode()


def read_token(token: str | None, query: InstanceFilter) -> tuple[int, str] | None:
    """Give the position that a token of a query stands for.

    Raises:
        UsageError: it is no token, or one of a query with other conditions or another order.
    """
    if token is None:
        return None
    given = text(token, "continuation_token")
    try:
        created, key, _ = orjson.loads(base64.urlsafe_b64decode(given.encode()))
        if type(created) is not int or type(key) is not str or not 0 <= created < 2**63:
            raise ValueError(given)
        # Letter by letter: what is only read as a token of this query is none that was given.
        if given != make_token(created, key, query):
            raise ValueError(given)
        return created, key
    except (ValueError, TypeError, binascii.Error):
        taken = (
            "the continuation_token of a Page that the same query gave, with the same conditions "
            "in the same order"
        )
        raise refusal("continuation_token", taken, given) from None


def make_entity_token(name: str, key: str, query: EntityFilter) -> str:
    """Give the token of the page of a query of entities that begins behind one of them."""
    digest = _print_of(astuple(evolve(query, after=None, limit=0, states=True)))
    return base64.urlsafe_b64encode(orjson.dumps((name, key, digest))).decode()


def read_entity_token(token: str | None, query: EntityFilter) -> tuple[str, str] | None:
    """Give the entity behind which a page begins; see ``read_token``."""
    if token is None:
        return None
    given = text(token, "continuation_token")
    try:
        name, key, _ = orjson.loads(base64.urlsafe_b64decode(given.encode()))
        if type(name) is not str or type(key) is not str:
            raise ValueError(given)
        if given != make_entity_token(name, key, query):
            raise ValueError(given)
        return name, key
    except (ValueError, TypeError, binascii.Error):
        taken = "the continuation_token of a Page that the same query gave"
        raise refusal("continuation_token", taken, given) from None


def _print_of(fields: tuple[object, ...]) -> str:
    return hashlib.blake2b(orjson.dumps(fields), digest_size=8).hexdigest()


def _digest(query: InstanceFilter) -> str:
    """Give a print of what a query finds and in which order, however large its pages are."""
    first = InstanceFilter()
    whole = evolve(
        query,
        statuses=tuple(sorted(query.statuses)),
        after=first.after,
        limit=first.limit,
        payloads=first.payloads,
    )
    return _print_of(astuple(whole))
