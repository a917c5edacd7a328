"""The command ``perdure bench``: reads what is wanted, runs it, and reports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

import anyio
from attrs import frozen
from rich.console import Console

import perdure
from perdure import PerdureError, UsageError

from .bench import Bench, Options, place
from .drawing import require_matplotlib
from .figures import Outcome, WrongOutcomeError
from .page import write_page
from .progress import Bar
from .report import Report, Run, describe_run, print_report, write_json, write_markdown
from .schedule import Arrivals
from .suite import BENCHMARKS, Measure

_WIDTH = 160
_INSTANCES, _INSTANCES_QUICK, _INSTANCES_LONG = 100_000, 10_000, 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    names = ", ".join(BENCHMARKS)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which: {names}; all of them by default; 'list' says what each measures",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a tenth of it: to see that it runs")
    size.add_argument(
        "--long", action="store_true", help="growth and http fill the store up to a million"
    )
    parser.add_argument(
        "--store",
        default="sqlite:",
        help="memory: or sqlite:PATH; by default a temporary folder, removed afterwards",
    )
    parser.add_argument("-n", type=_positive, help="requests (each benchmark has its default)")
    parser.add_argument(
        "--concurrency", type=_positive, default=1_000, help="requests in flight (1000)"
    )
    parser.add_argument("--partitions", type=_positive, default=4, help="of each hub (4)")
    parser.add_argument(
        "--repeat", type=_positive, default=1, help="runs of each; median and best are shown (1)"
    )
    parser.add_argument(
        "--instances",
        type=_positive,
        help=f"growth and http fill the store up to so many ({_INSTANCES})",
    )
    parser.add_argument(
        "--arrivals",
        choices=get_args(Arrivals),
        default="poisson",
        help="requests of open loops come at random times or like a metronome's (poisson)",
    )
    parser.add_argument(
        "--text", type=Path, metavar="FOLDER", help="wordcount reads it, not Python's library"
    )
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument(
        "--uvloop",
        action=argparse.BooleanOptionalAction,
        help="asyncio on uvloop or not; by default on uvloop where it is installed",
    )
    parser.add_argument(
        "--tune", action="store_true", help="call perdure.tune() first, as perdure.run does"
    )
    parser.add_argument(
        "--pin",
        action="store_true",
        help="give each worker process one processor and no more (Linux): what a shard adds, where "
        "one alone would not use a part of the next processor, too",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="append the tables to it")
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER", help="write plots and a page with them there"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def choose(names: Sequence[str]) -> list[str]:
    """Give the benchmarks wanted, in the order of the suite.

    Raises:
        KeyError: there is no benchmark of that name.
    """
    wanted = set(names) or {"all"}
    unknown = wanted - {"all", *BENCHMARKS}
    if unknown:
        raise KeyError(", ".join(sorted(unknown)))
    return [name for name in BENCHMARKS if "all" in wanted or name in wanted]


@frozen(kw_only=True)
class _Loop:
    backend: Literal["asyncio", "trio"]
    uvloop: bool

    def run(self, measure: Measure, at: Bench) -> Outcome:
        options: dict[str, Any] = {}
        if self.backend == "asyncio":
            options["use_uvloop"] = self.uvloop
        return anyio.run(measure, at, backend=self.backend, backend_options=options)


def _choose_loop(arguments: argparse.Namespace) -> _Loop:
    installed = find_spec("uvloop") is not None
    wanted: bool | None = arguments.uvloop
    if arguments.backend == "trio":
        if wanted:
            raise SystemExit("uvloop is an event loop for asyncio: leave it out on trio")
        return _Loop(backend="trio", uvloop=False)
    if wanted and not installed:
        raise SystemExit("uvloop is not installed: pip install 'perdure[uvloop]'")
    return _Loop(backend="asyncio", uvloop=installed if wanted is None else wanted)


def run(arguments: argparse.Namespace, command: str) -> int:
    """Do what the arguments say; gives the exit status: 1 if an outcome was wrong."""
    if arguments.names == ["list"]:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:10} {benchmark.about}")
        return 0
    try:
        names = choose(arguments.names)
        if arguments.report is not None:
            require_matplotlib()
    except KeyError as error:
        print(
            f"there is no benchmark {error.args[0]}; there are {', '.join(BENCHMARKS)}",
            file=sys.stderr,
        )
        return 2
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    console = Console()
    if console.width < _WIDTH:
        console = Console(width=_WIDTH)  # a table that is cut says less than lines that wrap
    options = read_options(arguments)
    loop = _choose_loop(arguments)
    if arguments.tune:
        perdure.tune()
    description = describe_run(options, command, loop.backend, uvloop=loop.uvloop)
    description["interpreter"] = "perdure.tune()" if arguments.tune else "as it comes"
    report = Report(description=description, runs=[])
    is_visible = console.is_terminal and not arguments.quiet
    with Bar(console, len(names) * arguments.repeat, visible=is_visible) as bar:
        for number, name in enumerate(names):
            report.runs.append(Run(benchmark=name))
            _measure(report.runs[-1], loop, options, bar, number, arguments.repeat)
    print_report(console, report)
    if arguments.json is not None:
        write_json(arguments.json, report)
    if arguments.markdown is not None:
        write_markdown(arguments.markdown, report)
    if arguments.report is not None:
        print(f"report: {write_page(arguments.report, report)}")
    return 1 if any(run.failures for run in report.runs) else 0


def read_options(arguments: argparse.Namespace) -> Options:
    """Give what the arguments say about a run."""
    instances = _INSTANCES
    if arguments.quick:
        instances = _INSTANCES_QUICK
    elif arguments.long:
        instances = _INSTANCES_LONG
    return Options(
        store=arguments.store,
        n=arguments.n,
        concurrency=arguments.concurrency,
        partitions=arguments.partitions,
        instances=arguments.instances or instances,
        quick=arguments.quick,
        arrivals=arguments.arrivals,
        text=arguments.text,
        pin=arguments.pin,
    )


def _measure(run: Run, loop: _Loop, options: Options, bar: Bar, number: int, repeat: int) -> None:
    """Repeat one benchmark; where an outcome is wrong, say so and give no figures."""
    name = run.benchmark
    try:
        for repetition in range(repeat):
            words = name if repeat == 1 else f"{name}, {repetition + 1} of {repeat}"
            bar.begin(words, number * repeat + repetition)
            with place(options, name) as folder:
                bench = Bench(options, folder, bar)
                run.outcomes.append(loop.run(BENCHMARKS[name].measure, bench))
    except Exception as error:
        run.failures.extend(_reasons(error))
        for reason in run.failures:
            print(f"{name} FAILED: {reason}", file=sys.stderr)


def _reasons(error: Exception | BaseExceptionGroup[BaseException]) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[Exception]", error)
        found = [reason for one in group.exceptions for reason in _reasons(one)]
        return list(dict.fromkeys(found))[:5]
    if isinstance(error, WrongOutcomeError | PerdureError):
        return [f"{type(error).__name__}: {error}"]
    raise error  # a bug: where it is matters more than a neat line


def main(arguments: Sequence[str] | None = None, program: str = "python -m benchmarks") -> int:
    """Run the command with these arguments, or the process's; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(given), " ".join([program, *given]))
