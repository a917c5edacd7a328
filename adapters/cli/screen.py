"""What a command shows: tables and lines that fit the screen, or JSON, an object a line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from .words import in_lines, in_one_line

_GAP = 2
_WIDE = 100_000
_ROOM_MIN = 20
_WORD = re.compile(r"\S+")

STYLES = {
    "Completed": "green",
    "Running": "cyan",
    "Pending": "blue",
    "Failed": "bold red",
    "Terminated": "red",
    "Canceled": "magenta",
    "Suspended": "yellow",
    "ContinuedAsNew": "cyan",
    "parked": "bold yellow",
    "serves": "green",
    "draining": "yellow",
    "expired": "bold red",
}


class Screen:
    """Where a command shows what it found.

    Args:
        as_json: whether it is read by a program.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        is_narrow = self.console.is_terminal or "COLUMNS" in os.environ
        #: Where nobody looks at it, a line is as long as it has to be.
        self.width = self.console.width if is_narrow else _WIDE

    def json(self, *values: Any) -> None:
        """Print values, each on a line of its own."""
        import orjson

        for value in values:
            sys.stdout.write(orjson.dumps(value).decode() + "\n")

    def line(self, *parts: str | Text, indent: str = "") -> None:
        """Print a text, in lines that end between words."""
        text = Text.assemble(*map(_harmless, parts))
        for piece in _wrap(text, self.width, indent):
            self.console.print(piece)

    def note(self, text: str) -> None:
        """Say something to the person beside what is asked for."""
        sys.stdout.flush()
        sys.stderr.write(f"{in_lines(text)}\n")

    def table(self, headers: Sequence[str], *choices: Sequence[Sequence[str]]) -> None:
        """Print rows: as a table, by the first choice of cells with which it fits.

        Where it fits with none, each row is some lines, and no word is cut.
        """
        choices = tuple([[in_one_line(one) for one in row] for row in rows] for rows in choices)
        for rows in choices:
            widths = [
                max(len(header), *(len(row[column]) for row in rows), 0)
                for column, header in enumerate(headers)
            ]
            used = [column for column in range(len(headers)) if any(row[column] for row in rows)]
            if sum(widths[column] + _GAP for column in used) - _GAP <= self.width:
                self._print_table(headers, rows, widths, used)
                return
        for row in choices[-1]:
            self._print_card(headers, row)

    def _print_table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        widths: Sequence[int],
        used: Sequence[int],
    ) -> None:
        head = "".join(headers[column].upper().ljust(widths[column] + _GAP) for column in used)
        self.console.print(Text(head.rstrip(), style="bold"))
        for row in rows:
            line = Text()
            for column in used:
                cell = row[column]
                line.append(cell, style=STYLES.get(cell))
                line.append(" " * (widths[column] + _GAP - len(cell)))
            line.rstrip()
            self.console.print(line)

    def _print_card(self, headers: Sequence[str], row: Sequence[str]) -> None:
        self.line(Text(row[0], style="bold"))
        rest = ", ".join(
            f"{name} {cell}" for name, cell in zip(headers[1:], row[1:], strict=True) if cell
        )
        self.line(rest, indent="  ")

    def fields(self, fields: Mapping[str, str | Text | None]) -> None:
        """Print names and values, one below the other; those that are None are left out."""
        shown = {name: text for name, text in fields.items() if text is not None}
        width = max(map(len, shown), default=0) + _GAP
        for name, text in shown.items():
            value = _harmless(text)
            if not isinstance(value, Text):
                value = Text(value, style=STYLES.get(value) or "")
            for number, piece in enumerate(_wrap(value, self.width - width, "")):
                head = name.ljust(width) if not number else " " * width
                self.console.print(Text.assemble((head, "bold"), piece))


def _harmless(text: str | Text) -> str | Text:
    """Give a text in which nothing stands that a terminal would take for a command."""
    if not isinstance(text, Text):
        return in_lines(text)
    return text if text.plain.isprintable() else Text(in_lines(text.plain), style=text.style)


def _wrap(text: Text, width: int, indent: str) -> Iterable[Text]:
    """Give the lines of a text, none longer than the screen is wide but for a single long word."""
    room = max(width - len(indent), _ROOM_MIN)
    for line in text.split("\n", allow_blank=True):
        begin = end = 0
        for word in _WORD.finditer(line.plain):
            if end and word.end() - begin > room:
                yield Text.assemble(indent, line[begin:end])
                begin = word.start()
            end = word.end()
        yield Text.assemble(indent, line[begin:end])
