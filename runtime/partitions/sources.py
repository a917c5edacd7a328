"""The source of users' code, as the files have it that this process runs.

The interpreter keeps the lines of a file once they were asked for, as it does for tracebacks.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Iterable

from ...actors.registry.outside import CodeLine
from ..explanations import SourceFunction, SourceLine


def source_line(at: CodeLine) -> SourceLine:
    """Give a line with its text."""
    text = linecache.getline(at.file, at.line).strip()
    return SourceLine(file=at.file, line=at.line, function=at.function, text=text or None)


def source_lines(lines: Iterable[CodeLine]) -> tuple[SourceLine, ...]:
    """Give lines with their texts."""
    return tuple(map(source_line, lines))


def source_function(at: CodeLine) -> SourceFunction:
    """Give the function that a line is of, with its text."""
    lines = linecache.getlines(at.file)[at.first - 1 :]
    try:
        text = "".join(inspect.getblock(lines)) or None
    except (SyntaxError, IndentationError):
        text = None  # the file has changed, or is none of Python's
    return SourceFunction(file=at.file, function=at.function, first_line=at.first, text=text)
