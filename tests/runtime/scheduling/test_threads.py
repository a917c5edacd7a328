from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar, copy_context

import pytest

from perdure.runtime.scheduling.threads import Threads

PATIENCE_S = 30.0
variable: ContextVar[str] = ContextVar("variable", default="unset")


class Job:
    """Work that is done when the test says so."""

    def __init__(self, work: Callable[[], object] = lambda: None, *, held: bool = False) -> None:
        self.begun, self.may_end, self.done = (threading.Event() for _ in range(3))
        self.thread: threading.Thread | None = None
        self._work = work
        if not held:
            self.may_end.set()

    def run_there(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        self.may_end.wait(PATIENCE_S)
        try:
            self._work()
        finally:
            self.done.set()

    def let_end(self) -> None:
        self.may_end.set()
        assert self.done.wait(PATIENCE_S)


@pytest.fixture
def make() -> Generator[Callable[[int], Threads]]:
    made: list[Threads] = []

    def one(limit: int) -> Threads:
        made.append(Threads(limit, copy_context()))
        return made[-1]

    yield one
    for threads in made:
        threads.close()


def submit(threads: Threads, *jobs: Job) -> None:
    for job in jobs:
        threads.submit(job)


def test_jobs_run_beside_each_other_up_to_the_limit_and_the_others_wait(
    make: Callable[[int], Threads],
) -> None:
    threads, jobs = make(2), [Job(held=True) for _ in range(3)]
    submit(threads, *jobs)

    assert all(job.begun.wait(PATIENCE_S) for job in jobs[:2])
    assert not jobs[2].begun.is_set()
    jobs[0].let_end()

    assert jobs[2].begun.wait(PATIENCE_S)
    assert jobs[2].thread is jobs[0].thread
    for job in jobs[1:]:
        job.let_end()


def test_jobs_that_wait_run_in_order(make: Callable[[int], Threads]) -> None:
    threads, first, order = make(1), Job(held=True), list[int]()
    rest = [Job(lambda n=n: order.append(n)) for n in range(5)]  # type: ignore[misc]
    submit(threads, first, *rest)

    first.let_end()

    assert rest[-1].done.wait(PATIENCE_S)
    assert order == [0, 1, 2, 3, 4]


def test_a_thread_that_is_free_is_used_again(make: Callable[[int], Threads]) -> None:
    threads, first = make(8), Job()
    submit(threads, first)
    assert first.done.wait(PATIENCE_S)
    while not threads.idle:  # it is free a moment after its job has ended
        threading.Event().wait(0.001)

    second = Job()
    submit(threads, second)

    assert second.done.wait(PATIENCE_S)
    assert second.thread is first.thread


def test_threads_keep_no_process_from_ending(make: Callable[[int], Threads]) -> None:
    threads, job = make(1), Job()
    submit(threads, job)

    assert job.done.wait(PATIENCE_S)
    assert job.thread is not None
    assert job.thread.daemon


def test_each_job_has_a_context_of_its_own(make: Callable[[int], Threads]) -> None:
    seen: list[str] = []

    def work() -> None:
        seen.append(variable.get())
        variable.set("of the first job")

    variable.set("of the hub")
    threads, jobs = make(1), [Job(work), Job(work)]
    variable.set("later")
    submit(threads, *jobs)

    assert jobs[1].done.wait(PATIENCE_S)
    assert seen == ["of the hub", "of the hub"]


def test_what_no_thread_has_begun_is_taken_back_and_not_run(make: Callable[[int], Threads]) -> None:
    threads, first, waiting = make(1), Job(held=True), [Job(), Job()]
    submit(threads, first, *waiting)
    assert first.begun.wait(PATIENCE_S)

    taken = threads.take_back()
    again = threads.take_back()
    last = Job()
    submit(threads, last)
    first.let_end()

    assert last.done.wait(PATIENCE_S)
    assert (taken, again) == (waiting, [])
    assert not any(job.begun.is_set() for job in waiting)


def test_after_jobs_were_taken_back_new_ones_run_beside_each_other(
    make: Callable[[int], Threads],
) -> None:
    threads, held = make(2), [Job(held=True), Job(held=True)]
    submit(threads, *held, Job(), Job())
    assert all(job.begun.wait(PATIENCE_S) for job in held)
    threads.take_back()
    for job in held:
        job.let_end()

    both = [Job(held=True), Job(held=True)]
    submit(threads, *both)

    assert all(job.begun.wait(PATIENCE_S) for job in both)
    for job in both:
        job.let_end()


def test_a_thread_hit_by_an_exception_from_outside_goes_on(
    make: Callable[[int], Threads], caplog: pytest.LogCaptureFixture
) -> None:
    def hit() -> None:
        raise TimeoutError("raised into the thread")

    threads, first, second = make(1), Job(hit), Job()
    submit(threads, first, second)

    assert second.done.wait(PATIENCE_S)
    assert second.thread is first.thread
    assert "a worker thread was hit by TimeoutError" in caplog.text


class Scarce:
    """A system that gives so many threads and no more."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._start = threading.Thread.start

    def start(self, thread: threading.Thread) -> None:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        self._start(thread)


@pytest.mark.parametrize("left", [0, 1])
def test_where_the_system_gives_no_thread_those_that_there_are_do_the_work(
    left: int, make: Callable[[int], Threads], monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = Scarce(left)

    def start(thread: threading.Thread) -> None:
        scarce.start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    threads, jobs = make(4), [Job(held=True), Job()]

    if not left:
        with pytest.raises(RuntimeError):
            threads.submit(jobs[0])
        assert threads.take_back() == []  # it was refused, and waits nowhere
        return
    submit(threads, *jobs)
    jobs[0].let_end()

    assert jobs[1].done.wait(PATIENCE_S)


def test_closed_threads_end_when_they_have_nothing_to_do(make: Callable[[int], Threads]) -> None:
    threads, held, waiting = make(1), Job(held=True), Job()
    submit(threads, held, waiting)
    assert held.begun.wait(PATIENCE_S)

    threads.close()
    held.let_end()

    assert waiting.done.wait(PATIENCE_S)
    assert held.thread is not None
    held.thread.join(PATIENCE_S)
    assert not held.thread.is_alive()
