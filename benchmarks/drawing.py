"""The way from figures to pictures: one style, and matplotlib behind one seam.

matplotlib is an extra, so it is imported when something is drawn, and its objects are ``Any`` here:
the type checkers see the same whether it is installed or not.
"""

from __future__ import annotations

import io
import math
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from perdure import UsageError

# Okabe and Ito's colours, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, PINK, SKY, RED = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
INK, FAINT = "#24292f", "#8c959f"
MARKERS = ("o", "s", "^", "D", "v", "P")

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#c8ccd1",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.ymargin": 0.1,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: small, sharp, and can be found
    "svg.hashsalt": "perdure",
}


@frozen
class Picture:
    """A finished plot.

    Attributes:
        name: of its files, without an ending.
        svg: the same as in the SVG file, to be put into a page.
    """

    name: str
    svg: str


def require_matplotlib() -> None:
    """Refuse to begin what could not be drawn in the end.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError(
            "--report draws with matplotlib, which is not installed: pip install 'perdure[bench]'"
        )


@contextmanager
def style() -> Generator[None]:
    """Draw in the report's style meanwhile."""
    with import_module("matplotlib").rc_context(_STYLE):
        yield


def canvas(rows: int, columns: int, *, height: float = 3.4) -> tuple[Any, list[Any]]:
    """Give a figure, and its axes row by row."""
    figure = import_module("matplotlib.figure").Figure(
        figsize=(11, height * rows), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    return figure, [axes for row in grid for axes in row]


def save(figure: Any, folder: Path, name: str) -> Picture:
    """Write a figure as PNG and as SVG."""
    figure.savefig(folder / f"{name}.png", dpi=160)
    text = io.StringIO()
    # Without a date, the same figures give the same file.
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    (folder / f"{name}.svg").write_text(svg, "utf-8")
    # Ids are of the whole page where several are put into one; clip paths would be mixed up.
    svg = svg[svg.index("<svg") :].replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")
    svg = svg.replace('href="#', f'href="#{name}-')
    return Picture(name, svg)


def thousands(axis: Any) -> None:
    """Write numbers as 1k and 1M."""
    ticker = import_module("matplotlib.ticker")

    def written(value: float, _: int) -> str:
        return compact(value)

    axis.set_major_formatter(ticker.FuncFormatter(written))
    axis.set_minor_formatter(ticker.NullFormatter())


def logarithmic(axis: Any) -> None:
    """Mark 1, 2 and 5 of each decade, since many a range has no more than one."""
    ticker = import_module("matplotlib.ticker")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    thousands(axis)


def compact(value: float) -> str:
    """Give a number as a person would say it."""
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def nines(axes: Any, greatest: float) -> None:
    """Make the x axis one of nines: each ten times as rare as the one before."""
    marks = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
    shown = [mark for mark in marks if mark <= max(greatest, marks[0])]
    axes.set_xticks([nines_of(mark) for mark in shown], [f"{mark:g} %" for mark in shown])
    axes.set_xlim(left=nines_of(marks[0]))
    axes.set_xlabel("percentile of requests")


def nines_of(percent: float) -> float:
    """Give how many nines a percentile has: 1 for 90 %, 2 for 99 %."""
    return -math.log10(1 - percent / 100)
