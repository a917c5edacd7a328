"""Shows what was measured: tables on the terminal, JSON, Markdown."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
import orjson
from attrs import Factory, define, frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import perdure

from .bench import Options
from .figures import (
    Cell,
    Fact,
    Load,
    Outcome,
    Sweep,
    as_median,
    best_fact,
    best_load,
    by_name,
    middle_load,
    middle_sweeps,
)
from .interpreter import interpreter_words, loop_words


@define
class Run:
    """The repetitions of one benchmark; with failures, none of them is reported."""

    benchmark: str
    outcomes: list[Outcome] = Factory(list[Outcome])
    failures: list[str] = Factory(list[str])


@frozen
class Report:
    """What one invocation measured, and on what."""

    description: dict[str, str]
    runs: list[Run]

    @property
    def measured(self) -> list[Run]:
        """The runs whose outcomes were right."""
        return [run for run in self.runs if not run.failures]


def describe_run(options: Options, command: str, backend: str, *, uvloop: bool) -> dict[str, str]:
    """Say what was run, with what, and on what machine."""
    description = {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "perdure": perdure.__version__,
        "python": interpreter_words(),
        "event loop": loop_words(backend, uvloop=uvloop),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors ({_processor()})",
        "system": f"{platform.system()} {_release()}, load average {_load()}",
    }
    if options.store == "memory:":
        description["store"] = "memory:"
        description["durability"] = perdure.MemoryStore().durability
    else:
        path = options.store.partition(":")[2] or tempfile.gettempdir()
        description["store"] = f"SQLite {sqlite3.sqlite_version} on {file_system(Path(path))}"
        description["durability"] = perdure.SqliteStore(path).durability
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
FACT_HEADS = ("figure", "median", "best", "unit", "target", "what it is")


def load_cells(run: Run) -> list[tuple[list[str], str]]:
    """Give the cells of each load, and its note."""
    found = by_name(run.outcomes)[0]
    return [(_load_cells(name, loads), loads[0].note) for name, loads in found.items()]


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


def fact_cells(run: Run) -> list[list[str]]:
    """Give the cells of each fact."""
    return [_fact_cells(name, facts) for name, facts in by_name(run.outcomes)[1].items()]


def _fact_cells(name: str, facts: list[Fact]) -> list[str]:
    one = as_median(facts)
    best = _number(best_fact(facts))
    return [name, _number(one.value), best, one.unit, target_words(one), one.note]


def target_words(fact: Fact) -> str:
    """Say what was wanted, and whether the value is as good; empty where nothing was."""
    if fact.target is None:
        return ""
    bound = "at most" if fact.better == "lower" else "at least"
    return f"{bound} {fact.target:g}: {'met' if fact.is_met else 'not met'}"


def sweep_cells(sweep: Sweep) -> list[list[str]]:
    """Give the cells of a table of points."""
    return [[_cell(cell) for cell in row] for row in sweep.rows]


def _cell(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    return f"{cell:,.0f}" if cell == int(cell) else _number(cell)


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, and ``-`` where there is none."""
    return all(cell == "-" or cell.lstrip("-")[:1].isdigit() for cell in cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _all_rows(report: Report) -> tuple[list[tuple[list[str], str]], list[list[str]], list[Sweep]]:
    runs = report.measured
    sweeps = [sweep for run in runs for sweep in middle_sweeps(run.outcomes).values()]
    # Where a table has a row for each load, a second one for all of them says less.
    plain = [run for run in runs if not any(outcome.sweeps for outcome in run.outcomes)]
    loads = [cells for run in plain for cells in load_cells(run)]
    return loads, [cells for run in runs for cells in fact_cells(run)], sweeps


def print_report(console: Console, report: Report) -> None:
    """Print the tables, and below them what has to be known to read them."""
    for key, value in report.description.items():
        console.print(f"[bold]{key}[/]: {value}", highlight=False)
    loads, facts, sweeps = _all_rows(report)
    if loads:
        _print_table(console, LOAD_TITLE, LOAD_HEADS, [cells for cells, _ in loads])
        for cells, note in loads:
            if note:
                console.print(f"{cells[0]}: {note}", highlight=False)
    for sweep in sweeps:
        _print_table(console, sweep.name, sweep.heads, sweep_cells(sweep))
        if sweep.note:
            console.print(sweep.note, highlight=False)
    if facts:
        _print_table(console, "Other figures", FACT_HEADS, facts)
    for run in report.measured:
        for words in run.outcomes[0].verified:
            console.print(f"{run.benchmark}, verified: {words}", highlight=False)


def _print_table(
    console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title, box=SIMPLE_HEAD)
    for number, head in enumerate(heads):
        is_text = not number or not is_numeric([row[number] for row in rows])
        table.add_column(head, justify="left" if is_text else "right")
    for cells in rows:
        table.add_row(*cells)
    console.print(table)


def write_json(path: Path, report: Report) -> None:
    """Write every repetition of every benchmark, and why others failed."""
    content: dict[str, object] = {"description": report.description}
    for run in report.measured:
        content[run.benchmark] = [_outcome(outcome) for outcome in run.outcomes]
    content["failed"] = {run.benchmark: run.failures for run in report.runs if run.failures}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _outcome(outcome: Outcome) -> dict[str, object]:
    return {
        "loads": [{**attrs.asdict(load), "rate": load.rate} for load in outcome.loads],
        "facts": [{**attrs.asdict(fact), "met": fact.is_met} for fact in outcome.facts],
        "sweeps": [
            {
                "name": sweep.name,
                "note": sweep.note,
                "points": [dict(zip(sweep.heads, row, strict=True)) for row in sweep.rows],
            }
            for sweep in outcome.sweeps
        ],
        "percentiles": {
            name: {"count": one.total, "max_ms": one.max_ms, "curve": one.curve()}
            for name, one in outcome.histograms.items()
        },
        "verified": list(outcome.verified),
    }


MARKDOWN_HEAD = """\
# Figures

Written by `perdure bench --markdown`. [README.md](README.md) says how they were measured and how to
read them; the load average in each head says how busy the machine was with other things."""


def write_markdown(path: Path, report: Report) -> None:
    """Append the tables to a Markdown file, as a section named after the event loop."""
    lines = [] if path.exists() else [MARKDOWN_HEAD]
    loop, _, _ = report.description["event loop"].partition(" ")
    lines += ["", f"## {loop}", ""]
    lines += [f"* {key}: {value}" for key, value in report.description.items()]
    loads, facts, sweeps = _all_rows(report)
    if loads:
        lines += ["", f"{LOAD_TITLE}:"]
        lines += ["", *_markdown_table(LOAD_HEADS, [cells for cells, _ in loads])]
        notes = [f"* `{cells[0]}`: {note}" for cells, note in loads if note]
        lines += ["", *notes] if notes else []
    for sweep in sweeps:
        lines += ["", f"{sweep.name}:", "", *_markdown_table(sweep.heads, sweep_cells(sweep))]
        lines += ["", sweep.note] if sweep.note else []
    if facts:
        lines += ["", "Other figures:", "", *_markdown_table(FACT_HEADS, facts)]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
