from __future__ import annotations

from perdure.actors.contexts.activity import ActivityContext
from perdure.actors.messages import ActivityCall, Caller

CALL = ActivityCall(Caller("i-1", 2, 3), "work", b"1", None, 4, {"a": "b"}, 1)


def test_it_tells_of_the_call_that_it_is_for() -> None:
    context = ActivityContext(CALL)

    assert (context.instance_id, context.task_id, context.name) == ("i-1", 3, "work")
    assert (context.attempt, dict(context.tags)) == (4, {"a": "b"})
    assert dict(ActivityContext(CALL._replace(tags=None)).tags) == {}


def test_its_key_is_the_same_for_all_attempts_of_one_call_and_for_no_other() -> None:
    key = ActivityContext(CALL).idempotency_key
    again = CALL._replace(caller=CALL.caller._replace(task=9), attempt=5)

    assert ActivityContext(again).idempotency_key == key
    others = [
        CALL._replace(call=2),
        CALL._replace(caller=CALL.caller._replace(execution=3)),
        CALL._replace(caller=CALL.caller._replace(instance_id="i-2")),
    ]
    assert len({key, *(ActivityContext(other).idempotency_key for other in others)}) == 4


def test_it_knows_how_far_it_is_and_whether_it_is_wanted() -> None:
    context = ActivityContext(CALL)
    seen: list[object] = [context.progress, context.cancelled]

    context.heartbeat({"done": 5})
    context.cancel()

    assert [*seen, context.progress, context.cancelled] == [None, False, {"done": 5}, True]
