"""What each benchmark's plot shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from . import growth, hotspot, latency, rebalance, sharding
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
from .figures import Figures, Load
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

            def column(head: str, variant: str = variant) -> list[float]:
                return sweep.numbers(head, variant=variant)  # noqa: B023

            x = column(head)
            own = {"color": colour, "marker": marker}
            rate.plot(x, column(hotspot.RATE), **own, label=variant)
            times.plot(x, column(hotspot.P99), **own, label=f"{variant}: all keys")
            times.plot(
                x,
                column(hotspot.COLD),
                **own,
                mfc="white",
                linestyle="--",
                label=f"{variant}: cold keys",
            )
            busiest.plot(x, column(hotspot.TURNS), **own, label=f"{variant}: turns")
            busiest.plot(
                x,
                column(hotspot.SIGNALS),
                **own,
                mfc="white",
                linestyle="--",
                label=f"{variant}: signals",
            )
        for axes, title, label in (
            (rate, "Throughput", "signals per second"),
            (times, "99th percentile", "ms"),
            (busiest, "Busiest partition", "% of all"),
        ):
            axes.set_title(title)
            axes.set_ylabel(label)
            axes.set_xlabel(head)
            axes.set_ylim(bottom=0)
        busiest.set_ylim(0, 105)
        thousands(rate.yaxis)
        times.legend()
        busiest.legend()
    return figure


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
    """Speedup by shards, how even it was, and what crossed."""
    sweep = figures.sweeps["sharding"]
    figure, (*speedups, balance, cross) = canvas(1, len(sharding.KINDS) + 2)
    for kind, axes in zip(sharding.KINDS, speedups, strict=True):
        axes.plot(sharding.SHARDS, sharding.SHARDS, color=FAINT, linestyle=":", label="ideal")
        for what, colour, marker in zip(
            ("hello", *sharding.EXPONENTS), COLOURS, MARKERS, strict=False
        ):
            only = {sharding.KIND: kind, sharding.LOAD: what}
            x = sweep.numbers(sharding.SHARD_COUNT, **only)
            look = {
                "color": colour,
                "marker": marker,
                "linestyle": "-" if kind == "processes" else "--",
                "label": f"{what}, {kind}",
            }
            axes.plot(x, sweep.numbers(sharding.SPEEDUP, **only), **{**look, "label": what})
            balance.plot(x, sweep.numbers(sharding.BALANCE, **only), **look)
            cross.plot(x, sweep.numbers(sharding.CROSS, **only), **look)
        axes.set_title(f"Speedup with {kind}")
        axes.set_ylabel("times one shard")
        axes.legend()
    balance.set_title("Balance")
    balance.set_ylabel("busiest shard's turns / mean")
    cross.set_title("Messages that cross")
    cross.set_ylabel("% of calls")
    for axes in (*speedups, balance, cross):
        axes.set_xlabel("shards")
        axes.set_xticks(sharding.SHARDS)
        axes.set_ylim(bottom=0)
    cross.set_ylim(top=105)
    return figure


def draw_rebalance(figures: Figures) -> Any:
    """Rates over time, with the move marked."""
    sweep = figures.sweeps[rebalance.SWEEP]
    figure, [axes] = canvas(1, 1)
    time = sweep.numbers(rebalance.TIME)
    began = figures.facts[rebalance.MOVE_BEGAN]
    axes.axvspan(
        began,
        began + figures.facts[rebalance.MOVE_TOOK] / 1e3,
        color=PINK,
        alpha=0.3,
        label="the move",
    )
    for head, colour in ((rebalance.OTHERS, FAINT), (rebalance.MOVED, BLUE)):
        axes.step(
            time, sweep.numbers(head), where="post", color=colour, label=head.partition(",")[0]
        )
    axes.set_title(f"Answers in bins of {rebalance.BIN_S * 1e3:g} ms")
    axes.set_xlabel("time, s")
    axes.set_ylabel("calls per second")
    axes.set_ylim(bottom=0)
    thousands(axes.yaxis)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


PLOTS: dict[str, Draw] = {
    "basic-loads": draw_basic,
    "latency": draw_latency,
    "hot-keys": draw_hotspot,
    "shards": draw_sharding,
    "rebalancing": draw_rebalance,
    "bank": draw_bank,
    "word-count": draw_wordcount,
    "growth": draw_growth,
    "replay": draw_replay,
    "memory": draw_memory,
}
