"""Which partition an actor lives in."""

from __future__ import annotations

from zlib import crc32


def partition_of(key: str, partitions: int) -> int:
    """Give the partition of an actor: CRC-32 of its key up to ``::``, modulo their number.

    So an id may say where it wants to be: ``order-7::items`` lives beside ``order-7``, as the
    children do that an orchestration makes.
    """
    place, _, _ = key.partition("::")
    return crc32(place.encode()) % partitions
