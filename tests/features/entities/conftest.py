"""Stores, and a client of a hub with the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure import Client, Hub, MemoryStore, SqliteStore, Store
from tests.features.entities.application import app


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Give a store that finds its rows again when it is opened once more."""
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(app) as hub:
        yield hub


@pytest.fixture
def client(hub: Hub) -> Client:
    return hub.client
