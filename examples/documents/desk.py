"""The world outside: a folder of results and an outbox that people read.

Activities run at least once, so what they do here must be safe to repeat. Each call brings its
idempotency key, and the desk drops what it has already done under that key.

Invariants:

* A result file under its final name is complete.
* The outbox has one line per key, whatever was repeated, and no line is torn for long: a torn
  last line, left by a crash, is cut off when the outbox is next opened.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from .models import Status

ENDINGS = frozenset(Status)


class Desk:
    """The results and the outbox in one workspace; used from many threads.

    Attributes:
        on_ending: called, if set, after each document's last message was written, with the
            number of documents that have got theirs. The demo dies here when told to.
    """

    def __init__(self, workspace: Path) -> None:
        self.results = workspace / "results"
        self.outbox = workspace / "outbox.jsonl"
        self.on_ending: Callable[[int], None] | None = None
        self._lock = Lock()
        self.results.mkdir(parents=True, exist_ok=True)
        messages = _read_whole_lines(self.outbox)
        self._keys = {message["key"] for message in messages}
        self._endings = sum(message["subject"] in ENDINGS for message in messages)

    def store(self, name: str, key: str, result: dict[str, Any]) -> bool:
        """Write a result, unless it was written under this key before.

        Returns:
            Whether it was written.
        """
        path = self.results / f"{name}.json"
        if path.exists() and json.loads(path.read_text("utf-8"))["key"] == key:
            return False
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"key": key, **result}), "utf-8")
        unfinished.replace(path)
        return True

    def send(self, key: str, subject: str, message: dict[str, Any]) -> bool:
        """Add a message to the outbox, unless one of this key is there.

        Returns:
            Whether it was added.
        """
        line = json.dumps({"key": key, "subject": subject, **message}) + "\n"
        with self._lock:
            if key in self._keys:
                return False
            with self.outbox.open("ab", buffering=0) as outbox:
                outbox.write(line.encode())
            self._keys.add(key)
            if subject in ENDINGS:
                self._endings += 1
                if self.on_ending is not None:
                    self.on_ending(self._endings)
        return True

    def messages(self) -> list[dict[str, Any]]:
        """Read the whole outbox."""
        return _read_whole_lines(self.outbox)


@functools.cache
def desk_of(workspace: str) -> Desk:
    """Give the desk of a workspace, always the same one."""
    return Desk(Path(workspace))


def _read_whole_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return [json.loads(line) for line in data[:whole].splitlines()]
