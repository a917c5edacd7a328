"""Stores, and a client of a hub with the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure import Client, Hub, MemoryStore, SqliteStore, Store
from tests.features.locks.application import app


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Hub(app) as hub:
        yield hub.client


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")
