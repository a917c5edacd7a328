"""What ``perdure explain`` shows, as a tree."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .words import absolute, both, counted, read_time, relative, utc_now

if TYPE_CHECKING:
    from .screen import Screen

_LISTED = 20
_ENDED = ("Completed", "Failed", "Canceled", "Terminated")


class _Tree:
    """Lines that hang on others, as they are printed; each is as long as the screen is wide."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._now = utc_now()

    def put(self, depth: int, text: str | Text) -> None:
        """Put a line at a depth."""
        self._screen.line(text, indent="  " * depth)

    def when(self, time: str | None) -> str:
        """Say when something was or will be."""
        if time is None:
            return "at a time that is not known"
        when: datetime = read_time(time)
        return f"{relative(when, self._now)} ({absolute(when)})"

    def since(self, time: str | None) -> str:
        """Say since when something is so."""
        return self.when(None) if time is None else both(read_time(time), self._now)

    def some(self, depth: int, items: list[Any], count: int, tell: _Tell) -> None:
        """Put some of the items, and how many more there are."""
        for item in items[:_LISTED]:
            for number, line in enumerate(tell(self, item)):
                self.put(depth + (1 if number else 0), line)
        if count > min(len(items), _LISTED):
            self.put(depth, f"... and {count - min(len(items), _LISTED):,} more")


def show_instance(screen: Screen, found: dict[str, Any]) -> None:
    """Show what an instance waits for."""
    tree, counts = _Tree(screen), found["counts"]
    version = "" if found["version"] is None else f" version {found['version']}"
    tree.put(
        0, _bold(found["instance_id"], f"  {found['name']}{version}, {found['runtime_status']}")
    )
    _show_state(tree, found)
    if found["runtime_status"] in _ENDED:
        tree.put(1, "it has ended and waits for nothing; perdure show says how")

    for name, tell in (
        ("activities", _activity),
        ("timers", _timer),
        ("events", _event),
        ("children", _child),
        ("entity_calls", _entity_call),
    ):
        if found[name]:
            tree.put(
                1, _bold(f"{name.replace('_', ' ')}", f" ({counts.get(name, len(found[name])):,})")
            )
            tree.some(2, found[name], counts.get(name, 0), tell)
    if found["lock"] is not None:
        _show_lock(tree, found["lock"])
    if found["unconsumed_events"]:
        names = ", ".join(dict.fromkeys(found["unconsumed_events"]))
        tree.put(1, f"has taken events that nothing in it waits for: {names}")
    _show_code(tree, found)


def _show_state(tree: _Tree, found: dict[str, Any]) -> None:
    if found["parked"] is not None:
        reason = f"{found['parked']['type']}: {found['parked']['reason']}"
        tree.put(1, Text(f"parked: {reason}", style="bold yellow"))
    if found["suspended"] is not None:
        tree.put(1, Text(f"suspended: {found['suspended']}", style="yellow"))
    if found["start_at"] is not None:
        tree.put(1, f"begins {tree.when(found['start_at'])}")
    if found["backlog"]:
        tree.put(1, f"backlog: {counted(found['backlog'], 'message')} that it has not taken")


def _show_code(tree: _Tree, found: dict[str, Any]) -> None:
    if found["branches"]:
        tree.put(
            1,
            _bold(
                "code",
                f" ({found['branch_count']:,} branches)" if found["branch_count"] > 1 else "",
            ),
        )
        tree.some(2, found["branches"], found["branch_count"], _branch)
    elif found["code_trouble"] is not None:
        tree.put(1, f"no word of its code: {found['code_trouble']}")
        tree.put(1, "where no hub runs, --app MODULE:APP says which application it is")


def _bold(head: str, rest: str = "") -> Text:
    return Text.assemble((head, "bold"), rest)


def _activity(tree: _Tree, one: dict[str, Any]) -> list[str]:
    most = "" if one["max_attempts"] is None else f" of {one['max_attempts']}"
    summary = "" if one["summary"] is None else f" ({one['summary']})"
    lines = [f"{one['name']}{summary}, attempt {one['attempt']}{most}: {_stands(tree, one)}"]
    lines += _last_failure(one)
    if one["gives_up_at"] is not None:
        lines.append(f"given up {tree.when(one['gives_up_at'])}")
    return lines


def _stands(tree: _Tree, one: dict[str, Any]) -> str:
    where = "" if one["shard"] is None else f" on shard {one['shard']}"
    if one["state"] == "running":
        since = "" if one["started_at"] is None else f", began {tree.when(one['started_at'])}"
        return f"running{where}{since}"
    if one["state"] == "retrying":
        return f"next attempt {tree.when(one['next_attempt_at'])}"
    stands = f"waits for a place{where}" if where else "has not ended, and no hub runs it"
    return f"{stands}, called {tree.when(one['scheduled_at'])}"


def _last_failure(one: dict[str, Any]) -> list[str]:
    failure = one["last_failure"]
    if failure is None:
        return []
    return [f"last failure: {failure.get('error_type')}: {failure.get('message')}"]


def _timer(tree: _Tree, one: dict[str, Any]) -> list[str]:
    purpose = "" if one["purpose"] in (None, "timer", "") else f" ({one['purpose']})"
    return [f"due {tree.when(one['due'])}{purpose}"]


def _event(tree: _Tree, one: dict[str, Any]) -> list[str]:
    lines = [f"{one['name']}, since {tree.since(one['since'])}"]
    if one["times_out_at"] is not None:
        lines.append(f"times out {tree.when(one['times_out_at'])}")
    return lines


def _child(tree: _Tree, one: dict[str, Any]) -> list[str]:
    attempt = "" if one["attempt"] is None else f", attempt {one['attempt']}"
    lines = [
        f"{one['instance_id']}  {one['name']}{attempt}, started {tree.when(one['started_at'])}"
    ]
    if one["next_attempt_at"] is not None:
        lines.append(f"next attempt {tree.when(one['next_attempt_at'])}")
    return lines + _last_failure(one)


def _entity_call(tree: _Tree, one: dict[str, Any]) -> list[str]:
    return [f"{one['entity_id']} {one['operation']}, called {tree.when(one['called_at'])}"]


def _show_lock(tree: _Tree, lock: dict[str, Any]) -> None:
    entities = ", ".join(lock["entities"])
    if lock["is_granted"]:
        tree.put(1, f"holds the lock of {entities}")
        return
    tree.put(1, f"waits for the lock of {entities}, asked {tree.when(lock['asked_at'])}")
    if lock["waits_at"] is not None:
        holder = "nobody" if lock["holder"] is None else lock["holder"]
        place = "" if lock["place"] is None else f"; its place in the queue: {lock['place']}"
        tree.put(2, f"{lock['waits_at']} is held by {holder}{place}")


def _branch(_: _Tree, one: dict[str, Any]) -> list[str | Text]:
    waited = one["waits_for"]
    what = "" if waited is None else f" waits for {_waited(waited)}"
    lines: list[str | Text] = [_bold(one["function"], what)]
    for line in one["lines"]:
        lines.append(f"{_path(line['file'])}:{line['line']} {line['function']}")
        if line["text"] is not None:
            lines.append(Text(f"  {line['text'].strip()}", style="cyan"))
    return lines


def _waited(waited: dict[str, Any]) -> str:
    parts = ", ".join(_waited(part) for part in waited["parts"])
    if parts:
        more = ", ..." if waited["count"] > len(waited["parts"]) else ""
        return f"{waited['kind']} of {waited['count']:,}: {parts}{more}"
    if waited["branches"]:
        return f"{waited['kind']} {', '.join(map(str, waited['branches']))}"
    return f"{waited['kind']} {waited['name']}".strip()


def _path(file: str) -> str:
    here = os.path.relpath(file)
    return file if here.startswith("..") else here


def show_entity(screen: Screen, found: dict[str, Any]) -> None:
    """Show what an entity is busy with."""
    tree = _Tree(screen)
    tree.put(0, _bold(found["entity_id"], "" if found["exists"] else "  has no state"))
    if found["parked"] is not None:
        reason = f"{found['parked']['type']}: {found['parked']['reason']}"
        tree.put(1, Text(f"parked: {reason}", style="bold yellow"))
    for one in found["running"]:
        since = "" if one["since"] is None else f", began {tree.when(one['since'])}"
        tree.put(1, f"runs {one['name']}{since}")
    tree.put(1, f"backlog: {counted(found['backlog'], 'message')}")
    if found["locked_by"] is not None:
        tree.put(1, f"locked by {found['locked_by']}")
    if found["lock_waiter_count"]:
        tree.put(1, _bold("who waits for its lock", f" ({found['lock_waiter_count']:,})"))
        tree.some(2, found["lock_waiters"], found["lock_waiter_count"], _waiter)


def _waiter(_: _Tree, instance_id: str) -> list[str]:
    return [instance_id]


_Tell = Callable[[_Tree, Any], Sequence[str | Text]]
