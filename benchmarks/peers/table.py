"""Shows who did how much: a table on the terminal, JSON, Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import orjson
from attrs import asdict as run_as_dict, frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .contender import OURS, contender_class
from .measure import LOADS, Figure
from .race import Rounds, Run, rates, ratio

FIGURE_HEADS = (
    "load", "contender", "in flight", "median /s", "least /s", "most /s",
    f"{OURS} does", "p50 ms", "p99 ms", "verified",
)  # fmt: skip
CONTENDER_HEADS = ("contender", "versions", "durable", "an entity is", "tuning")


@frozen
class Comparison:
    """What one invocation measured, and on what."""

    description: dict[str, str]
    rounds: Rounds

    @property
    def names(self) -> list[str]:
        """The contenders, in the order in which they ran."""
        return list(self.rounds[0])

    def runs(self, name: str) -> list[Run]:
        """Give the runs of one contender."""
        return [runs[name] for runs in self.rounds]

    def version(self, name: str) -> str:
        """Give the versions that a contender said, or why it is not available."""
        runs = self.runs(name)
        reason = next((run.unavailable for run in runs if run.unavailable is not None), None)
        return runs[-1].version if reason is None else f"not available: {reason}"


def figure_rows(comparison: Comparison) -> Iterator[list[str]]:
    """Give the cells for each load of each contender."""
    for load in LOADS:
        for name in comparison.names:
            yield [load, name, *_figure_cells(comparison, name, load)]


def _figure_cells(comparison: Comparison, name: str, load: str) -> list[str]:
    runs = comparison.runs(name)
    if any(run.unavailable is not None for run in runs):
        return ["-"] * 7 + ["not available"]
    good = sum(run.verified for run in runs)
    verdict = f"{good} of {len(runs)}" if good == len(runs) else f"WRONG: {good} of {len(runs)}"
    found = rates(comparison.rounds, name, load)
    if not found:
        return ["-"] * 7 + [verdict]
    figures = [
        figure for run in runs if run.verified for figure in run.figures if figure.load == load
    ]
    times = ratio(comparison.rounds, name, load, OURS)
    return [
        f"{figures[0].in_flight:,}",
        f"{median(found):,.0f}",
        f"{min(found):,.0f}",
        f"{max(found):,.0f}",
        "-" if times is None else f"{times:,.1f} x" if times < 100 else f"{times:,.0f} x",
        _median_ms([figure.p50_ms for figure in figures]),
        _median_ms([figure.p99_ms for figure in figures]),
        verdict,
    ]


def _median_ms(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):,.2f}" if known else "-"


def contender_rows(comparison: Comparison) -> Iterator[list[str]]:
    """Give the cells for each contender: what it is, and what it promises."""
    for name in comparison.names:
        found = contender_class(name)
        yield [name, comparison.version(name), found.durability, found.entity, found.tuning]


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print what was run, and the figures."""
    for key, value in comparison.description.items():
        console.print(f"[bold]{key}[/]: {value}", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    for head in FIGURE_HEADS:
        text = head in ("load", "contender", "verified")
        table.add_column(head, no_wrap=True, justify="left" if text else "right")
    last = ""
    for cells in figure_rows(comparison):
        if last not in ("", cells[0]):
            table.add_section()
        last = cells[0]
        table.add_row(*cells)
    console.print(table)
    for row in contender_rows(comparison):
        console.print(f"[bold]{row[0]}[/]: {row[1]}", highlight=False)
        for head, cell in zip(CONTENDER_HEADS[2:], row[2:], strict=True):
            console.print(f"  {head}: {cell}", highlight=False)


def write_json(path: Path, comparison: Comparison) -> None:
    """Write every run."""

    def one(run: Run) -> dict[str, object]:
        figures = [_figure_as_dict(figure) for figure in run.figures]
        return {**run_as_dict(run, recurse=False), "verified": run.verified, "figures": figures}

    content = {
        "description": comparison.description,
        "rounds": [{name: one(run) for name, run in runs.items()} for runs in comparison.rounds],
    }
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _figure_as_dict(figure: Figure) -> dict[str, object]:
    return {**vars(figure), "rate": figure.rate}


MARKDOWN_HEAD = """\
# Other frameworks, side by side

Written by `python -m benchmarks.peers --markdown`. [../README.md](../README.md) says how the contenders
were run and how to read this. Compare within a load; what an *entity* stands for where a
framework has none, and what *durable* means for each, is in the last table.
"""


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write the tables to a Markdown file, anew."""
    lines = [MARKDOWN_HEAD]
    lines += [f"* {key}: {value}" for key, value in comparison.description.items()]
    lines += ["", *_markdown_table(FIGURE_HEADS, figure_rows(comparison))]
    lines += ["", *_markdown_table(CONTENDER_HEADS, contender_rows(comparison)), ""]
    path.write_text("\n".join(lines), "utf-8")


def _markdown_table(heads: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
