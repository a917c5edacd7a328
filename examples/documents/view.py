"""What a run shows: a live panel on a terminal, plain lines elsewhere, and a summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .models import Decision, Status

STYLES = {
    "completed": "green",
    "rejected": "yellow",
    "timeout": "magenta",
    "failed": "red",
    "pending": "cyan",
}


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        total: the documents of the batch.
        before: how many had ended when this run began.
        counters: what the document counter says.
        stages: how many of the documents under way are in which stage.
        decisions: the reviewer's latest.
        begun: when the run began, on the monotonic clock.
    """

    total: int
    before: int = 0
    counters: dict[str, int] = field(default_factory=dict[str, int])
    stages: Counter[str] = field(default_factory=Counter[str])
    decisions: list[tuple[str, Decision]] = field(default_factory=list[tuple[str, Decision]])
    begun: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """How many documents have ended, one way or another."""
        return sum(self.counters.get(status, 0) for status in Status)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.begun

    @property
    def rate(self) -> float:
        """Documents a second in this run."""
        return (self.ended - self.before) / max(self.elapsed, 1e-9)


class View(Protocol):
    """Shows progress while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    def show(self, progress: Progress) -> None:
        """Take notice of how far the run is."""
        ...


class PlainView:
    """A line a second, for logs and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last = float("-inf")
        self._ended = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        pass

    def show(self, progress: Progress) -> None:
        is_last = progress.ended == progress.total and self._ended < progress.total
        if progress.elapsed - self._last < 1 and not is_last:
            return
        self._ended = progress.ended
        self._last = progress.elapsed
        counts = ", ".join(f"{progress.counters.get(status, 0)} {status}" for status in Status)
        self._write(
            f"{progress.elapsed:5.1f} s  {progress.ended}/{progress.total} documents: {counts};"
            f" {progress.stages['review']} wait for review; {progress.rate:.0f}/s"
        )


class LiveView:
    """A panel that is drawn again and again."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, progress: Progress) -> None:
        self._live.update(_panel(progress), refresh=True)


def _panel(progress: Progress) -> Panel:
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(
        ProgressBar(total=progress.total, completed=progress.ended),
        f"{progress.ended}/{progress.total}  {progress.rate:.0f}/s  {progress.elapsed:.1f} s",
    )
    counts = Table.grid(padding=(0, 3))
    counts.add_row(
        *(Text(f"{progress.counters.get(status, 0)} {status}", STYLES[status]) for status in Status)
    )
    under_way = "  ".join(
        f"{progress.stages[stage]} {label}"
        for stage, label in (
            ("extract", "extracting"),
            ("check", "checking"),
            ("review", "waiting for review"),
            ("store", "storing"),
        )
    )
    decisions = Table.grid(padding=(0, 2))
    for name, decision in progress.decisions:
        word, style = ("approved", "green") if decision.approved else ("rejected", "yellow")
        decisions.add_row(Text(word, style), Text(name), Text(decision.reason, "dim"))
    return Panel(Group(bar, counts, Text(under_way, "dim"), Text(), decisions), title="documents")


def print_summary(
    console: Console,
    progress: Progress,
    words: Counter[str],
    durable_events: int,
) -> None:
    """Show what came of it."""
    table = Table("status", "documents", title="Documents", title_justify="left")
    table.columns[1].justify = "right"
    for status in Status:
        table.add_row(Text(status, STYLES[status]), f"{progress.counters.get(status, 0):,}")
    table.add_section()
    table.add_row("all", f"{progress.ended:,}")
    console.print(table)
    console.print(_top_words(words))
    console.print(
        f"{sum(words.values()):,} words, {len(words):,} different, in 16 counters; "
        f"{durable_events:,} events in the histories"
    )
    now = progress.ended - progress.before
    if now:
        console.print(
            f"{now:,} documents in {progress.elapsed:.1f} s: {progress.rate:.0f} documents a second"
        )


def _top_words(words: Counter[str]) -> Table:
    ranking = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:20]
    table = Table(title="Top 20 words", title_justify="left", show_header=False)
    rows = (len(ranking) + 3) // 4
    for row in range(rows):
        cells: list[str] = []
        for word, count in ranking[row::rows]:
            cells += [word, f"{count:,}"]
        table.add_row(*cells)
    for column in table.columns[1::2]:
        column.justify = "right"
    return table


def describe(counters: Mapping[str, int]) -> str:
    """Give counts as a sentence's part."""
    return ", ".join(f"{counters.get(status, 0)} {status}" for status in Status)
