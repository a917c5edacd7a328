"""Threads, sleeping, and what else holds the event loop that the turn runs on."""

from __future__ import annotations

from typing import ClassVar

from .outside import Outside, OutsideRule, table

_ACTIVITY = "do it in an activity, which may be a plain function and then runs in a thread"
_ENTITY = "let an orchestration do it in an activity and pass in the result"
_OWN = (
    "nothing else runs in an instance's code meanwhile, so leave it out; share state in an entity"
)
_THREADS = Outside("runs code in a thread", _ACTIVITY, _ENTITY, is_whole=True, awaitable=True)
_LOCK = Outside(
    "belongs to threads", _OWN, "one operation runs at a time, so leave it out", is_whole=True
)
_LOCAL = Outside("belongs to a thread", _OWN)

_TIMER = "use `ctx.create_timer(timedelta(...))`"
_HOLDS = "holds the event loop with all its actors"
_LATER = "signal the entity itself, with at=timedelta(...)"
_SLEEP = Outside(_HOLDS, _TIMER, _LATER)
_LOOP_SLEEP = Outside("is no durable timer", _TIMER)

_BLOCK = Outside(_HOLDS, _ACTIVITY, _ENTITY, awaitable=True)
_ASK = Outside(
    "waits for a person",
    "use `ctx.wait_for_external_event(name)`",
    "let an orchestration wait for an event, and call this operation then",
)
_RUN = Outside("starts an event loop in a turn", "await it, or do it in an activity", "await it")


class Threads(OutsideRule):
    """Threads, executors, and locks of threads."""

    code = "PDU008"
    title = "A thread, or a lock of threads, is used"
    names: ClassVar = {
        **table("Thread Timer", _THREADS, "threading."),
        **table(
            "Lock RLock Condition Semaphore BoundedSemaphore Event Barrier", _LOCK, "threading."
        ),
        "threading.local": _LOCAL,
        **table("start_new_thread start_new", _THREADS, "_thread."),
        **table("ThreadPoolExecutor ProcessPoolExecutor Executor", _THREADS, "concurrent.futures."),
        "multiprocessing.pool.ThreadPool": _THREADS,
        "multiprocessing.dummy": _THREADS,
        **table("Lock RLock Event Queue Manager", _LOCK, "multiprocessing."),
        "asyncio.to_thread": _THREADS,
        **table("run_in_executor", _THREADS, "asyncio.AbstractEventLoop."),
        "anyio.to_thread": _THREADS,
        "anyio.from_thread": _THREADS,
        "trio.to_thread": _THREADS,
        "trio.from_thread": _THREADS,
        "asgiref.sync.sync_to_async": _THREADS,
        **table("run_in_threadpool", _THREADS, "starlette.concurrency."),
        **table("run_in_threadpool", _THREADS, "fastapi.concurrency."),
        "joblib.Parallel": _THREADS,
    }


class Sleeping(OutsideRule):
    """Waiting for a time by other means than a durable timer."""

    code = "PDU009"
    title = "Sleeping, instead of a durable timer"
    names: ClassVar = {
        "time.sleep": _SLEEP,
        "gevent.sleep": _SLEEP,
        "eventlet.sleep": _SLEEP,
        "asyncio.sleep": _LOOP_SLEEP,
        **table("sleep sleep_until sleep_forever", _LOOP_SLEEP, "anyio."),
        **table("sleep sleep_until sleep_forever", _LOOP_SLEEP, "trio."),
    }


class Blocking(OutsideRule):
    """Calls that hold the event loop."""

    code = "PDU010"
    title = "A call holds the event loop"
    names: ClassVar = {
        "builtins.input": _ASK,
        "getpass.getpass": _ASK,
        **table(
            "Queue.get Queue.put Queue.join SimpleQueue.get LifoQueue.get PriorityQueue.get",
            _BLOCK,
            "queue.",
        ),
        **table("Future.result Future.exception wait as_completed", _BLOCK, "concurrent.futures."),
        **table("select poll epoll kqueue", _BLOCK, "select."),
        "selectors": Outside(_HOLDS, _ACTIVITY, _ENTITY, is_whole=True),
        **table("pause sigwait sigwaitinfo sigtimedwait", _BLOCK, "signal."),
        "asyncio.run": _RUN,
        "asyncio.Runner": _RUN,
        "anyio.run": _RUN,
        "trio.run": _RUN,
        "perdure.run": _RUN,
        "asgiref.sync.async_to_sync": _RUN,
        **table("run_until_complete run_forever", _RUN, "asyncio.AbstractEventLoop."),
        "builtins.breakpoint": _BLOCK,
        "pdb.set_trace": _BLOCK,
    }
