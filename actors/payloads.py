"""Payloads: encoded values, as they are kept."""

from __future__ import annotations

from .errors import PayloadTooLargeError


def compact(data: bytes) -> bytes:
    """Give a short JSON text in no more memory than it needs, for keeping it.

    orjson gives its whole output buffer away with the text, a few KiB for the shortest.
    """
    # bytes(data) and data[:] would be the very same object.
    return b"%b" % data if len(data) < 2048 else data


def check_size(data: bytes, limit: int, what: str) -> bytes:
    """Give the data back if it has at most ``limit`` bytes.

    Raises:
        PayloadTooLargeError: it has more; ``what`` is named as its path.
    """
    if len(data) > limit:
        raise PayloadTooLargeError(what, len(data), limit)
    return data
