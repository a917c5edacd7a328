"""``python -m examples.documents [FOLDER]``: see ``--help``."""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import anyio
from rich.console import Console

from perdure import PerdureError

from .plan import DOCUMENTS_MAX, PlanError, documents_in, everyday_documents, make_batch
from .run import run_batch

DIE_AFTER = 0.4
PORT = 7071


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; gives the exit code: 0, 1 for wrong totals, 2 for bad arguments."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 1 <= options.limit <= DOCUMENTS_MAX:
        parser.error(f"--limit must be from 1 to {DOCUMENTS_MAX:,}, not {options.limit}")
    if options.kill and not hasattr(signal, "SIGKILL"):
        parser.error("--kill needs SIGKILL, which this system does not have")
    console = Console(highlight=False, soft_wrap=True)
    if options.store is not None:
        return _run(options, Path(options.store), console, parser)
    with tempfile.TemporaryDirectory(prefix="perdure-documents-") as folder:
        return _run(options, Path(folder), console, parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.documents",
        description="Take documents through a durable pipeline: extract their text, check it,"
        " have people decide about what was flagged, store the results and notify the owners.",
        epilog="Run it again with the same --store to go on after a crash or Ctrl-C.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="the documents (default: the interpreter's standard library and this project's pages)",
    )
    parser.add_argument(
        "--limit", type=int, default=400, metavar="N", help="at most N documents (default: 400)"
    )
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        help="keep the hub, the results and the outbox there (default: a temporary folder)",
    )
    parser.add_argument(
        "--kill",
        action="store_true",
        help=f"kill the process with SIGKILL when {DIE_AFTER:.0%}% of the documents have ended,"
        " start it again and see that nothing was lost or done twice",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="on a terminal: then serve the hub over HTTP until Ctrl-C, and print the address"
        " (needs the extra web)",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live panel")
    parser.add_argument("--die-after", type=float, help=argparse.SUPPRESS)
    return parser


def _run(
    options: argparse.Namespace, workspace: Path, console: Console, parser: argparse.ArgumentParser
) -> int:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        if options.folder is None:
            documents = everyday_documents(workspace, options.limit)
        else:
            documents = documents_in(options.folder, options.limit)
        batch = make_batch(documents, workspace)
    except PlanError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--store {workspace} cannot be used: {error.strerror}")
    if options.kill:
        return _run_twice(options, workspace, console)
    plain = options.plain or not console.is_terminal
    console.print(f"batch {batch.batch_id}: {len(batch.documents)} documents")
    try:
        status = anyio.run(
            lambda: run_batch(batch, workspace, console, plain=plain, die_after=options.die_after)
        )
    except (PerdureError, ExceptionGroup) as error:
        for problem in _problems(error):
            console.print(f"{type(problem).__name__}: {problem}", markup=False)
        return 1
    except KeyboardInterrupt:
        again = "" if options.store is None else "; the same command goes on from here"
        console.print(f"stopped{again}")
        return 130
    if options.serve and console.is_terminal:
        return _serve(workspace) or status
    return status


def _serve(workspace: Path) -> int:
    """Serve the hub that has done it, to be looked into; gives the exit code."""
    from perdure.__main__ import main as perdure

    with socket.socket() as probe:
        port = 0 if probe.connect_ex(("127.0.0.1", PORT)) == 0 else PORT
    store = f"sqlite:{workspace / 'hub'}"
    application = f"{__package__ or 'examples.documents'}.app:app"
    return perdure(["serve", application, "--store", store, "--http", f"127.0.0.1:{port}"])


def _problems(error: Exception) -> list[Exception]:
    """Give the package's errors from what a task group may have wrapped; others are raised."""
    if isinstance(error, PerdureError):
        return [error]
    if not isinstance(error, ExceptionGroup):
        raise error
    group = cast("ExceptionGroup[Exception]", error)
    return [problem for inner in group.exceptions for problem in _problems(inner)]


def _run_twice(options: argparse.Namespace, workspace: Path, console: Console) -> int:
    """Run in a process that dies in the middle, then in another that goes on."""
    command = [sys.executable, "-m", __package__ or "examples.documents"]
    if options.folder is not None:
        command.append(str(options.folder))
    command += ["--limit", str(options.limit), "--store", str(workspace)]
    command += ["--plain"] if options.plain else []
    try:
        first = subprocess.run([*command, "--die-after", str(DIE_AFTER)], check=False)
        if first.returncode != -signal.SIGKILL:
            console.print(f"the process was to die by SIGKILL and ended with {first.returncode}")
            return 1
        console.print(f"\n[bold red]killed[/] with SIGKILL (exit code {first.returncode});")
        console.print("the same command, on the same store, in a new process:\n")
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
