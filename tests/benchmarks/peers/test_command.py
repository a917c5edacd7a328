from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from perdure.benchmarks.peers import command
from perdure.benchmarks.peers.measure import LOADS
from perdure.benchmarks.peers.race import Run


def test_perdure_itself_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    only = ["--only", "perdure-sqlite", "perdure-memory"]

    status = command.main([*only, "--rounds", "1", "-n", "20", "--quiet", "--json", str(file)])

    (runs,) = orjson.loads(file.read_bytes())["rounds"]
    assert status == 0
    for name in only[1:]:
        assert runs[name]["verified"], runs[name]
        assert [figure["load"] for figure in runs[name]["figures"]] == list(LOADS)


def test_a_wrong_run_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(name: str, *_: object) -> Run:
        return Run(name, wrong="counted twice")

    def gone(name: str, *_: object) -> Run:
        return Run(name, unavailable="no such program")

    monkeypatch.setattr(command, "run_apart", gone)
    assert command.main(["--only", "restate", "--rounds", "1"]) == 0
    assert "not available: no such program" in capsys.readouterr().out
    monkeypatch.setattr(command, "run_apart", wrong)
    assert command.main(["--only", "restate", "--rounds", "1"]) == 1
    assert "restate FAILED in round 1: counted twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rounds", "0"),
        ("-n", "many"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--only", "nobody"),
    ],
)
def test_what_makes_no_sense_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([option, value])

    assert caught.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err
