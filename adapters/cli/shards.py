"""``perdure shards``: the load of a running hub."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from .options import AsJson, KeyFile


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command and what it takes."""
    del kind  # its only argument is the hub, also where that is no socket yet
    example = "Example: perdure shards sqlite:hub --once"
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

    Its shards, partitions and hottest actors, until Ctrl-C.
    """
    from . import load  # rich takes its time
    from .hubs import choose_hub, keys_of

    place = choose_hub(hub)
    try:
        load.show_load(
            place,
            interval_s=interval,
            hottest=hottest,
            once=once,
            move=move,
            keys=keys_of(place, key_file),
            as_json=as_json,
        )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
