"""``perdure shards``: the load of a running hub."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING

from perdure import PerdureError

if TYPE_CHECKING:
    from .commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the command and what it takes."""
    shards = commands.add_parser(
        "shards",
        help="show the load of a running hub: its shards, partitions and hottest actors",
        description="Show the load of a running hub, live, until Ctrl-C.",
    )
    shards.add_argument("hub", metavar="HUB", help="its socket, or sqlite:PATH if that is there")
    shards.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="seconds between looks (1)",
    )
    shards.add_argument("--hottest", type=int, default=5, help="actors to name (5)")
    shards.add_argument("--once", action="store_true", help="print one look and end")
    shards.add_argument(
        "--move", nargs=2, type=int, metavar=("PARTITION", "SHARD"), help="move a partition"
    )
    shards.set_defaults(run=_shards)


def _seconds(given: str) -> float:
    seconds = float(given)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{given} is no time between two looks")
    return seconds


def _shards(wanted: argparse.Namespace) -> int:
    from .load import show_load  # rich takes its time

    try:
        show_load(
            wanted.hub,
            interval_s=wanted.interval,
            hottest=wanted.hottest,
            once=wanted.once,
            move=wanted.move,
        )
    except KeyboardInterrupt:
        return 0
    except PerdureError as error:
        print(f"perdure: {error}", file=sys.stderr)
        return 1
    return 0
