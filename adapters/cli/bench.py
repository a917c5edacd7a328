"""``perdure bench``: the benchmark suite."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_to(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], given: Sequence[str]
) -> None:
    """Declare the command, and what it takes where it is the one that is given."""
    bench = commands.add_parser("bench", help="run the benchmarks")
    if given[:1] != ["bench"]:
        return
    from ...benchmarks import command  # all of the suite

    command.add_arguments(bench)
    line = " ".join(["perdure", *given])
    bench.set_defaults(run=lambda wanted: command.run(wanted, line))
