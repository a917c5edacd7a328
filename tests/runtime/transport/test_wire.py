from __future__ import annotations

from typing import Any, cast

import attrs
import orjson
import pytest
from hypothesis import given, strategies as st

from perdure import InternalError, PerdureError, RuntimeStatus
from perdure.actors import errors
from perdure.actors.errors import FailureDetails
from perdure.actors.messages import (
    Begin,
    Caller,
    Command,
    Completion,
    Event,
    Fold,
    Folded,
    LockRelease,
    LockRequest,
    Message,
    Operation,
    Start,
    TimerDue,
)
from perdure.runtime.placement.places import FRAME_MESSAGES_MAX, Frame, LineLostError, MovedError
from perdure.runtime.transport.verbs import VERBS
from perdure.runtime.transport.wire import SIZE_MAX, Item, Splitter, encode
from perdure.storage import EntityFilter, EntityRow, InstanceFilter, InstanceRecord

TEXTS = st.text(max_size=8)
NUMBERS = st.integers(0, 2**53)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PAYLOADS = VALUES.map(orjson.dumps)
PAYLOADS_OR_NONE = st.none() | PAYLOADS
CALLERS = st.builds(Caller, TEXTS, NUMBERS, NUMBERS)
TEXTS_OR_NONE = st.none() | TEXTS
NUMBERS_OR_NONE = st.none() | NUMBERS


def with_request(message: Message, request: str | None) -> Message:
    message.request = request
    return message


MESSAGES = st.builds(
    with_request,
    st.one_of(
        st.builds(Operation, TEXTS, PAYLOADS_OR_NONE, st.booleans(), st.none() | CALLERS),
        st.builds(LockRequest, CALLERS, st.lists(TEXTS), NUMBERS),
        st.builds(LockRelease, CALLERS, st.lists(TEXTS), st.integers(-1, 9)),
        st.builds(
            Start,
            TEXTS,
            TEXTS_OR_NONE,
            PAYLOADS_OR_NONE,
            parent=st.none() | CALLERS,
            tags=PAYLOADS_OR_NONE,
            start_at=NUMBERS_OR_NONE,
            on_existing=TEXTS,
        ),
        st.builds(Begin, NUMBERS),
        st.builds(Completion, TEXTS, NUMBERS, NUMBERS, PAYLOADS),
        st.builds(TimerDue, NUMBERS, NUMBERS),
        st.builds(Event, TEXTS, PAYLOADS),
        st.builds(Fold, NUMBERS, st.booleans()),
        st.builds(Folded, NUMBERS, NUMBERS, PAYLOADS_OR_NONE),
        st.builds(Command, TEXTS, TEXTS, st.booleans(), NUMBERS, st.booleans()),
    ),
    TEXTS_OR_NONE,
)
PARCELS = st.lists(st.tuples(TEXTS, MESSAGES), min_size=1, max_size=4)


def frame_of(n: int, last: int, parcels: list[tuple[str, Message]]) -> Frame:
    rows = [[key, *message.content(), message.request] for key, message in parcels]
    return Frame(n, last, orjson.dumps(rows), parcels)


def instance_filter(statuses: list[RuntimeStatus], after: tuple[int, str] | None) -> InstanceFilter:
    tags = (("a", "b"), ("c", "d"))
    return InstanceFilter(statuses=tuple(statuses), tags=tags, after=after, limit=7)


def entity_filter(name: str | None, after: tuple[str, str] | None) -> EntityFilter:
    return EntityFilter(name=name, after=after, locked=True, limit=7)


INSTANCE_FILTERS = st.builds(
    instance_filter,
    st.lists(st.sampled_from(RuntimeStatus)),
    st.none() | st.tuples(NUMBERS, TEXTS),
)
ENTITY_FILTERS = st.builds(entity_filter, TEXTS_OR_NONE, st.none() | st.tuples(TEXTS, TEXTS))

#: The arguments that verbs take, besides the partition's number.
ARGUMENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "request": (TEXTS, MESSAGES, TEXTS_OR_NONE),
    "request_new": (TEXTS, MESSAGES),
    "request_all": (PARCELS,),
    "request_later": (TEXTS, MESSAGES, NUMBERS, TEXTS_OR_NONE),
    "claim": (TEXTS, TEXTS),
    "wait_for_end": (TEXTS,),
    "news": (NUMBERS, NUMBERS),
    "wait_durable": (),
    "purge_ended": (st.lists(TEXTS),),
    "unlock": (TEXTS, st.tuples(TEXTS, NUMBERS, NUMBERS).map(list)),
    "read_instances": (st.lists(TEXTS),),
    "read_entities": (st.lists(st.tuples(TEXTS, TEXTS)),),
    "read_history": (NUMBERS,),
    "read_history_part": (NUMBERS, NUMBERS, NUMBERS),
    "query_instances": (INSTANCE_FILTERS,),
    "count_instances": (INSTANCE_FILTERS,),
    "query_entities": (ENTITY_FILTERS,),
    "waiting": (TEXTS,),
    "explain": (TEXTS,),
    "trace": (TEXTS, NUMBERS, NUMBERS),
    "host": (st.none() | st.dictionaries(TEXTS, VALUES),),
    "let_go": (NUMBERS,),
}
ASKS: st.SearchStrategy[Any] = st.one_of(
    [
        st.tuples(st.just("ask"), NUMBERS, st.just(verb), st.tuples(NUMBERS, *arguments))
        for verb, arguments in ARGUMENTS.items()
    ]
)
FAILURES = st.builds(
    FailureDetails,
    TEXTS,
    TEXTS,
    TEXTS,
    st.none() | st.builds(FailureDetails, TEXTS, TEXTS),
    st.booleans(),
)
INSTANCES = st.builds(
    InstanceRecord,
    *(NUMBERS, TEXTS, TEXTS, TEXTS_OR_NONE, NUMBERS, NUMBERS, TEXTS_OR_NONE, NUMBERS, NUMBERS),
    *(PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, NUMBERS_OR_NONE, TEXTS, NUMBERS, NUMBERS_OR_NONE),
    *(NUMBERS, NUMBERS, PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, TEXTS_OR_NONE),
    *(PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, NUMBERS_OR_NONE),
)
ENTITIES = st.builds(
    EntityRow,
    *(NUMBERS, TEXTS, TEXTS, NUMBERS),
    *(PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, PAYLOADS_OR_NONE, PAYLOADS_OR_NONE),
)
ANSWERS = st.one_of(
    PAYLOADS_OR_NONE,
    FAILURES,
    VALUES,
    st.lists(INSTANCES, max_size=3),
    st.lists(ENTITIES, max_size=3),
    st.lists(PAYLOADS, max_size=3),
    st.tuples(TEXTS, PAYLOADS_OR_NONE, PAYLOADS_OR_NONE),
)
ITEMS = st.one_of(
    ASKS,
    st.tuples(
        st.just("frame"), NUMBERS, NUMBERS, st.builds(frame_of, st.just(0), NUMBERS, PARCELS)
    ),
    st.tuples(st.sampled_from(["answer", "reply"]), NUMBERS, ANSWERS),
    st.tuples(st.just("ack"), NUMBERS, NUMBERS, NUMBERS),
    st.tuples(st.just("resend"), NUMBERS, NUMBERS),
    st.tuples(st.just("drop"), NUMBERS),
    st.tuples(st.just("placement"), st.lists(NUMBERS), st.lists(NUMBERS)),
    st.tuples(st.just("hello"), st.text(), st.none() | st.text()),
    st.tuples(st.just("welcome"), NUMBERS),
    st.tuples(st.just("cancel"), CALLERS),
    st.tuples(
        st.just("completion"),
        NUMBERS,
        TEXTS,
        st.builds(Completion, TEXTS, NUMBERS, NUMBERS, PAYLOADS),
    ),
)


def plain(value: Any) -> Any:
    """Give an item in a form that can be compared: what it says, without what only one side has."""
    if isinstance(value, Message):
        return (type(value), orjson.dumps([*value.content(), value.request]))
    if isinstance(value, Frame):
        return ("frame", value.last, plain(value.parcels))
    if isinstance(value, BaseException):
        return (type(value), value.args, str(value))
    if isinstance(value, (InstanceRecord, EntityRow)):
        return (type(value), *value)
    if isinstance(value, (InstanceFilter, EntityFilter)):
        return (type(value), attrs.astuple(value))
    if isinstance(value, (list, tuple)):
        rows = cast("list[Any]", value)
        return [plain(one) for one in rows]  # JSON knows one kind of list
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: plain(one) for key, one in fields.items()}
    return value


def test_all_that_is_asked_of_partitions_is_drawn() -> None:
    assert VERBS.keys() <= ARGUMENTS.keys()


def carry(items: list[Item]) -> list[Item]:
    return Splitter().feed(encode(items))


@given(st.lists(ITEMS, max_size=6), st.data())
def test_items_come_out_as_they_went_in_however_the_stream_is_cut(
    items: list[Item], data: st.DataObject
) -> None:
    stream = encode(items)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    splitter = Splitter()
    found: list[Item] = []

    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])

    assert plain(found) == plain(items)


def test_a_stream_that_comes_byte_by_byte_is_read() -> None:
    items: list[Item] = [("ack", 1, 2, 3), ("drop", 4), ("answer", 5, b'"text"')]
    splitter = Splitter()
    found: list[Item] = []

    for byte in encode(items):
        found += splitter.feed(bytes([byte]))

    assert found == items


@pytest.mark.parametrize(
    "value",
    [None, b"null", "null", 0, False, [], [[]], {}, b"[]", "", b'""', [None], {"error": ["x"]}],
    ids=repr,
)
def test_answers_that_look_alike_stay_what_they_are(value: Any) -> None:
    [(_, _, found)] = carry([("answer", 1, value)])

    assert found == value
    assert type(found) is type(value)


def test_what_a_store_looks_up_in_a_set_can_be_put_in_one() -> None:
    [(_, _, _, (_, ids))] = carry([("ask", 1, "read_entities", (0, [("counter", "a")]))])

    assert set(ids) == {("counter", "a")}


_FAILURE = FailureDetails("ValueError", "so not", "a trace", FailureDetails("KeyError", "x"), True)
_ARGUMENTS: dict[type, tuple[Any, ...]] = {
    errors.RequestIdReusedError: ("order-1", "a call of @account@a.pay"),
    errors.PayloadError: ("$.a", "no"),
    errors.PayloadTooLargeError: ("$.a", 2_000, 1_000),
    errors.RewindError: ("x", "activity 'undo'"),
    errors.ForkError: ("x", 7, "it had ended by then"),
    errors.EventDataError: ("event 'paid'", "$.a", "no"),
    errors.InstanceFinishedError: ("x", "Completed"),
    errors.InstanceNotFinishedError: ("x", "Running", "purge"),
    errors.MailboxFullError: ("@counter@a", 5),
    errors.NondeterminismError: ("x", 3, "this", "that", "flows.py:7"),
    errors.ParkedError: ("x", "it crashed"),
    LineLostError: (True,),
}


def arguments_of(kind: type[PerdureError]) -> tuple[Any, ...]:
    if kind not in _ARGUMENTS and issubclass(kind, errors.FailedError):
        return ("greet", _FAILURE)
    return _ARGUMENTS.get(kind, ("what to do",))


def kinds_of(kind: type[PerdureError]) -> list[type[PerdureError]]:
    below = [one for sub in kind.__subclasses__() for one in kinds_of(sub)]
    return [kind, *below]


PUBLIC = [
    kind for kind in dict.fromkeys(kinds_of(PerdureError)) if kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", [*PUBLIC, MovedError, LineLostError])
def test_every_error_comes_out_as_it_went_in(kind: type[PerdureError]) -> None:
    error = kind(*arguments_of(kind))

    [(_, _, found)] = carry([("answer", 1, error)])

    assert plain(found) == plain(error)


def test_an_error_s_text_may_be_a_word_of_an_enum() -> None:
    error = errors.InstanceFinishedError("x", RuntimeStatus.COMPLETED)

    [(_, _, found)] = carry([("answer", 1, error)])

    assert plain(found) == plain(error)


@pytest.mark.parametrize("error", [ValueError("so not"), errors.UsageError(object())])
def test_an_error_that_cannot_cross_is_named(error: Exception) -> None:
    [(_, _, found)] = carry([("answer", 1, error)])

    assert isinstance(found, InternalError)
    assert type(error).__name__ in str(found)


def test_a_frame_of_the_stream_holds_no_more_messages_than_one_of_the_exchange() -> None:
    def frame(last: int) -> Item:
        parcels: list[tuple[str, Message]] = [
            ("x", Event("e", b"1")) for _ in range(FRAME_MESSAGES_MAX)
        ]
        return ("frame", 0, 1, frame_of(1, last, parcels))

    items: list[Item] = [("ack", 0, 1, n) for n in range(600)]
    items[100:100] = [frame(250), frame(500)]
    stream = encode(items)
    counts: list[int] = []
    while stream:
        size = int.from_bytes(stream[:4], "big")
        inside = Splitter().feed(stream[: 4 + size])
        counts.append(sum(one[0] == "frame" for one in inside))
        assert len(inside) <= FRAME_MESSAGES_MAX
        stream = stream[4 + size :]

    assert max(counts) == 1
    assert sum(counts) == 2


@pytest.mark.parametrize(
    "body",
    [
        *(b"not JSON", b"[7]", b"[[]]", b'["ack"]', b'[["frame", 1]]', b'[["ask"]]'),
        *(b'[["answer", 1, 7]]', b'[["ack", 1]]', b'[["none of ours", 1]]'),
    ],
)
def test_what_nobody_of_ours_would_send_is_an_error_of_the_stream(body: bytes) -> None:
    with pytest.raises(InternalError, match="stream"):
        Splitter().feed(len(body).to_bytes(4, "big") + body)


def test_a_length_that_no_frame_has_is_an_error_of_the_stream() -> None:
    with pytest.raises(InternalError, match="stream"):
        Splitter().feed((SIZE_MAX + 1).to_bytes(4, "big"))
