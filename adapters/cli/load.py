"""The live view of ``perdure shards``: load by shard, partition and actor."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perdure import connect

from .screen import Screen
from .words import in_one_line

if TYPE_CHECKING:
    from perdure import HubStatistics

_BAR = 8
#: Columns that all of it needs.
_WIDE = 104


def show_load(
    place: str,
    *,
    interval_s: float = 1.0,
    hottest: int = 5,
    once: bool = False,
    move: Sequence[int] | None = None,
    keys: Mapping[str, Any] = MappingProxyType({}),
    as_json: bool = False,
) -> None:
    """Show the load of a hub of another process until it stops or the user does.

    Args:
        place: its address, its socket, the ``sqlite:PATH`` where that is, or its database.
        interval_s: seconds between two looks.
        hottest: how many actors to name.
        once: print one look, and return.
        move: a partition and the shard that it is to move to, first.
        keys: what it is asked with: what ``keys_of`` gave.
        as_json: print its counters at each look, an object a line.

    Raises:
        UnavailableError: no hub listens there, or it stopped.
    """
    anyio.run(_show, place, interval_s, hottest, once, move, keys, as_json)


async def _show(
    place: str,
    interval_s: float,
    hottest: int,
    once: bool,
    move: Sequence[int] | None,
    keys: Mapping[str, Any],
    as_json: bool,
) -> None:
    console = Console()
    async with connect(place, **keys) as hub:
        if move is not None:
            await hub.move_partition(move[0], move[1])
        while as_json:
            Screen(as_json=True).json((await hub.statistics(hottest=hottest)).to_dict())
            sys.stdout.flush()
            if once:
                return
            await anyio.sleep(interval_s)
        before = await hub.statistics(hottest=hottest)
        began = anyio.current_time()
        is_live = console.is_terminal
        with Live(console=console, auto_refresh=False) if is_live else nullcontext() as live:
            while True:
                await anyio.sleep(interval_s)
                now = await hub.statistics(hottest=max(hottest, 20))
                at = anyio.current_time()
                narrow = console.width < _WIDE
                drawn = render(before, now, at - began, hottest, narrow=narrow)
                if live is None:
                    console.print(drawn)
                    sys.stdout.flush()
                else:
                    live.update(drawn, refresh=True)
                if once:
                    return
                before, began = now, at


def render(
    before: HubStatistics, now: HubStatistics, seconds: float, hottest: int, *, narrow: bool = False
) -> Group:
    """Draw what happened between two looks, ``seconds`` apart; without bars on a narrow screen."""
    return Group(
        _shard_table(before, now, seconds, narrow), _actor_table(before, now, seconds, hottest)
    )


def _shard_table(before: HubStatistics, now: HubStatistics, seconds: float, narrow: bool) -> Table:
    table = Table(
        title="Shards and their partitions: messages taken, and sent to other partitions",
        title_justify="left",
        box=None if narrow else SIMPLE_HEAD,
        padding=(0, 1, 0, 0) if narrow else (0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    for name in ("shard", "busy") if narrow else ("shard", "pid", "busy"):
        table.add_column(name, no_wrap=True)
    for name in (
        "part.",
        "taken/s",
        "sent/s",
        "commits/s",
        "wait",
        "stored",
        "owed",
        "actors",
        "MB",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    was_busy = {shard.index: (shard.pid, shard.busy_s) for shard in before.shards}
    was = {one.index: one for one in before.partitions}
    for shard in now.shards:
        pid, busy_s = was_busy.get(shard.index, (shard.pid, 0.0))
        busy = (shard.busy_s - (busy_s if pid == shard.pid else 0.0)) / seconds
        names = [str(shard.index), str(shard.pid), _bar(busy)]
        if narrow:
            names[1:] = [f"{busy:4.0%}"]
        for one in (one for one in now.partitions if one.shard == shard.index):
            old = was.get(one.index)
            # Another shard counts from 0, and so does a worker that was started again.
            same = old is not None and old.shard == one.shard and old.commits <= one.commits
            base = old if old is not None and same else None
            table.add_row(
                *names,
                str(one.index),
                _rate(one.messages - (base.messages if base else 0), seconds),
                _rate(one.sent_away - (base.sent_away if base else 0), seconds),
                _rate(one.commits - (base.commits if base else 0), seconds),
                f"{one.waiting:,}",
                f"{one.stored:,}",
                f"{one.owed:,}",
                f"{one.activations:,}",
                f"{one.stored_bytes / 1e6:,.1f}",
            )
            names = [""] * len(names)
        if names[0]:
            table.add_row(*names, "none")
    for quiet in now.silent:
        said = f"[red]no answer for {quiet.silent_s:.0f} s[/]"
        table.add_row(str(quiet.index), *([] if narrow else [""]), said)
    return table


def _actor_table(before: HubStatistics, now: HubStatistics, seconds: float, hottest: int) -> Table:
    table = Table(
        title="Hottest actors, and those with the fullest mailboxes",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("actor")
    table.add_column("part.", justify="right")
    table.add_column("taken/s", justify="right")
    table.add_column("wait", justify="right")
    waiting = {(one.index, key): count for one in now.partitions for key, count in one.fullest}
    was = {(one.index, key): taken for one in before.partitions for key, taken in one.hottest}
    rows = [
        (taken - was.get((one.index, key), 0), key, one.index)
        for one in now.partitions
        for key, taken in one.hottest
        if taken >= was.get((one.index, key), 0)
    ]
    listed = {(index, key): taken for taken, key, index in sorted(rows, reverse=True)[:hottest]}
    fullest = sorted(((count, place) for place, count in waiting.items()), reverse=True)
    taken_by = {(index, key): taken for taken, key, index in rows}
    for _, place in fullest[:hottest]:
        listed.setdefault(place, taken_by.get(place, 0))
    for (index, key), taken in listed.items():
        count = waiting.get((index, key), 0)
        # As text: a key may look like markup.
        table.add_row(
            Text(in_one_line(key)), str(index), _rate(taken, seconds), f"{count:,}" if count else ""
        )
    return table


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}"


def _bar(share: float) -> str:
    filled = min(_BAR, round(max(share, 0.0) * _BAR))
    colour = "red" if share > 0.8 else "yellow" if share > 0.5 else "green"
    return f"[{colour}]{'█' * filled}[/]{'░' * (_BAR - filled)} {share:4.0%}"
