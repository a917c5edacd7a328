from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

import perdure
from perdure.__main__ import main
from tests.adapters.cli.shop import Live, Run


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr().out == f"perdure {perdure.__version__}\n"


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([])

    assert status == 2
    assert {"serve", "bench"} <= set(capsys.readouterr().out.split())


def test_an_unknown_command_is_refused_with_what_may_be_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sreve"]) == 2

    assert "'serve'" in capsys.readouterr().err


def test_the_arguments_are_the_process_s_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["perdure", "--version"])

    main()

    assert capsys.readouterr().out.startswith("perdure ")


def test_every_command_says_what_it_takes_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    commands = [
        line.split()[0] for line in listed.partition("Commands:\n")[2].split("\n\n")[0].splitlines()
    ]

    assert len(commands) == 25
    assert "..." not in listed.partition("Commands:")[2]
    for name in commands:
        if name == "bench":
            continue
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"Example: perdure {name} " in text
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals to ask at")
def test_on_a_terminal_it_is_asked_whether_that_is_meant(run: Run, live: Live) -> None:
    id = uuid.uuid4().hex
    run("start", live.socket, "wait_for_go", "--id", id)
    statuses: list[str] = []
    for answer in (b"n\n", b"y\n"):
        ours, theirs = os.openpty()
        os.write(ours, answer)
        command = [sys.executable, "-m", "perdure", "terminate", live.socket, id]
        ended = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=30)
        os.close(ours)
        os.close(theirs)
        assert f"Terminate {id}" in ended.stdout
        status = run("show", live.socket, id, "--json").value()["runtime_status"]
        statuses.append(f"{ended.returncode} {status}")

    assert statuses == ["1 Running", "0 Terminated"]
