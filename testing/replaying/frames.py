"""What goes between the check and its processes: frames, each a length and so many bytes."""

from __future__ import annotations

from struct import Struct
from typing import IO

#: What a process is at: the number of a row, and of an event of its history or -1.
AT, ROW, EVENT = Struct("<qq"), Struct("<q"), Struct("<q")

_LENGTH = 8


def pack(body: bytes) -> bytes:
    """Give a frame."""
    return len(body).to_bytes(_LENGTH, "little") + body


def read_frame(file: IO[bytes]) -> bytes | None:
    """Read a frame; None where there are no more."""
    head = file.read(_LENGTH)
    if len(head) < _LENGTH:
        return None
    length = int.from_bytes(head, "little")
    body = file.read(length)
    return body if len(body) == length else None
