"""What is read off live code: what each strand waits for, at which line; and off a history alone."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from perdure import App, EntityId, OrchestrationContext, RetryPolicy
from perdure.actors.messages import Start
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay.trace import Tracer
from perdure.actors.replay.waits import Branch, OpenTask, Wait, branches_of, open_tasks, unanswered
from perdure.storage.slices import at_once
from tests.actors.orchestrations.flows import failed
from tests.actors.recording import FLOWS, PROGRAMS, START, Instance
from tests.actors.replay.test_executor import LOOKUP, live

app = App()
SECOND = 1_000_000
ONE = timedelta(seconds=1)


@app.entity
class Thing:
    value: int = 0

    def add(self, n: int) -> None: ...


A, B = EntityId(Thing, "a"), EntityId(Thing, "b")


@app.activity
async def work(n: int) -> int: ...  # type: ignore[empty-body]


@app.orchestration
async def child(ctx: OrchestrationContext) -> None: ...


@app.orchestration
async def waits_for(ctx: OrchestrationContext, kind: str) -> None:
    retry = RetryPolicy(first_interval=1.0, max_attempts=3)
    if kind == "lock":
        async with ctx.lock_entities(B, A):
            pass
    if kind == "nested":
        inner = ctx.task_all([ctx.call_activity(work, 1), ctx.create_timer(ONE)])
        await ctx.task_any([inner, ctx.wait_for_external_event("go")])
    tasks: dict[str, Any] = {
        "activity": lambda: ctx.call_activity(work, 1),
        "retried": lambda: ctx.call_activity(work, 1, retry=retry),
        "retried child": lambda: ctx.call_sub_orchestrator(child, instance_id="c", retry=retry),
        "limited": lambda: ctx.call_activity(work, 1, overall_timeout=9),
        "timer": lambda: ctx.create_timer(ONE),
        "event": lambda: ctx.wait_for_external_event("Go", timeout=5),
        "child": lambda: ctx.call_sub_orchestrator(child, instance_id="c"),
        "entity": lambda: ctx.call_entity(A, Thing.add, 1),
    }
    await tasks[kind]()


@app.orchestration
def waits_by_yield(ctx: OrchestrationContext, kind: str) -> Generator[Any, Any, None]:
    yield ctx.call_activity(work, 1)


def waiting(kind: str, flow: str = "waits_for") -> Instance:
    instance = Instance(Lookup(app, 1_000))
    instance.take(Start(flow, None, b'"%b"' % kind.encode()), START)
    return instance


def only(instance: Instance) -> Branch:
    [branch] = branches_of(instance.executor, 10)
    return branch


@pytest.mark.parametrize(
    ("kind", "wait"),
    [
        ("activity", Wait("activity", 1, "work")),
        ("retried", Wait("activity", 1, "work")),
        ("limited", Wait("activity", 1, "work")),
        ("timer", Wait("timer", 1)),
        ("event", Wait("event", None, "Go")),
        ("child", Wait("child", 1, "c")),
        ("retried child", Wait("child", 1, "c")),
        ("entity", Wait("entity", 1, "@thing@a.add")),
        ("lock", Wait("lock", 1, "@thing@a, @thing@b")),
        (
            "nested",
            Wait(
                "any",
                size=2,
                parts=(
                    Wait("all", size=2, parts=(Wait("activity", 1, "work"), Wait("timer", 2))),
                    Wait("event", None, "go"),
                ),
            ),
        ),
    ],
)
def test_what_a_strand_waits_for_is_named(kind: str, wait: Wait) -> None:
    with waiting(kind) as instance:
        assert only(instance).wait == wait


def test_a_generator_waits_for_the_same() -> None:
    with waiting("activity", "waits_by_yield") as instance:
        branch = only(instance)

        assert branch.wait == Wait("activity", 1, "work")
        assert [line.function for line in branch.lines] == ["waits_by_yield"]


@pytest.mark.parametrize("kind", ["retried", "retried child"])
def test_between_two_attempts_the_call_is_named_that_failed(kind: str) -> None:
    with waiting(kind) as instance:
        answer = failed(1, kind="Task" if kind == "retried" else "SubOrchestrationInstance")
        instance.take(answer, START + SECOND)
        [task] = at_once(open_tasks(instance.executor))

        wait = only(instance).wait
        assert wait is not None
        assert (wait.number, task.number, task.purpose) == (1, 2, "retry")
        assert task.retrying is not None
        assert (task.retrying.attempts, task.retrying.attempts_max) == (1, 3)
        assert task.retrying.due == START + 2 * SECOND
        assert task.retrying.failure is not None


@pytest.mark.parametrize(
    ("kind", "purposes"),
    [("timer", ["timer"]), ("event", ["event_timeout"]), ("limited", ["overall_timeout"])],
)
def test_a_timer_is_told_with_what_it_is_for(kind: str, purposes: list[str]) -> None:
    with waiting(kind) as instance:
        tasks = at_once(open_tasks(instance.executor))
        timers = {n for n, task in instance.executor.pending.items() if hasattr(task, "due")}

        assert [task.purpose for task in tasks if task.number in timers] == purposes


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_a_look_at_live_code_finds_what_is_pending_and_changes_nothing(
    flow: str, program: Any, seed: int
) -> None:
    turns, states, effects = live(flow, program, seed)

    with Instance(LOOKUP) as instance:
        for index, (message, now) in enumerate(turns):
            assert instance.take(message, now) == effects[index]
            executor = instance.executor
            if executor is not None:
                found = {task.number for task in at_once(open_tasks(executor))}
                assert found == set(executor.pending)
                branches = branches_of(executor, 1_000)
                assert len(branches) == executor.fiber_count
                assert all(branch.wait is not None and branch.lines for branch in branches)
                # The history alone has what was given up, too.
                alone = {task.number for task in at_once(unanswered(instance.history))}
                assert {number for number in found if number < 1 << 32} <= alone
            assert {**instance.state(), "history": instance.history} == states[index]


@settings()
@given(flow=FLOWS, program=PROGRAMS, seed=st.integers(0, 2**32))
def test_each_step_of_a_trace_is_what_the_instance_was_then(
    flow: str, program: Any, seed: int
) -> None:
    turns, _, _ = live(flow, program, seed)
    lived: dict[int, tuple[list[Branch], list[OpenTask]]] = {}
    history: list[list[Any]] = []
    with Instance(LOOKUP) as instance:
        for message, now in turns:
            before = len(instance.history)
            instance.take(message, now)
            if instance.history[:before] != history:
                lived = {}  # it went on as new
            history = [*instance.history]
            executor = instance.executor
            if executor is not None and len(history) > before:
                opened = at_once(open_tasks(executor))
                lived[len(history)] = branches_of(executor, 20), opened[:50]
        if not instance.actor.begun:
            return
        tracer: Tracer = instance.actor.new_tracer()
        trace = at_once(tracer.follow(instance.history, instance.actor.input, 0, 10_000))

    assert trace.trouble is None
    traced = {step.decided: (step.branches, step.open) for step in trace.steps}
    for decided, what in lived.items():
        assert traced[decided] == what
