"""Guarantee 5, with real processes: what was acknowledged survives ``kill -9`` at any instant.

A child process serves a hub on SQLite and is killed again and again under a random load. Requests
that it did not acknowledge are repeated under their request ids. In the end every request must
have been applied exactly once, and nothing may be stuck.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("crash_child.py")
KINDS = (
    *("signal", "relay", "delayed", "call", "slow"),
    *("chain", "fan", "timer", "listen", "transfer", "nested"),
)
INSTANCES = ("chain", "fan", "timer", "listen", "transfer", "nested")
RESULTS = {"chain": 16, "fan": 56, "timer": 3, "nested": 16}
UNDER_WAY = 25

Request = tuple[str, str, list[Any]]


class Child:
    """One life of the process."""

    def __init__(self, folder: Path, loop: str, fault: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(folder), loop, fault],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, request: Request) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(orjson.dumps(request) + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead, which the end of its output will tell

    def receive(self) -> dict[str, Any] | None:
        """Give the next answer; None where the process has died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def end(self) -> int:
        """Let it end if it lives, and clear it away."""
        try:
            self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode


class Load:
    """A random load over many lives, and what must have come of it."""

    def __init__(self, folder: Path, loop: str, seed: int) -> None:
        self.folder = folder
        self.loop = loop
        self.random = random.Random(seed)
        self.number = 0
        self.unanswered: dict[str, Request] = {}
        self.answered: dict[str, Request] = {}
        self.events: list[Request] = []
        self.sent: set[str] = set()

    def make(self) -> Request:
        """Make the next request; an instance that listens gets its events as requests of their own."""
        if self.events and self.random.random() < 0.5:
            return self.events.pop(0)
        self.number += 1
        id, kind = f"r{self.number}", self.random.choice(KINDS)
        data: list[Any] = []
        if kind == "transfer":
            source, target = self.random.sample(range(5), 2)
            data = [source, target, self.random.randint(1, 9)]
        return id, kind, data

    def take(self, answer: dict[str, Any]) -> None:
        """Note what was acknowledged."""
        request = self.unanswered.pop(answer["id"])
        self.answered[request[0]] = request
        if request[1] in ("call", "slow"):
            assert answer["value"] == 1, f"{request} was applied {answer['value']} times"
        if request[1] == "listen":
            self.events += [(f"{request[0]}-{n}", "event", [f"i-{request[0]}", n]) for n in (1, 2)]

    def live(self, fault: str = "", *, new: int) -> int:
        """Serve through one life, which ends by a kill; gives the answers it got."""
        child = Child(self.folder, self.loop, fault)
        answers = 0
        try:
            die_after = None if fault else self.random.choice([0, *range(1, new)])
            if die_after == 0:
                # Somewhere in its start: while it imports, opens the store, recovers or serves.
                time.sleep(self.random.uniform(0.1, 0.9))
                child.kill()
            if child.receive() is not None:
                # What the last life left open, in another order.
                again = list(self.unanswered.values())
                self.random.shuffle(again)
                for request in again:
                    child.send(request)
                left = new
                while True:
                    while left and len(self.unanswered) < UNDER_WAY:
                        request = self.make()
                        self.unanswered[request[0]] = request
                        child.send(request)
                        left -= 1
                    if not self.unanswered:
                        break
                    answer = child.receive()
                    if answer is None:
                        break
                    if "unavailable" in answer:
                        child.send(self.unanswered[answer["id"]])
                        continue
                    self.take(answer)
                    answers += 1
                    if answers == die_after:
                        time.sleep(self.random.uniform(0, 0.01))  # not always on an answer
                        child.kill()
        finally:
            child.kill()
            child.end()
        return answers

    def finish(self) -> dict[str, Any]:
        """Serve what is left, without a kill; stop, start once more, and have it tell."""
        while self.unanswered or self.events:
            child = Child(self.folder, self.loop)
            assert child.receive() == {"ready": True}
            for event in self.events:
                self.unanswered[event[0]] = event
            self.events = []
            for request in list(self.unanswered.values()):
                child.send(request)
            while self.unanswered:
                answer = child.receive()
                assert answer is not None
                self.take(answer)
            assert child.end() == 0
        instances = [f"i-{id}" for id, kind, _ in self.answered.values() if kind in INSTANCES]
        report: dict[str, Any] = {}
        for _ in range(2):
            # Between the two every message that was under way at an instance's end has arrived.
            child = Child(self.folder, self.loop)
            assert child.receive() == {"ready": True}
            child.send(("report", "report", instances))
            answer = child.receive()
            assert answer is not None
            assert child.end() == 0
            report = answer["value"]
        return report

    def check(self, report: dict[str, Any]) -> None:
        """Check that everything happened, and happened once."""
        applied: dict[str, int] = {}
        for book in report["applied"]:
            applied |= book
        noted = {id for id, kind, _ in self.answered.values() if kind != "event"}
        assert applied == dict.fromkeys(noted, 1)
        results = report["results"]
        for id, kind, data in self.answered.values():
            if kind in RESULTS:
                assert results[f"i-{id}"] == RESULTS[kind]
            elif kind == "listen":
                assert results[f"i-{id}"] == 3
            elif kind == "transfer":
                assert results[f"i-{id}"] == data[2]
        balances = [1_000] * 5
        for _, kind, data in self.answered.values():
            if kind == "transfer":
                balances[data[0]] -= data[2]
                balances[data[1]] += data[2]
        assert report["balances"] == balances
        assert report["locked"] == []
        assert report["failed"] == 0
        assert report["statuses"] == ["Completed"]


def seed_of(run: int) -> int:
    """Draw a seed, or take that of a failed run."""
    given = os.environ.get("PERDURE_SEED")
    seed = random.SystemRandom().randrange(2**32) if given is None else int(given)
    print(f"PERDURE_SEED={seed} (run {run})")
    return seed


def run(folder: Path, loop: str, lives: int, number: int = 0) -> None:
    load = Load(folder, loop, seed_of(number))
    answers = sum(load.live(new=load.random.randint(20, 60)) for _ in range(lives))
    load.check(load.finish())
    assert answers > lives


@pytest.mark.by_turns
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_was_acknowledged_survives_kills_under_load(tmp_path: Path, loop: str) -> None:
    run(tmp_path, loop, 5)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_was_acknowledged_survives_many_kills(tmp_path: Path, loop: str, number: int) -> None:
    run(tmp_path, loop, 25, number)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_was_acknowledged_survives_a_kill_at_each_commit(
    tmp_path: Path, loop: str, when: str
) -> None:
    load = Load(tmp_path, loop, seed_of(0))

    for commit in range(1, 30):
        load.live(f"{when}:{commit}", new=40)

    load.check(load.finish())
