"""Rounds of a race that was not run."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.benchmarks.peers.contender import OURS
from perdure.benchmarks.peers.measure import Figure
from perdure.benchmarks.peers.race import Rounds, Run


def run_at(name: str, rate: float) -> Run:
    figure = Figure(
        load="hello",
        unit="orchestrations",
        operations=int(rate * 10),
        in_flight=4,
        seconds=10,
        p50_ms=1.0,
        p99_ms=2.0,
    )
    return Run(name, version="1.0", figures=[figure])


def rounds_of(ours: Sequence[float], theirs: Sequence[float]) -> Rounds:
    return [
        {OURS: run_at(OURS, our), "restate": run_at("restate", their)}
        for our, their in zip(ours, theirs, strict=True)
    ]
