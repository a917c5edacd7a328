"""Shows on the terminal how far the suite has come."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Bar:
    """Progress bars that are drawn from the event loop, so that no thread takes turns with it.

    One is for the whole suite, and one for the load that is under way.
    """

    def __init__(self, console: Console, total: int, *, visible: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description:>44}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not visible,
        )
        self._suite = self._bar.add_task("", total=total)
        self._load = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, run: str, done: int) -> None:
        """Draw which run begins, after how many."""
        self._bar.update(self._suite, description=f"[bold]{run}[/]", completed=done)
        self._bar.reset(self._load, description="", total=None)
        self._bar.refresh()

    def show(self, what: str, done: int, total: int) -> None:
        """Draw how far a load has come."""
        self._bar.update(self._load, description=what, completed=done, total=total, refresh=True)
