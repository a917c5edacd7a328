from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from perdure.adapters.cli import dev
from perdure.adapters.cli.command import main
from perdure.adapters.cli.dev import own_files
from tests.adapters.cli.shop import Run
from tests.greeter import command

SOURCE = """
import perdure
import words

app = perdure.App("greeter")

@app.orchestration
async def greet(ctx: perdure.OrchestrationContext, name: str) -> str:
    return f"{words.HELLO} {name}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "greeter.py").write_text(SOURCE, "utf-8")
    (tmp_path / "words.py").write_text("HELLO = 'Hello'\n", "utf-8")
    return tmp_path


def lines_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """Read lines up to the one that is waited for."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"it ended, and said: {lines}")


def test_what_is_served_is_served_anew_when_it_changes_and_goes_on_while_it_is_broken(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "greeter.py").write_text("import nothing_of_that_name\n", "utf-8")
    with command(
        folder, "-m", "perdure", "dev", "greeter.py:app", "--http", "127.0.0.1:0"
    ) as process:
        at_first = lines_until(process, "waits for a change")
        (folder / "greeter.py").write_text(SOURCE, "utf-8")
        address = lines_until(process, "http://")[-1]
        first = run("start", "greet", '"Ada"', "--wait", "20")

        (folder / "words.py").write_text("HELLO = 'Bonjour\n", "utf-8")
        said = lines_until(process, "waits for a change")
        still = run("start", "greet", '"Ada"', "--wait", "20")
        alive = httpx.get(f"{address}/healthz").status_code

        (folder / "words.py").write_text("HELLO = 'Bonjour'\n", "utf-8")
        lines_until(process, "http://")
        second = run("start", "greet", '"Ada"', "--wait", "20")
        listed = run("list", "--count")

        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)

    assert at_first == ["perdure dev: nothing is served; waits for a change"]
    assert first.out == still.out == '"Hello Ada"\n'
    assert said == ["perdure dev: what was served goes on; waits for a change"]
    assert alive == 200
    assert second.out == '"Bonjour Ada"\n'
    assert listed.out == "3\n"
    assert "nothing_of_that_name" in errors
    assert "SyntaxError" in errors
    assert rest.count("stopped;") == 1
    assert process.returncode == 0
    assert not (folder / ".perdure" / "hub.sock").exists()


FAILING = (
    SOURCE
    + """

class Shy(Exception):
    def __str__(self):
        return "not today\\x1b[31m\\nnor tomorrow"

@app.activity
def refuse(text: str) -> None:
    raise Shy

@app.orchestration
async def fail(ctx: perdure.OrchestrationContext, name: str) -> None:
    ctx.logger.info("asks %s", name)
    await ctx.call_activity(refuse, name)

@app.entity
class Box:
    value: int = 0

    def open(self) -> None:
        raise ValueError("it is locked")
"""
)


@pytest.mark.parametrize("sets_up", [False, True], ids=["as it comes", "set up"])
def test_what_fails_and_what_is_logged_is_shown_at_the_terminal(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, sets_up: bool
) -> None:
    monkeypatch.chdir(folder)
    source = FAILING
    if sets_up:
        source += "\nimport logging\nlogging.basicConfig(format='ours %(message)s')\n"
    (folder / "greeter.py").write_text(source, "utf-8")
    with command(
        folder, "-m", "perdure", "dev", "greeter.py:app", "--http", "127.0.0.1:0"
    ) as process:
        lines_until(process, "http://")
        failed = run("start", "fail", '"Ada"', "--id", "f", "--wait", "20")
        run("signal", "@box@b", "open")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    lines = errors.splitlines()
    [line] = [line for line in lines if line.startswith("failed ")]
    assert failed.status == 1
    assert re.fullmatch(
        r"failed f \(fail\): ActivityError: .*Shy: not today\\x1b\[31m\\nnor tomorrow "
        r"\(greeter.py:\d+\)",
        line,
    )
    assert any("box@b.open failed" in line for line in lines)
    assert any("asks Ada" in line for line in lines) is not sets_up
    assert any(line.startswith("ours ") for line in lines) is sets_up
    assert "\x1b" not in errors


def test_what_cannot_be_served_at_first_ends_it_with_its_status(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with command(folder, "-m", "perdure", "dev", "greeter:app", "--http", address) as process:
            _, errors = process.communicate(timeout=30)

    assert process.returncode == 2
    assert f"{address} is not to be had" in errors


def test_what_serves_stops_in_order_when_the_one_that_watches_is_killed(folder: Path) -> None:
    with command(folder, "-m", "perdure", "dev", "greeter:app", "--http", "127.0.0.1:0") as process:
        lines_until(process, "http://")
        process.kill()
        lines = lines_until(process, "stopped;")

    assert lines == ["stopped; what had not ended goes on at the next start"]


def test_the_files_of_an_application_are_neither_python_s_nor_this_package_s() -> None:
    files = {*own_files()}

    assert str(Path(__file__).with_name("shop.py")) in files
    for module in (pytest, subprocess, dev):
        assert str(Path(str(module.__file__)).resolve()) not in files


def test_what_names_no_app_is_refused_rather_than_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["dev", "greeter.py"]) == 2

    assert "give greeter.py:app" in capsys.readouterr().err


def test_tracebacks_over_http_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    class Recorded:
        def __init__(self, app: str, arguments: list[str]) -> None:
            given.append(arguments)

        def run(self) -> int:
            return 0

    monkeypatch.setattr("perdure.adapters.cli.dev._Development", Recorded)
    main(["dev", "greeter:app"])
    main(["dev", "greeter:app", "--no-expose-errors"])

    assert ["--expose-errors" in arguments for arguments in given] == [True, False]


def test_a_new_application_passes_its_own_test_and_none_is_written_over(
    run: Run, tmp_path: Path
) -> None:
    made = run("new", str(tmp_path / 'my "greeter'))
    again = run("new", str(tmp_path / 'my "greeter'))
    folder = tmp_path / 'my "greeter'
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.status == 0
    assert "perdure dev app.py:app" in made.out
    assert again.status == 2
    assert "is there already" in again.err
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout
