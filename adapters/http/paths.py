"""The head of a request as it was sent: its path is split before it is decoded, so that an id may hold a slash.

``scope["path"]`` is decoded as a whole, after which ``a%2Fb`` and ``a/b`` are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from .refusals import Refusal


def raw_segments(scope: Any) -> tuple[str, list[str]]:
    """Split the path behind the place where the application is mounted.

    Returns:
        What stands before (``/hub``, as it was sent), and the segments behind, not decoded; a
        slash at the end adds none.
    """
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(scope["path"], safe="/%:@!$&'()*+,;=~")
    root = scope.get("root_path", "").rstrip("/")
    before, segments = "", path.split("/")[1:]
    if root:
        # The mount's path is decoded, so that it is compared piece by piece.
        for count in range(1, len(segments) + 1):
            piece = "/" + "/".join(segments[:count])
            if _plain(piece) == root:
                before, segments = piece, segments[count:]
                break
    if segments and not segments[-1]:
        segments.pop()
    return before, segments


def header(scope: Any, name: bytes) -> str | None:
    """Give the first header of a name, in lower case, without what a mapping of them costs."""
    for given, value in scope["headers"]:
        if given == name:
            text: str = value.decode("latin-1")
            return text
    return None


def _plain(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace")


def decoded(segment: str) -> str:
    """Decode one segment.

    Raises:
        Refusal: 400, where it is not the UTF-8 of a text.
    """
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, f"the path's segment {segment[:60]!r} is not UTF-8") from None


def quoted(text: str) -> str:
    """Encode a text as one segment of a path."""
    return quote(text, safe="")


def match(pattern: Sequence[str], segments: Sequence[str]) -> list[str] | None:
    """Give what stands for the ``{...}`` of a pattern, decoded; None if it is another path.

    The fixed words of a pattern match in any case, as the family's do.
    """
    if len(pattern) != len(segments):
        return None
    found: list[str] = []
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            found.append(given)
        elif wanted.casefold() != given.casefold():
            return None
    return [decoded(one) for one in found]
