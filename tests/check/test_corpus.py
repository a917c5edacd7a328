from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.check.check import Report, check_files, check_text
from perdure.testing.check.rules import RULES
from tests.check.corpus import Program, marked, programs, projects

BAD, GOOD = list(programs("bad")), list(programs("good"))


def found(report: Report) -> set[tuple[int, str]]:
    return {(finding.line, finding.code) for finding in report.findings}


def texts(report: Report) -> list[str]:
    return [f"{finding.line}: {finding.code} {finding.text}" for finding in report.findings]


@pytest.mark.parametrize("program", [pytest.param(one, id=one.title) for one in BAD])
def test_what_is_wrong_is_found_in_its_lines_and_nothing_else(program: Program) -> None:
    report = check_text(program.text)

    assert program.expected, "a bad program says where it is bad"
    assert found(report) == program.expected, texts(report)


@pytest.mark.parametrize("program", [pytest.param(one, id=one.title) for one in GOOD])
def test_nothing_is_found_in_a_good_program(program: Program) -> None:
    report = check_text(program.text)

    assert not program.expected
    assert texts(report) == []
    assert report.operations, "it is looked at"


@pytest.mark.parametrize("folder", [pytest.param(one, id=one.name) for one in projects()])
def test_what_a_project_calls_is_followed_from_file_to_file(folder: Path) -> None:
    report = check_files([folder])

    files = sorted(folder.rglob("*.py"))
    expected = {(file, *line) for file in files for line in marked(file.read_text("utf-8"))}
    assert {(one.path, one.line, one.code) for one in report.findings} == expected
    assert report.troubles == []


def test_the_corpus_has_as_many_programs_as_it_should_and_all_of_them_are_python() -> None:
    assert len(BAD) >= 75
    assert len(GOOD) >= 75
    for some in (BAD, GOOD):
        assert len({one.title for one in some}) == len(some)
    for one in BAD + GOOD:
        compile(one.text, one.title, "exec", dont_inherit=True)


def test_every_rule_that_is_on_has_bad_programs() -> None:
    broken = {code for one in BAD for _, code in one.expected}

    assert broken == {rule.code for rule in RULES if rule.is_default}
