"""Findings: what is wrong, where, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen(order=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        path: the file.
        line: the line in it, from 1.
        column: the character in the line, from 1.
        end_line: the line in which it ends.
        end_column: the character behind its last one.
        code: the rule.
        message: what it is.
        fix: what to write instead.
        where: the function, and for what it runs: "in `now`, called by orchestration `order`".
        role: the orchestration or operation that it is about.
    """

    path: Path
    line: int
    column: int
    end_line: int
    end_column: int
    code: str
    message: str
    fix: str
    where: str
    role: str

    @property
    def text(self) -> str:
        """All of it in a sentence."""
        return f"{self.message}: {self.fix} ({self.where})"
