"""The rounds: each contender in turn, each time in a new process on an empty store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from attrs import Factory, define

from .contender import NotAvailableError, contender_class
from .environment import prepare
from .measure import Figure, Size

_RUN_LIMIT_S = 600.0
# The folder that holds the package `benchmarks`, in a checkout and where it is installed.
_ROOT = Path(__file__).resolve().parents[2]


@define
class Run:
    """One contender in one round.

    Attributes:
        contender: its name.
        version: of it and all that takes part, as it said itself.
        figures: of the loads that it came through.
        unavailable: why it cannot be had here, if it cannot.
        wrong: what it did wrong, or how it broke; its figures mean nothing then.
    """

    contender: str
    version: str = ""
    figures: list[Figure] = Factory(list[Figure])
    unavailable: str | None = None
    wrong: str | None = None

    @property
    def verified(self) -> bool:
        """Whether all that it was asked was done, and exactly that."""
        return self.unavailable is None and self.wrong is None

    def rate(self, load: str) -> float | None:
        """Give the rate of a load; None where the run is not verified."""
        if not self.verified:
            return None
        return next((figure.rate for figure in self.figures if figure.load == load), None)


Rounds = list[dict[str, Run]]
RunOne = Callable[[str, int], Run]


def race(names: Sequence[str], rounds: int, run_one: RunOne) -> Rounds:
    """Run A B C, A B C, ...; who is not available once is not asked again."""
    found: Rounds = []
    for number in range(rounds):
        runs: dict[str, Run] = {}
        for name in names:
            before = found[-1][name] if found else None
            gone = before is not None and before.unavailable is not None
            runs[name] = before if before is not None and gone else run_one(name, number)
        found.append(runs)
    return found


def rates(rounds: Rounds, name: str, load: str) -> list[float]:
    """Give the rates of the verified runs."""
    found = [runs[name].rate(load) for runs in rounds]
    return [rate for rate in found if rate is not None]


def ratio(rounds: Rounds, name: str, load: str, base: str) -> float | None:
    """Give how often ``base`` does a load in the time of one of ``name``.

    The median over the rounds in which both are verified, each compared within its round: what
    slows the machine down for a while slows both.
    """
    ratios: list[float] = []
    for runs in rounds:
        ours, theirs = (runs[one].rate(load) if one in runs else None for one in (base, name))
        if ours is not None and theirs is not None:
            ratios.append(ours / theirs)
    return median(ratios) if ratios else None


def run_apart(name: str, size: Size, cache: Path, begins: Callable[[str], None]) -> Run:
    """Run a contender in a process of its own; ``begins`` hears of each load."""
    run = Run(name)
    try:
        environment = prepare(contender_class(name).needs, cache)
    except NotAvailableError as error:
        run.unavailable = str(error)
        return run
    with tempfile.TemporaryDirectory(prefix=f"peers-{name}-", ignore_cleanup_errors=True) as folder:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [
            *(str(environment.python), "-m", "benchmarks.peers.host"),
            *(name, folder, str(environment.programs), json.dumps(asdict(size))),
        ]
        complaints = Path(folder) / "host.log"
        with (
            complaints.open("wb") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                text=True,
                start_new_session=True,  # so that its servers can be ended with it
            ) as process,
            _ended(process, _RUN_LIMIT_S),
        ):
            assert process.stdout is not None
            for line in process.stdout:
                what, value = json.loads(line)
                _note(run, what, value, begins)
        if process.returncode != 0:
            said = complaints.read_text("utf-8", errors="replace").strip().splitlines()
            run.wrong = f"ended with status {process.returncode}: {' / '.join(said[-5:])[-800:]}"
    return run


def _note(run: Run, what: str, value: Any, begins: Callable[[str], None]) -> None:
    match what:
        case "version":
            run.version = value
        case "begins":
            begins(value)
        case "figure":
            run.figures.append(Figure(**value))
        case "not available":
            run.unavailable = value
        case _:
            run.wrong = value


@contextmanager
def _ended(process: subprocess.Popen[str], limit_s: float) -> Generator[None]:
    """Wait for a process, but not for ever, and leave nothing of its session behind."""

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        yield
        process.wait()
    finally:
        timer.cancel()
        end()
        process.wait()
