"""From a file to its text: decoding, and taking the markup or the code away."""

from __future__ import annotations

import ast
import codecs
import io
import re
import tokenize
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from .models import Extraction

DOCUMENT_BYTES_MAX = 400_000
SHARDS = 16

_WORD = re.compile(r"[^\W\d_]{5,}")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class ExtractionError(Exception):
    """The document has no text that could be read."""


def extract(path: Path) -> Extraction:
    """Read a document and give its text.

    Raises:
        ExtractionError: it is too large, binary, not decodable, or no valid source code.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > DOCUMENT_BYTES_MAX:
        raise ExtractionError(f"{size:,} bytes; documents may have {DOCUMENT_BYTES_MAX:,}")
    data = path.read_bytes()
    if path.suffix == ".py":
        text, encoding = _text_of_code(data)
    else:
        text, encoding = _decode(data)
        if path.suffix in (".html", ".htm"):
            text = _text_of_html(text)
    return Extraction(
        text=text,
        confidence=_printable_share(text),
        metadata={"kind": path.suffix.lstrip(".") or "text", "encoding": encoding},
        words=shard_words(Counter(words_of(text))),
    )


def words_of(text: str) -> list[str]:
    """Give the words of five letters and more, in lower case."""
    return _WORD.findall(text.lower())


def shard_of(word: str) -> int:
    """Give the shard that counts a word; the same in every process, unlike ``hash``."""
    return zlib.crc32(word.encode()) % SHARDS


def shard_words(counts: Counter[str]) -> list[dict[str, int]]:
    """Split word counts by shard."""
    shards: list[dict[str, int]] = [{} for _ in range(SHARDS)]
    for word, count in counts.items():
        shards[shard_of(word)][word] = count
    return shards


def _decode(data: bytes) -> tuple[str, str]:
    encoding = "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data:
        raise ExtractionError(f"binary data: a zero byte at {data.index(0):,}")
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        raise ExtractionError(f"not {encoding}: {error.reason} at byte {error.start:,}") from error


def _text_of_code(data: bytes) -> tuple[str, str]:
    """Give docstrings and comments: what a program says to people."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        parts = [
            docstring
            for node in ast.walk(ast.parse(data))
            if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node))
        ]
        parts += [
            token.string.lstrip("#! ")
            for token in tokenize.tokenize(io.BytesIO(data).readline)
            if token.type == tokenize.COMMENT
        ]
    # ast.parse raises ValueError for zero bytes, and RecursionError for deep nesting.
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        raise ExtractionError(f"no Python: {error}") from error
    return "\n".join(parts), encoding


class _TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.parts.append(data.strip())


def _text_of_html(markup: str) -> str:
    parser = _TextOfHtml()
    parser.feed(markup)
    parser.close()
    return "\n".join(parser.parts)


def _printable_share(text: str) -> float:
    if not text:
        return 1.0
    return sum(character.isprintable() or character.isspace() for character in text) / len(text)
