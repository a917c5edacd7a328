"""Imports point one way: runtime to actors and storage, and storage to actors' errors and logs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# What a room may import from the other rooms; a name covers what lies below it.
MAY_IMPORT = {
    "actors": set[str](),
    "storage": {"actors.errors", "actors.logs"},
    "runtime": {"actors", "storage"},
    "benchmarks": set[str](),  # they are users: only `import perdure`, the front door
}

# The pure room is given its time and never waits for anything itself.
IMPURE = {"aiosqlite", "anyio", "asyncio", "socket", "sqlite3", "subprocess", "time", "trio"}


class Import(NamedTuple):
    """One imported name, dotted: from the root of our package if relative."""

    name: str
    is_relative: bool


def imports(source: str, folder: str) -> Iterator[Import]:
    """Find what a module in ``folder`` imports, also inside functions and for types only."""
    package = ["perdure", *folder.split("/")]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, is_relative=False)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            path = [*start, *filter(None, [node.module])]
            for alias in node.names:
                name = ".".join([*path, alias.name])
                if node.level:
                    # What leads out of the package has no prefix to lose, nor a room to be in.
                    yield Import(name.removeprefix("perdure."), is_relative=True)
                else:
                    yield Import(name, is_relative=False)


def is_allowed(found: Import, room: str) -> bool:
    first, *rest = found.name.split(".")
    if found.is_relative:
        entries = {room, *MAY_IMPORT[room]}
        return any(f"{found.name}.".startswith(f"{entry}.") for entry in entries)
    if first == "perdure":
        return room == "benchmarks" and (not rest or rest[0] not in MAY_IMPORT)
    return first not in MAY_IMPORT  # a room by its bare name would be loaded twice


def trespasses(source: str, folder: str) -> set[str]:
    room = folder.split("/")[0]
    return {found.name for found in imports(source, folder) if not is_allowed(found, room)}


def modules(room: str) -> dict[str, str]:
    """Give the source of each module of a room, by its path."""
    paths = sorted((ROOT / room).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_those_below_it(room: str) -> None:
    sources = modules(room)

    found = {
        path: names
        for path, source in sources.items()
        if (names := trespasses(source, path.rpartition("/")[0]))
    }

    assert sources, f"{room} has no modules, so there is nothing to look at"
    assert found == {}


def test_actors_do_no_input_or_output_and_read_no_clock() -> None:
    found = {
        (path, name)
        for path, source in modules("actors").items()
        for name, is_relative in imports(source, "actors")
        if not is_relative and name.split(".")[0] in IMPURE
    }

    assert found == set()


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("actors", "from ..storage.records import Checkpoint"),
        ("actors", "from .. import storage"),
        ("actors", "from .. import Hub"),
        ("actors", "import storage"),
        ("actors", "import perdure"),
        ("actors", "def late():\n    from ..runtime.hub import Hub"),
        ("actors", "from ... import elsewhere"),
        ("storage", "from ..actors.entity import Entity"),
        ("storage", "from ..actors import Entity"),
        ("storage", "from ..runtime.partition import Partition"),
        ("storage/sqlite", "from ...runtime.partition import Partition"),
        ("runtime", "from ..benchmarks.measure import measure"),
        ("runtime", "from perdure.actors.errors import PerdureError"),
        ("runtime", "from storage.records import Checkpoint"),
        ("benchmarks", "from ..runtime.partition import Partition"),
        ("benchmarks", "from perdure.runtime.partitions.partition import Partition"),
        ("benchmarks", "from perdure import runtime"),
        ("benchmarks", "import perdure.storage.sqlite.store"),
    ],
)
def test_an_import_the_wrong_way_is_found(folder: str, source: str) -> None:
    assert trespasses(source, folder)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("actors", "from .errors import PerdureError"),
        ("actors", "from . import errors"),
        ("actors/replay", "from ..errors import PerdureError"),
        ("storage", "from ..actors.errors import StorageError"),
        ("storage", "from ..actors import errors"),
        ("storage/sqlite", "from ..records import Checkpoint"),
        ("runtime", "from ..actors.errors import PerdureError"),
        ("runtime", "from ..storage import records"),
        ("runtime", "import time, anyio"),
        ("benchmarks", "import perdure"),
        ("benchmarks", "from perdure import App, Hub"),
        ("benchmarks", "from .measure import measure"),
    ],
)
def test_an_import_the_right_way_is_let_pass(folder: str, source: str) -> None:
    assert trespasses(source, folder) == set()
