"""``perdure check --replay``: what a hub has stored, against the code at hand."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
from attrs import define, field
from rich.text import Text

from perdure import PerdureError, UnavailableError, UsageError, connect

from ...testing.replaying.check import ReplayCount, check_replays
from ...testing.replaying.findings import ReplayFinding
from ...testing.replaying.sources import (
    RecordedSource,
    RunningSource,
    Source,
    open_files,
    open_stored,
)
from .hubs import is_database, is_hub, keys_of, shown
from .screen import Screen
from .words import counted, duration, shortened

CLEAN, FOUND, UNREADABLE = 0, 1, 2

_GROUPS_SHOWN = 20
_ACTORS_SHOWN = 5
_TEXT_MAX = 300


def look(
    place: str,
    app: str,
    form: str,
    *,
    jobs: int | None = None,
    limit_s: float = 10.0,
    key_file: Path | None = None,
) -> int:
    """Look at all that is stored, show what is found, and give the status to end with.

    Args:
        place: a hub, running or not; or recorded histories.
        app: the application, ``MODULE:APP``.
        form: how to show it: ``text``, ``json`` or ``github``.
        jobs: how many processes to use.
        limit_s: seconds that one instance may take.
        key_file: what has the key of a hub's HTTP interface.
    """
    kinds: dict[str, Callable[[], _Shows]] = {
        "text": _Told,
        "json": _Listed,
        "github": _Annotated,
    }
    shows = kinds[form]()
    screen = Screen()
    try:
        keys = keys_of(place, key_file)
        with _progress(form) as move:
            count = anyio.run(_look, place, app, shows, move, jobs, limit_s, keys)
    except PerdureError as error:
        shows.stop()
        screen.note(f"perdure: {error}")
        return UNREADABLE
    shows.end(screen, count)
    if count.lacks is not None:
        screen.note(f"perdure: not looked at: {count.lacks}")
    if not count.instances + count.entities + count.messages:
        screen.note(f"perdure: there is nothing to look at in {count.place}")
    return FOUND if count.broken else CLEAN


async def _look(
    place: str,
    app: str,
    shows: _Shows,
    move: Callable[[ReplayCount], None],
    jobs: int | None,
    limit_s: float,
    keys: Mapping[str, Any],
) -> ReplayCount:
    def tell(count: ReplayCount, findings: list[ReplayFinding]) -> None:
        for finding in findings:
            shows.add(finding)
        move(count)

    async with _open(place, keys) as source:
        return await check_replays(source, app, tell, jobs=jobs, limit_s=limit_s)


@asynccontextmanager
async def _open(place: str, keys: Mapping[str, Any]) -> AsyncGenerator[Source, None]:
    """Give what is at a place: recordings, a hub that runs, or what one has left."""
    if not place:  # as of a variable that is not set; it does not mean this folder
        raise UsageError("--replay is empty: say where the hub's files or its histories are")
    recorded = None if is_hub(place) else _recorded(Path(place))
    if recorded is not None:
        yield recorded
        return
    folder = _folder(place)
    async with AsyncExitStack() as entered:
        where = place if folder is None else f"sqlite:{folder}"
        source: Source
        try:
            client: Any = await entered.enter_async_context(connect(where, **keys))
            source = RunningSource(shown(where), client)
        except UnavailableError as error:
            if folder is not None:
                source = await entered.enter_async_context(open_files(folder))
            elif is_database(place):
                source = await entered.enter_async_context(open_stored(place))
            else:
                raise UnavailableError(f"{shown(place)}: {error}") from error
        yield source


def _folder(place: str) -> Path | None:
    if place.startswith("sqlite:"):
        return Path(place.removeprefix("sqlite:").partition("?")[0]).expanduser()
    return Path(place) if "://" not in place and os.path.isdir(place) else None


def _recorded(path: Path) -> RecordedSource | None:
    """Give recorded histories; None where a hub is.

    Raises:
        UsageError: neither is there.
    """
    if path.suffix == ".json" and path.is_file():
        return RecordedSource(path)
    if not path.is_dir():
        raise UsageError(
            f"--replay takes sqlite:PATH, http://HOST:PORT, a socket, a folder of a hub's, or "
            f"recorded histories; {str(path)!r} is none of these"
        )
    if (path / "partition-00.sqlite").exists():
        return None
    recorded = RecordedSource(path)
    if not recorded.files:
        raise UsageError(f"{path} is no folder of a hub, and has no recorded histories in it")
    return recorded


@contextmanager
def _progress(form: str) -> Generator[Callable[[ReplayCount], None], None, None]:
    """Show how far it has come, where somebody looks at it and nothing else is shown meanwhile."""
    if not sys.stderr.isatty() or (form == "json" and sys.stdout.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        "looking at live instances",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None)
        yield lambda count: progress.update(
            task, total=max(count.expected, count.instances), completed=count.instances
        )


class _Shows(Protocol):
    """How findings are shown."""

    def add(self, finding: ReplayFinding) -> None:
        """Take a finding."""

    def end(self, screen: Screen, count: ReplayCount) -> None:
        """Show what is not shown yet, since all was looked at."""

    def stop(self) -> None:
        """Show no more, since it cannot be looked."""


@define(eq=False)
class _Group:
    """Findings that are the same but for their actors."""

    first: ReplayFinding
    count: int = 0
    actors: list[str] = field(factory=list[str])

    @property
    def place(self) -> str:
        first = self.first
        return "" if first.file is None else f"{shown_path(first.file)}:{first.line}"


class _Groups:
    """What was found, put together."""

    def __init__(self) -> None:
        self.groups: dict[tuple[Any, ...], _Group] = {}

    def add(self, finding: ReplayFinding) -> None:
        """Take a finding."""
        key = (finding.kind, finding.name, finding.version, finding.file, finding.line)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = _Group(finding)
        group.count += 1
        if len(group.actors) < _ACTORS_SHOWN:
            at = "" if finding.position is None else f" (event {finding.position})"
            group.actors.append(f"{finding.actor}{at}")

    def stop(self) -> None:
        """Show no more, since it cannot be looked."""


class _Told(_Groups):
    """What was found, for people."""

    def end(self, screen: Screen, count: ReplayCount) -> None:
        """Show what was found."""
        groups = list(self.groups.values())
        if len(groups) > 1:
            screen.table(("what", "name", "version", "actors", "line"), _rows(groups))
            screen.line("")
        for group in groups[:_GROUPS_SHOWN]:
            self._show(screen, group)
        if len(groups) > _GROUPS_SHOWN:
            screen.line(f"and {len(groups) - _GROUPS_SHOWN:,} more: --format json has all")
            screen.line("")
        looked = [_counted(count.instances, *count.called)]
        if count.entities:
            looked.append(_counted(count.entities, "entity", "entities"))
        if count.messages:
            looked.append(counted(count.messages, "waiting message"))
        what = " and ".join([", ".join(looked[:-1]), looked[-1]] if len(looked) > 1 else looked)
        took = duration(count.seconds)
        if count.broken:
            found = f"Found {counted(count.broken, 'problem')} in {what} of {count.place} ({took})."
            screen.line(Text(found, style="bold red"))
        else:
            screen.line(f"Nothing found in {what} of {count.place} ({took}).")

    def _show(self, screen: Screen, group: _Group) -> None:
        first = group.first
        version = "" if first.version is None else f" {first.version}"
        screen.line(
            Text(f"{_title(first)}: {first.name}{version}", style="bold"),
            f", {group.place}" if group.place else "",
        )
        if first.text:
            screen.line(Text(shortened(first.text, _TEXT_MAX), style="cyan"), indent="    ")
        if first.kind == "differs":
            screen.line(f"recorded  {first.recorded}", indent="  ")
            screen.line(f"done      {first.done}", indent="  ")
            if not first.message.startswith("it no longer matches"):
                why = first.message.partition("; so it no longer matches")[0]
                screen.line(f"since     {why}", indent="  ")
            if first.note is not None:
                screen.line(f"since     {first.note}", indent="  ")
        else:
            screen.line(first.message, indent="  ")
        more = group.count - len(group.actors)
        actors = ", ".join(group.actors) + (f" and {more:,} more" if more else "")
        screen.line(f"{_counted(group.count, 'actor', 'actors')}: {actors}", indent="  ")
        if first.parked is not None:
            screen.line(f"parked already: {shortened(first.parked, _TEXT_MAX)}", indent="  ")
        screen.line("")


class _Listed:
    """What was found, for programs: a JSON array, an object a line."""

    def __init__(self) -> None:
        self._is_first = True

    def add(self, finding: ReplayFinding) -> None:
        """Print a finding."""
        import orjson

        sys.stdout.write("[\n" if self._is_first else ",\n")
        self._is_first = False
        sys.stdout.write(f" {orjson.dumps(_listed(finding)).decode()}")

    def end(self, screen: Screen, count: ReplayCount) -> None:
        """Print the end."""
        del screen, count
        sys.stdout.write("[]\n" if self._is_first else "\n]\n")

    def stop(self) -> None:
        """Print the end of what was begun, so that it can be read."""
        if not self._is_first:
            sys.stdout.write("\n]\n")


class _Annotated(_Groups):
    """What was found, as annotations of GitHub Actions: one for each thing to repair."""

    def end(self, screen: Screen, count: ReplayCount) -> None:
        """Print what was found."""
        del screen, count
        for group in self.groups.values():
            first = group.first
            properties = f"title=perdure ({_code(first)})"
            if first.file is not None:
                properties += f",file={_property(shown_path(first.file))},line={first.line}"
            who = f"{_counted(group.count, 'actor', 'actors')} of {first.name}"
            some = ", ".join(group.actors)
            note = "" if first.note is None else f"; {first.note}"
            message = f"{who}, such as {some}: {first.message}{note}"
            print(f"::error {properties}::{_data(message)}")


def _rows(groups: list[_Group]) -> list[tuple[str, ...]]:
    return [
        (
            _title(one.first),
            one.first.name,
            one.first.version or "",
            f"{one.count:,}",
            one.place,
        )
        for one in groups
    ]


def _listed(finding: ReplayFinding) -> dict[str, Any]:
    """Give a finding with the keys that those of the static check have, and its own."""
    told = finding.to_dict()
    file, line = told.pop("file"), told.pop("line")
    location = None if line is None else {"row": line, "column": 1}
    return {"code": _code(finding), "filename": file, "location": location, **told}


def _code(finding: ReplayFinding) -> str:
    return f"replay-{finding.kind.replace('_', '-')}"


def _title(finding: ReplayFinding) -> str:
    return finding.kind.replace("_", " ")


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def shown_path(file: str) -> str:
    """Give a path from the current folder, where it lies in that."""
    try:
        here = os.path.relpath(file)
    except ValueError:  # another drive
        return file
    return file if here.startswith("..") else here
