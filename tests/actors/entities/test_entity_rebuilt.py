"""An entity made anew from what it told does with every message what the one does that lived."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings, strategies as st

from perdure.actors.entities.stripes import Home, Stripe
from perdure.actors.messages import (
    Caller,
    Command,
    Event,
    Fold,
    Folded,
    LockRelease,
    LockRequest,
    Message,
    Operation,
    TimerDue,
    encode_message as encode,
)
from tests.actors.entities.accounts import LOOKUP
from tests.actors.entities.lone import CLIENT, Effect, Lone
from tests.actors.recording import START

KEYS = ["@account@x", "@loose@x", "@waiting@x", "@visits@x", "@visits@x\x1f1"]
NAMES = [
    "add",
    "add",
    "add_slowly",
    "close",
    "close_slowly",
    "count",
    "get",
    "grow",
    "nonsense",
    "peek",
    "peek_badly",
    "put",
    "say",
    "say_slowly",
    "set",
    "spoil",
    "tell",
]
OWNERS = [Caller("a", 1, 1), Caller("a", 2, 1), Caller("b", 1, 1), Caller("c", 1, 4)]
INPUTS = [None, b"-30", b"2", b"7", b"13", b"400", b"true"]


def waited_for(message: Message, is_waited_for: bool) -> Message:
    message.reply = CLIENT if is_waited_for else None
    return message


def operation(name: str, input: bytes | None, call: bool, caller: Caller | None) -> Message:
    if caller is not None:
        return Operation(name, input, call=True, caller=caller)
    return waited_for(Operation(name, input, call), True)


def lock(kind: Any, owner: Caller, key: str, more: bool) -> Message:
    entities = [key, "@account@z"] if more else [key]
    message: Message = kind(owner, entities, 0)
    return message


def folded(stripe: int, number: int, state: bytes | None, fails: bool) -> Message:
    failures = (2, [[START, "add", "ValueError", "bad"]]) if fails else None
    return Folded(stripe, number, state, failures)


OWNER = st.sampled_from(OWNERS)
OPERATIONS = st.builds(
    operation,
    st.sampled_from(NAMES),
    st.sampled_from(INPUTS),
    st.booleans(),
    st.one_of(st.none(), st.none(), OWNER),
)
COMMANDS = st.builds(Command, st.sampled_from(["park", "retry", "purge", "fold"]), st.just("why"))
MESSAGES = st.one_of(
    OPERATIONS,
    OPERATIONS,
    st.builds(
        lock,
        st.sampled_from([LockRequest, LockRelease]),
        OWNER,
        st.sampled_from(["@account@x", "@account@a"]),
        st.booleans(),
    ),
    st.builds(waited_for, COMMANDS, st.booleans()),
    st.builds(Fold, st.integers(0, 3), st.booleans()),
    st.builds(
        folded,
        st.integers(0, 1),
        st.integers(0, 3),
        st.sampled_from([None, b'{"total":4}', b'{"total":"x"}']),
        st.booleans(),
    ),
    st.builds(TimerDue, st.just(0), st.just(1)),
    st.builds(waited_for, st.builds(Event, st.just("e"), st.just(b"1")), st.just(True)),
)
TURNS = st.lists(
    st.tuples(st.lists(MESSAGES, min_size=1, max_size=3), st.integers(0, 5_000_000)), max_size=12
)


def take(lone: Lone, messages: list[Message], now: int) -> list[Effect]:
    """Let it take messages, each async operation to its end; gives what it decided."""
    effects = lone.turn(*messages, now=now)
    while lone.is_busy():
        lone.resume()
        lone.seal()
    return effects


def take_again(lone: Lone, messages: list[Message], now: int) -> list[Effect]:
    """Do it, and in the middle of each async operation see that one made anew would do the same."""
    effects = lone.turn(*messages, now=now)
    while lone.running is not None:
        decided, left = len(effects), [lone.running[1], *lone.mail]
        halfway = lone.restored() if can_be_rebuilt(lone) else None
        lone.resume()
        lone.seal()
        if halfway is not None and not lone.is_busy():
            assert plain(lone, take(halfway, left, now)) == plain(lone, effects[decided:])
            assert halfway.stored == lone.stored
    return effects


def can_be_rebuilt(lone: Lone) -> bool:
    # A home that is loaded anew in the middle of a round does not know for which messages that is,
    # and asks its stripes once more. A client does not wait any more for a call that was held when
    # its entity was parked, where that is loaded.
    if isinstance(lone.actor.striping, Home):
        return not lone.held
    return lone.actor.parked is None or not any(map(is_awaited, lone.held))


def is_awaited(message: Message) -> bool:
    return isinstance(message, Operation) and message.call and message.reply is not None


def plain(lone: Lone, effects: list[Effect]) -> list[Effect]:
    """What has to be the same: a stripe that is loaded may arm its timer once more."""
    if isinstance(lone.actor.striping, Stripe):
        return [effect for effect in effects if effect[0] not in ("arm timer", "disarm timer")]
    return effects


@settings()
@given(key=st.sampled_from(KEYS), turns=TURNS)
def test_an_entity_rebuilt_after_any_turn_goes_on_exactly_as_the_one_that_lived(
    key: str, turns: list[tuple[list[Message], int]]
) -> None:
    lived = Lone(LOOKUP, key)
    now = START
    for messages, later in turns:
        now += later
        rebuilt = lived.restored() if can_be_rebuilt(lived) else None

        effects = take_again(lived, messages, now)
        event(f"{key.partition('@x')[0]}: {'parked' if lived.actor.parked else 'goes on'}")
        if rebuilt is not None:
            assert plain(lived, take(rebuilt, messages, now)) == plain(lived, effects)
            assert rebuilt.stored == lived.stored
            assert list(map(encode, rebuilt.held)) == list(map(encode, lived.held))
