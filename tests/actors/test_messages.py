"""The durable form of messages: what is written is what is read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import InternalError
from perdure.actors.messages import (
    Begin,
    Caller,
    Command,
    Completion,
    Event,
    Fold,
    Folded,
    Fork,
    LockRelease,
    LockRequest,
    Message,
    Operation,
    Run,
    Start,
    TimerDue,
    decode_message,
    encode_message,
    read_run,
)

TEXTS = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(0, 2**62)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS | st.floats(-1e9, 1e9),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(TEXTS, value, max_size=3),
    max_leaves=5,
)
PAYLOADS = VALUES.map(orjson.dumps)
INPUTS = st.none() | PAYLOADS
CALLERS = st.builds(Caller, TEXTS, NUMBERS, NUMBERS)
ENTITIES = st.lists(TEXTS, max_size=3)
TAGS = st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3).map(orjson.dumps)

MESSAGES: dict[str, st.SearchStrategy[Message]] = {
    "operation": st.builds(Operation, TEXTS, INPUTS, st.booleans(), st.none() | CALLERS),
    "lock": st.builds(LockRequest, CALLERS, ENTITIES, NUMBERS),
    "unlock": st.builds(LockRelease, CALLERS, ENTITIES, st.integers(-1, 9)),
    "fold": st.builds(Fold, NUMBERS, st.booleans()),
    "folded": st.builds(
        Folded,
        NUMBERS,
        NUMBERS,
        INPUTS,
        st.none() | st.tuples(NUMBERS, st.lists(VALUES, max_size=3)),
        st.none() | st.tuples(TEXTS, TEXTS),
    ),
    "fork": st.builds(
        Fork,
        TEXTS,
        st.none() | TEXTS,
        INPUTS,
        TEXTS,
        st.integers(0, 2**53),
        st.lists(VALUES, max_size=3).map(lambda events: [orjson.dumps(events)]),
        tags=TAGS,
    ),
    "start": st.builds(
        Start,
        TEXTS,
        st.none() | TEXTS,
        INPUTS,
        parent=st.none() | CALLERS,
        tags=TAGS,
        start_at=st.none() | NUMBERS,
        on_existing=st.sampled_from(["reject", "reuse", "replace"]),
    ),
    "begin": st.builds(Begin, NUMBERS),
    "completion": st.builds(
        Completion,
        *(TEXTS, NUMBERS, NUMBERS, PAYLOADS),
        st.none() | st.tuples(st.none() | NUMBERS, NUMBERS),
    ),
    "timer": st.builds(TimerDue, NUMBERS, NUMBERS),
    "event": st.builds(Event, TEXTS, PAYLOADS),
    "command": st.builds(Command, TEXTS, TEXTS, st.booleans(), NUMBERS, st.booleans()),
}

TRANSIENT = {"begun", "row", "timer", "keep", "reply", "loaded", "target"}


def fields(message: Message) -> dict[str, Any]:
    """What of a message is durable."""
    names = {name for cls in type(message).__mro__ for name in getattr(cls, "__slots__", ())}
    return {name: getattr(message, name) for name in names - TRANSIENT}


@pytest.mark.parametrize("tag", sorted(MESSAGES))
@given(data=st.data())
def test_a_message_is_read_back_as_it_was_written(tag: str, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[tag])
    message.request = data.draw(st.none() | TEXTS)
    message.carried = data.draw(st.none() | st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=3))

    stored = encode_message(message)
    again = decode_message(orjson.loads(stored))

    assert orjson.loads(stored)[0] == tag
    assert type(again) is type(message)
    assert fields(again) == fields(message)
    assert encode_message(again) == stored


@pytest.mark.parametrize("tag", sorted(MESSAGES))
@given(data=st.data())
def test_how_a_message_stands_with_durability_is_not_part_of_it(
    tag: str, data: st.DataObject
) -> None:
    message = data.draw(MESSAGES[tag])
    plain = encode_message(message)
    message.row, message.timer, message.keep, message.reply = 7, 8, True, object()

    again = decode_message(orjson.loads(encode_message(message)))

    assert encode_message(message) == plain
    assert (again.row, again.timer, again.keep, again.reply) == (0, 0, False, None)


@pytest.mark.parametrize("tag", sorted(MESSAGES))
@given(data=st.data())
def test_a_messages_size_is_that_of_its_payload(tag: str, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[tag])

    payloads = [getattr(message, name, None) for name in ("input", "data", "body", "state")]
    payloads += getattr(message, "history", ())

    assert message.size == sum(len(payload) for payload in payloads if payload is not None)


def test_no_input_and_null_are_different() -> None:
    nothing, null = Operation("op", None), Operation("op", b"null")

    again = [decode_message(orjson.loads(encode_message(m))) for m in (nothing, null)]

    assert [m.input for m in again if isinstance(m, Operation)] == [None, b"null"]


def test_a_message_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InternalError, match="'telegram'"):
        decode_message(["telegram", 1, None])


@pytest.mark.parametrize("ran", [None, (1_700_000_000_000_000, 3), (None, 3)])
def test_an_answer_keeps_when_and_where_its_attempt_ran(ran: Run | None) -> None:
    answer = Completion("TaskCompleted", 1, 2, b"5", ran)

    again = decode_message(orjson.loads(encode_message(answer)))

    assert isinstance(again, Completion)
    assert (again.ran, again.body) == (ran, b"5")


@pytest.mark.parametrize(
    "fields", [[], [5], ["x", 1], [1, None], [None, None], [True, 1], [1.5, 1]]
)
def test_what_does_not_say_when_and_where_an_attempt_ran_is_passed_over(fields: list[Any]) -> None:
    assert read_run(fields) is None


def test_the_parts_of_a_forks_history_are_stored_as_one() -> None:
    fork = Fork("f", None, None, "x", 2, [b"[[1],[2]]", b"[]", b"[[3]]"])

    again = decode_message(orjson.loads(encode_message(fork)))

    assert isinstance(again, Fork)
    assert again.history == [b"[[1],[2],[3]]"]
