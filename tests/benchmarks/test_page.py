"""The report holds every plot and table, says what was verified, and needs no other file."""

from __future__ import annotations

import faulthandler
import re
from functools import partial
from pathlib import Path

import orjson
import pytest

from perdure.benchmarks import command
from perdure.benchmarks.bench import Bench
from perdure.benchmarks.figures import (
    Outcome,
    WrongOutcomeError,
)
from perdure.benchmarks.plots import PLOTS
from perdure.benchmarks.replay import measure_replay
from perdure.benchmarks.suite import BENCHMARKS, SECTIONS, Benchmark
from tests.benchmarks.sizes import make_small

pytestmark = pytest.mark.once

TEXTS = str(Path(command.__file__).parent)
SMALL = ["-n", "5", "--instances", "40", "--text", TEXTS, "--store", "memory:", "--no-uvloop"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the report of a small run of all benchmarks, and its JSON beside it."""
    pytest.importorskip("matplotlib")
    # All of them may take longer beside other tests than a test may that does not hang.
    faulthandler.dump_traceback_later(600, exit=True, file=2)
    folder = tmp_path_factory.mktemp("report")
    replay = Benchmark(partial(measure_replay, activities=30), "a short history")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setitem(BENCHMARKS, "replay", replay)
        files = ["--report", str(folder), "--json", str(folder / "figures.json")]
        status = command.main([*SMALL, *files])
    assert status == 0
    return folder


def test_every_benchmark_has_one_section_and_every_section_a_plot() -> None:
    shown = [name for section in SECTIONS for name in section.names]

    assert sorted(shown) == sorted(BENCHMARKS)
    assert [section.slug for section in SECTIONS] == list(
        dict.fromkeys(section.slug for section in SECTIONS)
    )
    assert {section.slug for section in SECTIONS} == set(PLOTS)


def test_the_page_holds_every_plot_and_the_folder_its_files(report: Path) -> None:
    page = (report / "index.html").read_text("utf-8")

    assert page.count("<svg") == len(SECTIONS)
    for section in SECTIONS:
        assert f"<section id='{section.slug}'>" in page
        assert section.question in page
        assert (report / f"{section.slug}.svg").read_text("utf-8").count("<svg") == 1
        assert (report / f"{section.slug}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_from_elsewhere(report: Path) -> None:
    page = (report / "index.html").read_text("utf-8")

    assert "<script" not in page
    assert "<link" not in page
    assert "<img" not in page
    targets = re.findall(r"(?:src|href)=['\"]([^'\"]*)|url\(([^)]*)\)", page)
    assert targets
    assert all("".join(target).startswith("#") for target in targets)


def test_what_the_plots_refer_to_is_there_once(report: Path) -> None:
    page = (report / "index.html").read_text("utf-8")

    ids = re.findall(r"\bid=['\"]([^'\"]*)", page)
    wanted = re.findall(r"(?:href=['\"]|url\()#([^'\")]*)", page)
    assert len(ids) == len(set(ids))
    assert set(wanted) <= set(ids)


def test_the_page_says_on_what_it_ran_and_what_was_verified(report: Path) -> None:
    page = (report / "index.html").read_text("utf-8")

    for key in ("machine", "python", "event loop", "store", "durability", "command", "date"):
        assert f"<dt>{key}</dt>" in page
    assert "memory only: lost when the process ends" in page
    assert f"all {len(BENCHMARKS)} outcomes verified" in page
    for name in BENCHMARKS:
        assert f"✓ <code>{name}</code> verified: " in page


def test_the_page_says_what_was_wanted_and_whether_it_was_reached(report: Path) -> None:
    page = (report / "index.html").read_text("utf-8")
    content = orjson.loads((report / "figures.json").read_bytes())

    wanted = [
        fact
        for name in BENCHMARKS
        for fact in content[name][0]["facts"]
        if fact["target"] is not None
    ]
    tiles = re.findall(r"<div class='(met|missed)'><b>[^<]*</b>([^<]*)<i>target: ([^<]*)</i>", page)
    assert [(kind == "met", name) for kind, name, _ in tiles] == [
        (fact["met"], fact["name"]) for fact in wanted
    ]
    bounds = {bound.partition(":")[0] for _, _, bound in tiles}
    http = {"at least 2000", "at least 4000", "at least 40000", "at most 20", "at most 60"}
    postgres = {
        "at least 0.7",
        "at least 0.8",
        "at least 0.9",
        "at least 1",
        "at most 1.15",
        "at most 250",
        "at most 6",
        "at most 25",
        "at most 3",
    }
    cluster = {"at most 0.25", "at most 0.5", "at most 1.5", "at most 7.5"}
    assert bounds == {"at most 1.1", "at most 2", "at most 50"} | http | postgres | cluster


def test_the_json_has_every_figure_of_every_run(report: Path) -> None:
    content = orjson.loads((report / "figures.json").read_bytes())

    assert set(content) == {"description", "failed", *BENCHMARKS}
    assert content["failed"] == {}
    for name in BENCHMARKS:
        [run] = content[name]
        assert set(run) == {"loads", "facts", "sweeps", "percentiles", "verified"}
        assert run["loads"] or run["facts"]
        assert run["verified"]
    [hello, _] = content["latency"][0]["sweeps"]
    assert [point["load, %"] for point in hello["points"]] == [10, 25, 50, 75, 90]
    curve = content["latency"][0]["percentiles"]["hello at 50 %"]
    assert curve["count"] == 5
    assert curve["curve"][0][0] == 50


def test_a_wrong_outcome_is_in_the_report_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    async def measure(bench: Bench) -> Outcome:
        raise WrongOutcomeError("money in all accounts: 9 instead of <10>")

    monkeypatch.setitem(BENCHMARKS, "bank", Benchmark(measure, "loses money"))

    status = command.main(["bank", *SMALL, "--report", str(tmp_path)])

    page = (tmp_path / "index.html").read_text("utf-8")
    assert status == 1
    assert "wrong outcome: bank" in page
    assert "money in all accounts: 9 instead of &lt;10&gt;. No figures are given." in page
    assert "<svg" not in page


def test_without_matplotlib_a_report_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_nothing(name: str) -> None:
        return None

    monkeypatch.setattr("perdure.benchmarks.drawing.find_spec", find_nothing)

    status = command.main(["hello", *SMALL, "--report", str(tmp_path / "report")])

    captured = capsys.readouterr()
    assert status == 2
    assert "pip install 'perdure[bench]'" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "report").exists()
