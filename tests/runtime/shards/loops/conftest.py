"""Threads end with the hub that has made them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.runtime.shards.loops.application import barriers, shard_threads


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Generator[None]:
    before = shard_threads()
    yield
    for barrier in barriers.values():
        barrier.left.set()
    barriers.clear()
    for thread in shard_threads() - before:
        thread.join(10)
    assert shard_threads() == before
