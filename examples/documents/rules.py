"""The compliance rules, and the service that applies them and is at times too busy to."""

from __future__ import annotations

import re
import zlib

from .models import CheckRequest, Issue, Validation

CONFIDENCE_MIN = 0.85
LINE_LENGTH_MAX = 120
NON_ASCII_SHARE_MAX = 0.2

_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
    r"|(?i:\b(?:password|passwd|secret|token|api_key)\b\s*[=:]\s*['\"]?[\w/+-]{8,})"
)
_ADDRESS = re.compile(r"\b[\w.+-]+@[\w-]+\.[a-zA-Z][\w.-]*\b")
_MARKER = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
_FORBIDDEN = re.compile(r"(?i)\b(?:crap|damn|evil|hack|kludge|stupid|sucks|ugly)\w*\b")

# How often a text may break a rule before that is an issue.
_TOLERATED = {"secret": 0, "address": 0, "marker": 4, "forbidden word": 1, "long line": 9}


class RulesServiceBusyError(Exception):
    """The service has no capacity just now; asked again, it will answer."""


def validate(text: str, confidence: float) -> Validation:
    """Apply the rules to a text."""
    counts = {
        "secret": len(_SECRET.findall(text)),
        "address": len(_ADDRESS.findall(text)),
        "marker": len(_MARKER.findall(text)),
        "forbidden word": len(_FORBIDDEN.findall(text)),
        "long line": sum(len(line) > LINE_LENGTH_MAX for line in text.splitlines()),
    }
    issues = [Issue(rule, count) for rule, count in counts.items() if count > _TOLERATED[rule]]
    foreign = sum(ord(character) > 127 for character in text)
    if foreign > NON_ASCII_SHARE_MAX * len(text):
        issues.append(Issue("non-ASCII share", foreign))
    return Validation(
        is_compliant=not issues,
        issues=issues,
        requires_review=bool(issues) or confidence < CONFIDENCE_MIN,
    )


def ask_service(request: CheckRequest, attempt: int) -> Validation:
    """Have a text checked, as a service with limited capacity would.

    It turns the first attempt for every seventh document away, chosen by its id.

    Raises:
        RulesServiceBusyError: try again.
    """
    if attempt == 1 and zlib.crc32(request.document_id.encode()) % 7 == 0:
        raise RulesServiceBusyError(f"no capacity for {request.document_id}")
    return validate(request.text, request.confidence)
