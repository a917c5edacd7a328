"""What a run shows: a live table of the nodes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_PLAIN_S = 1.0
_RATE_OVER_S = 1.0


@dataclass
class NodeLine:
    """One node, as it is shown.

    Attributes:
        name: what the demo calls it.
        pid: of its process.
        state: ``serves``, ``starts``, ``killed``.
        member: its number among those that ever served the hub.
        partitions: how many it has.
        beat_age_s: seconds since it told the database that it lives.
    """

    name: str
    pid: int
    state: str
    member: int | None = None
    partitions: int = 0
    beat_age_s: float | None = None


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        seconds: how long the load lasts.
        nodes: all that were ever started.
        free: partitions that nobody has.
        answered: all requests up to now.
        signals, calls, orders: of which kind they were.
        repeated: how many were asked again.
        phase: what happens now.
        news: what has happened, with the time.
    """

    seconds: float
    nodes: list[NodeLine] = field(default_factory=list[NodeLine])
    free: int = 0
    answered: int = 0
    signals: int = 0
    calls: int = 0
    orders: int = 0
    repeated: int = 0
    phase: str = ""
    news: list[str] = field(default_factory=list[str])
    begun: float = field(default_factory=time.monotonic)
    _seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    @property
    def elapsed(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.begun

    @property
    def rate(self) -> float:
        """Answers a second, lately."""
        now = time.monotonic()
        self._seen.append((now, self.answered))
        while self._seen[0][0] < now - _RATE_OVER_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (self.answered - before) / (now - then) if now > then else 0.0

    def tell(self, words: str) -> None:
        """Note what has happened."""
        self.news.append(f"{self.elapsed:5.1f} s  {words}")


class View:
    """Shows progress while it is entered.

    Args:
        console: where.
        plain: lines instead of a live table.
    """

    def __init__(self, console: Console, *, plain: bool) -> None:
        self._console = console
        self._live = None if plain else Live(console=console, auto_refresh=False)
        self._last = float("-inf")
        self._told = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, progress: Progress) -> None:
        """Take notice of how far the run is."""
        if self._live is not None:
            self._live.update(_panel(progress), refresh=True)
            return
        for words in progress.news[self._told :]:
            self._console.print(words)
        self._told = len(progress.news)
        rate = progress.rate
        if progress.elapsed - self._last >= _PLAIN_S:
            self._last = progress.elapsed
            nodes = ", ".join(
                f"{node.name} {node.partitions if node.state == 'serves' else node.state}"
                for node in progress.nodes
            )
            self._console.print(
                f"{progress.elapsed:5.1f} s  {progress.answered:,} answers, {rate:,.0f}/s;"
                f" partitions: {nodes}; free {progress.free}"
            )


_STYLES = {"serves": "green", "starts": "cyan", "killed": "red"}


def _panel(progress: Progress) -> Panel:
    table = Table(expand=True, box=None)
    for name in ("node", "process", "member", "partitions", "", "last beat"):
        table.add_column(name, justify="right" if name in ("process", "member") else "left")
    most = max(1, progress.free + sum(node.partitions for node in progress.nodes))
    for node in progress.nodes:
        table.add_row(
            node.name,
            str(node.pid),
            "" if node.member is None else str(node.member),
            Text("█" * round(24 * node.partitions / most), "blue") + f" {node.partitions}",
            Text(node.state, _STYLES[node.state]),
            "" if node.beat_age_s is None else f"{node.beat_age_s:.1f} s ago",
        )
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(
        ProgressBar(total=progress.seconds, completed=min(progress.elapsed, progress.seconds)),
        f"{progress.elapsed:.1f} s  {progress.rate:,.0f} answers/s",
    )
    counts = (
        f"{progress.signals:,} signals  {progress.calls:,} calls  {progress.orders:,} orders"
        f"  {progress.repeated:,} asked again"
    )
    free = f"{progress.free} partitions are nobody's" if progress.free else ""
    news = Text("\n".join(progress.news[-6:]), "dim")
    return Panel(
        Group(bar, Text(counts), Text(), table, Text(free, "yellow"), news, Text(progress.phase)),
        title="one hub, several nodes",
    )
