"""What a benchmark measured: figures, and how repetitions of one become a median and a best."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from statistics import median
from typing import Literal

from attrs import frozen


class WrongOutcomeError(Exception):
    """The hub did something else than what was asked: the figures of that run mean nothing."""


def expect(what: str, found: object, wanted: object) -> None:
    """Refuse an outcome that is not exactly the one wanted."""
    if found != wanted:
        raise WrongOutcomeError(f"{what}: {_short(found)} instead of {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


@frozen(kw_only=True)
class Load:
    """One run of a load.

    Attributes:
        name: which figure it is, the same in every repetition.
        unit: what is counted.
        operations: how many of these.
        requests: how many requests these were; latencies are of requests.
        concurrency: requests in flight; 0 where the times of sending were given (an open loop).
        seconds: how long all of it took.
        p50_ms: median latency of a request.
        p99_ms: the latency that 99 of 100 requests keep below or at.
        cpu_us: processor time of the process, all threads and the load itself, per operation.
        commits: checkpoints stored, all partitions together.
        stored: bytes by which the store grew, write-ahead logs included.
        written: bytes that the process wrote to disks; None where the system does not say.
        note: what has to be known to read it.
    """

    name: str
    unit: str
    operations: int
    requests: int
    concurrency: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    commits: int
    stored: int
    written: int | None
    note: str = ""

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


@frozen(kw_only=True)
class Fact:
    """One number that is no load: a size, a time, a ratio.

    Attributes:
        name: which figure it is, the same in every repetition.
        value: the number.
        unit: of what.
        better: which direction is the better one.
        note: what has to be known to read it.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"] = "lower"
    note: str = ""


@frozen(kw_only=True)
class Outcome:
    """What one run of one benchmark measured."""

    loads: Sequence[Load] = ()
    facts: Sequence[Fact] = ()


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """Give the smallest value that ``percent`` of all are below or equal to (nearest rank)."""
    rank = -(-len(sorted_values) * percent // 100)
    return sorted_values[max(int(rank), 1) - 1]


def percentiles_ms(seconds: array[float]) -> tuple[float, float]:
    """Give p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return percentile(ordered, 50) * 1e3, percentile(ordered, 99) * 1e3


def middle_load(runs: Sequence[Load]) -> Load:
    """Give the run with the median rate (of an even number, the slower of the two)."""
    return sorted(runs, key=lambda load: load.rate)[(len(runs) - 1) // 2]


def best_load(runs: Sequence[Load]) -> Load:
    """Give the fastest run."""
    return max(runs, key=lambda load: load.rate)


def middle_fact(runs: Sequence[Fact]) -> float:
    """Give the median value."""
    return median(fact.value for fact in runs)


def best_fact(runs: Sequence[Fact]) -> float:
    """Give the best value."""
    values = [fact.value for fact in runs]
    return min(values) if runs[0].better == "lower" else max(values)


def by_name(outcomes: Sequence[Outcome]) -> tuple[dict[str, list[Load]], dict[str, list[Fact]]]:
    """Put the repetitions of each figure together, in the order in which they were measured."""
    loads: dict[str, list[Load]] = {}
    facts: dict[str, list[Fact]] = {}
    for outcome in outcomes:
        for load in outcome.loads:
            loads.setdefault(load.name, []).append(load)
        for fact in outcome.facts:
            facts.setdefault(fact.name, []).append(fact)
    return loads, facts
