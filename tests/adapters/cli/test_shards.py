from __future__ import annotations

import sys
from typing import Any

import pytest

from perdure import UnavailableError
from perdure.__main__ import main
from perdure.adapters.cli import load


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked for of the live view, which shows nothing."""
    asked: list[Any] = []

    def show(place: str, **wanted: Any) -> None:
        asked.append((place, wanted))

    monkeypatch.setattr(load, "show_load", show)
    return asked


def test_a_look_has_what_was_asked_for(looks: list[Any]) -> None:
    arguments = ["--interval", "0.5", "--hottest", "9", "--once", "--move", "3", "1"]

    assert main(["shards", "sqlite:shop", *arguments]) == 0
    assert main(["shards", "hub.sock", "--watch"]) == 0

    given = {"keys": {"key": None}, "as_json": False}
    assert looks == [
        ("sqlite:shop", {**given, "interval_s": 0.5, "hottest": 9, "once": True, "move": (3, 1)}),
        ("hub.sock", {**given, "interval_s": 1.0, "hottest": 5, "once": False, "move": None}),
    ]


@pytest.mark.parametrize(
    ("arguments", "is_terminal", "once"),
    [
        ([], True, False),
        ([], False, True),
        (["--json"], True, True),
        (["--json"], False, True),
        (["--json", "--watch"], False, False),
        (["--watch"], False, False),
        (["--once"], True, True),
    ],
)
def test_it_ends_by_itself_where_nobody_watches(
    arguments: list[str],
    is_terminal: bool,
    once: bool,
    looks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)

    assert main(["shards", "hub.sock", *arguments]) == 0

    [(_, wanted)] = looks
    assert wanted["once"] is once


def test_one_look_is_not_many(looks: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "hub.sock", "--once", "--watch"]) == 2

    assert "give one of them" in capsys.readouterr().err
    assert looks == []


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_an_interval_that_is_no_time_is_refused(
    interval: str, looks: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shards", "hub.sock", "--interval", interval]) == 2

    assert "--interval" in capsys.readouterr().err
    assert looks == []


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UnavailableError("no hub listens there"), 4, "perdure: no hub listens there\n"),
        (KeyboardInterrupt(), 0, ""),
    ],
    ids=repr,
)
def test_a_look_ends_in_one_line_that_says_why(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(place: str, **wanted: Any) -> None:
        raise error

    monkeypatch.setattr(load, "show_load", fail)

    assert main(["shards", "hub.sock"]) == status
    assert capsys.readouterr().err == said
