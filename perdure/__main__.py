"""The command ``perdure``, also ``python -m perdure``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import Hub, PerdureError, __version__, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the process's; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(with_bench=given[:1] == ["bench"])
    wanted = parser.parse_args(given)
    if wanted.command == "bench":
        from .benchmarks import command

        return command.run(wanted, " ".join(["perdure", *given]))
    if wanted.command == "serve":
        return _serve(wanted)
    if wanted.command == "shards":
        return _shards(wanted)
    parser.print_help()
    return 2


def _parser(*, with_bench: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perdure", description="Durable virtual actors.")
    parser.add_argument("--version", action="version", version=f"perdure {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run a hub until SIGINT or SIGTERM",
        description="Run a hub until SIGINT or SIGTERM; then let what is under way come to a "
        "durable stop. A second signal does not wait for that, and loses nothing.",
    )
    serve.add_argument("app", metavar="MODULE:APP", help="the application: examples.shop:app")
    serve.add_argument("--store", required=True, help="sqlite:PATH, a folder; or memory:")
    serve.add_argument("--partitions", type=int, default=4, help="of a new store (4)")
    serve.add_argument("--shards", type=int, default=1, help="event loops of this process (1)")
    serve.add_argument("--workers", type=int, default=0, help="worker processes (0: none)")
    serve.add_argument(
        "--socket",
        help="where clients of other processes and 'perdure shards' find the hub; by default "
        "hub.sock in the store's folder, with --workers",
    )
    serve.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    serve.add_argument(
        "--uvloop",
        action=argparse.BooleanOptionalAction,
        help="asyncio on uvloop or not; by default on uvloop where it is installed",
    )
    shards = commands.add_parser(
        "shards",
        help="show the load of a running hub: its shards, partitions and hottest actors",
        description="Show the load of a running hub, live, until Ctrl-C.",
    )
    shards.add_argument("hub", metavar="HUB", help="its socket, or sqlite:PATH if that is there")
    shards.add_argument("--interval", type=float, default=1.0, help="seconds between looks (1)")
    shards.add_argument("--hottest", type=int, default=5, help="actors to name (5)")
    shards.add_argument("--once", action="store_true", help="print one look and end")
    shards.add_argument(
        "--move", nargs=2, type=int, metavar=("PARTITION", "SHARD"), help="move a partition"
    )
    bench = commands.add_parser("bench", help="run the benchmarks")
    if with_bench:  # they need rich, which nothing else does
        from .benchmarks import command

        command.add_arguments(bench)
    return parser


def _serve(wanted: argparse.Namespace) -> int:
    def announce(hub: Hub) -> None:
        app = hub.app
        print(
            f"perdure {__version__} serves {wanted.app} on {wanted.store} ({hub.durability}): "
            f"{_count(app.orchestrations, 'orchestration')}, "
            f"{_count(app.entities, 'entity', 'entities')}, "
            f"{_count(app.activities, 'activity', 'activities')}; Ctrl-C stops it",
            flush=True,
        )

    try:
        run(
            wanted.app,
            store=wanted.store,
            partitions=wanted.partitions,
            shards=wanted.shards,
            workers=wanted.workers,
            socket=wanted.socket,
            backend=wanted.backend,
            uvloop=wanted.uvloop,
            on_ready=announce,
        )
    except PerdureError as error:
        print(f"perdure: {error}", file=sys.stderr)
        return 1
    print("stopped; what had not ended goes on at the next start", flush=True)
    return 0


def _shards(wanted: argparse.Namespace) -> int:
    try:
        from .runtime.load_view import show_load
    except ModuleNotFoundError:
        print("perdure: 'perdure shards' needs rich: pip install rich", file=sys.stderr)
        return 1
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


def _count(names: Sequence[str], one: str, many: str | None = None) -> str:
    return f"{len(names)} {one if len(names) == 1 else many or one + 's'}"


if __name__ == "__main__":
    raise SystemExit(main())
