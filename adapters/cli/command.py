"""The command ``perdure``, also ``python -m perdure``: reads what is wanted, and has it done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from perdure import __version__

from . import bench, serve, shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the process's; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="perdure", description="Durable virtual actors.")
    parser.add_argument("--version", action="version", version=f"perdure {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve.add_to(commands)
    shards.add_to(commands)
    bench.add_to(commands, given)
    wanted = parser.parse_args(given)
    if wanted.command is None:
        parser.print_help()
        return 2
    return int(wanted.run(wanted))
