"""What is shown to users is silent: the examples, the pages, and what ``perdure new`` writes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from perdure.adapters.cli.new import new
from perdure.testing.check.check import Report, check_files, check_text
from perdure.testing.check.rules import RULES

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RULE_PAGES = {rule.code: ROOT / "docs" / "rules" / f"{rule.code}.md" for rule in RULES}

#: What the pages of the rules leave out.
PRELUDE = """\
import asyncio
import os
import random
import subprocess
import uuid
import zlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from perdure import App, Cancelled, EntityId, OrchestrationContext

app = App()

@app.activity
def send(text: str) -> str:
    return text

@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount

"""


def told(report: Report) -> list[str]:
    return [f"{one.path}:{one.line} {one.code} {one.text}" for one in report.findings]


def blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_examples_are_silent_and_checked_in_under_a_second() -> None:
    begun = time.process_time()
    report = check_files([EXAMPLES])
    took = time.process_time() - begun

    assert told(report) == []
    assert (report.troubles, report.unseen) == ([], [])
    assert report.orchestrations >= 10
    assert report.operations >= 13
    assert took < 1.0, "of this process's own time, whatever else runs beside it"


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]
)
def test_the_code_of_a_page_is_silent(page: Path) -> None:
    report = check_text("\n".join(blocks(page, "python")), path=str(page))

    assert told(report) == []
    assert report.troubles == []


def test_what_perdure_new_writes_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new("greeter")

    report = check_files(["greeter"])

    assert told(report) == []
    assert (report.orchestrations, report.operations) == (1, 1)


@pytest.mark.parametrize("code", RULE_PAGES)
def test_the_page_of_a_rule_shows_what_it_finds_and_what_it_does_not(code: str) -> None:
    bad, good = blocks(RULE_PAGES[code], "py")
    every = [rule() for rule in RULES]

    assert {one.code for one in check_text(PRELUDE + bad, every).findings} == {code}
    assert told(check_text(PRELUDE + good, every)) == []


def test_there_is_a_page_for_every_rule_under_its_title_and_for_no_other() -> None:
    index = (ROOT / "docs" / "rules" / "README.md").read_text("utf-8")

    for rule in RULES:
        heading = RULE_PAGES[rule.code].read_text("utf-8").partition("\n")[0]
        assert heading == f"# {rule.code}: {rule.title}"
        assert f"| [{rule.code}]({rule.code}.md) | {rule.title} |" in index
    assert {page.stem for page in (ROOT / "docs" / "rules").glob("*.md")} == {
        "README",
        *RULE_PAGES,
    }


def test_the_codes_of_the_rules_are_numbered() -> None:
    assert [rule.code for rule in RULES] == [f"PDU{n:03}" for n in range(1, len(RULES) + 1)]
