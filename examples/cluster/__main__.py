"""``python -m examples.cluster``: see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import cast

import anyio
from rich.console import Console

from perdure import PerdureError

from .machines import DemoError, Machines
from .run import run


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; gives the exit code: 0, 1 if anything was lost or doubled, 2 for bad arguments."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 2 <= options.nodes <= 16:
        parser.error(f"--nodes must be from 2 to 16, not {options.nodes}")
    if not 3 <= options.seconds <= 3_600:
        parser.error(f"--seconds must be from 3 to 3,600, not {options.seconds:g}")
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="perdure-cluster-") as folder:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.chmod(folder, 0o755)  # the database is another user's then
        return _run(options, Path(folder), console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.cluster",
        description="Serve one hub by several processes on one PostgreSQL, kill one of them in the"
        " middle, and see that nothing was lost or done twice, and how long it took.",
    )
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many (default: 3)")
    parser.add_argument(
        "--seconds", type=float, default=15.0, metavar="S", help="how long (default: 15)"
    )
    parser.add_argument(
        "--store",
        metavar="postgresql://...",
        help="a database that runs already, and a schema with no hub (default: starts one)",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")
    return parser


def _run(options: argparse.Namespace, folder: Path, console: Console) -> int:
    plain = options.plain or not console.is_terminal
    application = f"{__package__ or 'examples.cluster'}.app:app"
    try:
        with Machines(folder, options.store, application) as machines:
            return anyio.run(
                lambda: run(
                    machines, console, nodes=options.nodes, seconds=options.seconds, plain=plain
                )
            )
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except (DemoError, PerdureError, TimeoutError, ExceptionGroup) as error:
        for problem in _problems(error):
            console.print(f"{type(problem).__name__}: {problem}", markup=False)
        return 1


def _problems(error: Exception) -> list[Exception]:
    """Give what went wrong from what a task group may have wrapped; our own mistakes are raised."""
    if isinstance(error, DemoError | PerdureError | TimeoutError):
        return [error]
    if not isinstance(error, ExceptionGroup):
        raise error
    group = cast("ExceptionGroup[Exception]", error)
    return [problem for inner in group.exceptions for problem in _problems(inner)]


if __name__ == "__main__":
    sys.exit(main())
