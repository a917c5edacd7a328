"""The report that a person looks at: one page with all plots in it, and files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from .drawing import compact
from .figures import Fact, Figures, Outcome, Sweep, gather, joined
from .plots import draw
from .report import (
    FACT_HEADS,
    LOAD_HEADS,
    Report,
    Run,
    fact_cells,
    is_numeric,
    load_cells,
    sweep_cells,
    target_words,
)
from .suite import SECTIONS, Section

INDEX = "index.html"

# What stands in the first row, where it was measured: label, where from, name and unit.
_LOAD_HEADLINES = (
    ("orchestrations of three activities", "hello", "/s"),
    ("activities, fanned out", "fanout", "/s"),
    ("calls of one entity", "hot-call", "/s"),
    ("signals over 1,000 entities", "spread", "/s"),
    ("transfers under locks", "bank", "/s"),
)
_FACT_HEADLINES = (
    ("events replayed", "replay", "/s"),
    ("an idle entity", "idle entity", " B"),
    ("an idle orchestration", "idle orchestration", " B"),
)
_P99_HEADLINE = ("hello at half load, 99th percentile", "latency-hello", " ms")


def write_page(folder: Path, report: Report) -> Path:
    """Write the page and the plots; gives the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = {run.benchmark: run for run in report.runs}
    shown = [section for section in SECTIONS if any(name in runs for name in section.names)]
    everything = gather([outcome for run in report.runs for outcome in run.outcomes])
    body = [
        _header(report),
        _headlines(everything),
        _contents(shown, runs),
        *(_section(section, runs, folder) for section in shown),
        _footer(),
    ]
    page = folder / INDEX
    page.write_text(_HEAD + "\n".join(body) + "\n</main></body></html>\n", "utf-8")
    return page


def _header(report: Report) -> str:
    rows = [
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>"
        for key, value in report.description.items()
    ]
    verdict = _verdict(report.runs)
    return (
        f"<header><h1>Perdure benchmarks</h1>{verdict}</header>\n"
        f"<dl class='about'>{''.join(rows)}</dl>"
    )


def _verdict(runs: Sequence[Run]) -> str:
    failed = [run.benchmark for run in runs if run.failures]
    if failed:
        return f"<p class='badge bad'>wrong outcome: {escape(', '.join(failed))}</p>"
    return f"<p class='badge good'>all {len(runs)} outcomes verified</p>"


def _headlines(figures: Figures) -> str:
    found = [
        (label, f"{compact(figures.loads[name].rate)}{unit}")
        for label, name, unit in _LOAD_HEADLINES
        if name in figures.loads
    ]
    label, name, unit = _P99_HEADLINE
    if name in figures.loads:
        found.append((label, f"{compact(figures.loads[name].p99_ms)}{unit}"))
    found += [
        (label, f"{compact(figures.facts[name])}{unit}")
        for label, name, unit in _FACT_HEADLINES
        if name in figures.facts
    ]
    tiles = "".join(f"<div><b>{escape(value)}</b>{escape(label)}</div>" for label, value in found)
    tiles += "".join(_target_tile(fact) for fact in figures.targets)
    return f"<section class='tiles'>{tiles}</section>"


def _target_tile(fact: Fact) -> str:
    kind = "met" if fact.is_met else "missed"
    return (
        f"<div class='{kind}'><b>{fact.value:.2f} {escape(fact.unit)}</b>{escape(fact.name)}"
        f"<i>target: {escape(target_words(fact))}</i></div>"
    )


def _contents(sections: Sequence[Section], runs: dict[str, Run]) -> str:
    links = "".join(
        f"<a href='#{section.slug}'>{escape(section.title)}{_mark(section, runs)}</a>"
        for section in sections
    )
    return f"<nav>{links}</nav>"


def _mark(section: Section, runs: dict[str, Run]) -> str:
    return " ✗" if any(runs[name].failures for name in section.names if name in runs) else ""


def _section(section: Section, runs: dict[str, Run], folder: Path) -> str:
    own = [runs[name] for name in section.names if name in runs]
    measured = [run for run in own if run.outcomes and not run.failures]
    parts = [f"<section id='{section.slug}'><h2>{escape(section.title)}</h2>"]
    parts.append(f"<p class='question'>{escape(section.question)}</p>")
    if measured:
        # Repetitions of the benchmarks of a section are laid side by side, the first with the first.
        figures = gather([joined(_nth(measured, n)) for n in range(_most(measured))])
        picture = draw(section.slug, figures, folder)
        parts.append(f"<figure>{picture.svg}</figure>")
        parts.append(f"<p class='reading'>{escape(section.reading)}</p>")
    parts += [_verified(run) for run in own]
    if measured:
        parts.append(_tables(measured))
    parts.append("</section>")
    return "\n".join(parts)


def _most(runs: Sequence[Run]) -> int:
    return max(len(run.outcomes) for run in runs)


def _nth(runs: Sequence[Run], n: int) -> list[Outcome]:
    return [run.outcomes[n] for run in runs if n < len(run.outcomes)]


def _verified(run: Run) -> str:
    name = f"<code>{escape(run.benchmark)}</code>"
    if run.failures:
        reasons = "; ".join(run.failures)
        return f"<p class='check bad'>✗ {name} {escape(reasons)}. No figures are given.</p>"
    words = "; ".join(run.outcomes[0].verified)
    return f"<p class='check good'>✓ {name} verified: {escape(words)}.</p>"


def _tables(runs: Sequence[Run]) -> str:
    """Points in sight, where there are some; every single load and figure folded away."""
    sweeps = [_sweep(sweep) for run in runs for sweep in gather(run.outcomes).sweeps.values()]
    loads = [cells for run in runs for cells in load_cells(run)]
    facts = [cells for run in runs for cells in fact_cells(run)]
    folded: list[str] = []
    if loads:
        folded.append(_table(LOAD_HEADS, [cells for cells, _ in loads]))
        folded += [
            f"<p class='note'><code>{escape(cells[0])}</code>: {escape(note)}</p>"
            for cells, note in loads
            if note
        ]
    if facts:
        folded.append(_table(FACT_HEADS, facts))
    is_open = "" if sweeps else " open"
    return (
        f"{''.join(sweeps)}<details{is_open}><summary>all figures</summary>"
        f"{''.join(folded)}</details>"
    )


def _sweep(sweep: Sweep) -> str:
    note = f"<p class='note'>{escape(sweep.note)}</p>" if sweep.note else ""
    table = _table(sweep.heads, sweep_cells(sweep))
    if len(sweep.rows) > 20:
        return f"<details><summary>{escape(sweep.name)}</summary>{table}{note}</details>"
    return f"<h3>{escape(sweep.name)}</h3>{table}{note}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = [
        " class='n'" if number and is_numeric([row[number] for row in rows]) else ""
        for number in range(len(heads))
    ]
    head = _cells("th", heads, marks)
    body = "".join(f"<tr>{_cells('td', row, marks)}</tr>" for row in rows)
    return (
        f"<div class='table'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(tag: str, cells: Sequence[str], marks: Sequence[str]) -> str:
    return "".join(
        f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
    )


def _footer() -> str:
    return (
        "<footer>Written by <code>perdure bench</code>. Each plot lies beside this page as PNG "
        "and as SVG. Figures of different machines, or of busier minutes, do not compare.</footer>"
    )


_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Perdure benchmarks</title>
<style>
:root { --ink: #24292f; --soft: #57606a; --line: #e6e8eb; --blue: #0072B2; --good: #007a5a;
        --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: var(--ink);
       font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 20px 48px; }
header { display: flex; align-items: baseline; gap: 16px; flex-wrap: wrap; }
h1 { font-size: 30px; letter-spacing: -0.02em; margin: 0; }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 0; }
h3 { font-size: 14px; margin: 20px 0 6px; }
.badge { margin: 0; padding: 2px 12px; border-radius: 20px; color: #fff; font-size: 13px;
         font-weight: 600; }
.badge.good { background: var(--good); } .badge.bad { background: var(--bad); }
.about { display: flex; flex-wrap: wrap; gap: 4px 28px; margin: 14px 0 22px; font-size: 13px; }
.about div { display: flex; gap: 7px; } .about dt { color: var(--soft); } .about dd { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px;
         background: none; box-shadow: none; padding: 0; margin: 0 0 16px; }
.tiles div { background: #fff; border-radius: 10px; padding: 14px 16px; color: var(--soft);
             font-size: 13px; line-height: 1.35; box-shadow: 0 1px 2px #0001, 0 0 0 1px #0000000a; }
.tiles b { display: block; font-size: 26px; letter-spacing: -0.02em; color: var(--blue);
           line-height: 1.25; }
.tiles i { display: block; font-style: normal; font-weight: 600; }
.tiles .met b, .tiles .met i { color: var(--good); }
.tiles .missed b, .tiles .missed i { color: var(--bad); }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 20px; }
nav a { color: var(--ink); text-decoration: none; background: #fff; border-radius: 20px;
        padding: 3px 13px; font-size: 13px; box-shadow: 0 0 0 1px var(--line); }
nav a:hover { color: var(--blue); }
section { background: #fff; border-radius: 12px; padding: 22px 24px; margin-bottom: 20px;
          box-shadow: 0 1px 2px #0001, 0 0 0 1px #0000000a; }
.question { margin: 2px 0 12px; font-size: 16px; color: var(--soft); }
.reading, .note { max-width: 78ch; color: var(--soft); font-size: 13.5px; margin: 8px 0; }
.note { font-size: 12.5px; margin: 4px 0; }
.check { margin: 4px 0; font-size: 13.5px; }
.check.good { color: var(--good); } .check.bad { color: var(--bad); font-weight: 600; }
figure { margin: 6px 0 10px; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; min-width: 720px; }
figure svg text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif !important; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12px;
     vertical-align: bottom; line-height: 1.25; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); }
th.n, td.n { text-align: right; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody tr:hover { background: #f5f9fc; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--blue); font-size: 13.5px; }
code { font: 0.92em ui-monospace, "DejaVu Sans Mono", monospace; }
footer { color: var(--soft); font-size: 12.5px; }
@media print { body { background: #fff; } section { break-inside: avoid; } nav { display: none; } }
</style></head><body><main>
"""
