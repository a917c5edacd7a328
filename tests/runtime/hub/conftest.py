"""What each test of the hub has: a store, no keys seen yet, and threads that are let go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import MemoryStore, SqliteStore, Store
from tests.runtime.hub.application import keys_seen, thread_gates


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    keys_seen.clear()
    yield
    for gate in thread_gates.values():
        gate.set()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")
