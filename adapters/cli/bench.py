"""``perdure bench``: the benchmark suite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .commands import Commands


def add_to(commands: Commands, given: Sequence[str]) -> None:
    """Declare the command, and what it takes where it is the one that is given."""
    bench = commands.add_parser("bench", help="run the benchmarks")
    if given[:1] != ["bench"]:
        return
    from ...benchmarks import command  # all of the suite

    command.add_arguments(bench)
    bench.set_defaults(run=partial(command.run, command=" ".join(["perdure", *given])))
