"""Which partition should move to which shard: the policy, and what carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from attrs import Attribute, field, frozen

from ...actors.arguments import number, refusal
from ...actors.errors import PerdureError, UnavailableError
from ...actors.logs import Log
from ...actors.times import seconds
from ..scheduling.hidden_tasks import TaskGroup
from ..settings import as_seconds, check_seconds

if TYPE_CHECKING:
    from .crews import Crew

_log = Log("perdure.placement")


def _check_share(_: object, attribute: Attribute[Any], value: object) -> None:
    number(value, attribute.name, least=0, most=1, beyond=True)


def _check_gain(_: object, attribute: Attribute[Any], value: object) -> None:
    if number(value, attribute.name, least=0, most=1, beyond=True) == 1:
        raise refusal(attribute.name, "less than 1: no move gains more", value)


def _check_rest(_: object, attribute: Attribute[Any], value: object) -> None:
    seconds(value, attribute.name)


@frozen(kw_only=True)
class Rebalance:
    """When a partition moves from a busy shard to an idle one.

    Times may be given as seconds or as timedeltas.

    Attributes:
        interval_s: seconds between two looks at the load.
        busy: share of its time that a shard must spend in turns before anything moves off it.
        gain: how much less busy the busier of the two shards must be after the move.
        rest_s: seconds that a partition stays where it is after a move.
    """

    interval_s: float = field(default=2.0, converter=as_seconds, validator=check_seconds)
    busy: float = field(default=0.5, validator=_check_share)
    gain: float = field(default=0.1, validator=_check_gain)
    rest_s: float = field(default=10.0, converter=as_seconds, validator=_check_rest)


class Load(NamedTuple):
    """What a shard did between two looks: its busy share, and messages by partition."""

    busy: float
    messages: Mapping[int, int]


class Move(NamedTuple):
    """A partition, and the shard that should serve it."""

    partition: int
    to: int


def choose_move(
    loads: Mapping[int, Load], rules: Rebalance, resting: frozenset[int] = frozenset()
) -> Move | None:
    """Choose the move that makes the busiest shard and the idlest one most alike, if any helps.

    A partition's load is its share of its shard's messages, times how busy that shard is.

    Args:
        loads: the load of each shard.
        rules: when a move is worth it.
        resting: partitions that must stay where they are.
    """
    busiest = max(loads, key=lambda shard: (loads[shard].busy, -shard))
    idlest = min(loads, key=lambda shard: (loads[shard].busy, shard))
    high, low = loads[busiest].busy, loads[idlest].busy
    total = sum(loads[busiest].messages.values())
    if high < rules.busy or not total:
        return None
    best: tuple[float, int] | None = None
    for partition, messages in loads[busiest].messages.items():
        share = high * messages / total
        after = max(high - share, low + share)
        if partition not in resting and messages and (best is None or (after, partition) < best):
            best = (after, partition)
    if best is None or best[0] > high - rules.gain:
        return None
    return Move(best[1], idlest)


class Balancer:
    """Looks at the load now and then, and moves what should move."""

    def __init__(self, rules: Rebalance, crew: Crew) -> None:
        self._rules = rules
        self._crew = crew
        self._before: dict[int, tuple[float, Load]] = {}  # when, and what
        self._resting: dict[int, float] = {}

    async def run(self) -> None:
        """Balance, for ever."""
        rules = self._rules
        while True:
            await anyio.sleep(rules.interval_s)
            if not self._crew.leads:
                self._before.clear()
                continue
            try:
                loads = await self._look()
                now = anyio.current_time()
                resting = frozenset(n for n, until in self._resting.items() if until > now)
                move = choose_move(loads, rules, resting) if loads else None
                if move is not None:
                    self._resting[move.partition] = now + rules.rest_s
                    _log.info("partition %d moves to shard %d", *move)
                    await self._crew.move(*move)
            except PerdureError as error:
                # A shard is being restarted, say; the next look may find it well.
                _log.warning("the load could not be balanced: %s", error)

    async def _look(self) -> dict[int, Load]:
        """Give the load since the last look of each shard that can tell.

        One that something blocks, or that is being started again, leaves the others to be balanced.
        """
        before, self._before = self._before, {}
        loads: dict[int, Load] = {}

        async def look(shard: int) -> None:
            try:
                busy_s, rows = await self._crew.ask_soon(shard, "load")
            except UnavailableError as error:
                _log.warning("the load of shard %d is not known: %s", shard, error)
                return
            now = Load(busy_s, dict(rows))
            self._before[shard] = (anyio.current_time(), now)
            if shard in before:
                seconds = self._before[shard][0] - before[shard][0]
                load = _difference(before[shard][1], now, seconds)
                if load is not None:
                    loads[shard] = load

        async with TaskGroup() as tasks:
            for shard in self._crew.in_service:
                tasks.start_soon(look, shard)
        return loads if len(loads) > 1 else {}


def _difference(was: Load, now: Load, seconds: float) -> Load | None:
    """Give the load between two looks; None where the shard has begun anew."""
    if now.busy < was.busy or seconds <= 0:
        return None
    return Load(
        (now.busy - was.busy) / seconds,
        {
            number: count - was.messages[number]
            for number, count in now.messages.items()
            if count >= was.messages.get(number, count + 1)
        },
    )
