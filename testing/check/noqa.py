"""Comments that silence findings: ``# noqa``, and ``# noqa: PDU012`` for some rules alone."""

from __future__ import annotations

import io
import re
import tokenize

from .findings import Finding
from .source.project import Module

_CODE = "[A-Z]+[0-9]+"
_COMMENT = re.compile(
    rf"#\s*noqa(?:\s*:\s*(?P<codes>{_CODE}(?:[,\s]+{_CODE})*))?(?!\w|\s*:)", re.IGNORECASE
)


class Silences:
    """Which lines of which files are silenced, read once for each file that has findings."""

    def __init__(self) -> None:
        self._known: dict[Module, dict[int, frozenset[str]]] = {}

    def covers(self, finding: Finding, module: Module) -> bool:
        """Whether a comment on its first or last line silences a finding."""
        lines = self._known.get(module)
        if lines is None:
            lines = self._known[module] = _read(module.text)
        for line in (finding.line, finding.end_line):
            codes = lines.get(line)
            if codes is not None and (
                not codes or any(finding.code.startswith(code) for code in codes)
            ):
                return True
        return False


def _read(text: str) -> dict[int, frozenset[str]]:
    """Give the lines that are silenced, and for which codes; for all where there are none."""
    if "noqa" not in text.casefold():
        return {}
    found: dict[int, frozenset[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            match = _COMMENT.search(token.string)
            if match is not None:
                codes = re.findall(_CODE, (match["codes"] or "").upper())
                found[token.start[0]] = frozenset(codes)
    return found
