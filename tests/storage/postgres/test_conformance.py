"""The PostgreSQL store keeps the contract of stores."""

from __future__ import annotations

import pytest

from perdure.storage import Store
from perdure.storage.postgres import PostgresStore
from perdure.testing import StoreConformance


@pytest.mark.by_turns("trio")
class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store(self, newest_postgres: str) -> Store:
        return PostgresStore(newest_postgres)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestOldestPostgres(StoreConformance):
    """What asks the server is the same on both loops, so one of them will do."""

    @pytest.fixture
    def store(self, oldest_postgres: str) -> Store:
        return PostgresStore(oldest_postgres)
