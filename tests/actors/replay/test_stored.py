from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from perdure.actors.messages import (
    ActivityCall,
    Caller,
    Event,
    Message,
    Operation,
    Start,
    TimerDue,
    encode_call,
    encode_message,
)
from perdure.actors.replay.history import IDENTITY
from perdure.actors.replay.stored import (
    check_actor,
    check_call,
    read_call,
    read_history,
    read_message,
)
from perdure.storage.slices import at_once

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
NUMBERS = st.integers(0, 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda value: st.lists(value, max_size=3) | st.dictionaries(TEXTS, value, max_size=3),
    max_leaves=8,
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Operation, TEXTS, st.none() | JSON.map(orjson.dumps), st.booleans()),
    st.builds(Event, TEXTS, JSON.map(orjson.dumps)),
    st.builds(TimerDue, NUMBERS, NUMBERS),
    st.builds(
        Start,
        TEXTS,
        st.none() | TEXTS,
        st.none(),
        start_at=st.none() | st.integers(-(2**53), 2**53),
    ),
)


@given(MESSAGES, st.none() | TEXTS, st.none() | st.dictionaries(TEXTS, TEXTS, min_size=1))
def test_a_message_that_was_stored_is_read(
    message: Message, request: str | None, carried: dict[str, str] | None
) -> None:
    message.request, message.carried = request, carried
    stored = encode_message(message)

    for fields in (stored, orjson.loads(stored)):
        read = read_message(fields)
        assert encode_message(read) == stored
        assert (type(read), read.request, read.carried) == (type(message), request, carried)


@given(JSON)
def test_whatever_json_is_stored_is_a_message_or_a_value_error(stored: Any) -> None:
    several: list[Any] = [
        stored,
        ["event", "x", stored],
        [stored, 1, None],
        ["lock", stored, [], 1, None],
    ]
    for fields in several:
        try:
            read = read_message(orjson.dumps(fields))
        except ValueError:
            continue
        assert orjson.loads(encode_message(read))[0] == fields[0]


def test_a_start_before_the_epoch_is_one() -> None:
    message = Start("flow", None, None, start_at=-5)

    read = read_message(encode_message(message))

    assert isinstance(read, Start)
    assert read.start_at == -5


CALLER: list[Any] = ["i-1", 2, 3]


NO_MESSAGES: list[tuple[Any, ...]] = [
    (5, "it is no message"),
    ([], "it is no message"),
    (["event"], "it is no message"),
    ([1, "x"], "it is no message"),
    (["sing", None], "unknown kind 'sing'"),
    (["begin", None], "fields of this begin"),
    (["begin", -1, None], "fields of this begin"),
    (["begin", True, None], "fields of this begin"),
    (["begin", 1, 5], "request id of this begin"),
    (["begin", 1, None, {"user": 5}], "goes along with this begin"),
    (["begin", 1, None, {}], "goes along with this begin"),
    (["operation", "add", [1, 2], False, None, None], "fields of this operation"),
    (["operation", "add", 1, False, None, None], "fields of this operation"),
    (["operation", "add", [], 0, None, None], "fields of this operation"),
    (["operation", "add", [], False, ["i-1", 2], None], "fields of this operation"),
    (["operation", "add", [], False, [5, 2, 3], None], "fields of this operation"),
    (["operation", "add", [], False, ["i-1", 2.0, 3], None], "fields of this operation"),
    (["lock", CALLER, ["@a@b", 5], 0, None], "fields of this lock"),
    (["lock", None, [], 0, None], "fields of this lock"),
    (["completion", "TimerCreated", 1, 1, 5, None], "fields of this completion"),
    (["command", "sing", "", False, 0, False, None], "fields of this command"),
    (["start", "f", 5, [], None, [], None, "reject", None], "fields of this start"),
    (["start", "f", None, [], None, [], "now", "reject", None], "fields of this start"),
    (["timer", 1, None], "fields of this timer"),
    (["event", 5, None, None], "fields of this event"),
]


@pytest.mark.parametrize(
    ("fields", "reason"),
    NO_MESSAGES,
    ids=str,
)
def test_what_is_no_message_is_refused_with_what_is_wrong(fields: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_message(orjson.dumps(fields))


def test_a_message_whose_fields_cannot_be_put_together_is_none() -> None:
    no_failures: list[Any] = []

    with pytest.raises(ValueError, match="fields of this folded are not those of one: list index"):
        read_message(["folded", 1, 1, [], no_failures, None, None])


def test_fields_that_are_null_where_they_may_be_are_taken() -> None:
    read = read_message(["operation", "add", [None], True, CALLER, None])

    assert isinstance(read, Operation)
    assert (read.input, read.caller) == (b"null", Caller(*CALLER))


@pytest.mark.parametrize("key", ["i-1", "a@b", "@counter@a", "@@"])
def test_what_may_be_an_actors_key_is_one(key: str) -> None:
    assert check_actor(key) == key


@pytest.mark.parametrize("key", ["", "@counter", "@", None, 5, b"i-1"], ids=repr)
def test_what_is_no_actors_key_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="is no actor"):
        check_actor(key)


START = ["ExecutionStarted", 5, "flow", None, 1, None]


def history(*chunks: list[Any], count: int | None = None) -> list[list[Any]]:
    return at_once(read_history([orjson.dumps(chunk) for chunk in chunks], count))


def test_a_history_is_the_events_of_its_chunks() -> None:
    assert history([START], [["EventRaised", 6, "x", 1]], count=2)[1][0] == "EventRaised"
    assert history([START], count=None) == [START]
    assert history() == []


def test_reading_a_history_pauses_behind_each_chunk() -> None:
    reading = read_history([b"[]", b"[]", b"[]"], 0)

    assert len(list(reading)) == 3


@pytest.mark.parametrize("count", [1, 3])
def test_a_history_that_is_not_whole_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"its history has 2 events of {count}"):
        history([START], [START], count=count)


@pytest.mark.parametrize("chunk", [b"{", b"5", b"null", b"\xff"], ids=repr)
def test_a_chunk_that_is_no_json_of_events_is_refused(chunk: bytes) -> None:
    with pytest.raises(ValueError, match="its history is no JSON of events"):
        at_once(read_history([chunk], None))


@pytest.mark.parametrize(
    "event",
    [
        5,
        {},
        [],
        ["ExecutionStarted"],
        ["Sung", 5, 1],
        [5, 5],
        ["EventRaised", -1],
        ["EventRaised", 1.5],
        ["EventRaised", True],
        ["TaskCompleted", 5],
        ["TaskCompleted", 5, -1],
        ["TaskCompleted", 5, "1"],
        ["TaskScheduled", 5, 1, "work"],
        ["TaskScheduled", 5, "1", "work", 0],
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_with_its_place(event: Any) -> None:
    with pytest.raises(ValueError, match=r"^event 1 of its history is .*, which is none$"):
        history([START, event])


@pytest.mark.parametrize("kind", sorted(IDENTITY))
def test_a_decision_has_all_the_fields_that_identify_it(kind: Any) -> None:
    whole = [kind, 5, 1, *["x"] * (IDENTITY[kind] - 1)]

    assert history([whole]) == [whole]
    with pytest.raises(ValueError, match="event 0"):
        history([whole[:-1]])


CALL = ActivityCall(Caller("i", 1, 2), "work", b"7", 1.5, 1, {"a": "b"}, 2, {"user": "me"})


@pytest.mark.parametrize(
    "call",
    [CALL, ActivityCall(Caller("i", 1, 2), "work", None, None, 1, None, 2, None)],
    ids=["all of it", "as little as there may be"],
)
def test_a_stored_call_of_an_activity_is_read_back(call: ActivityCall) -> None:
    assert read_call(encode_call(call)) == call


def test_a_call_of_before_there_was_anything_that_goes_along_is_one() -> None:
    assert read_call(b'[["i",1,2],"work",[7],null,1,null,2]').carried is None


CALLERS: list[Any] = [(1, 1, 2), (None, 1, 2), (["i"], 1, 2), ("i", 1, "2")]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("caller", Caller(*wrong)) for wrong in CALLERS),
        *(("name", wrong) for wrong in (None, ["work"], 5)),
        ("input", "7"),
        *(("timeout", wrong) for wrong in ("1.5", -1, 0, True)),
        *(("attempt", wrong) for wrong in (None, "1", -1, 1.0)),
        *(("tags", wrong) for wrong in ([1], {"a": 1}, "a")),
        ("call", None),
        *(("carried", wrong) for wrong in (5, {"user": 5}, ["me"])),
    ],
    ids=str,
)
def test_what_is_no_call_of_an_activity_is_refused(field: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match="not those of one"):
        check_call(CALL._replace(**{field: wrong}))


@pytest.mark.parametrize("body", [b"{", b"5", b"[]", b'[["i",1,2],"work",7,null,1,null,2]'])
def test_what_has_not_the_form_of_a_call_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="it is no call of an activity"):
        read_call(body)
