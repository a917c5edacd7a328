"""Which partition an actor lives in."""

from __future__ import annotations

from itertools import count
from zlib import crc32

from ...actors.entities.stripes import MARK, split_key
from ...actors.ids import is_entity


def partition_of(key: str, partitions: int) -> int:
    """Give the partition of an actor: CRC-32 of its key up to ``::``, modulo their number.

    So an id may say where it wants to be: ``order-7::items`` lives beside ``order-7``, as the
    children do that an orchestration makes.

    The stripe of an entity with the number n is n partitions behind its home. So one of them is in
    every partition, if there are enough, and it is known which.
    """
    number = None
    if MARK in key and is_entity(key):
        key, number = split_key(key)
    if "::" in key:
        key, _, _ = key.partition("::")
    return (crc32(key.encode()) + (number or 0)) % partitions


def name_in(partition: int, partitions: int) -> str:
    """Find a short name that lies in a partition, for ids that want to be there."""
    return next(
        name
        for number in count()
        if partition_of(name := f"p{partition}-{number}", partitions) == partition
    )
