"""What each benchmark's plot shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from . import cluster, crossing, growth, hotspot, isolation, latency, rebalance, sharding, stripes
from .drawing import (
    BLUE,
    COLOURS,
    FAINT,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    PINK,
    RED,
    Picture,
    canvas,
    compact,
    logarithmic,
    nines,
    nines_of,
    save,
    style,
    thousands,
)
from .figures import Figures, Load, Sweep
from .histogram import Histogram

Draw = Callable[[Figures], Any]


def draw(section: str, figures: Figures, folder: Path) -> Picture:
    """Draw the plot of a section, into files of that name."""
    with style():
        return save(PLOTS[section](figures), folder, section)


def draw_basic(figures: Figures) -> Any:
    """Throughput, latency and cost of each load in a closed loop."""
    loads = list(figures.loads.values())
    height = 1.1 + 0.3 * len(loads)
    figure, (rates, times, commits, size) = canvas(1, 4, height=max(height, 2.6))
    names = [load.name for load in loads]
    _bars(rates, names, [load.rate for load in loads], BLUE, "operations per second", log=True)
    rates.set_title("Throughput")
    _dumbbells(times, loads)
    times.set_title("Latency of a request")
    _bars(
        commits,
        [],
        [load.commits / load.operations for load in loads],
        GREEN,
        "per operation",
        log=True,
    )
    commits.set_title("Commits")
    _bars(
        size, [], [load.stored / load.operations for load in loads], ORANGE, "bytes per operation"
    )
    size.set_title("Growth of the store")
    return figure


def draw_postgres(figures: Figures) -> Any:
    """The same of both stores, where there is a server."""
    if figures.loads:
        return draw_basic(figures)
    figure, [axes] = canvas(1, 1)
    axes.text(0.5, 0.5, "there was no PostgreSQL", ha="center")
    axes.set_axis_off()
    return figure


def draw_cluster(figures: Figures) -> Any:
    """What a hello takes of the processors, by the number of nodes."""
    figure, panels = canvas(1, 2)
    for axes, head, colour in zip(panels, cluster.HEADS[2:4], (BLUE, ORANGE), strict=True):
        for sweep in figures.sweeps.values():
            names = [f"{count:g}" for count in sweep.numbers("nodes")]
            _bars(axes, names, sweep.numbers(head), colour, "microseconds per hello")
        axes.set_title(head)
        axes.set_ylabel("nodes")
    return figure


def _bars(
    axes: Any,
    names: Sequence[str],
    values: Sequence[float],
    colour: str,
    label: str,
    *,
    log: bool = False,
) -> None:
    at = list(range(len(values)))
    axes.barh(at, values, color=colour, height=0.62)
    for place, value in zip(at, values, strict=True):
        axes.annotate(
            compact(value),
            (value, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
        )
    _rows(axes, at, names)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(right=max(values) * 8)
    else:
        axes.set_xlim(0, (max(values) or 1) * 1.3)
    thousands(axes.xaxis)


def _rows(axes: Any, at: Sequence[int], names: Sequence[str]) -> None:
    axes.set_yticks(at, names or [""] * len(at), color=INK)
    axes.set_ylim(len(at) - 0.4, -0.6)


def _dumbbells(axes: Any, loads: Sequence[Load]) -> None:
    at = list(range(len(loads)))
    p50, p99 = [load.p50_ms for load in loads], [load.p99_ms for load in loads]
    axes.hlines(at, p50, p99, color="#c8ccd1", linewidth=3, zorder=1)
    axes.scatter(p50, at, color=BLUE, zorder=2, label="median")
    axes.scatter(p99, at, color=RED, marker="D", s=24, zorder=2, label="99th percentile")
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    _rows(axes, at, [])
    axes.grid(visible=False, axis="y")
    thousands(axes.xaxis)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handletextpad=0.1)


def draw_latency(figures: Figures) -> Any:
    """Percentiles by load, on an axis of nines."""
    operations = ("hello", "hot-call")
    figure, panels = canvas(1, len(operations), height=4.0)
    shades = ("#9ecae1", "#56B4E9", "#0072B2", "#E69F00", "#D55E00")
    for axes, operation in zip(panels, operations, strict=True):
        found = [
            (f"{share} % of capacity", figures.histograms[f"{operation} at {share} %"])
            for share in latency.SHARES
        ]
        _percentiles(axes, found, shades)
        limit = figures.loads[f"{operation}-limit"]
        axes.set_title(f"{operation}: capacity {compact(limit.rate)}/s")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _percentiles(axes: Any, found: Sequence[tuple[str, Histogram]], colours: Sequence[str]) -> None:
    greatest = 0.0
    for (name, histogram), colour in zip(found, cycle(colours), strict=False):
        curve = histogram.curve()
        axes.plot(
            [nines_of(percent) for percent, _ in curve],
            [time for _, time in curve],
            color=colour,
            label=name,
        )
        greatest = max(greatest, curve[-1][0])
    nines(axes, greatest)
    axes.set_yscale("log")
    axes.set_ylabel("latency, ms")
    logarithmic(axes.yaxis)


def draw_hotspot(figures: Figures) -> Any:
    """Throughput, latency and balance against both kinds of skew."""
    figure, panels = canvas(2, 3)
    for row, (name, head) in enumerate(
        (("hotspot: share", hotspot.SHARE), ("hotspot: Zipf", hotspot.EXPONENT))
    ):
        sweep = figures.sweeps[name]
        rate, times, busiest = panels[3 * row : 3 * row + 3]
        for variant, colour, marker in zip(hotspot.VARIANTS, COLOURS, MARKERS, strict=False):
            x = sweep.numbers(head, variant=variant)
            whole = {"color": colour, "marker": marker}
            part = {**whole, "mfc": "white", "linestyle": "--"}
            for axes, column, look in (
                (rate, hotspot.RATE, whole),
                (times, hotspot.P99, whole),
                (times, hotspot.COLD, part),
                (busiest, hotspot.TURNS, whole),
                (busiest, hotspot.MESSAGES, part),
            ):
                axes.plot(x, sweep.numbers(column, variant=variant), **look, label=variant)
        for axes, title, label in (
            (rate, "Throughput", "signals per second"),
            (times, "99th percentile (dashed: cold keys)", "ms"),
            (busiest, "Busiest partition (dashed: messages)", "% of all turns"),
        ):
            axes.set_title(title)
            axes.set_ylabel(label)
            axes.set_xlabel(head)
            axes.set_ylim(bottom=0)
        busiest.set_ylim(0, 105)
        thousands(rate.yaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_isolation(figures: Figures) -> Any:
    """The 99th percentile of probes, without load, with it spread, and with all on one key."""
    sweep = figures.sweeps[isolation.SWEEP]
    places = list(dict.fromkeys((str(kind), str(place)) for kind, place, *_ in sweep.rows))
    figure, [axes] = canvas(1, 1, height=1.4 + 0.36 * len(places))
    at = list(range(len(places)))
    series = {
        condition: sweep.numbers(isolation.P99, load=condition)
        for condition in isolation.CONDITIONS
        if condition != isolation.MOST
    }
    several = [list(times) for times in zip(*series.values(), strict=True)]
    axes.hlines(at, [*map(min, several)], [*map(max, several)], color="#c8ccd1", linewidth=3)
    looks = ((FAINT, "o"), (BLUE, "o"), (GREEN, "s"), (RED, "D"))
    for (condition, times), (colour, marker) in zip(series.items(), looks, strict=True):
        label = "no load" if condition == isolation.QUIET else condition
        axes.scatter(times, at, color=colour, marker=marker, s=28, zorder=2, label=label)
    ratios = zip(
        sweep.numbers(isolation.OF_SPREAD, load=isolation.HOT),
        sweep.numbers(isolation.OF_FEW, load=isolation.HOT),
        strict=True,
    )
    for place, times, (of_many, of_few) in zip(at, several, ratios, strict=True):
        axes.annotate(
            f"{of_many:.2f} and {of_few:.2f} times",
            (max(times), place),
            (8, 0),
            textcoords="offset points",
            va="center",
        )
    _rows(axes, at, [": ".join(place) for place in places])
    axes.grid(visible=False, axis="y")
    axes.set_xscale("log")
    axes.set_xlim(right=3 * max(map(max, several)))
    logarithmic(axes.xaxis)
    axes.set_xlabel("99th percentile of calls of cold entities, ms")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _costs(sweep: Sweep, columns: Sequence[tuple[str, str]]) -> Any:
    """One row of bars for each row of a table, whose first two columns name it."""
    names = [f"{kind}: {what}" for kind, what, *_ in sweep.rows]
    figure, panels = canvas(1, len(columns), height=1.2 + 0.34 * len(names))
    for number, (axes, (head, label)) in enumerate(zip(panels, columns, strict=True)):
        colour = (BLUE, ORANGE, GREEN)[number]
        _bars(axes, [] if number else names, sweep.numbers(head), colour, label)
    return figure


def draw_stripes(figures: Figures) -> Any:
    """Rate, cost and processors, plain and striped."""
    return _costs(
        figures.sweeps[stripes.SWEEP],
        (
            (stripes.RATE, "operations per second"),
            (stripes.CPU, "processor time per operation, us"),
            (stripes.CORES, "processors used"),
        ),
    )


def draw_crossing(figures: Figures) -> Any:
    """Rate, cost and processors, by where signals go."""
    return _costs(
        figures.sweeps[crossing.SWEEP],
        (
            (crossing.RATE, "signals per second"),
            (crossing.CPU, "processor time per signal, us"),
            (crossing.CORES, "processors used"),
        ),
    )


def draw_growth(figures: Figures) -> Any:
    """Cost of an operation against what is stored."""
    sweep = figures.sweeps["growth"]
    figure, (hello, cold, start) = canvas(1, 3)
    for kind, colour, marker in (("instances", BLUE, "o"), ("entities", ORANGE, "s")):

        def column(head: str, kind: str = kind) -> list[float]:
            return sweep.numbers(head, **{growth.KIND: kind})

        x = column(growth.COUNT)
        hello.plot(x, column(growth.HELLO), color=colour, marker=marker, label=f"beside {kind}")
        hello.plot(x, column(growth.EMPTY), color=colour, linestyle=":", label="empty store")
        start.plot(x, column(growth.START), color=colour, marker=marker, label=kind)
        if kind == "entities":
            cold.plot(x, column(growth.COLD), color=colour, marker=marker)
    for axes, title, label in (
        (hello, "A hello", "us per operation"),
        (cold, "A call that must load its entity", "us per operation"),
        (start, "Start of the hub", "ms"),
    ):
        axes.set_title(title)
        axes.set_ylabel(label)
        axes.set_xlabel("actors in the store")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.margins(y=0.25)
        thousands(axes.xaxis)
    hello.set_ylim(top=1.4 * hello.get_ylim()[1])  # room for the legend
    hello.legend(loc="upper left", ncols=2)
    start.legend()
    return figure


def draw_bank(figures: Figures) -> Any:
    """Percentiles of transfers and audits."""
    figure, [axes] = canvas(1, 1)
    _percentiles(axes, list(figures.histograms.items()), (BLUE, ORANGE))
    axes.set_title(f"{figures.loads['bank'].rate:,.0f} transfers per second")
    axes.legend(loc="upper left")
    return figure


def draw_wordcount(figures: Figures) -> Any:
    """Durable against plain."""
    figure, [axes] = canvas(1, 1, height=1.9)
    seconds = figures.loads["wordcount"].seconds
    direct = seconds / figures.facts["wordcount / direct count"]
    _bars(axes, ["plain loop", "durable"], [direct, seconds], BLUE, "seconds")
    axes.set_title(f"{figures.facts['wordcount: words']:,.0f} words per second, durably")
    return figure


def draw_replay(figures: Figures) -> Any:
    """An event to an instance in memory, and to one that is replayed."""
    figure, [axes] = canvas(1, 1, height=2.1)
    names = ("replay: round trip", "replay: time", "replay: start of the hub")
    words = ["in memory", "replayed first", "start of the hub"]
    _bars(axes, words, [figures.facts[name] for name in names], BLUE, "ms")
    axes.set_title(f"{figures.facts['replay']:,.0f} events replayed per second")
    return figure


def draw_memory(figures: Figures) -> Any:
    """Bytes of each kind of idle actor."""
    figure, [axes] = canvas(1, 1, height=1.9)
    names = ("idle orchestration", "idle entity")
    _bars(axes, names, [figures.facts[name] for name in names], BLUE, "bytes in memory")
    return figure


def draw_sharding(figures: Figures) -> Any:
    """Speedup by shards, how even it was, what crossed, and what it took."""
    sweep = figures.sweeps["sharding"]
    kinds = list(dict.fromkeys(str(kind) for kind in sweep.column(sharding.KIND)))
    figure, panels = canvas(2, 3)
    balance, *speedups, cross = panels[2], panels[0], panels[1], panels[5]
    cpu, cores = panels[3], panels[4]
    for kind, axes in zip(("threads", "processes"), speedups, strict=True):
        axes.plot(sharding.SHARDS, sharding.SHARDS, color=FAINT, linestyle=":", label="ideal")
        axes.set_title(f"Speedup with {kind}" + ("" if kind in kinds else ": not measured"))
        axes.set_ylabel("times one shard")
    for kind in kinds:
        speedup = speedups[("threads", "processes").index(kind)]
        for what, colour, marker in zip(sharding.LOADS, COLOURS, MARKERS, strict=False):
            only = {sharding.KIND: kind, sharding.LOAD: what}
            x = sweep.numbers(sharding.SHARD_COUNT, **only)
            look = {
                "color": colour,
                "marker": marker,
                "linestyle": "-" if kind == "processes" else "--",
                "label": what,
            }
            for axes, head in (
                (speedup, sharding.SPEEDUP),
                (balance, sharding.BALANCE),
                (cpu, sharding.CPU),
                (cores, sharding.CORES),
                (cross, sharding.CROSS),
            ):
                axes.plot(x, sweep.numbers(head, **only), **look)
    for axes, title, label in (
        (balance, "Balance", "busiest shard's messages / mean"),
        (cpu, "Cost (dashed: threads)", "processor time per operation, us"),
        (cores, "Processors used", "on average"),
        (cross, "Signals to other shards", "% of all"),
    ):
        axes.set_title(title)
        axes.set_ylabel(label)
    for axes in panels:
        axes.set_xlabel("shards")
        axes.set_xticks(sharding.SHARDS)
        if axes is not cpu:
            axes.set_ylim(bottom=0)
    cpu.set_yscale("log")
    logarithmic(cpu.yaxis)
    cross.set_ylim(0, 105)
    figure.legend(*speedups[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_rebalance(figures: Figures) -> Any:
    """Rates over time, with the move marked, a panel for each kind of shards."""
    sweep = figures.sweeps[rebalance.SWEEP]
    kinds = list(dict.fromkeys(str(kind) for kind in sweep.column(rebalance.KIND)))
    figure, panels = canvas(1, len(kinds))
    for kind, axes in zip(kinds, panels, strict=True):
        began = figures.facts[rebalance.fact_name(kind, rebalance.MOVE_BEGAN)]
        took = figures.facts[rebalance.fact_name(kind, rebalance.MOVE_TOOK)] / 1e3
        axes.axvspan(began, began + took, color=PINK, alpha=0.3, label="the move")
        time = sweep.numbers(rebalance.TIME, kind=kind)
        for head, colour in ((rebalance.OTHERS, FAINT), (rebalance.MOVED, BLUE)):
            rates = sweep.numbers(head, kind=kind)
            axes.step(time, rates, where="post", color=colour, label=head.partition(",")[0])
        axes.set_title(f"{kind.capitalize()}: answers in bins of {rebalance.BIN_S * 1e3:g} ms")
        axes.set_xlabel("time, s")
        axes.set_ylabel("calls per second")
        axes.set_ylim(bottom=0)
        thousands(axes.yaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


PLOTS: dict[str, Draw] = {
    "basic-loads": draw_basic,
    "postgresql": draw_postgres,
    "cluster": draw_cluster,
    "latency": draw_latency,
    "hot-keys": draw_hotspot,
    "isolation": draw_isolation,
    "stripes": draw_stripes,
    "shards": draw_sharding,
    "crossing": draw_crossing,
    "rebalancing": draw_rebalance,
    "bank": draw_bank,
    "word-count": draw_wordcount,
    "growth": draw_growth,
    "replay": draw_replay,
    "memory": draw_memory,
}
