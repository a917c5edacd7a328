"""The corpus: programs that ``perdure check`` finds something in, and programs that it does not.

In ``bad`` and ``good`` each cell of a file, from one ``# %%`` to the next, is a program, behind what
``prelude.py`` has. Each folder of ``projects`` is a program of several files. A comment at the end of
a line says which rules are broken there: ``# PDU001``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).parent
PRELUDE = (CORPUS / "prelude.py").read_text("utf-8")


class Program(NamedTuple):
    """A program of one file.

    Attributes:
        title: its name, and where it stands.
        text: all of it.
        expected: the lines in which something is found, and the rules.
    """

    title: str
    text: str
    expected: set[tuple[int, str]]


def programs(folder: str) -> Iterator[Program]:
    """Give the programs of a folder."""
    for file in sorted((CORPUS / folder).glob("*.py")):
        _, *cells = re.split(r"^# %% ", file.read_text("utf-8"), flags=re.MULTILINE)
        for cell in cells:
            title, _, text = cell.partition("\n")
            whole = PRELUDE + text
            yield Program(f"{file.stem}: {title}", whole, marked(whole))


def marked(text: str) -> set[tuple[int, str]]:
    """Give the lines of a text that say what is found in them."""
    return {
        (number, code)
        for number, line in enumerate(text.splitlines(), 1)
        if "noqa" not in line
        for code in re.findall(r"PDU\d{3}", line.partition("  # ")[2])
    }


def projects() -> list[Path]:
    """Give the folders that are programs."""
    return sorted((CORPUS / "projects").iterdir())
