"""Worker threads: they run what blocks, and keep nothing from ending."""

from __future__ import annotations

import threading
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Protocol

from ...actors.logs import Log
from ...actors.printing import type_name

_log = Log("perdure.activities")


class Job(Protocol):
    """Something that a thread can be given."""

    def run_there(self) -> None:
        """Do the work, in the thread. Must not raise."""
        ...


class Threads:
    """Threads that are made as they are needed, up to a limit; for one thread to hand work to.

    They are daemons, unlike those of ``concurrent.futures``: what never returns in one of them
    must not keep the process from ending. Each job has a context of its own.

    Attributes:
        idle: how many have nothing to do.
    """

    def __init__(self, limit: int, context: Context) -> None:
        self._limit = limit
        self._count = 0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self.idle = 0
        self._waiting = 0
        self._context = context

    def submit(self, job: Job) -> None:
        """Have a thread run a job, behind those that wait.

        Raises:
            RuntimeError: there is no thread, and the system gives none.
        """
        with self._lock:
            is_short = self._waiting >= self.idle
        if is_short and self._count < self._limit:
            self._add()
        with self._lock:
            self._waiting += 1
        self._jobs.put(job)

    def _add(self) -> None:
        name = f"perdure-activity-{self._count}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            if not self._count:
                raise
            return  # those that there are get to it
        self._count += 1
        with self._lock:
            self.idle += 1

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get()
                if job is None:
                    return
                with self._lock:
                    self.idle -= 1
                    self._waiting -= 1
                self._context.copy().run(job.run_there)
            except BaseException as error:
                # Raised into the thread from outside, as some libraries' time limits do it.
                _log.error("a worker thread was hit by %s, and goes on", type_name(error))
            with self._lock:
                self.idle += 1

    def take_back(self) -> list[Job]:
        """Give the jobs that no thread has begun, and forget them."""
        jobs: list[Job] = []
        try:
            while (job := self._jobs.get_nowait()) is not None:
                jobs.append(job)
        except Empty:
            pass
        with self._lock:
            self._waiting -= len(jobs)
        return jobs

    def close(self) -> None:
        """Let each thread end when it has nothing to do any more."""
        for _ in range(self._count):
            self._jobs.put(None)
