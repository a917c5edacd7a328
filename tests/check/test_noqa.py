from __future__ import annotations

import pytest

from perdure.testing.check.check import check_text

PROGRAM = """\
import time
from perdure import App, OrchestrationContext
app = App()
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity("work", {place})
"""


def codes(line: str) -> list[str]:
    report = check_text(PROGRAM.replace('    await ctx.call_activity("work", {place})', line))
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "#noqa",
        "# NOQA",
        "# noqa: PDU001",
        "# noqa:PDU001",
        "# noqa : PDU001",
        "# noqa: pdu001",
        "# noqa: E501, PDU001",
        "# noqa: E501 PDU001",
        "# noqa: PDU001, since it is for the log",
        "# type: ignore # noqa: PDU001",
        "# noqa because",
        "# noqa: PDU0",
    ],
)
def test_a_comment_silences_its_line(comment: str) -> None:
    assert codes(f"    time.time()  {comment}") == []


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: PDU002",
        "# noqa: E501",
        "# noqa: nothing",
        "# noqa:",
        "# noqab",
        "# see noqa",
        "# no qa",
        "# noqa: PDU0012",
    ],
)
def test_a_comment_about_something_else_silences_nothing(comment: str) -> None:
    assert codes(f"    time.time()  {comment}") == ["PDU001"]


def test_a_text_is_no_comment() -> None:
    assert codes('    print(time.time(), "# noqa")') == ["PDU001"]


def test_a_comment_silences_one_rule_of_several() -> None:
    line = "    time.sleep(time.time())  # noqa: PDU001"

    assert codes(line) == ["PDU009"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("    time.sleep(  # noqa: PDU009\n        1,\n    )", []),
        ("    time.sleep(\n        1,\n    )  # noqa: PDU009", []),
        ("    time.sleep(\n        1,  # noqa: PDU009\n    )", ["PDU009"]),
        ("    # noqa: PDU009\n    time.sleep(1)", ["PDU009"]),
    ],
)
def test_it_stands_in_the_first_or_the_last_line_of_what_is_found(
    lines: str, expected: list[str]
) -> None:
    assert codes(lines) == expected
