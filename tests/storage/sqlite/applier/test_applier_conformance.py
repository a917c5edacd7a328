"""What every store does, where nothing is applied yet, and where everything is at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.storage.sqlite import SqliteStore
from perdure.testing.store_conformance import StoreConformance


@pytest.mark.by_turns("asyncio")
@pytest.mark.usefixtures("never")
class TestNothingApplied(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(tmp_path / "hub", synchronous="OFF")


@pytest.mark.by_turns("trio")
@pytest.mark.usefixtures("at_once")
class TestEverythingApplied(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(tmp_path / "hub", synchronous="OFF")
