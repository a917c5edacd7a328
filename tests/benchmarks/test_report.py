from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve
from rich.console import Console

import perdure
from perdure.benchmarks.bench import Options
from perdure.benchmarks.figures import Fact, Load, Outcome, Sweep
from perdure.benchmarks.histogram import Histogram
from perdure.benchmarks.report import (
    Report,
    Run,
    describe_run,
    fact_cells,
    file_system,
    is_numeric,
    load_cells,
    print_report,
    sweep_cells,
    write_json,
    write_markdown,
)

LOAD = Load(
    name="hello",
    unit="orchestrations",
    operations=2_000,
    requests=2_000,
    concurrency=100,
    seconds=2.0,
    p50_ms=1.234,
    p99_ms=20.0,
    cpu_us=300.04,
    commits=50,
    stored=4_000,
    written=8_000,
)
FACT = Fact(name="size", value=1_234.5, unit="B", target=2_000.0, note="of one")
SWEEP = Sweep(name="points", heads=("kind", "rate"), rows=[["a", 1_000.0], ["b", None]], note="n")


def run(*outcomes: Outcome, failures: tuple[str, ...] = ()) -> Run:
    return Run(benchmark="hello", outcomes=[*outcomes], failures=[*failures])


def report(*runs: Run) -> Report:
    return Report(description={"event loop": "asyncio 3.11", "command": "bench"}, runs=[*runs])


def printed(given: Report) -> str:
    console = Console(file=StringIO(), record=True, width=200)
    print_report(console, given)
    return console.export_text()


def test_a_load_is_shown_by_its_median_run_with_costs_per_operation() -> None:
    runs = [Outcome(loads=[evolve(LOAD, seconds=seconds)]) for seconds in (1.0, 4.0, 2.0)]

    [(cells, note)] = load_cells(run(*runs))

    assert cells == [
        *("hello", "100", "2,000", "orchestrations", "1,000", "2,000", "1.23", "20.00"),
        *("300.0", "0.0250", "2", "4"),
    ]
    assert note == ""


def test_what_a_load_could_not_tell_is_no_nought() -> None:
    [(cells, _)] = load_cells(run(Outcome(loads=[evolve(LOAD, concurrency=0, written=None)])))

    assert (cells[1], cells[-1]) == ("open", "-")


def test_a_fact_is_shown_with_its_best_and_what_was_wanted() -> None:
    runs = [Outcome(facts=[evolve(FACT, value=value)]) for value in (3_000.0, 12.345, 2_500.0)]

    assert fact_cells(run(*runs)) == [
        ["size", "2,500", "12.35", "B", "at most 2000: not met", "of one"]
    ]


def test_points_are_shown_as_whole_numbers_where_they_are_and_gaps_as_gaps() -> None:
    sweep = evolve(SWEEP, heads=("kind", "rate", "ms"), rows=[["a", 1_000.0, 1.5], ["b", None, 3]])

    assert sweep_cells(sweep) == [["a", "1,000", "1.50"], ["b", "-", "3"]]


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [(["1,000", "-"], True), (["1.5", "a"], False), (["-0.50"], True), (["-x"], False)],
)
def test_a_column_of_numbers_is_told_from_one_of_words(cells: list[str], numeric: bool) -> None:
    assert is_numeric(cells) is numeric


def test_a_wrong_benchmark_is_in_no_table() -> None:
    given = report(run(Outcome(loads=[LOAD]), failures=("WrongOutcomeError: no",)))

    assert given.measured == []
    assert "1,000" not in printed(given)


def test_a_load_that_has_a_table_of_points_has_no_second_row() -> None:
    text = printed(report(run(Outcome(loads=[LOAD], facts=[FACT], sweeps=[SWEEP]))))

    assert "points" in text
    assert "at most 2000: met" in text
    assert "orchestrations" not in text


def test_what_has_to_be_known_is_printed_below_the_tables() -> None:
    outcome = Outcome(loads=[evolve(LOAD, note="warm")], verified=["every greeting"])

    text = printed(report(run(outcome)))

    assert "hello: warm" in text
    assert "hello, verified: every greeting" in text
    assert "command: bench" in text


def test_the_json_has_each_repetition_and_why_others_failed(tmp_path: Path) -> None:
    outcome = Outcome(
        loads=[LOAD],
        facts=[FACT],
        sweeps=[SWEEP],
        histograms={"h": Histogram([0.001, 0.002])},
        verified=["every greeting"],
    )
    failed = Run(benchmark="hot", failures=["WrongOutcomeError: no"])

    write_json(tmp_path / "figures.json", report(run(outcome, outcome), failed))

    content: dict[str, Any] = orjson.loads((tmp_path / "figures.json").read_bytes())
    assert len(content["hello"]) == 2
    one = content["hello"][0]
    assert one["loads"][0]["rate"] == 1_000
    assert one["facts"][0]["met"] is True
    assert one["sweeps"][0]["points"] == [
        {"kind": "a", "rate": 1_000},
        {"kind": "b", "rate": None},
    ]
    assert one["percentiles"]["h"]["count"] == 2
    assert content["failed"] == {"hot": ["WrongOutcomeError: no"]}
    assert "hot" not in content


def test_the_markdown_has_a_section_for_each_event_loop_and_one_head(tmp_path: Path) -> None:
    path = tmp_path / "figures.md"
    outcome = Outcome(loads=[evolve(LOAD, note="warm")], facts=[FACT])

    write_markdown(path, report(run(outcome)))
    write_markdown(path, report(run(Outcome(sweeps=[SWEEP]))))

    lines = path.read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# Figures",
        "## asyncio",
        "## asyncio",
    ]
    assert "* `hello`: warm" in lines
    assert "points:" in lines
    assert [line for line in lines if line.startswith("| a")] == ["| a | 1,000 |"]


@pytest.mark.parametrize(
    ("store", "words", "durability"),
    [
        ("memory:", "memory:", perdure.MemoryStore().durability),
        ("sqlite:", "SQLite", "sqlite WAL synchronous=FULL"),
    ],
)
def test_a_run_is_described_by_what_it_was_run_with(
    store: str, words: str, durability: str
) -> None:
    found = describe_run(Options(store=store, partitions=7), "bench hot", "asyncio", uvloop=False)

    assert found["store"].startswith(words)
    assert found["durability"] == durability
    assert (found["partitions"], found["command"]) == ("7", "bench hot")
    assert found["perdure"] == perdure.__version__


def test_a_folder_s_file_system_is_that_of_the_mount_nearest_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\nx /my\\040disk xfs rw 0 0\n"

    def read(*_: object) -> str:
        return mounts

    monkeypatch.setattr(Path, "read_text", read)

    assert file_system(Path("/somewhere/else")) == "ext4"
    assert file_system(Path("/dev/shm/store")) == "tmpfs"
    assert file_system(Path("/dev/shmoo")) == "ext4"
    assert file_system(Path("/my disk/store")) == "xfs"


def test_where_mounts_are_not_told_the_file_system_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> str:
        raise OSError("no such file")

    monkeypatch.setattr(Path, "read_text", fail)

    assert file_system(Path("/")) == "file system unknown"
