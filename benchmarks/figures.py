"""What a benchmark measured: figures, and how repetitions of one become a median and a best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Literal

from attrs import Factory, evolve, frozen

from .histogram import Histogram, rank

Cell = str | float | None


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
        cpu_us: processor time per operation, of the process and the hub's workers: all threads,
            and the load itself.
        commits: checkpoints stored, all partitions together.
        stored: bytes by which the store grew, write-ahead logs included.
        written: bytes that these wrote to disks; None where the system does not say.
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

    @property
    def cores(self) -> float:
        """How many processors were busy with it, on average."""
        return self.cpu_us * 1e-6 * self.rate


@frozen(kw_only=True)
class Fact:
    """One number that is no load: a size, a time, a ratio.

    Attributes:
        name: which figure it is, the same in every repetition.
        value: the number.
        unit: of what.
        better: which direction is the better one.
        note: what has to be known to read it.
        target: what the value should be, or better; None where nothing was set.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"] = "lower"
    note: str = ""
    target: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the value is as good as the target; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


@frozen(kw_only=True)
class Sweep:
    """One load at many points, a row each: what a plot shows.

    Attributes:
        name: which table it is, the same in every repetition.
        heads: what each column holds, with its unit.
        rows: the points; None where there is nothing to measure.
        note: what has to be known to read it.
    """

    name: str
    heads: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def column(self, head: str, **only: Cell) -> list[Cell]:
        """Give one column, of the rows that have these values in the columns of that name."""
        where = [(self.heads.index(name), value) for name, value in only.items()]
        at = self.heads.index(head)
        return [row[at] for row in self.rows if all(row[i] == value for i, value in where)]

    def numbers(self, head: str, **only: Cell) -> list[float]:
        """Give a column that plots can use: what was not measured is not a number."""
        cells = self.column(head, **only)
        return [float("nan") if cell is None else float(cell) for cell in cells]


@frozen(kw_only=True)
class Outcome:
    """What one run of one benchmark measured, and what it found to be right."""

    loads: Sequence[Load] = ()
    facts: Sequence[Fact] = ()
    sweeps: Sequence[Sweep] = ()
    histograms: Mapping[str, Histogram] = Factory(dict[str, Histogram])
    verified: Sequence[str] = ()


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """Put what parts of one benchmark measured into one."""
    parts = list(outcomes)
    return Outcome(
        loads=[load for part in parts for load in part.loads],
        facts=[fact for part in parts for fact in part.facts],
        sweeps=[sweep for part in parts for sweep in part.sweeps],
        histograms={name: one for part in parts for name, one in part.histograms.items()},
        verified=[words for part in parts for words in part.verified],
    )


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """Give the smallest value that ``percent`` of all are below or equal to (nearest rank)."""
    return sorted_values[rank(len(sorted_values), percent) - 1]


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
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


def as_median(runs: Sequence[Fact]) -> Fact:
    """Give the fact with the median value."""
    return evolve(runs[0], value=middle_fact(runs))


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


def middle_sweeps(outcomes: Sequence[Outcome]) -> dict[str, Sweep]:
    """Give each table with the median of every cell; of tables of different form, the first."""
    found: dict[str, list[Sweep]] = {}
    for outcome in outcomes:
        for sweep in outcome.sweeps:
            found.setdefault(sweep.name, []).append(sweep)
    return {name: _middle_sweep(sweeps) for name, sweeps in found.items()}


def _middle_sweep(sweeps: list[Sweep]) -> Sweep:
    first = sweeps[0]
    if any([*map(len, sweep.rows)] != [*map(len, first.rows)] for sweep in sweeps):
        return first
    rows = [
        [_middle_cell([sweep.rows[row][column] for sweep in sweeps]) for column in range(width)]
        for row, width in enumerate(map(len, first.rows))
    ]
    return evolve(first, rows=rows)


def _middle_cell(cells: Sequence[Cell]) -> Cell:
    numbers = [cell for cell in cells if isinstance(cell, int | float)]
    return median(numbers) if numbers else cells[0]


def all_histograms(outcomes: Sequence[Outcome]) -> dict[str, Histogram]:
    """Give the histograms of all repetitions together."""
    found: dict[str, Histogram] = {}
    for outcome in outcomes:
        for name, one in outcome.histograms.items():
            found.setdefault(name, Histogram()).add(one)
    return found


@frozen
class Figures:
    """The figures of one benchmark, of all its repetitions: what is shown.

    Attributes:
        loads: the runs with the median rate, by name.
        facts: medians, by name.
        targets: the facts that have a target, with the median as value.
        sweeps: tables of medians, by name.
        histograms: of all repetitions together, by name.
    """

    loads: dict[str, Load]
    facts: dict[str, float]
    targets: list[Fact]
    sweeps: dict[str, Sweep]
    histograms: dict[str, Histogram]


def gather(outcomes: Sequence[Outcome]) -> Figures:
    """Make of the repetitions of a benchmark what is shown of it."""
    loads, facts = by_name(outcomes)
    return Figures(
        loads={name: middle_load(runs) for name, runs in loads.items()},
        facts={name: middle_fact(runs) for name, runs in facts.items()},
        targets=[middle for middle in map(as_median, facts.values()) if middle.target is not None],
        sweeps=middle_sweeps(outcomes),
        histograms=all_histograms(outcomes),
    )
