"""Histories as files: recorded from a hub, kept in a repository, and replayed by its tests.

A file is JSON, one event to a line, so that a change of it can be read where it is reviewed. Its
events are those that ``client.get_history`` and ``perdure history --json`` give.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from attrs import frozen

from ..actors.arguments import is_a, refusal
from ..actors.errors import InstanceNotFoundError, NondeterminismError, PerdureError, UsageError
from ..actors.ids import check_instance_id
from ..actors.printing import text_of
from ..runtime.client.applications import app_of, make_lookup
from ..runtime.client.status import HistoryEvent, OrchestrationStatus
from ..runtime.facts import Fact
from ..runtime.settings import Settings
from .replaying.judge import readings, rerun
from .replaying.recordings import TAKEN, Recording, read_instance, read_recording

if TYPE_CHECKING:
    from ..actors.registry.app import App
    from ..actors.registry.lookup import Lookup
    from ..runtime.client.client import Client
    from .replaying.rows import StoredInstance

_NAME_MAX = 100

#: What Windows takes for a device, whatever ends its name.
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10)),
}


@frozen(kw_only=True)
class ReplayedHistory(Fact):
    """A history that the code has been taken through, and that is its own.

    Attributes:
        instance_id: whose it was.
        name: the orchestration's name.
        version: the version that it was started with, or None.
        events: how many events it has.
        runtime_status: where the instance stood when it was recorded, if that is known.
    """

    instance_id: str
    name: str
    version: str | None
    events: int
    runtime_status: str | None


async def record(client: Client, path: str | Path, *instance_ids: str) -> list[Path]:
    """Write histories of a hub into files, as they are now.

    Args:
        client: the hub's client.
        path: a folder, which gets a file for each history, called by the instance's id; or for one
            instance the file itself, whose name ends in ``.json``. What is there already is
            overwritten.
        instance_ids: the instances; all that there are, where none is named.

    Returns:
        The files.

    Raises:
        InstanceNotFoundError: there is no such instance.
        InvalidIdError: one of the ids is none.
        UsageError: one file, and not one instance.
    """
    place = _path_of(path)
    for one in instance_ids:
        check_instance_id(one)
    if place.suffix == ".json":
        if len(instance_ids) != 1:
            raise UsageError(
                f"path {str(place)!r} is one file, which has one history: name its instance, or "
                "give a folder"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        return [_write(place, await _recording(client, instance_ids[0]))]
    place.mkdir(parents=True, exist_ok=True)
    files = _Folder(place)
    if instance_ids:
        return [_write(files.file_of(one), await _recording(client, one)) for one in instance_ids]
    return [
        _write(files.file_of(one.instance_id), await _recording(client, one))
        async for one in client.query()
    ]


def replay(
    history: str | Path | Mapping[str, Any] | Sequence[HistoryEvent],
    app: App | str,
    *,
    instance_id: str = "replayed",
    input: Any = None,
) -> ReplayedHistory:
    """Take an orchestration's code through a recorded history; nothing that it asks for happens.

    Args:
        history: the file of one; what such a file has in it, as parsed JSON; or what
            ``client.get_history`` gives.
        app: the application whose code it is, or where that is: ``"module:name"``.
        instance_id: for a history from ``get_history``, whose it is: children and ids that the
            code makes are called by it.
        input: for such a history, what the orchestration was started with.

    Raises:
        NondeterminismError: the code does something else than the history says; it has the
            position, what is recorded there, what the code did and at which line.
        PayloadError: the recorded input is not what the code reads.
        UnknownNameError: that orchestration, or that version of it, is not registered.
        UsageError: it is no recorded history.
    """
    if is_a(history, (str, Path)):
        recording = read_recording(_path_of(cast("str | Path", history)))
    elif is_a(history, Mapping):
        recording = Recording.read(cast("Mapping[str, Any]", history), "the history")
    else:
        if not is_a(history, Sequence):
            raise refusal("history", TAKEN, history)
        events = list(cast("Sequence[HistoryEvent]", history))
        recording = Recording.of_events(instance_id, input, events)
    lookup = make_lookup(app_of(app), Settings(max_payload=2**40))
    row = recording.row()
    first, *others = readings(lookup, row)
    try:
        rerun(lookup, first)
    except (NondeterminismError, UsageError):
        if not any(_fits(lookup, other) for other in others):
            raise
    except PerdureError:
        raise
    except ValueError as error:  # an event that has not what its kind has
        raise UsageError(f"the history of {row.record.key!r}: {text_of(error)}") from error
    record = row.record
    return ReplayedHistory(
        instance_id=record.key,
        name=record.name,
        version=record.version,
        events=record.events,
        runtime_status=recording.status,
    )


def _fits(lookup: Lookup, row: StoredInstance) -> bool:
    try:
        rerun(lookup, row)
    except (NondeterminismError, UsageError):
        return False
    return True


async def _recording(client: Client, instance: str | OrchestrationStatus) -> Recording:
    found = await read_instance(client, instance)
    if found is None:
        raise InstanceNotFoundError(instance if isinstance(instance, str) else instance.instance_id)
    return Recording.of_status(*found)


def _write(file: Path, recording: Recording) -> Path:
    file.write_bytes(recording.to_json())
    return file


def _path_of(path: str | Path) -> Path:
    if not is_a(path, (str, os.PathLike)):
        raise refusal("path", "a str or a Path", path)
    return Path(path)


class _Folder:
    """The names in a folder of recordings: no two of them differ only in case.

    On many systems such two are one file, and of two instances one history would be left.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._names = set(os.listdir(place))
        self._lowered = {name.lower() for name in self._names}

    def file_of(self, instance_id: str) -> Path:
        """Give the file of an instance: the one that it had before, if it had one."""
        name = _file_name(instance_id)
        if name not in self._names and name.lower() in self._lowered:
            name = f"{name.removesuffix('.json')}-{_digest(instance_id)}.json"
        self._names.add(name)
        self._lowered.add(name.lower())
        return self._place / name


def _digest(instance_id: str) -> str:
    return sha256(instance_id.encode()).hexdigest()[:8]


def _file_name(instance_id: str) -> str:
    """Give a file name that any system takes, and that another id has not, but for its case."""
    name = quote(instance_id, safe=" @+,=").replace("~", "%7E").lstrip(".") or "%2E"
    is_device = name.partition(".")[0].rstrip().upper() in _DEVICES
    if len(name) > _NAME_MAX or is_device or name != quote(instance_id, safe=" @+,="):
        digest = _digest(instance_id)
        name = f"{digest}-{name}" if is_device else f"{name[:_NAME_MAX]}-{digest}"
    return f"{name}.json"
