"""The PostgreSQL store keeps the contract of stores."""

from __future__ import annotations

import pytest

from perdure.storage import Store
from perdure.storage.postgres import PostgresStore
from perdure.testing import StoreConformance


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store(self, postgres: str) -> Store:
        return PostgresStore(postgres)
