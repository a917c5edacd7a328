from __future__ import annotations

import gc
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

    assert len(commands) == 31
    assert "..." not in listed.partition("Commands:")[2]
    for name in commands:
        if name == "bench":
            continue
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"Example: perdure {name} " in text
        if "[HUB]" in text and name not in ("shards", "nodes"):  # whose own argument it is
            assert (
                "Hub: [HUB] sqlite:PATH, postgresql://HOST/DATABASE, http://HOST:PORT or a socket"
                in " ".join(text.split())
            )
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals to ask at")
@pytest.mark.parametrize(
    "arguments",
    [("show", "a\udcffb"), ("start", "order", '["\udcff"]'), ("list", "--tag", "a=\udcff")],
    ids=["id", "input", "tag"],
)
def test_an_argument_that_is_no_text_is_named(
    run: Run, stopped: str, arguments: tuple[str, ...]
) -> None:
    ended = run(arguments[0], stopped, *arguments[1:])

    assert ended.status == 2
    assert ended.err == f"perdure: {ascii(arguments[-1])[1:-1]} is no text in UTF-8\n"


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


def test_what_shows_the_help_loads_nothing_that_works() -> None:
    code = (
        "import sys\n"
        "from perdure.__main__ import main\n"
        "main(['--help'])\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )

    loaded = {*ended.stderr.split()}
    assert not loaded & {"anyio", "asyncio", "orjson", "sqlite3", "httpx", "starlette"}
    assert not {name for name in loaded if name.startswith("perdure.runtime")}


@pytest.mark.parametrize("was", [True, False])
def test_garbage_is_collected_afterwards_as_it_was(was: bool) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if was else gc.disable()
        main(["--version"])
        after = gc.isenabled()
    finally:
        gc.enable() if before else gc.disable()

    assert after is was


def test_a_shell_completes_commands() -> None:
    asked = {"_PERDURE_COMPLETE": "complete_bash", "COMP_WORDS": "perdure re", "COMP_CWORD": "1"}
    code = (
        "import sys; sys.argv[0] = 'perdure'; from perdure.__main__ import main; sys.exit(main())"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert {"resume", "rewind", "restart", "retry"} == {*ended.stdout.split()}


def test_who_reads_the_first_lines_alone_ends_a_command_quietly(run: Run, live: Live) -> None:
    for _ in range(3):
        run("start", live.socket, "double", "1")
    command = [sys.executable, "-m", "perdure", "list", live.socket, "--json", "--limit", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(30)

    assert b"Traceback" not in errors
