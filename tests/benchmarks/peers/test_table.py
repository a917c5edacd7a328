from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import orjson
from rich.console import Console

from perdure.benchmarks.peers.contender import OURS
from perdure.benchmarks.peers.race import Run
from perdure.benchmarks.peers.table import (
    Comparison,
    figure_rows,
    print_comparison,
    write_json,
    write_markdown,
)
from tests.benchmarks.peers.rounds import rounds_of


def test_the_table_says_who_was_wrong_and_who_is_missing_and_why(tmp_path: Path) -> None:
    rounds = rounds_of([400, 400], [100, 10])
    rounds[1]["restate"].wrong = "counted twice"
    for runs in rounds:
        runs["dbos-postgres"] = Run("dbos-postgres", unavailable="no PostgreSQL")
    comparison = Comparison(description={"command": "x"}, rounds=rounds)

    rows = {(row[0], row[1]): row for row in figure_rows(comparison)}
    console = Console(file=StringIO(), record=True, width=200)
    print_comparison(console, comparison)
    write_markdown(tmp_path / "table.md", comparison)
    write_json(tmp_path / "runs.json", comparison)

    assert rows["hello", OURS][3:7] == ["400", "400", "400", "1.0 x"]
    assert rows["hello", "restate"][3:7] == ["100", "100", "100", "4.0 x"]
    assert rows["hello", "restate"][-1] == "WRONG: 1 of 2"
    assert rows["hello", "dbos-postgres"][-1] == "not available"
    for shown in (console.export_text(), (tmp_path / "table.md").read_text("utf-8")):
        assert "not available: no PostgreSQL" in shown
        assert "WRONG: 1 of 2" in shown
    written = orjson.loads((tmp_path / "runs.json").read_bytes())
    assert [runs["restate"]["verified"] for runs in written["rounds"]] == [True, False]
    assert written["rounds"][0][OURS]["figures"][0]["rate"] == 400


def test_who_is_faster_by_much_is_shown_without_a_tenth_and_who_has_no_figure_without_one() -> None:
    comparison = Comparison(description={}, rounds=rounds_of([40_000], [10]))
    rows = {(row[0], row[1]): row for row in figure_rows(comparison)}

    assert rows["hello", "restate"][6] == "4,000 x"
    assert rows["fanout", "restate"][2:] == [*["-"] * 7, "1 of 1"]


def test_a_latency_that_nobody_knows_is_no_nought() -> None:
    rounds = rounds_of([400, 400], [100, 100])
    for run in (rounds[0]["restate"], rounds[0][OURS], rounds[1][OURS]):
        run.figures = [replace(figure, p99_ms=None) for figure in run.figures]
    rows = {(row[0], row[1]): row for row in figure_rows(Comparison({}, rounds))}

    assert rows["hello", "restate"][8] == "2.00"
    assert rows["hello", OURS][8] == "-"


def test_a_contender_is_shown_with_its_version_or_why_it_is_not_there() -> None:
    rounds = rounds_of([400, 400], [100, 100])
    rounds[1]["restate"] = Run("restate", unavailable="its server is gone")
    comparison = Comparison(description={}, rounds=rounds)

    assert comparison.names == [OURS, "restate"]
    assert comparison.version(OURS) == "1.0"
    assert comparison.version("restate") == "not available: its server is gone"
