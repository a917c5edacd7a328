"""Sizes at which every benchmark takes a moment only."""

from __future__ import annotations

import pytest

from perdure.benchmarks import (
    cluster,
    commits,
    crossing,
    drivers,
    hotspot,
    http,
    isolation,
    postgres,
    rebalance,
    sharding,
    stripes,
)


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Have benchmarks use few entities, drivers and rounds."""
    patch.setattr(cluster, "CALLERS", 1)
    patch.setattr(cluster, "HELD", 16)
    patch.setattr(cluster, "LIVE", 20)
    patch.setattr(cluster, "DRIVERS", 4)
    patch.setattr(cluster, "LOOK_S", 1.0)
    patch.setattr(cluster, "RESTARTS", 1)
    patch.setattr(cluster, "LOOK_AFTER_LEASE_S", 1.0 - cluster.LEASE_S)
    patch.setattr(commits, "LANES_S", 0.02)
    patch.setattr(commits, "QUIET_S", 0.1)
    patch.setattr(commits, "GATHER_S", 0.0)
    patch.setattr(drivers, "PER_PARTITION", 1)
    patch.setattr(drivers, "WAVE", 5)
    patch.setattr(hotspot, "KEYS", 30)
    patch.setattr(http, "CHANGES", 2)
    patch.setattr(isolation, "PROBES", 5)
    patch.setattr(isolation, "MANY", 40)
    patch.setattr(isolation, "ORDER", 20)
    patch.setattr(isolation, "ROUNDS", 2)
    patch.setattr(isolation, "RATE", 2_000.0)
    patch.setattr(postgres, "ROUNDS", 1)
    patch.setattr(rebalance, "ENTITIES", 64)
    patch.setattr(sharding, "ENTITIES", 30)
    patch.setattr(crossing, "ENTITIES", 5)
    patch.setattr(crossing, "ROUNDS", 2)
    patch.setattr(stripes, "ROUNDS", 2)
