"""``perdure shards``: the load of a running hub."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any

import typer

from .options import AsJson, KeyFile


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command and what it takes."""
    del kind  # its only argument is the hub, also where that is no socket yet
    example = "Example: perdure shards sqlite:hub --json"
    app.command("shards", epilog=example)(shards)


def seconds(given: float) -> float:
    """Refuse what is no time between two looks."""
    if not 0 < given < math.inf:
        raise typer.BadParameter(f"{given:g} is no time between two looks")
    return given


def shards(
    hub: Annotated[
        str | None,
        typer.Argument(help="Its address, socket, or store: sqlite:PATH.", show_default=False),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, off a terminal and as JSON, too.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", callback=seconds, help="Between looks.")
    ] = 1.0,
    hottest: Annotated[int, typer.Option(min=0, help="Actors to name.")] = 5,
    once: Annotated[bool, typer.Option("--once", help="Print one look and end.")] = False,
    move: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="PARTITION SHARD", help="Move a partition first.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show the load of a running hub, live.

    Its shards, partitions and hottest actors: on a terminal until Ctrl-C, else, and as JSON, once.
    """
    if once and watch:
        raise typer.BadParameter("--once is one look and --watch is many: give one of them")
    from . import load  # rich takes its time
    from .hubs import choose_hub, keys_of

    place = choose_hub(hub)
    try:
        load.show_load(
            place,
            interval_s=interval,
            hottest=hottest,
            once=once or not (watch or (sys.stdout.isatty() and not as_json)),
            move=move,
            keys=keys_of(place, key_file),
            as_json=as_json,
        )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
