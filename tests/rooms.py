"""The rooms, and which others each may import: one table.

``test_layering.py`` holds the code to it, and the picture in ``docs/architecture.md`` is drawn from
it: ``python -m tests.rooms`` draws it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"


class Room(NamedTuple):
    """A folder, or some modules of one, and what it may import: rooms, or single modules."""

    name: str
    may_import: frozenset[str]
    holds: str
    modules: frozenset[str] = frozenset()  # none: all of the folder


def _room(name: str, may_import: str, holds: str, modules: str = "") -> Room:
    return Room(name, frozenset(may_import.split()), holds, frozenset(modules.split()))


_VALUES = "runtime/values"
_MODEL = "actors actors/codec actors/registry"
_LOOP = "runtime/values runtime/scheduling"

# From the ground up: a room stands on those above it in this list, or on some of them.
ROOMS = (
    _room("actors", "", "the vocabulary"),
    _room("actors/codec", "actors", "values and JSON"),
    _room("actors/registry", "actors actors/codec", "what an application consists of"),
    _room("actors/replay", _MODEL, "runs code over a history"),
    _room("actors/contexts", f"{_MODEL} actors/replay", "what users' code sees"),
    _room("actors/entities", f"{_MODEL} actors/contexts", "an entity's state machine"),
    _room(
        "actors/orchestrations",
        f"{_MODEL} actors/replay actors/contexts",
        "an instance's state machine",
    ),
    _room(
        "storage",
        "actors.errors actors.logs actors.printing storage/sqlite storage/postgres",
        "the protocol; rows in, rows out",
    ),
    _room(
        "storage/sqlite",
        "actors.errors actors.logs actors.printing storage",
        "a folder with two files a partition",
    ),
    _room(
        "storage/postgres",
        "actors.errors actors.logs actors.printing storage",
        "a schema of a database",
    ),
    _room(
        _VALUES,
        "actors",
        "limits, counters, facts",
        "settings durations statistics nodes migrations facts explanations observer",
    ),
    _room(
        "runtime/scheduling",
        f"actors {_VALUES} actors.registry.outside actors.replay.endless storage.bells"
        " storage.slices",
        "time, threads, tasks, event loops",
    ),
    _room(
        "runtime/placement",
        f"actors/* storage {_LOOP}",
        "which partition; what is said to one",
    ),
    _room(
        "runtime/partitions",
        f"actors/* storage {_LOOP} runtime/placement",
        "mailboxes, turns, checkpoints, recovery",
    ),
    _room(
        "runtime/transport",
        f"actors/* storage {_LOOP} runtime/placement",
        "wire, channels, lines, the way there",
    ),
    _room(
        "runtime/shards",
        f"actors/* storage {_LOOP} runtime/placement runtime/partitions runtime/transport",
        "one loop: partitions, activities, sessions",
    ),
    _room(
        "runtime/client",
        f"actors/* storage {_LOOP} runtime/placement runtime/transport",
        "what talks from outside",
    ),
    _room(
        "runtime/cluster",
        f"actors/* storage {_LOOP} runtime/placement runtime/partitions runtime/transport"
        " runtime/shards runtime/client",
        "loops, worker processes, the balance",
    ),
    _room("runtime", "actors/* storage runtime/*", "the hub, and a hub as a program"),
    _room("testing/check/source", "", "what the source says, and what runs in a turn"),
    _room("testing/check/rules", "testing/check/source", "one class for each rule"),
    _room(
        "testing/check",
        "testing/check/source testing/check/rules",
        "the static check: source in, findings out",
    ),
    _room(
        "testing/replaying",
        "actors/* storage runtime/*",
        "stored histories against the code at hand",
    ),
    _room(
        "testing",
        "actors/* storage runtime/* testing/check testing/replaying",
        "the testing kit: a hub in virtual time",
    ),
    _room("adapters", "", "ways in from outside"),
    _room("adapters/telemetry", "", "traces, metrics, logs: the Observer contract"),
    _room("adapters/dashboard", "", "pages: HTML, CSS, ES modules"),
    _room(
        "adapters/http",
        "adapters/dashboard adapters/telemetry runtime.client.operations"
        " runtime.client.remote_client",
        "requests and answers: `import perdure`",
    ),
    _room(
        "benchmarks",
        "adapters/http storage.records storage.slices storage.postgres.journal"
        " storage.postgres.store",
        "the suite: uses `import perdure`",
    ),
    _room("benchmarks/peers", "benchmarks", "other frameworks beside it"),
    _room(
        "adapters/cli",
        "benchmarks adapters/http testing/check testing/replaying storage.postgres.place"
        " storage.postgres.server storage.postgres.doctor storage.migration",
        "the command line: uses `import perdure`",
    ),
)

#: Rooms that are users of the package: they import its public names, by their full name.
USERS = frozenset(
    {
        "adapters",
        "adapters/cli",
        "adapters/dashboard",
        "adapters/http",
        "adapters/telemetry",
        "benchmarks",
        "benchmarks/peers",
    }
)


def room_of(path: str) -> Room:
    """Give the room of a module, by its path from the root: ``runtime/shards/shard.py``."""
    folder, _, file = path.rpartition("/")
    name = file.removesuffix(".py")
    rooms = [room for room in ROOMS if folder == room.name]
    for room in ROOMS:
        if name in room.modules and room.name.rpartition("/")[0] == folder:
            return room
    if not rooms:
        raise LookupError(f"{path} is in no room: add {folder} to tests/rooms.py")
    return rooms[0]


def covers(entry: str, room: Room, module: str) -> bool:
    """Whether an entry of ``may_import`` allows a module (``actors.errors``) of a room."""
    if entry.endswith("/*"):
        return f"{room.name}/".startswith(entry[:-1])
    return entry in (room.name, module)


def grounds(room: Room) -> set[str]:
    """Give the rooms that a room may import, by name."""
    found: set[str] = set()
    for other in ROOMS:
        dotted = other.name.replace("/", ".")
        for entry in room.may_import:
            module = entry.rpartition(".")[0] == dotted
            if other is not room and (covers(entry, other, "") or module):
                found.add(other.name)
    return found


def _below(name: str, grounds_of: dict[str, set[str]]) -> set[str]:
    reached, ahead = set[str](), [*grounds_of[name]]
    while ahead:
        if (other := ahead.pop()) not in reached:
            reached.add(other)
            ahead += grounds_of[other]
    return reached


def _plan() -> tuple[dict[str, set[str]], dict[str, int]]:
    """Give each room's arrows, without those that others imply, and the floor that it is on."""
    order = [room.name for room in ROOMS]
    # A door imports what lies behind it, which is no arrow upwards.
    all_grounds = {
        room.name: {g for g in grounds(room) if order.index(g) < order.index(room.name)}
        for room in ROOMS
    }
    arrows: dict[str, set[str]] = {}
    floors: dict[str, int] = {}
    for name in order:
        below = all_grounds[name]
        implied = {far for near in below for far in _below(near, all_grounds)}
        arrows[name] = below - implied
        floors[name] = 1 + max((floors[other] for other in below), default=-1)
    return arrows, floors


_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 264, 46, 22, 34, 16
_COLOURS = {"actors": "#e8f1fb", "storage": "#fdf3e1", "runtime": "#eaf6ea"}


def draw() -> str:
    """Draw the rooms, each above those that it imports, as SVG."""
    arrows, floors = _plan()
    rows: dict[int, list[Room]] = {}
    for room in ROOMS:
        rows.setdefault(floors[room.name], []).append(room)
    columns = max(map(len, rows.values()))
    width = 2 * _MARGIN + columns * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + len(rows) * (_HEIGHT + _GAP_Y) - _GAP_Y
    corners: dict[str, tuple[float, float]] = {}
    for floor, rooms in rows.items():
        start: float = (width - len(rooms) * (_WIDTH + _GAP_X) + _GAP_X) / 2
        y = height - _MARGIN - _HEIGHT - floor * (_HEIGHT + _GAP_Y)
        for column, room in enumerate(rooms):
            corners[room.name] = (start + column * (_WIDTH + _GAP_X), y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>The rooms, each above those that it imports</title>",
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
    ]
    for name, others in arrows.items():
        for other in sorted(others):
            (x1, y1), (x2, y2) = corners[name], corners[other]
            parts.append(
                f'<path d="M{x1 + _WIDTH / 2:g} {y1 + _HEIGHT:g} C{x1 + _WIDTH / 2:g} '
                f"{y1 + _HEIGHT + _GAP_Y:g} {x2 + _WIDTH / 2:g} {y2 - _GAP_Y:g} "
                f'{x2 + _WIDTH / 2:g} {y2:g}" fill="none" stroke="#9aa7b3"/>'
            )
    for room in ROOMS:
        left, top = corners[room.name]
        colour = _COLOURS.get(room.name.partition("/")[0], "#f2eef8")
        title = "runtime, its ground" if room.modules else f"{room.name}/"
        holds = ", ".join(sorted(room.modules)) or room.holds
        parts.append(
            f'<rect x="{left:g}" y="{top:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
            f'fill="{colour}" stroke="#5b6b7a"/>'
            f'<text x="{left + 10:g}" y="{top + 19:g}" font-weight="600" fill="#1c2a36">'
            f"{title}</text>"
            f'<text x="{left + 10:g}" y="{top + 36:g}" font-size="11" fill="#44525f">{holds}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    print(f"drew {PICTURE.relative_to(ROOT)}")
