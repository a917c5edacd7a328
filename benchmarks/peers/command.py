"""The command ``python -m benchmarks.peers``: other durable frameworks beside Perdure."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from ..bench import Options
from ..progress import Bar
from ..report import describe_run, file_system
from .contender import NAMES
from .measure import LOADS, Size
from .race import Run, race, run_apart
from .table import Comparison, print_comparison, write_json, write_markdown

_WIDTH = 160
_DESCRIBED = ("command", "python", "machine", "system")


def make_parser(program: str) -> argparse.ArgumentParser:
    """Declare what the command takes."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of {', '.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="of all contenders in turn (3)")
    parser.add_argument(
        "--seconds", type=_seconds, default=2.0, help="for each load, apart from warm-up (2)"
    )
    parser.add_argument("-n", type=_positive, help="operations of a load at most")
    parser.add_argument(
        "--concurrency", type=_positive, default=100, help="requests in flight, for all (100)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(".peers"),
        help="the contenders' packages are installed there, once (.peers)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {seconds:g}")
    return seconds


def main(
    arguments: Sequence[str] | None = None, program: str = "python -m benchmarks.peers"
) -> int:
    """Run the command with these arguments, or the process's.

    Gives the exit status: 1 if a contender did something wrong; one that is not available is
    reported, and no failure.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser(program).parse_args(given)
    names = [name for name in NAMES if options.only is None or name in options.only]
    size = Size(seconds=options.seconds, concurrency=options.concurrency, n=options.n)
    console = Console()
    if console.width < _WIDTH:
        console = Console(width=_WIDTH)
    machine = describe_run(
        Options(), " ".join([program, *given]), "asyncio", uvloop=find_spec("uvloop") is not None
    )
    total = options.rounds * len(names)
    with Bar(console, total, visible=console.is_terminal and not options.quiet) as bar:
        done = 0

        def run_one(name: str, number: int) -> Run:
            nonlocal done
            begun = 0

            def begins(load: str) -> None:
                nonlocal begun
                bar.show(load, begun, len(LOADS))
                begun += 1

            bar.begin(f"{number + 1}: {name}", done)
            done += 1
            run = run_apart(name, size, options.cache, begins)
            if run.wrong is not None:
                print(f"{name} FAILED in round {number + 1}: {run.wrong}", file=sys.stderr)
            return run

        rounds = race(names, options.rounds, run_one)
    comparison = Comparison(
        description={
            "date": datetime.now(UTC).date().isoformat(),
            **{key: machine[key] for key in _DESCRIBED},
            "disk": file_system(Path(tempfile.gettempdir())),
            "each load": f"{size.seconds:g} s after warm-up, median of {options.rounds} rounds",
        },
        rounds=rounds,
    )
    print_comparison(console, comparison)
    if options.json is not None:
        write_json(options.json, comparison)
    if options.markdown is not None:
        write_markdown(options.markdown, comparison)
    return 1 if any(run.wrong is not None for runs in rounds for run in runs.values()) else 0
