from __future__ import annotations

from typing import Any

import orjson
import pytest
from attrs import define

from perdure import App, OrchestrationContext, RequestIdReusedError, StoreDamagedError
from perdure.actors.entities.stripes import MARK
from perdure.actors.errors import FailureDetails
from perdure.actors.failures import encode_failure
from perdure.actors.messages import Action, Command, Event, Message, Operation, Start
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.placement.claims import (
    PACKED_MAX,
    WHOLE_MAX,
    Recorded,
    body_of,
    check_claim,
    claim_of,
    id_of,
    read_recorded,
)

KEY = "@account@a"


def app_of(cls: type) -> Lookup:
    """An application whose class of inputs is that of one day or another."""
    app = App()

    class Account:
        total: int = 0

        def pay(self, order: Any) -> None:
            """Pay it."""

    async def ship(ctx: OrchestrationContext, order: Any) -> None:
        """Ship it."""

    Account.pay.__annotations__["order"] = ship.__annotations__["order"] = cls
    app.entity(name="account")(Account)
    app.orchestration(name="ship")(ship)
    return Lookup(app, 1_000_000)


@define
class Order:
    cents: int
    note: str = ""


@define
class OlderOrder:
    cents: int


@define
class Refusing:
    cents: int

    def __attrs_post_init__(self) -> None:
        raise SystemExit(3)


LOOKUP = app_of(Order)


def pay(body: bytes, *, call: bool = True, name: str = "pay") -> Operation:
    return Operation(name, body, call)


def start(body: bytes, tags: bytes | None = None, name: str = "ship") -> Start:
    return Start(name, None, body, tags=tags)


def is_one_request(
    first: Message, second: Message, lookup: Lookup = LOOKUP, keys: tuple[str, str] = (KEY, KEY)
) -> bool:
    """Whether a request is a repetition of another, and the other of it."""
    claims = [claim_of("r", key, one) for key, one in zip(keys, (first, second), strict=True)]
    try:
        check_claim(claims[0], claims[1], lookup)
    except RequestIdReusedError:
        return False
    return True


def large(note: str, cents: int = 5) -> bytes:
    return orjson.dumps({"cents": cents, "note": note})


def test_a_claim_gives_its_id_back() -> None:
    assert id_of(claim_of("order-1", KEY, pay(b'{"cents":5}'))) == "order-1"
    assert id_of("of an older release") == "of an older release"


@pytest.mark.parametrize(
    "message",
    [
        pay(b'{"cents":5}'),
        pay(b'{"cents":5}', call=False),
        start(b'{"cents":5}', tags=b'{"a":"b"}'),
        Event("paid", b"5"),
        Command("terminate", "enough"),
        Operation("pay", None),
    ],
    ids=lambda one: type(one).__name__ + str(getattr(one, "call", "")) + str(one.size),
)
def test_a_request_that_is_repeated_is_the_same(message: Message) -> None:
    assert is_one_request(message, message)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pay(b'{"cents":5}'), pay(b'{"cents":6}')),
        (pay(b'{"cents":5}'), pay(b'{"cents":5}', call=False)),
        (pay(b'{"cents":5}'), pay(b'{"cents":5}', name="refund")),
        (pay(b"null"), Operation("pay", None, True)),
        (start(b'{"cents":5}'), start(b'{"cents":5}', tags=b'{"a":"b"}')),
        (start(b'{"cents":5}'), start(b'{"cents":5}', name="other")),
        (Event("paid", b"5"), Event("sent", b"5")),
        (Event("paid", b"5"), Event("paid", b"6")),
        (Command("terminate", "a"), Command("terminate", "b")),
        (Command("terminate", "a"), Command("cancel", "a")),
        (pay(large("a" * 300)), pay(large("b" * 300))),
        (pay(large("a" * 3_000)), pay(large("a" * 3_000, cents=6))),
        (pay(large("é" * 400_000)), pay(large("é" * 399_999 + "e"))),
    ],
)
def test_another_request_is_refused(first: Message, second: Message) -> None:
    assert not is_one_request(first, second)
    assert not is_one_request(second, first)


def test_the_same_for_another_actor_is_another_request() -> None:
    message = pay(b'{"cents":5}')

    assert not is_one_request(message, message, keys=(KEY, "@account@b"))


def test_a_stripe_is_its_entity() -> None:
    message = pay(b'{"cents":5}', call=False)

    assert is_one_request(message, message, keys=(KEY, f"{KEY}{MARK}3"))


def test_the_error_names_the_id_and_what_it_was_used_for() -> None:
    made = claim_of("order-1", KEY, pay(b'{"cents":5}'))

    with pytest.raises(RequestIdReusedError) as raised:
        check_claim(made, claim_of("order-1", KEY, pay(b'{"cents":6}')), LOOKUP)

    assert raised.value.request_id == "order-1"
    assert raised.value.used_for == "a call of @account@a.pay"


@pytest.mark.parametrize("note", ["", "a" * WHOLE_MAX, "a" * 400_000])
def test_the_order_of_keys_makes_no_other_request(note: str) -> None:
    one = orjson.dumps({"cents": 5, "note": note})
    other = orjson.dumps({"note": note, "cents": 5})

    assert is_one_request(pay(one), pay(other))
    assert is_one_request(start(one), start(other))


@pytest.mark.parametrize("pad", ["", "a" * 2_000])
def test_an_input_may_be_nested_as_deeply_as_inputs_may_be(pad: str) -> None:
    value: Any = {"b": 1, "a": pad}
    for _ in range(253):
        value = [value]
    body = orjson.dumps(value)
    swapped = body.replace(b'"b":1,', b"").replace(b"}", b',"b":1}')

    assert is_one_request(Event("paid", body), Event("paid", body))
    assert is_one_request(Event("paid", body), Event("paid", swapped))
    assert not is_one_request(Event("paid", body), Event("paid", body.replace(b"1", b"2")))


def many(count: int) -> bytes:
    """Inputs of many short texts, which no hash stands for."""
    return orjson.dumps([f"{n * 7919:x}" for n in range(count)])


@pytest.mark.parametrize("count", [10, 1_000, 30_000, 60_000])
def test_a_claim_is_short_however_large_the_request(count: int) -> None:
    claim = claim_of("r", KEY, Event("paid", many(count)))

    assert len(claim) < PACKED_MAX + 1_000
    check_claim(claim, claim_of("r", KEY, Event("paid", many(count))), LOOKUP)
    with pytest.raises(RequestIdReusedError):
        check_claim(claim, claim_of("r", KEY, Event("paid", many(count + 1))), LOOKUP)


@pytest.mark.parametrize("message", [pay, start])
@pytest.mark.parametrize("note", ["", "n" * 300, "n" * 5_000], ids=len)
def test_a_field_that_is_new_and_has_a_default_makes_no_other_request(
    message: Any, note: str
) -> None:
    was = orjson.dumps({"cents": 5} | ({"note": note} if note else {}))
    now = orjson.dumps({"cents": 5, "note": note})

    assert is_one_request(message(was), message(now))
    assert not is_one_request(message(was), message(orjson.dumps({"cents": 6, "note": note})))
    assert not is_one_request(message(was), message(orjson.dumps({"cents": 5, "note": "!"})))


@pytest.mark.parametrize("lookup", [app_of(OlderOrder), app_of(Refusing), Lookup(App(), 1_000)])
@pytest.mark.parametrize("message", [pay, start])
def test_where_the_class_of_today_cannot_tell_it_is_another_request(
    lookup: Lookup, message: Any
) -> None:
    assert not is_one_request(message(b'{"cents":[]}'), message(b'{"cents":5,"note":""}'), lookup)
    assert is_one_request(message(b'{"cents":5}'), message(b'{"cents":5}'), lookup)


def test_events_and_commands_have_no_class_that_could_write_them_differently() -> None:
    assert not is_one_request(Event("paid", b'{"cents":5}'), Event("paid", b'{"cents":5,"x":0}'))


def test_a_claim_of_an_older_release_without_a_print_holds_for_whatever_has_its_id() -> None:
    check_claim("r", claim_of("r", KEY, pay(b'{"cents":5}')), LOOKUP)


@pytest.mark.parametrize(
    "whole", ["", "~", "~!!", "~eJw=", "[1,2]", "{}", '["x",[],"what",5]', '[{"a":1},[],"w",5]']
)
def test_a_claim_that_cannot_be_read_is_of_another_request(whole: str) -> None:
    made = "\x1f".join(("r", "another print", "something", whole))

    with pytest.raises(RequestIdReusedError, match="something"):
        check_claim(made, claim_of("r", KEY, pay(b'{"cents":5}')), LOOKUP)


def test_a_claim_of_an_older_release_with_a_print_alone_is_compared_by_that() -> None:
    wanted = claim_of("r", KEY, pay(b'{"cents":5}'))
    _, digest, *_ = wanted.split("\x1f")

    check_claim(f"r\x1f{digest}\x1fa call", wanted, LOOKUP)
    with pytest.raises(RequestIdReusedError):
        check_claim("r\x1fanother\x1fa call", wanted, LOOKUP)


FAILURE = FailureDetails("ValueError", "no", "trace")
CLAIM = claim_of("r", KEY, pay(b'{"cents":5}'))


@pytest.mark.parametrize(
    ("kind", "value", "recorded"),
    [
        (b"ok", b'{"a":[1]}', Recorded(CLAIM, True, b'{"a":[1]}')),
        (b"ok", b"null", Recorded(CLAIM, True, b"null")),
        (b"failed", encode_failure(FAILURE), Recorded(CLAIM, True, FAILURE)),
        (b"claim", b"null", Recorded(CLAIM, False, b"null")),
    ],
)
def test_what_is_stored_under_an_id_is_read_back(
    kind: bytes, value: bytes, recorded: Recorded
) -> None:
    assert read_recorded(body_of(kind, value, CLAIM), "the file", "r") == recorded


def test_an_answer_of_an_older_release_has_the_id_alone() -> None:
    assert read_recorded(b'["ok",7]', "the file", "r") == Recorded("r", True, b"7")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b'["ok"]',
        b'["done",1]',
        b'["ok",1,2]',
        b'["failed",7]',
        body_of(b"ok", b"1", claim_of("another", KEY, pay(b'{"cents":5}'))),
    ],
)
def test_an_answer_that_nobody_can_read_is_damage_and_is_not_given(body: bytes) -> None:
    with pytest.raises(StoreDamagedError, match=r"the file: the answer recorded for request 'r'"):
        read_recorded(body, "the file", "r")


@pytest.mark.parametrize("action", ["terminate", "cancel"])
def test_commands_say_what_they_are(action: Action) -> None:
    with pytest.raises(RequestIdReusedError, match=f"a {action} of {KEY}"):
        check_claim(
            claim_of("r", KEY, Command(action, "a")), claim_of("r", KEY, Command(action)), LOOKUP
        )
