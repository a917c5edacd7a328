"""The stores of the package keep the contract of stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.storage import MemoryStore, Store
from perdure.storage.sqlite import SqliteStore
from perdure.testing import StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        # The end of a process loses nothing under OFF either, and the tests are quicker.
        return SqliteStore(tmp_path / "hub", synchronous="OFF")
