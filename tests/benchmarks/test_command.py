from __future__ import annotations

import argparse
from pathlib import Path

import orjson
import pytest

from perdure.benchmarks import command
from perdure.benchmarks.bench import Bench
from perdure.benchmarks.suite import BENCHMARKS


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], list(BENCHMARKS)),
        (["all"], list(BENCHMARKS)),
        (["hot", "hello"], ["hello", "hot"]),
    ],
)
def test_benchmarks_are_chosen_by_name(names: list[str], wanted: list[str]) -> None:
    assert command.choose(names) == wanted


def test_the_command_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_json, as_markdown = tmp_path / "figures.json", tmp_path / "figures.md"
    wanted = ["hello", "--store", "memory:", "-n", "5", "--repeat", "2", "--no-uvloop"]

    status = command.main([*wanted, "--json", f"{as_json}", "--markdown", f"{as_markdown}"])

    content = orjson.loads(as_json.read_bytes())
    rates = [run["loads"][0]["rate"] for run in content["hello"]]
    printed = capsys.readouterr().out
    assert status == 0
    assert len(rates) == 2
    assert f"{max(rates):,.0f}" in printed
    assert f"{max(rates):,.0f}" in as_markdown.read_text("utf-8")
    assert "memory only: lost when the process ends" in printed
    assert content["description"]["event loop"] == "asyncio"


def test_a_second_report_is_added_to_the_markdown_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "figures.md"
    wanted = ["hot", "--store", "memory:", "-n", "5", "--markdown", f"{path}"]

    command.main([*wanted, "--no-uvloop"])
    command.main([*wanted, "--backend", "trio"])

    heads = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    assert heads == ["# Figures", "## asyncio", "## trio"]


def test_a_name_that_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status = command.main(["helo"])

    assert status == 2
    assert "there is no benchmark helo; there are hello, fanout" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_a_count_that_makes_no_sense_is_refused(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["hello", "-n", number])

    assert caught.value.code == 2
    assert "argument -n" in capsys.readouterr().err


def test_uvloop_on_trio_is_refused() -> None:
    with pytest.raises(SystemExit, match="leave it out on trio"):
        command.main(["hello", "--backend", "trio", "--uvloop"])


def test_list_says_what_each_benchmark_measures(capsys: pytest.CaptureFixture[str]) -> None:
    status = command.main(["list"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)


@pytest.mark.parametrize(
    ("given", "instances", "n"),
    [
        ([], 100_000, 500),
        (["--quick"], 10_000, 50),
        (["--long"], 1_000_000, 500),
        (["--quick", "--instances", "70", "-n", "8"], 70, 8),
    ],
)
def test_sizes_are_chosen_by_one_word(given: list[str], instances: int, n: int) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)

    options = command.read_options(parser.parse_args(given))

    assert (options.instances, Bench(options, None).n(500)) == (instances, n)
