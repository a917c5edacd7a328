"""The context of an orchestration: what its code sees, and what it asks for, as pure decisions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

import perdure
from perdure import App, EntityId, OrchestrationContext, RetryPolicy, Task, UsageError
from perdure.actors.errors import (
    InvalidIdError,
    InvalidTimeError,
    LockRuleError,
    PayloadError,
    PayloadTooLargeError,
    UnknownNameError,
)
from perdure.actors.messages import Completion, Event, Start, TimerDue
from perdure.actors.registry.lookup import Lookup
from tests.actors.recording import START, Instance

SECOND = 1_000_000

app = App()


@app.activity
def double(number: int) -> int:
    return 2 * number


@app.activity(retry=RetryPolicy(1.0, max_attempts=2), timeout=7)
def tried() -> int:
    return 1


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        return amount

    def get(self) -> int:
        return self.value


@app.entity(stripes=2)
class Spread:
    value: int = 0

    def merge(self, other: Spread) -> None:
        self.value += other.value

    @perdure.commutative
    def add(self, amount: int) -> None:
        self.value += amount


@app.orchestration(version="1")
async def child(ctx: OrchestrationContext, number: int) -> int:
    return number


Do = Callable[[OrchestrationContext], Any]

#: What the code of the instance does that a test begins.
doing: list[Do] = []


@app.orchestration(version="1")
async def flow(ctx: OrchestrationContext, input: Any = None) -> Any:
    made = doing[-1](ctx)
    await ctx.wait_for_external_event("end")
    return made


@app.orchestration(version="2", name="flow")
async def newer_flow(ctx: OrchestrationContext, number: int) -> int:
    return number


def begun(do: Do, input: bytes | None = b"null", limit: int = 1_000_000) -> Instance:
    """An instance after its first turn, in which its code does something and waits then."""
    doing.append(do)
    instance = Instance(Lookup(app, limit))
    start = Start("flow", "1", input)
    start.tags = orjson.dumps({"team": "blue"})
    instance.take(start, START)
    return instance


def asked(do: Do) -> list[Any]:
    """The decisions that it makes in the history, and that the code does not fail by them."""
    with begun(do) as instance:
        assert instance.actor.outcome is None, instance.actor.failure
        return instance.history[1:]


def seen(do: Do, **options: Any) -> Any:
    """What it gives."""
    found: list[Any] = []
    with begun(lambda ctx: found.append(do(ctx)), **options) as instance:
        assert instance.actor.outcome is None, instance.actor.failure
    return found[0]


def refuses(do: Do, kind: type[BaseException], match: str, **options: Any) -> None:
    """See that it is refused, and that nothing was decided by it."""

    def attempt(ctx: OrchestrationContext) -> None:
        with pytest.raises(kind, match=match):
            do(ctx)

    with begun(attempt, **options) as instance:
        assert instance.actor.outcome is None, instance.actor.failure
        assert [event[0] for event in instance.history] == ["ExecutionStarted"]


# What it sees.


def test_it_knows_whose_it_is() -> None:
    found = seen(lambda ctx: (ctx.instance_id, ctx.parent_instance_id, ctx.version, ctx.tags))

    assert found == ("x", None, "1", {"team": "blue"})


def test_its_time_is_that_of_the_event_which_let_it_run() -> None:
    assert seen(lambda ctx: ctx.current_utc_datetime) == datetime.fromtimestamp(START / SECOND, UTC)


def test_its_input_is_decoded() -> None:
    assert seen(lambda ctx: ctx.get_input(), input=b'{"a":[1]}') == {"a": [1]}


def test_its_uuids_and_random_numbers_are_the_same_in_each_life_and_differ_from_one_another() -> (
    None
):
    def draw(ctx: OrchestrationContext) -> tuple[Any, ...]:
        return ctx.new_uuid(), ctx.new_uuid(), ctx.random.random(), ctx.random.random()

    first, again = seen(draw), seen(draw)

    assert first == again
    assert len(set(first)) == 4
    assert first[0].version == 5


def test_its_logger_says_whose_it_is_and_is_silent_in_a_replay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replaying: list[bool] = []

    def log(ctx: OrchestrationContext) -> None:
        replaying.append(ctx.is_replaying)
        assert ctx.logger is ctx.logger
        ctx.logger.info("here")

    with caplog.at_level(logging.INFO), begun(log) as instance:
        [record] = caplog.records
        with instance.restored():
            assert caplog.records == [record]

    assert (record.name, record.getMessage()) == ("perdure.orchestrations.flow", "here")
    assert replaying == [False, True]


def test_its_custom_status_is_shown_as_json() -> None:
    with begun(lambda ctx: ctx.set_custom_status({"at": [1]})) as instance:
        assert instance.actor.custom_status == b'{"at":[1]}'


def test_a_custom_status_that_is_too_large_or_no_json_is_refused() -> None:
    refuses(
        lambda ctx: ctx.set_custom_status("x" * 200),
        PayloadTooLargeError,
        "custom status",
        limit=100,
    )
    refuses(lambda ctx: ctx.set_custom_status(object()), PayloadError, "object")


# What it calls.


def test_an_activity_is_asked_for_with_its_input_and_what_was_said_of_the_call() -> None:
    [event] = asked(
        lambda ctx: ctx.call_activity(double, 3, timeout=5, tags={"a": "b"}, summary="three")
    )

    kind, _, number, name, _, packed, timeout, attempt, tags, first, summary = event
    assert (kind, number, name, packed) == ("TaskScheduled", 1, "double", [3])
    assert (timeout, attempt, tags, first, summary) == (5, 1, {"a": "b"}, 1, "three")


def test_an_activity_has_the_policy_and_the_timeout_of_its_own_unless_others_are_given() -> None:
    def failed(**options: Any) -> tuple[list[str], float]:
        with begun(lambda ctx: ctx.call_activity(tried, **options)) as instance:
            failure = b'["ValueError","no","",null,false]'
            instance.take(Completion("TaskFailed", 1, 1, failure), START + 1)
            return [event[0] for event in instance.history[1:]], instance.history[1][6]

    own, given = failed(), failed(retry=RetryPolicy(1, max_attempts=1), timeout=2)

    assert [own, given] == [
        (["TaskScheduled", "TaskFailed", "TimerCreated"], 7),
        (["TaskScheduled", "TaskFailed"], 2),
    ]


@pytest.mark.parametrize(
    ("policy", "given", "due"), [(None, 4, 4), (9, None, 9), (9, 4, 4), (3, 4, 3)]
)
def test_the_shorter_limit_on_all_attempts_counts(
    policy: float | None, given: float | None, due: int
) -> None:
    retry = RetryPolicy(1, max_attempts=3, timeout=policy)

    events = asked(lambda ctx: ctx.call_activity(double, 1, retry=retry, overall_timeout=given))

    assert [(event[0], event[3]) for event in events] == [
        ("TaskScheduled", "double"),
        ("TimerCreated", START + due * SECOND),
    ]


def test_a_call_that_is_not_tried_again_may_be_limited_as_well() -> None:
    events = asked(lambda ctx: ctx.call_activity(double, 1, overall_timeout=4))

    assert [event[0] for event in events] == ["TaskScheduled", "TimerCreated"]


def test_a_child_is_asked_for_under_an_id_beside_its_parent_or_the_one_given() -> None:
    made, named = asked(
        lambda ctx: (
            ctx.call_sub_orchestrator(child, 3),
            ctx.call_sub_orchestrator("child", 4, instance_id="mine", version="1"),
        )
    )

    assert (made[0], made[3], made[5], made[6]) == (
        "SubOrchestrationInstanceCreated",
        "child",
        "x::1.1",
        "1",
    )
    assert (named[5], named[6], named[7]) == ("mine", "1", 4)


def test_a_child_that_fails_is_tried_again_by_its_policy() -> None:
    retry = RetryPolicy(1, max_attempts=2)
    with begun(lambda ctx: ctx.call_sub_orchestrator(child, 3, retry=retry)) as instance:
        failure = b'["ValueError","no","",null,false]'
        instance.take(Completion("SubOrchestrationInstanceFailed", 1, 1, failure), START + 1)
        instance.take(TimerDue(1, 2), START + 2 * SECOND)

        ids = [event[5] for event in instance.history if len(event) > 5 and "Created" in event[0]]
        assert ids == ["x::1.1", "x::1.3"]


def test_an_entity_is_called_and_signalled_by_its_operations() -> None:
    id = EntityId(Counter, "a")

    call, signal, later = asked(
        lambda ctx: (
            ctx.call_entity(id, Counter.add, 3),
            ctx.signal_entity(id, "get"),
            ctx.signal_entity(id, Counter.add, 4, at=timedelta(seconds=9)),
        )
    )

    assert (call[0], call[3:5], call[6]) == ("EntityOperationCalled", ["@counter@a", "add"], 3)
    assert (signal[0], signal[3:5], signal[6]) == (
        "EntityOperationSignaled",
        ["@counter@a", "get"],
        None,
    )
    assert (later[6], later[7]) == (START + 9 * SECOND, 4)


def test_entities_are_locked_in_order_whether_they_are_named_one_by_one_or_in_a_list() -> None:
    a, b = EntityId(Counter, "a"), EntityId(Counter, "b")

    for [event] in (
        asked(lambda ctx: ctx.lock_entities(b, a)),
        asked(lambda ctx: ctx.lock_entities([b, a])),
    ):
        assert (event[0], event[3]) == ("EntityLockRequested", ["@counter@a", "@counter@b"])


def test_a_timer_is_due_at_a_time_or_after_a_while() -> None:
    when = datetime.fromtimestamp(START / SECOND + 60, UTC)

    events = asked(lambda ctx: [ctx.create_timer(one) for one in (when, timedelta(seconds=2), 0.5)])

    assert [event[3] - START for event in events] == [60 * SECOND, 2 * SECOND, SECOND // 2]


def test_an_event_is_sent_by_a_name_whose_case_does_not_matter() -> None:
    [event] = asked(lambda ctx: ctx.send_event("other", "Paid", [1]))

    assert (event[0], event[3], event[4].casefold(), event[6]) == (
        "EventSent",
        "other",
        "paid",
        [1],
    )


@pytest.mark.parametrize(
    ("data_type", "data", "expected"), [(None, b'{"a":1}', {"a": 1}), (int, b"7", 7)]
)
def test_an_event_is_waited_for_with_its_type(data_type: Any, data: bytes, expected: Any) -> None:
    waits: list[Any] = []

    def wait(ctx: OrchestrationContext) -> None:
        waits.append(ctx.wait_for_external_event("Go", data_type=data_type, timeout=5))

    with begun(wait) as instance:
        assert instance.history[1][0] == "TimerCreated"
        instance.take(Event("go", data), START + 1)
        assert waits[0].result == expected


# Together.


def test_a_wait_goes_by_the_name_that_the_code_gave_it() -> None:
    wait = seen(lambda ctx: ctx.wait_for_external_event("Paid"))

    assert (wait.name, wait.title) == ("paid", "Paid")


def test_what_is_made_of_an_execution_belongs_to_it() -> None:
    made = seen(
        lambda ctx: (
            ctx.call_entity(EntityId(Counter, "a"), Counter.get),
            ctx.lock_entities(EntityId(Counter, "b")),
            ctx.create_task_group(),
            ctx.shield(),
            ctx.fail_after(5),
            ctx.move_on_after(5),
        )
    )

    assert [type(one).__name__ for one in made] == [
        *("CallTask", "EntityLock", "TaskGroup", "Shield", "CancelScope", "CancelScope")
    ]


def test_tasks_are_waited_for_together() -> None:
    made: list[Any] = []

    def together(ctx: OrchestrationContext) -> None:
        tasks = [ctx.call_activity(double, number) for number in range(2)]
        made.extend((ctx.task_all(tasks), ctx.task_any(tasks), tasks))

    with begun(together) as instance:
        instance.take(Completion("TaskCompleted", 1, 2, b"20"), START + 1)
        assert made[1].result is made[2][1]
        assert not made[0].is_completed
        instance.take(Completion("TaskCompleted", 1, 1, b"10"), START + 2)
        assert made[0].result == [10, 20]


def test_the_losers_of_a_race_are_given_up_where_that_is_asked_for() -> None:
    made: list[Any] = []

    def race(ctx: OrchestrationContext) -> None:
        tasks = [ctx.call_activity(double, number) for number in range(2)]
        made.extend((ctx.task_any(tasks, cancel_losers=True), tasks))

    with begun(race) as instance:
        instance.take(Completion("TaskCompleted", 1, 2, b"20"), START + 1)

    assert made[1][0].is_cancelled


def test_only_tasks_of_its_own_are_waited_for_together() -> None:
    others: list[Any] = []
    with begun(lambda ctx: others.append(ctx.create_timer(5))):
        refuses(lambda ctx: ctx.task_all(others), UsageError, "no task of this orchestration")
    wrong: Any = [7]
    refuses(lambda ctx: ctx.task_all(wrong), UsageError, "no task of this orchestration")
    refuses(lambda ctx: ctx.task_any([]), UsageError, "task_any needs one")


# Its end.


def test_it_goes_on_anew_with_another_input_and_version() -> None:
    def go_on(ctx: OrchestrationContext) -> None:
        assert not ctx.will_continue_as_new
        ctx.continue_as_new(5, version="2")
        assert ctx.will_continue_as_new

    with begun(go_on) as instance:
        instance.take(Event("end", b"null"), START + 1)

        assert (instance.actor.execution, instance.actor.version, instance.actor.input) == (
            2,
            "2",
            b"5",
        )


# What is refused.

WRONG: Any = 7

REFUSED: list[tuple[str, Do, type[BaseException], str]] = [
    ("unknown activity", lambda ctx: ctx.call_activity("none"), UnknownNameError, "none"),
    ("wrong input", lambda ctx: ctx.call_activity("double", "x"), PayloadError, "int"),
    (
        "no timeout",
        lambda ctx: ctx.call_activity(double, 1, timeout=-1),
        InvalidTimeError,
        "timeout",
    ),
    (
        "no policy",
        lambda ctx: ctx.call_activity(double, 1, retry=WRONG),
        UsageError,
        "RetryPolicy",
    ),
    (
        "no summary",
        lambda ctx: ctx.call_activity(double, 1, summary="a\ud800"),
        UsageError,
        "summary",
    ),
    (
        "no flag",
        lambda ctx: ctx.task_any([], cancel_losers=WRONG),
        UsageError,
        "cancel_losers",
    ),
    ("unknown child", lambda ctx: ctx.call_sub_orchestrator("none"), UnknownNameError, "none"),
    (
        "bad child id",
        lambda ctx: ctx.call_sub_orchestrator(child, 1, instance_id=""),
        InvalidIdError,
        "id",
    ),
    ("past", lambda ctx: ctx.create_timer(-1), InvalidTimeError, "when"),
    ("naive", lambda ctx: ctx.create_timer(datetime(2030, 1, 1)), InvalidTimeError, "aware"),  # noqa: DTZ001
    (
        "unknown operation",
        lambda ctx: ctx.call_entity(EntityId(Counter, "a"), "none"),
        UnknownNameError,
        "none",
    ),
    (
        "striped",
        lambda ctx: ctx.lock_entities(EntityId(Spread, "a")),
        LockRuleError,
        "striped",
    ),
    ("no entities", lambda ctx: ctx.lock_entities(), UsageError, "at least one"),
    ("bad target", lambda ctx: ctx.send_event("", "go"), InvalidIdError, "id"),
    ("no version", lambda ctx: ctx.continue_as_new(version="9"), UnknownNameError, "9"),
]


@pytest.mark.parametrize(
    ("do", "kind", "match"), [pytest.param(*one[1:], id=one[0]) for one in REFUSED]
)
def test_what_cannot_be_is_refused_where_it_is_asked_for(
    do: Do, kind: type[BaseException], match: str
) -> None:
    refuses(do, kind, match)


def test_it_is_for_its_own_code_alone_while_that_runs() -> None:
    kept: list[OrchestrationContext] = []
    with begun(kept.append):
        uses: list[Do] = [
            lambda ctx: ctx.new_uuid(),
            lambda ctx: ctx.set_custom_status(1),
            lambda ctx: ctx.create_timer(1),
            lambda ctx: ctx.task_all(list[Task[int]]()),
            lambda ctx: ctx.continue_as_new(),
        ]
        for do in uses:
            with pytest.raises(UsageError, match="while the code of that instance does not run"):
                do(kept[0])
