"""The store that tests of members share keeps the contract of such stores, as PostgreSQL does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure.storage.membership import ClusterStore

from ..storage.cluster_conformance import ClusterConformance
from .small_cluster import Cluster


class TestSmallStore(ClusterConformance):
    @pytest.fixture
    def stores(self) -> Sequence[ClusterStore]:
        cluster = Cluster()
        return [cluster.store(), cluster.store()]
