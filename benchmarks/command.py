"""The command ``perdure bench``: reads what is wanted, runs it, and reports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import anyio
from attrs import frozen
from rich.console import Console

import perdure
from perdure import PerdureError

from .bench import Bench, Options, place
from .figures import Outcome, WrongOutcomeError
from .growth import measure_growth
from .latency import measure_latency
from .memory import measure_memory
from .replay import measure_replay
from .report import Bar, Report, Run, describe_run, print_report, write_json, write_markdown
from .workloads import (
    measure_fanout,
    measure_hello,
    measure_hot,
    measure_signal,
    measure_spread,
)

_WIDTH = 160

BENCHMARKS: dict[str, Callable[[Bench], Awaitable[Outcome]]] = {
    "hello": measure_hello,
    "fanout": measure_fanout,
    "hot": measure_hot,
    "spread": measure_spread,
    "signal": measure_signal,
    "replay": measure_replay,
    "latency": measure_latency,
    "growth": measure_growth,
    "memory": measure_memory,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    names = ", ".join(BENCHMARKS)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {names}; all of them by default"
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
        default=100_000,
        help="growth fills the store up to so many (100000)",
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="append the tables to it")
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

    def run(self, bench: Callable[[Bench], Awaitable[Outcome]], at: Bench) -> Outcome:
        options: dict[str, Any] = {}
        if self.backend == "asyncio":
            options["use_uvloop"] = self.uvloop
        return anyio.run(bench, at, backend=self.backend, backend_options=options)


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
    console = Console()
    if console.width < _WIDTH:
        console = Console(width=_WIDTH)  # a table that is cut says less than lines that wrap
    try:
        names = choose(arguments.names)
    except KeyError as error:
        print(
            f"there is no benchmark {error.args[0]}; there are {', '.join(BENCHMARKS)}",
            file=sys.stderr,
        )
        return 2
    options = Options(
        store=arguments.store,
        n=arguments.n,
        concurrency=arguments.concurrency,
        partitions=arguments.partitions,
        instances=arguments.instances,
    )
    loop = _choose_loop(arguments)
    if arguments.tune:
        perdure.tune()
    description = describe_run(options, command, loop.backend, uvloop=loop.uvloop)
    description["interpreter"] = "perdure.tune()" if arguments.tune else "as it comes"
    report = Report(description=description, runs=[])
    failed = False
    with Bar(console, visible=console.is_terminal and not arguments.quiet) as bar:
        for name in names:
            run = Run(benchmark=name, outcomes=[])
            try:
                for _ in range(arguments.repeat):
                    with place(options, name) as folder:
                        bench = Bench(options, folder, bar)
                        run.outcomes.append(loop.run(BENCHMARKS[name], bench))
            except Exception as error:
                failed = True
                for reason in _reasons(error):
                    print(f"{name} FAILED: {reason}", file=sys.stderr)
            else:
                report.runs.append(run)
    print_report(console, report)
    if arguments.json is not None:
        write_json(arguments.json, report)
    if arguments.markdown is not None:
        write_markdown(arguments.markdown, report)
    return 1 if failed else 0


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
