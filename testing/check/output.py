"""What is shown of findings: lines for people, JSON, and annotations of GitHub Actions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .check import Report
from .findings import Finding
from .source.project import Trouble

FORMATS = ("text", "json", "github")


def written(report: Report, form: str) -> Iterator[str]:
    """Write a report, line by line."""
    if form == "json":
        yield from _json(report.findings)
    elif form == "github":
        yield from _github(report)
    else:
        yield from _text(report)


def _text(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield (
            f"{shown_path(finding.path)}:{finding.line}:{finding.column}: {finding.code} {finding.text}"
        )
    if report.findings:
        files = len({finding.path for finding in report.findings})
        yield f"Found {counted(len(report.findings), 'problem')} in {counted(files, 'file')}."


def _json(findings: Sequence[Finding]) -> Iterator[str]:
    rows = [
        {
            "code": finding.code,
            "message": finding.message,
            "fix": finding.fix,
            "where": finding.where,
            "role": finding.role,
            "filename": str(finding.path),
            "location": {"row": finding.line, "column": finding.column},
            "end_location": {"row": finding.end_line, "column": finding.end_column},
        }
        for finding in findings
    ]
    yield json.dumps(rows, indent=2, ensure_ascii=False)


def _github(report: Report) -> Iterator[str]:
    for finding in report.findings:
        place = f"{shown_path(finding.path)}:{finding.line}:{finding.column}"
        properties = (
            f"title=perdure ({finding.code}),file={_property(str(finding.path))},"
            f"line={finding.line},col={finding.column},"
            f"endLine={finding.end_line},endColumn={finding.end_column}"
        )
        yield f"::error {properties}::{_data(f'{place}: {finding.code} {finding.text}')}"
    for trouble in report.troubles:
        properties = f"title=perdure,file={_property(str(trouble.path))}"
        if trouble.line:
            properties += f",line={trouble.line},col={max(trouble.column, 1)}"
        yield f"::error {properties}::{_data(trouble_text(trouble))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def trouble_text(trouble: Trouble) -> str:
    """Say what cannot be looked at."""
    place = shown_path(trouble.path)
    if trouble.line:
        place += f":{trouble.line}:{max(trouble.column, 1)}"
    return f"{place}: {trouble.reason}"


def shown_path(path: Path) -> str:
    """Give a path as it is shown: from the current folder, where it lies in that."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return str(path) if relative.startswith("..") else relative


def counted(number: int, what: str) -> str:
    """Say how many there are of something."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
