from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.cli.shop import Run

BAD = """\
import time
from perdure import App, OrchestrationContext

app = App()


@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    await ctx.call_activity("é"); return time.time()
"""
GOOD = """\
from perdure import App, OrchestrationContext

app = App()


@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(ctx.current_utc_datetime)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(BAD, "utf-8")
    (tmp_path / "good.py").write_text(GOOD, "utf-8")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_what_is_found_is_told_in_a_line_with_its_place_and_ends_with_status_1(run: Run) -> None:
    ended = run("check", "bad.py")

    assert ended.status == 1
    assert ended.out.splitlines() == [
        "bad.py:9:42: PDU001 `time.time()` reads the clock: use `ctx.current_utc_datetime` "
        "(in orchestration `flow`)",
        "Found 1 problem in 1 file.",
    ]
    assert ended.err == ""


@pytest.mark.usefixtures("folder")
def test_where_nothing_is_found_it_says_what_it_looked_at(run: Run) -> None:
    ended = run("check", "good.py")

    assert (ended.status, ended.err) == (0, "")
    assert ended.out == "Nothing found in 1 orchestration and 0 operations of entities (1 file).\n"


@pytest.mark.usefixtures("folder")
def test_a_folder_stands_for_what_is_in_it(run: Run, folder: Path) -> None:
    for hidden in (".venv/lib", "venv", "node_modules/x"):
        (folder / hidden).mkdir(parents=True)
        (folder / hidden / "more.py").write_text(BAD, "utf-8")
    (folder / "venv" / "pyvenv.cfg").touch()

    ended = run("check", ".")

    assert ended.status == 1
    assert ended.out.count("PDU001") == 1


@pytest.mark.usefixtures("folder")
def test_findings_as_json_are_an_array_with_all_there_is_to_say(run: Run) -> None:
    ended = run("check", "bad.py", "--format", "json")

    assert ended.status == 1
    assert json.loads(ended.out) == [
        {
            "code": "PDU001",
            "message": "`time.time()` reads the clock",
            "fix": "use `ctx.current_utc_datetime`",
            "where": "in orchestration `flow`",
            "role": "flow",
            "filename": "bad.py",
            "location": {"row": 9, "column": 42},
            "end_location": {"row": 9, "column": 53},
        }
    ]
    assert run("check", "good.py", "--format", "json").out == "[]\n"


def test_findings_for_github_are_annotations(run: Run, folder: Path) -> None:
    (folder / "a,b.py").write_text(BAD, "utf-8")

    ended = run("check", "a,b.py", "--format", "github")

    assert ended.out == (
        "::error title=perdure (PDU001),file=a%2Cb.py,line=9,col=42,endLine=9,endColumn=53::"
        "a,b.py:9:42: PDU001 `time.time()` reads the clock: use `ctx.current_utc_datetime` "
        "(in orchestration `flow`)\n"
    )


@pytest.mark.parametrize("place", ["bad:app", "bad.py:app"])
@pytest.mark.usefixtures("folder")
def test_an_application_is_found_by_its_module_or_its_file(run: Run, place: str) -> None:
    assert run("check", place).status == 1


def test_an_application_is_checked_with_all_of_the_project_that_it_imports(
    run: Run, folder: Path
) -> None:
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from . import flows\nfrom .apps import app\n", "utf-8")
    (package / "apps.py").write_text("from perdure import App\napp = App()\n", "utf-8")
    (package / "flows.py").write_text(
        "from uuid import uuid4\nfrom .apps import app\n"
        "@app.orchestration\nasync def flow(ctx):\n    return uuid4().hex\n",
        "utf-8",
    )

    ended = run("check", "shop:app")

    assert ended.status == 1
    assert ended.out.startswith("shop/flows.py:5:12: PDU003 ")


def test_nothing_that_is_checked_is_run(run: Run, folder: Path) -> None:
    (folder / "loud.py").write_text("raise SystemExit('run')\n" + GOOD, "utf-8")

    assert run("check", "loud:app").status == 0
    assert run("check", "loud.py").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.py"], "there is no nowhere.py"),
        (["nowhere:app"], "there is no module nowhere"),
        (["nowhere.py:app"], "there is no file nowhere.py"),
        (["good:other"], "good has no other"),
        (["empty"], "empty has no Python files in it"),
        (["good:app", "bad.py"], "one MODULE:APP is checked at a time"),
        (["good.py", "--select", "PDU999"], "there is no rule PDU999"),
        (["nothing:app"], "nothing that nothing:app registers can be seen in the source"),
    ],
)
def test_what_cannot_be_looked_at_is_told_and_ends_with_status_2(
    run: Run, folder: Path, arguments: list[str], words: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "nothing.py").write_text("from perdure import App\napp = App()\n", "utf-8")

    ended = run("check", *arguments)

    assert ended.status == 2
    assert words in ended.err
    assert ended.out in ("", "Nothing found.\n")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"def flow(:\n", "is no Python: invalid syntax"),
        (b"x = 1\0\n", "source code string cannot contain null bytes"),
        (b"x = '\xff'\n", "broken.py: cannot be read: "),
        (b"# coding: nonsense\n", "broken.py: cannot be read: unknown encoding"),
        (b"x = " + b"(" * 300 + b")" * 300, "broken.py"),
    ],
)
def test_a_file_that_is_no_python_ends_with_status_2_and_the_others_are_looked_at(
    run: Run, folder: Path, source: bytes, words: str
) -> None:
    (folder / "broken.py").write_bytes(source)

    ended = run("check", "broken.py", "bad.py")

    assert ended.status == 2
    assert words in ended.err
    assert "bad.py:9:42: PDU001 " in ended.out


@pytest.mark.usefixtures("folder")
def test_rules_are_chosen_by_their_codes_and_the_beginnings_of_these(run: Run) -> None:
    assert run("check", "bad.py", "--select", "PDU002,PDU003").status == 0
    assert run("check", "bad.py", "--select", "PDU00").status == 1
    assert run("check", "bad.py", "--select", "pdu001").status == 1
    assert run("check", "bad.py", "--ignore", "PDU001").status == 0
    assert run("check", "bad.py", "--select", "ALL", "--ignore", "PDU00").status == 0


def test_rules_that_are_off_are_found_when_they_are_asked_for(run: Run, folder: Path) -> None:
    loud = GOOD.replace("return", "print('begun')\n    return")
    (folder / "loud.py").write_text(loud, "utf-8")

    assert run("check", "loud.py").status == 0
    assert (
        "PDU024 `print()` says it again at each replay"
        in run("check", "loud.py", "--select", "ALL").out
    )


def test_what_the_source_does_not_show_is_named(run: Run, folder: Path) -> None:
    (folder / "late.py").write_text(
        GOOD + "for each in find_all():\n    app.activity(each)\n", "utf-8"
    )

    ended = run("check", "late:app")

    assert ended.status == 0
    assert ended.err == (
        "perdure: late.py:10: what this registers cannot be seen in the source: app.activity(each)\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("check", "bad.py"), ("check", "good.py"), ("--help",)])
def test_output_that_cannot_be_written_is_one_line_and_status_6(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "perdure", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
        )

    assert ended.returncode == 6
    assert ended.stderr == (
        "perdure: not all that this writes could be written: No space left on device; what the "
        "command does may be done: make room, look, and run it again\n"
    )
