"""What type checkers say of users' programs: nothing of right ones, and every mistake of wrong ones.

Both checkers run strictly, on copies in a folder outside of the project, with the project's
interpreter and nothing of its settings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SAMPLE = "sample_program.py"
ERRORS = "deliberate_errors.py"

# Which lines of which file have an error, with the messages for the report of a failing test.
Report = dict[tuple[str, int], str]


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(folder: Path) -> Report:
    cache = ROOT / ".mypy_cache" / "users"
    options = ("--strict", "--config-file=", "--no-error-summary", f"--cache-dir={cache}")
    output = run("mypy", *options, SAMPLE, ERRORS, folder=folder)
    found = re.findall(r"^(\w+\.py):(\d+): error: (.*)$", output, re.MULTILINE)
    return {(file, int(line)): message for file, line, message in found}


def pyright(folder: Path) -> Report:
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT)],
        "reportUnusedExpression": False,  # of style, and not of types
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable, folder=folder)
    return {
        (Path(item["file"]).name, item["range"]["start"]["line"] + 1): item["message"]
        for item in json.loads(output)["generalDiagnostics"]
        if item["severity"] == "error"
    }


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    checker: Callable[[Path], Report] = request.param
    # The checkers read the oldest Python's rules in any case, so one environment has them.
    pytest.importorskip(checker.__name__)
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(HERE / SAMPLE, folder)
    head = re.compile(r"^# (mypy|pyright): .*$", re.MULTILINE)
    # Blanked and not taken out, so that the numbers of the lines stay.
    (folder / ERRORS).write_text(head.sub("", (HERE / ERRORS).read_text()))
    return checker(folder)


def test_a_right_program_passes(report: Report) -> None:
    found = {place: message for place, message in report.items() if place[0] == SAMPLE}

    assert found == {}


def test_exactly_the_mistakes_of_a_wrong_program_are_reported(report: Report) -> None:
    found = {place: message for place, message in report.items() if place[0] == ERRORS}

    lines = (HERE / ERRORS).read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    missed = {number: lines[number - 1] for number in marked if (ERRORS, number) not in found}
    surplus = {place: message for place, message in found.items() if place[1] not in marked}
    assert (missed, surplus) == ({}, {})
