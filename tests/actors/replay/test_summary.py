"""What an execution says, in short, that it waits for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings, strategies as st

from perdure import App, OrchestrationContext
from perdure.actors.messages import Start
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay.execution import NOTHING, Summary
from perdure.actors.replay.summary import LOOKED_AT, summary_of
from tests.actors.orchestrations.flows import failed
from tests.actors.recording import FLOWS, PROGRAMS, START, Instance
from tests.actors.replay.test_executor import LOOKUP, live
from tests.actors.replay.test_waits import SECOND, waiting

app = App()


@app.activity
async def work(n: int) -> int: ...  # type: ignore[empty-body]


@app.activity
async def other(n: int) -> int: ...  # type: ignore[empty-body]


@app.orchestration
async def wide(ctx: OrchestrationContext, n: int) -> None:
    await ctx.task_all(
        [*(ctx.call_activity(work, 1) for _ in range(n)), ctx.call_activity(other, 1)]
    )


def of(*words: str, attempts: int | None = None) -> Summary:
    return orjson.dumps(sorted(words)), attempts


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("activity", ["activity:work"]),
        ("retried", ["activity:work"]),
        ("limited", ["activity:work"]),
        ("timer", ["timer"]),
        ("event", ["event:go"]),
        ("child", ["child"]),
        ("retried child", ["child"]),
        ("entity", ["entity:@thing@a"]),
        ("lock", ["lock:@thing@a", "lock:@thing@b"]),
        ("nested", ["activity:work", "event:go", "timer"]),
    ],
)
def test_what_is_waited_for_is_named_and_limits_are_not(kind: str, words: list[str]) -> None:
    with waiting(kind) as instance:
        assert instance.executor.summary() == of(*words)


@pytest.mark.parametrize("kind", ["retried", "retried child"])
def test_between_attempts_the_call_is_named_and_the_next_attempt_counts(kind: str) -> None:
    word = "activity:work" if kind == "retried" else "child"
    with waiting(kind) as instance:
        answer = failed(1, kind="Task" if kind == "retried" else "SubOrchestrationInstance")
        instance.take(answer, START + SECOND)
        assert instance.executor.summary() == of(word, attempts=2)


def test_of_many_things_the_oldest_are_looked_at() -> None:
    instance = Instance(Lookup(app, 1_000))
    with instance:
        instance.take(Start("wide", None, b"%d" % LOOKED_AT), START)
        assert instance.executor.summary() == of("activity:work")
    instance = Instance(Lookup(app, 1_000))
    with instance:
        instance.take(Start("wide", None, b"%d" % (LOOKED_AT - 1)), START)
        assert instance.executor.summary() == of("activity:work", "activity:other")


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_the_short_way_gives_what_the_long_one_does(flow: str, program: Any, seed: int) -> None:
    turns, _, _ = live(flow, program, seed)

    with Instance(LOOKUP) as instance:
        for message, now in turns:
            instance.take(message, now)
            executor = instance.executor
            if executor is not None:
                assert executor.summary() == summary_of(executor)
                if not executor.pending and executor.external is None:
                    assert executor.summary() is NOTHING
