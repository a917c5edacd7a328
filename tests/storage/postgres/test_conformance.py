"""The PostgreSQL store keeps the contract of stores."""

from __future__ import annotations

import os
import uuid

import pytest

from perdure.storage import Store
from perdure.storage.postgres import PostgresStore
from perdure.testing import StoreConformance


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        dsn = os.environ.get("PERDURE_TEST_POSTGRES")
        if not dsn:
            pytest.skip("no PostgreSQL")
        return PostgresStore(f"{dsn}?schema=t{uuid.uuid4().hex}&durability=relaxed")
