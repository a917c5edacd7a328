from __future__ import annotations

import sys

import pytest

import perdure
from perdure.__main__ import main


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"perdure {perdure.__version__}\n"


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([])

    assert status == 2
    assert {"serve", "bench"} <= set(capsys.readouterr().out.split())


def test_an_unknown_command_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sreve"])

    assert caught.value.code == 2
    assert "'serve', 'shards', 'bench'" in capsys.readouterr().err


def test_the_arguments_are_the_process_s_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["perdure", "--version"])

    with pytest.raises(SystemExit):
        main()

    assert capsys.readouterr().out.startswith("perdure ")
