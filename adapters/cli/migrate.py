"""``perdure migrate``: a hub from one store to another."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .hubs import is_database, listens_nowhere
from .options import AsJson, KeyFile
from .words import counted

if TYPE_CHECKING:
    from perdure import MigrationStatus

    from ...storage.migration import Migrated, Progress, Tell
    from .screen import Screen

DIFFERENT = 1
_LOOK_S = 0.1
#: Seconds that a hub may take to answer: a new process of it, if it has died.
_PATIENCE_S = 10.0


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about two stores, so its kind is another."""
    del kind
    example = "Example: perdure migrate sqlite:hub 'postgresql://db/shop?schema=shop'"
    app.command("migrate", epilog=example)(migrate)


def migrate(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The store that has the hub; or its folder.")
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="The store that gets it: an empty one, or one that it had left."
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Compare what both have; nothing is changed.")
    ] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Move a hub to another store.

    Each is sqlite:PATH, the folder of a hub, or postgresql://HOST/DATABASE.
    All of it comes over, and is compared with what it was. Until then the source is valid, and from
    then on the target is: hubs refuse the other one. However the command ends, the same again
    finishes what is left. From a folder to a database, or back, a hub goes while it serves, if it
    does, a partition after the other; a folder is one on the host of the process that serves. Else
    no process may serve it.
    """
    import anyio

    from ...storage.migration import compare, migrate as move
    from .screen import Screen

    ends = _place(source), _place(target)
    screen = Screen(as_json=as_json)
    if not check and not listens_nowhere(ends[0]):
        node_key = key_file if is_database(ends[0]) else None
        with _progress() as draw:
            status = anyio.run(_move_live, *ends, node_key, draw)
        if status is not None:
            _tell_moved(status, screen)
            return
    if check:
        with _progress() as tell:
            differences = anyio.run(compare, *ends, tell)
        for one in differences:
            words = (
                f"partition {one.partition}, {one.table}: {one.rows[0]:,} and {one.rows[1]:,} rows"
            )
            if one.table == "meta":
                words = (
                    f"partition {one.partition}: at checkpoints {one.rows[0]:,} and {one.rows[1]:,}"
                )
            if as_json:
                screen.json({"partition": one.partition, "table": one.table, "rows": one.rows})
            else:
                screen.line(words if one.rows[0] != one.rows[1] else f"{words}, not the same")
        if differences:
            raise typer.Exit(DIFFERENT)
        if not as_json:
            screen.line("both stores have the same")
        return
    with _progress() as tell:
        done = anyio.run(move, *ends, tell)
    _tell_end(done, screen)


async def _move_live(
    source: str, target: str, node_key: Path | None, tell: Tell
) -> MigrationStatus | None:
    """Have the process that serves a hub move it, and wait until it has; None if none serves it."""
    import anyio

    import perdure

    from ...storage.migration import Progress

    began = False
    try:
        async with perdure.watch_hub(source, node_key_file=node_key) as hub:
            await hub.migrate(target)
            began = True
            while True:
                with anyio.fail_after(_PATIENCE_S):
                    status = await hub.migration()
                if status is None or status.has_ended:
                    return status
                step = f"partition {status.partition} is {status.step}"
                if status.trouble is not None:
                    step = f"partition {status.partition} is tried again: {status.trouble}"
                tell(Progress(step, len(status.moved), status.partitions, status.rows))
                await anyio.sleep(_LOOK_S)
    except perdure.StoreMovedError:
        if began:
            raise
        return None  # or it goes there, and the command knows what is left to do
    except (perdure.UnavailableError, TimeoutError) as error:
        if not began:
            return None
        raise perdure.UnavailableError(
            f"the process that served the hub does not answer: start it again on {source}, and it "
            "goes on; or repeat the command, which finishes what is left"
        ) from error


def _tell_moved(status: MigrationStatus, screen: Screen) -> None:
    if screen.as_json:
        screen.json(status.to_dict())
        return
    screen.line(
        f"{counted(len(status.moved), 'partition')} came over, and paused for "
        f"{status.longest_pause_s:.2f} seconds at most"
    )
    how = "as --store"
    if not is_database(status.target):  # which says by itself how many partitions it has
        how += f" with --partitions {status.partitions}"
    screen.line(
        f"process {status.pid} serves the hub from {status.target}: give that to the next one, "
        f"{how}, for {status.source} refuses it once this one has stopped"
    )


def _tell_end(done: Migrated, screen: Screen) -> None:
    if screen.as_json:
        screen.json(
            {
                "hub": done.hub,
                "source": done.source,
                "target": done.target,
                "partitions": done.partitions,
                "rows": done.counts,
                "had_ended": done.had_ended,
            }
        )
        return
    if done.had_ended:
        screen.line(f"the hub of {done.source} is in {done.target} already: nothing was left to do")
        return
    if done.counts:
        counts = ", ".join(f"{count:,} {table}" for table, count in done.counts.items() if count)
        screen.line(f"{done.partitions} partitions came over: {counts or 'empty'}")
    screen.line(f"the hub of {done.source} has moved to {done.target}: open it there")


def _place(given: str) -> str:
    """Give a store that is named by its folder its whole name, which other processes know, too."""
    if "://" in given or given.startswith("memory:"):
        return given
    folder = given.removeprefix("sqlite:")
    return f"sqlite:{Path(folder).expanduser().absolute()}" if folder else given


@contextmanager
def _progress() -> Generator[Tell]:
    """Draw how far it is, where somebody looks at it."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda progress: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TextColumn("{task.fields[rows]:,} rows"), console=console) as bar:
        task = bar.add_task("looks", total=None, rows=0)

        def tell(progress: Progress) -> None:
            bar.update(
                task,
                description=progress.step,
                completed=progress.done,
                total=progress.partitions,
                rows=progress.rows,
            )

        yield tell
