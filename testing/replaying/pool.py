"""The processes that judge, and what becomes of rows that take one of them along.

Invariants:

* What is found is told in the order in which the rows were given, however many processes there are.
* A row is tried once: the process that it ended, or that it had ended for taking too long, is
  replaced by another, which goes on behind it.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import anyio
import orjson
from anyio.abc import ObjectReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define

from ...actors.errors import InternalError, UsageError
from ...actors.printing import one_line
from ...actors.registry.outside import is_pythons
from ...runtime.facts import read_fact
from .findings import FindingKind, ReplayFinding, read_place
from .frames import AT, pack
from .rows import StoredInstance, StoredRow, actor_of, name_of

#: How often the code of one name may end its process before the rest of it is left alone.
DEATHS_MAX = 3
#: Seconds that importing the application may take, beside the limit of a row.
_IMPORT_S = 60.0
_PRINTED_SHOWN = 300
#: How often a process that says nothing is looked at.
_LOOK_S = 1.0

_FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+) in ')


class Judged(NamedTuple):
    """What has come of some rows: how many there were of each kind, and what is wrong."""

    counts: Counter[type[StoredRow]]
    findings: list[ReplayFinding]


class AppFailedError(UsageError):
    """The application cannot be imported, so nothing can be looked at."""


@define(eq=False)
class _Batch:
    number: int
    rows: list[StoredRow]
    counts: Counter[type[StoredRow]]
    findings: list[tuple[int, ReplayFinding]]  # by their row's number


class Pool:
    """Processes that import an application and judge rows by it.

    Args:
        app: where it is.
        jobs: how many processes there may be.
        limit_s: seconds that one row may take.
        tell: is given each batch of rows when it is judged, with what was found, in their order.
    """

    def __init__(self, app: str, jobs: int, limit_s: float, tell: Callable[[Judged], None]) -> None:
        self._app = app
        self._jobs = jobs
        self._limit_s = limit_s
        self._tell = tell
        self._deaths: Counter[str] = Counter()
        self._done: dict[int, _Batch] = {}
        self._told = 0

    async def run(self, batches: AsyncIterator[list[StoredRow]]) -> None:
        """Judge all rows.

        Raises:
            AppFailedError: the application cannot be imported.
        """
        with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
            try:
                await self._run(folder, batches)
            except BaseExceptionGroup as group:
                raise _first_of(group) from None

    async def _run(self, folder: str, batches: AsyncIterator[list[StoredRow]]) -> None:
        send, receive = anyio.create_memory_object_stream[_Batch](1)
        async with anyio.create_task_group() as group, send, receive:
            for number in range(self._jobs):
                group.start_soon(self._work, _new_folder(folder, number), receive.clone())
            receive.close()
            number = 0
            async for rows in batches:
                await send.send(_Batch(number, rows, Counter(map(type, rows)), []))
                number += 1
            send.close()

    async def _work(self, folder: Path, batches: ObjectReceiveStream[_Batch]) -> None:
        async with batches:
            worker = _Worker(self._app, self._limit_s, folder)
            try:
                async for batch in batches:
                    await self._judge(worker, batch)
                    self._release(batch)
            finally:
                with anyio.CancelScope(shield=True):
                    await worker.stop()

    async def _judge(self, worker: _Worker, batch: _Batch) -> None:
        numbers = list(range(len(batch.rows)))
        while numbers:
            wanted: list[int] = []
            for number in numbers:
                row = batch.rows[number]
                if self._deaths[name_of(row)] < DEATHS_MAX:
                    wanted.append(number)
                else:
                    batch.findings.append((number, _skipped(row)))
            found: list[tuple[int, ReplayFinding]] = []
            died = await worker.judge([batch.rows[number] for number in wanted], found)
            batch.findings += [(wanted[place], finding) for place, finding in found]
            if died is None:
                return
            self._deaths[name_of(batch.rows[wanted[died]])] += 1
            numbers = wanted[died + 1 :]

    def _release(self, batch: _Batch) -> None:
        batch.rows = []
        self._done[batch.number] = batch
        while (ready := self._done.pop(self._told, None)) is not None:
            self._told += 1
            findings = sorted(ready.findings, key=itemgetter(0))
            self._tell(Judged(ready.counts, [finding for _, finding in findings]))


class _Worker:
    """One process, begun when it is needed, and again after it has ended."""

    def __init__(self, app: str, limit_s: float, folder: Path) -> None:
        self._app = app
        self._limit_s = limit_s
        self._folder = folder
        self._process: Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self._length: int | None = None  # of the answer that is on its way
        self._printed: IO[bytes] | None = None

    async def judge(
        self, rows: list[StoredRow], findings: list[tuple[int, ReplayFinding]]
    ) -> int | None:
        """Have rows judged; gives the number of the one that ended the process, if one did.

        What is found goes to ``findings``, by the numbers of the rows.
        """
        if not rows:
            return None
        if self._process is None:
            await self._start()
        if await self._ask(rows, findings):
            return None
        number, finding = await self._find_death(rows)
        findings.append((number, finding))
        return number

    async def _ask(self, rows: list[StoredRow], findings: list[tuple[int, ReplayFinding]]) -> bool:
        await self._send(pickle.dumps(rows, pickle.HIGHEST_PROTOCOL))
        while (answer := await self._receive()) is not None:
            if not answer:
                return True
            findings.append((answer["row"], read_fact(ReplayFinding, answer["finding"])))
        return False

    async def _start(self) -> None:
        (self._folder / "at").write_bytes(bytes(AT.size))
        (self._folder / "trace").write_bytes(b"")
        self._printed = (self._folder / "printed").open("wb")
        self._process = await anyio.open_process(
            # -P: a file of the folder at hand must not stand in for a module of Python's.
            [sys.executable, "-P", "-m", __name__.rpartition(".")[0] + ".worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            start_new_session=True,  # so that what the code has forked ends with it
        )
        assert self._process.stdout is not None
        self._answers = BufferedByteReceiveStream(self._process.stdout)
        self._length = None
        config = {
            "app": self._app,
            "path": [*map(os.path.abspath, sys.path)],
            "folder": str(self._folder),
            "limit_s": self._limit_s,
            "import_s": _IMPORT_S,
        }
        await self._send(orjson.dumps(config))
        answer = await self._receive()
        if answer is None:
            how, place = await self._how_it_died(f"{self._limit_s + _IMPORT_S:g} s")
            where = f" ({place})" if place else ""
            raise AppFailedError(f"app {self._app!r}: importing it {how}{where}{self._shown()}")
        if "failed" in answer:
            raise AppFailedError(f"app {self._app!r}: {answer['failed']}")

    async def _send(self, body: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # One that has ended is found to have when its answer is awaited.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._process.stdin.send(pack(body))

    async def _receive(self) -> dict[str, Any] | None:
        """Give the next answer; None where the process has ended."""
        assert self._process is not None
        while True:
            with anyio.move_on_after(_LOOK_S):
                return await self._next_answer()
            if self._process.returncode is not None:
                # What it has forked has its end of the pipe, which does not say so then.
                _end_group(self._process)

    async def _next_answer(self) -> dict[str, Any] | None:
        assert self._answers is not None
        try:
            if self._length is None:  # else it was waited for before
                self._length = int.from_bytes(await self._answers.receive_exactly(8), "little")
            body = await self._answers.receive_exactly(self._length)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            return None
        self._length = None
        answer: dict[str, Any] = orjson.loads(body)
        return answer

    async def _find_death(self, rows: list[StoredRow]) -> tuple[int, ReplayFinding]:
        number: int
        position: int
        number, position = AT.unpack((self._folder / "at").read_bytes())
        if number >= len(rows):
            raise InternalError(f"a process of the check has ended at row {number} of {len(rows)}")
        row = rows[number]
        how, place = await self._how_it_died(f"{self._limit_s:g} s")
        kind: FindingKind = "timed_out" if how.startswith("took") else "crashed"
        shown = self._shown()
        await self.stop()
        file, line, text = read_place(place)
        finding = ReplayFinding(
            kind=kind,
            actor=actor_of(row),
            name=name_of(row),
            version=row.record.version if isinstance(row, StoredInstance) else None,
            position=position if position >= 0 else None,
            file=file,
            line=line,
            text=text,
            message=f"its code {how}{shown}",
        )
        return number, finding

    async def _how_it_died(self, limit: str) -> tuple[str, str | None]:
        """Say how the process ended, and at which line of users' code, if that is known."""
        assert self._process is not None
        status = await self._process.wait()
        trace = (self._folder / "trace").read_text("utf-8", "replace")
        place = _place_in(trace)
        if trace.startswith("Timeout"):
            return f"took longer than {limit}", place
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = str(-status)
            return f"ended the process by {name}", place
        return f"ended the process with status {status}", place

    def _shown(self) -> str:
        """Give the last line that was printed, if anything was."""
        lines = (self._folder / "printed").read_text("utf-8", "replace").split("\n")
        printed = next((line for line in reversed(lines) if line.strip()), "").strip()
        return f"; printed last: {one_line(printed[-_PRINTED_SHOWN:])}" if printed else ""

    async def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        printed, self._printed = self._printed, None
        self._answers = None
        if process is not None:
            if process.returncode is None:
                _end_group(process)  # what it has done is told, and it holds nothing
            await process.aclose()
        if printed is not None:
            printed.close()


def _end_group(process: Process) -> None:
    """Kill a process, and what it has forked."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _new_folder(parent: str, number: int) -> Path:
    own = Path(parent, str(number))
    own.mkdir()
    return own


def _first_of(error: BaseException) -> BaseException:
    """Give what went wrong first: one failure has the other tasks end."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    members = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return _first_of(members[0])


def _skipped(row: StoredRow) -> ReplayFinding:
    name = name_of(row)
    return ReplayFinding(
        kind="skipped",
        actor=actor_of(row),
        name=name,
        version=row.record.version if isinstance(row, StoredInstance) else None,
        message=f"it was not looked at: {DEATHS_MAX} others of {name!r} have ended their process",
    )


def _place_in(trace: str) -> str | None:
    """Find the innermost line of users' code in a traceback of the main thread."""
    for block in trace.split("\n\n"):
        if f"{os.sep}replaying{os.sep}worker.py" not in block:
            continue
        frames = [(found["file"], found["line"]) for found in _FRAME.finditer(block)]
        theirs = [one for one in frames if not _is_ours(one[0])]
        for file, line in [one for one in theirs if not is_pythons(one[0])] or theirs:
            return f"{file}:{line}"
    return None


def _is_ours(file: str) -> bool:
    package = Path(__file__).resolve().parents[2]
    return any(
        Path(file).resolve().is_relative_to(package / room)
        for room in ("actors", "runtime", "testing", "storage")
    )
