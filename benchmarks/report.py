"""Shows what was measured: a table on the terminal, JSON, Markdown."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
import orjson
from attrs import Factory, define, frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as RichProgress, TextColumn
from rich.table import Table

import perdure

from .bench import Options
from .figures import Fact, Load, Outcome, best_fact, best_load, by_name, middle_fact, middle_load


@define
class Run:
    """The repetitions of one benchmark."""

    benchmark: str
    outcomes: list[Outcome] = Factory(list[Outcome])


@frozen
class Report:
    """What one invocation measured, and on what."""

    description: dict[str, str]
    runs: list[Run]


class Bar:
    """A progress bar that is drawn from the event loop, so that no thread takes turns with it."""

    def __init__(self, console: Console, *, visible: bool) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description:>20}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not visible,
        )
        self._task = self._bar.add_task("", total=None)

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

    def show(self, what: str, done: int, total: int) -> None:
        """Draw how far a load has come."""
        self._bar.update(self._task, description=what, completed=done, total=total, refresh=True)


def describe_run(options: Options, command: str, backend: str, *, uvloop: bool) -> dict[str, str]:
    """Say what was run, with what, and on what machine."""
    loop = "uvloop" if uvloop else backend
    description = {
        "command": command,
        "perdure": perdure.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "event loop": loop,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors ({_processor()})",
        "system": f"{platform.system()} {_release()}, load average {_load()}",
    }
    if options.store == "memory:":
        description["store"] = f"memory:, {perdure.MemoryStore().durability}"
    else:
        path = options.store.partition(":")[2] or tempfile.gettempdir()
        description["store"] = (
            f"SQLite {sqlite3.sqlite_version}, {perdure.SqliteStore(path).durability}, "
            f"{file_system(Path(path))}"
        )
    description["partitions"] = str(options.partitions)
    return description


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _release() -> str:
    return platform.release().partition("-")[0]  # the rest names a build, not a version


def _load() -> str:
    # What else ran on the machine shows here, if nothing of the suite ran just before.
    return " ".join(f"{value:.2f}" for value in os.getloadavg()) if os.name == "posix" else "-"


def file_system(path: Path) -> str:
    """Say what kind of file system a folder is on: a tmpfs flatters every figure."""
    try:
        lines = Path("/proc/mounts").read_text("utf-8").splitlines()
    except OSError:
        return "file system unknown"
    where = path.absolute().resolve()
    found: dict[Path, str] = {}
    for line in lines:
        _, mounted, kind, *_ = line.split(" ")
        point = Path(mounted.replace("\\040", " "))
        if where.is_relative_to(point):
            found[point] = kind
    return max(found.items(), key=lambda item: len(item[0].parts))[1] if found else "unknown"


LOAD_HEADS = (
    "load", "in flight", "n", "unit", "median /s", "best /s", "p50 ms", "p99 ms",
    "CPU us", "commits", "stored B", "written B",
)  # fmt: skip
LOAD_TITLE = "Loads (warm-up excluded; the last four columns are per operation)"
FACT_HEADS = ("figure", "median", "best", "unit", "what it is")


def load_rows(report: Report) -> Iterator[tuple[list[str], str]]:
    """Give the cells of each load, and its note."""
    for run in report.runs:
        for name, loads in by_name(run.outcomes)[0].items():
            yield _load_cells(name, loads), loads[0].note


def _load_cells(name: str, loads: list[Load]) -> list[str]:
    load = middle_load(loads)
    n = load.operations
    return [
        name,
        f"{load.concurrency:,}" if load.concurrency else "open",
        f"{n:,}",
        load.unit,
        f"{load.rate:,.0f}",
        f"{best_load(loads).rate:,.0f}",
        f"{load.p50_ms:,.2f}",
        f"{load.p99_ms:,.2f}",
        f"{load.cpu_us:,.1f}",
        f"{load.commits / n:.4f}",
        f"{load.stored / n:,.0f}",
        "-" if load.written is None else f"{load.written / n:,.0f}",
    ]


def fact_rows(report: Report) -> Iterator[list[str]]:
    """Give the cells of each fact."""
    for run in report.runs:
        for name, facts in by_name(run.outcomes)[1].items():
            yield _fact_cells(name, facts)


def _fact_cells(name: str, facts: list[Fact]) -> list[str]:
    one = facts[0]
    return [name, _number(middle_fact(facts)), _number(best_fact(facts)), one.unit, one.note]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def print_report(console: Console, report: Report) -> None:
    """Print the tables, and below them what has to be known to read them."""
    for key, value in report.description.items():
        console.print(f"[bold]{key}[/]: {value}", highlight=False)
    rows = list(load_rows(report))
    if rows:
        table = Table(title=LOAD_TITLE, box=SIMPLE_HEAD)
        for head in LOAD_HEADS:
            table.add_column(
                head, no_wrap=True, justify="left" if head in ("load", "unit") else "right"
            )
        for cells, _ in rows:
            table.add_row(*cells)
        console.print(table)
        for cells, note in rows:
            if note:
                console.print(f"{cells[0]}: {note}", highlight=False)
    facts = list(fact_rows(report))
    if facts:
        table = Table(title="Other figures", box=SIMPLE_HEAD)
        for head in FACT_HEADS:
            table.add_column(head, justify="right" if head in ("median", "best") else "left")
        for cells in facts:
            table.add_row(*cells)
        console.print(table)


def write_json(path: Path, report: Report) -> None:
    """Write every repetition."""
    content: dict[str, object] = {"description": report.description}
    for run in report.runs:
        content[run.benchmark] = [
            {
                "loads": [{**attrs.asdict(load), "rate": load.rate} for load in outcome.loads],
                "facts": [attrs.asdict(fact) for fact in outcome.facts],
            }
            for outcome in run.outcomes
        ]
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


MARKDOWN_HEAD = """\
# Figures

Written by `perdure bench --markdown`. [README.md](README.md) says how they were measured and how to
read them; the load average in each head says how busy the machine was with other things."""


def write_markdown(path: Path, report: Report) -> None:
    """Append the tables to a Markdown file, as a section named after the event loop."""
    lines = [] if path.exists() else [MARKDOWN_HEAD]
    lines += ["", f"## {report.description['event loop']}", ""]
    lines += [f"* {key}: {value}" for key, value in report.description.items()]
    rows = list(load_rows(report))
    if rows:
        lines += ["", f"{LOAD_TITLE}:"]
        lines += ["", *_markdown_table(LOAD_HEADS, [cells for cells, _ in rows])]
        notes = [f"* `{cells[0]}`: {note}" for cells, note in rows if note]
        lines += ["", *notes] if notes else []
    facts = list(fact_rows(report))
    if facts:
        lines += ["", "Other figures:", "", *_markdown_table(FACT_HEADS, facts)]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))


def _markdown_table(heads: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
