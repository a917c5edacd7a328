from __future__ import annotations

from perdure.benchmarks.peers.contender import NAMES, contender_class


def test_every_contender_says_what_it_promises() -> None:
    for name in NAMES:
        found = contender_class(name)
        assert found.durability
        assert found.tuning
        assert found.entity
