"""Each room imports only those that ``tests/rooms.py`` lists for it, for types as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.rooms import PICTURE, ROOMS, ROOT, USERS, Room, covers, draw, grounds, room_of

pytestmark = pytest.mark.once

TOPS = sorted({room.name.partition("/")[0] for room in ROOMS})

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


def target(name: str) -> tuple[Room, str] | None:
    """Give the room that an imported name lies in, and its module, dotted; None: in no room."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = "/".join(parts[:cut])
        if (ROOT / f"{path}.py").is_file():
            return room_of(f"{path}.py"), ".".join(parts[:cut])
        if (ROOT / path).is_dir() and parts[0] in TOPS:
            return room_of(f"{path}/__init__.py"), ".".join(parts[:cut])
    return None


def is_allowed(found: Import, room: Room) -> bool:
    first, *rest = found.name.split(".")
    if found.is_relative:
        meant = target(found.name)
        if meant is None:
            return False
        other, module = meant
        return other is room or any(covers(entry, other, module) for entry in room.may_import)
    if first == "perdure":
        return room.name in USERS and (not rest or rest[0] not in TOPS)
    return first not in TOPS  # a room by its bare name would be loaded twice


def trespasses(source: str, path: str) -> set[str]:
    room = room_of(path)
    folder = path.rpartition("/")[0]
    return {found.name for found in imports(source, folder) if not is_allowed(found, room)}


def modules(top: str) -> dict[str, str]:
    """Give the source of each module of a room, by its path."""
    paths = sorted((ROOT / top).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


@pytest.mark.parametrize("top", TOPS)
def test_a_room_imports_only_what_the_table_lists_for_it(top: str) -> None:
    sources = modules(top)

    found = {path: names for path, source in sources.items() if (names := trespasses(source, path))}

    assert sources, f"{top} has no modules, so there is nothing to look at"
    assert found == {}


def test_a_room_stands_on_rooms_above_it_in_the_table() -> None:
    order = [room.name for room in ROOMS]

    upward = {
        (room.name, other)
        for room in ROOMS
        for other in grounds(room)
        if order.index(other) > order.index(room.name)
    }

    # A door imports what lies behind it.
    assert upward == {("storage", "storage/sqlite"), ("storage", "storage/postgres")}


def test_every_room_says_what_it_is_for() -> None:
    silent = [
        room.name
        for room in ROOMS
        if not room.modules
        and not ast.get_docstring(ast.parse((ROOT / room.name / "__init__.py").read_text("utf-8")))
    ]

    assert silent == []


def test_the_picture_of_the_rooms_is_drawn_from_the_table() -> None:
    drawn = PICTURE.read_text("utf-8")

    assert drawn == draw(), "draw it anew: python -m tests.rooms"


def test_actors_do_no_input_or_output_and_read_no_clock() -> None:
    found = {
        (path, name)
        for path, source in modules("actors").items()
        for name, is_relative in imports(source, path.rpartition("/")[0])
        if not is_relative and name.split(".")[0] in IMPURE
    }

    assert found == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("actors/x.py", "from ..storage.records import Checkpoint"),
        ("actors/x.py", "from .. import storage"),
        ("actors/x.py", "from .. import Hub"),
        ("actors/x.py", "import storage"),
        ("actors/x.py", "import perdure"),
        ("actors/x.py", "def late():\n    from ..runtime.hub import Hub"),
        ("actors/x.py", "from ... import elsewhere"),
        ("actors/x.py", "from .codec import codec_for"),
        ("actors/replay/x.py", "from ..contexts.orchestration import OrchestrationContext"),
        (
            "actors/contexts/x.py",
            "if TYPE_CHECKING:\n    from ..entities.entity import EntityActor",
        ),
        ("storage/x.py", "from ..actors.entities.entity import Entity"),
        ("storage/x.py", "from ..actors import entities"),
        ("storage/x.py", "from ..actors.ids import EntityId"),
        ("storage/x.py", "from ..runtime.hub import Hub"),
        ("storage/sqlite/x.py", "from ...runtime.partitions.partition import Partition"),
        ("runtime/hub.py", "from ..benchmarks.measure import measure"),
        ("runtime/hub.py", "from perdure.actors.errors import PerdureError"),
        ("runtime/hub.py", "from storage.records import Checkpoint"),
        ("runtime/settings.py", "from .hub import Hub"),
        ("runtime/scheduling/x.py", "from ...actors.orchestrations.commands import COMMANDS"),
        ("runtime/transport/x.py", "from ..partitions.partition import Partition"),
        ("runtime/client/x.py", "from ..partitions.partition import Partition"),
        ("runtime/client/x.py", "from ..hub import Hub"),
        ("runtime/partitions/x.py", "from ..shards.activities import ActivityPool"),
        ("benchmarks/x.py", "from ..runtime.hub import Hub"),
        ("benchmarks/x.py", "from perdure.runtime.hub import Hub"),
        ("benchmarks/x.py", "from perdure import runtime"),
        ("benchmarks/x.py", "import perdure.storage.sqlite"),
        ("adapters/cli/x.py", "from ...runtime.client.remote import watch_hub"),
    ],
)
def test_an_import_the_wrong_way_is_found(path: str, source: str) -> None:
    assert trespasses(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("actors/x.py", "from .errors import PerdureError"),
        ("actors/x.py", "from . import errors"),
        ("actors/replay/x.py", "from ..errors import PerdureError"),
        ("actors/replay/x.py", "from ..codec import codec_for"),
        ("storage/x.py", "from ..actors.errors import StorageError"),
        ("storage/x.py", "from ..actors import errors"),
        ("storage/__init__.py", "from .sqlite import SqliteStore"),
        ("storage/sqlite/x.py", "from ..records import Checkpoint"),
        ("runtime/hub.py", "from ..actors.errors import PerdureError"),
        ("runtime/hub.py", "from ..storage import records"),
        ("runtime/hub.py", "import time, anyio"),
        ("runtime/client/x.py", "from ..placement.places import Place"),
        ("runtime/transport/x.py", "from ..settings import Settings"),
        ("benchmarks/x.py", "import perdure"),
        ("benchmarks/x.py", "from perdure import App, Hub"),
        ("benchmarks/x.py", "from .measure import measure"),
        ("adapters/cli/x.py", "from perdure import watch_hub"),
    ],
)
def test_an_import_the_right_way_is_let_pass(path: str, source: str) -> None:
    assert trespasses(source, path) == set()
