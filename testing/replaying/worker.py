"""The process that judges: users' code runs in it, which may print, hang, or end it.

``python -m perdure.testing.replaying.worker`` reads what it is to do from its standard input, and
answers on its standard output, before users' code is imported; from then on both are other files.
A frame of rows is answered by one for each row that something is wrong with, and an empty one.

Invariants:

* ``at`` holds the number of the row in hand and of the event that its code was told of last, so
  whoever finds the process gone knows whose fault that was.
* A row that takes too long ends the process, with its traceback in ``trace``: by a thread that
  needs no interpreter, so whatever the code holds.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, Any

import orjson

from ...runtime.client.applications import load_app, make_lookup
from ...runtime.settings import Settings
from .frames import AT, EVENT, ROW, pack, read_frame
from .judge import Judge
from .rows import StoredInstance, StoredRow

#: Bytes that users' code may print before that is forgotten.
_PRINTED_MAX = 1_000_000
#: Longer histories may take longer.
_EVENTS_A_SECOND = 1_000
_PID = os.getpid()
#: What was accepted once is not too large now.
_SETTINGS = Settings(max_payload=2**40)


class Alarm:
    """Ends the process where something takes too long.

    To set it costs more than most rows, so one setting serves the rows of a tenth of the limit.
    """

    def __init__(self, limit_s: float, trace: IO[bytes]) -> None:
        self._limit_s = limit_s
        self._trace = trace
        self._until = 0.0

    def set(self, more_s: float = 0.0) -> None:
        """Begin something; it may take the limit, and so much more."""
        now = monotonic()
        if now < self._until and not more_s:
            return
        limit_s = self._limit_s * 1.1 + more_s
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._trace)
        self._until = now + self._limit_s / 10

    def clear(self) -> None:
        """Wait for as long as it takes."""
        faulthandler.cancel_dump_traceback_later()
        self._until = 0.0


def main() -> None:
    """Judge what comes in, until no more does."""
    # Ctrl-C reaches all processes of a terminal, and is whoever's that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given, answers = _take_streams()
    configured = read_frame(given)
    if configured is None:
        return
    config: dict[str, Any] = orjson.loads(configured)
    sys.path[:] = config["path"]
    sys.argv[1:] = []
    folder = Path(config["folder"])
    with (folder / "trace").open("wb") as trace, (folder / "at").open("r+b") as file:
        faulthandler.enable(trace, all_threads=False)
        alarm = Alarm(config["limit_s"], trace)
        with mmap.mmap(file.fileno(), AT.size) as at:
            alarm.set(config["import_s"])
            try:
                lookup = make_lookup(load_app(config["app"]), _SETTINGS)
            except BaseException as error:
                _send(answers, {"failed": _why(error)})
                return
            alarm.clear()
            _send(answers, {"ready": True})
            judge = Judge(lookup, lambda position: EVENT.pack_into(at, ROW.size, position))
            while (frame := read_frame(given)) is not None:
                _judge(judge, pickle.loads(frame), answers, alarm, at)
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(0)  # threads of users' are not waited for


def _judge(
    judge: Judge, rows: list[StoredRow], answers: IO[bytes], alarm: Alarm, at: mmap.mmap
) -> None:
    for number, row in enumerate(rows):
        _end_copy()
        AT.pack_into(at, 0, number, -1)
        events = row.record.events if isinstance(row, StoredInstance) else 0
        alarm.set(events / _EVENTS_A_SECOND if events > _EVENTS_A_SECOND else 0.0)
        for finding in judge.judge(row):
            _send(answers, {"row": number, "finding": finding.to_dict()})
    alarm.clear()
    _forget_printed()
    _send(answers, {})


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the streams for what is ours; users' code reads nothing, and prints into a file.

    That is standard error's, which whoever started this process has made.
    """
    given, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return given, answers


def _end_copy() -> None:
    """End this process if it is one that users' code has forked: it would answer as well."""
    if os.getpid() != _PID:
        os._exit(0)


def _forget_printed() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError):
        if os.fstat(2).st_size > _PRINTED_MAX:
            os.ftruncate(2, 0)


def _send(answers: IO[bytes], answer: dict[str, Any]) -> None:
    _end_copy()
    answers.write(pack(orjson.dumps(answer)))
    answers.flush()


def _why(error: BaseException) -> str:
    """Say why the application cannot be imported, with the lines of it that led there."""
    from ...actors.errors import UsageError
    from ...actors.printing import text_of, type_name

    if isinstance(error, UsageError):
        return text_of(error)
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not _is_ours(frame.filename)
    ]
    where = f" ({lines[-1]})" if lines else ""
    return f"it cannot be imported: {type_name(error)}: {text_of(error)}{where}"


def _is_ours(file: str) -> bool:
    package = Path(__file__).resolve().parents[2]
    return Path(file).resolve().is_relative_to(package / "runtime") or Path(
        file
    ).resolve().is_relative_to(package / "testing")


if __name__ == "__main__":
    main()
