"""``perdure bench``: the benchmark suite, which reads what it takes by itself."""

from __future__ import annotations

import gc
from typing import Any

import typer


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about hubs of its own, so its kind is another."""
    del kind
    passed_on: dict[str, Any] = {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    }
    app.command("bench", context_settings=passed_on)(bench)


def bench(context: typer.Context) -> None:
    """Run the benchmarks."""
    from ...benchmarks import command  # all of the suite

    gc.enable()
    raise typer.Exit(command.main(context.args, "perdure bench"))
