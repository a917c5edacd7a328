from __future__ import annotations

import hmac
import secrets

import pytest

from perdure.runtime.transport import greeting
from perdure.runtime.transport.greeting import (
    CLAIM_SIZE,
    HELLO_SIZE,
    PROOF_SIZE,
    VERDICT_SIZE,
    Credentials,
    Dialling,
    Listening,
    NotThatMemberError,
    RefusedError,
    StrangerError,
    VersionsDifferError,
    WrongKeyError,
)

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
LISTENER = Credentials("hub", 2, KEY)


def as_member(number: int | None, key: bytes = KEY, hub: str = "hub") -> Credentials:
    return Credentials(hub, number, key)


def greet(
    dialler: Credentials, member: int, listener: Credentials | None, key: bytes = KEY
) -> int | None:
    """Have both ends greet; gives who dialled, and raises what either would."""
    dialling, listening = Dialling(dialler, member), Listening(key)
    hello = dialling.hello()
    listening.check_head(hello[: greeting.HEAD_SIZE])
    proof = listening.proof(hello)
    dialling.check_head(proof[: greeting.HEAD_SIZE])
    claim = dialling.claim(proof)
    sizes = (len(hello), len(proof), len(claim))
    assert sizes == (HELLO_SIZE, PROOF_SIZE, CLAIM_SIZE)
    number = None
    try:
        verdict, number = listening.judge(claim, listener)
    except RefusedError as refused:
        verdict = refused.verdict
    assert len(verdict) == VERDICT_SIZE
    dialling.check(verdict)
    return number


@pytest.mark.parametrize("number", [7, None, 0])
def test_who_has_the_key_and_means_this_member_is_welcome_as_what_it_says(
    number: int | None,
) -> None:
    assert greet(as_member(number), 2, LISTENER) == number


def test_a_dialler_with_another_key_says_nothing_of_the_hub() -> None:
    dialling, listening = Dialling(as_member(7, OTHER_KEY), 2), Listening(KEY)
    with pytest.raises(WrongKeyError):
        dialling.claim(listening.proof(dialling.hello()))

    with pytest.raises(RefusedError, match="another key"):
        listening.judge(dialling.refusal(), LISTENER)


def test_what_a_dialler_says_first_is_of_no_hub() -> None:
    hello = Dialling(as_member(7), 2).hello()

    assert hello[:-32] == Listening.head()  # and a nonce


def test_a_dialler_that_passes_a_wrong_key_over_is_refused_by_the_listener() -> None:
    dialling, listening = Dialling(as_member(7, OTHER_KEY), 2), Listening(KEY)
    # It takes the proof of somebody with its own key for the listener's.
    hello = dialling.hello()
    nonce = listening.proof(hello)[10:42]
    forged = Credentials("", None, OTHER_KEY).prove(b"listener", hello[10:], nonce)
    claim = dialling.claim(Listening.head() + nonce + forged)

    with pytest.raises(RefusedError, match="has not the hub's key") as refused:
        listening.judge(claim, LISTENER)
    assert not refused.value.is_known
    with pytest.raises(WrongKeyError):
        dialling.check(refused.value.verdict)


@pytest.mark.parametrize(
    ("dialler", "member", "listener"),
    [
        (as_member(7), 3, LISTENER),
        (as_member(7, hub="another"), 2, LISTENER),
        (as_member(7), 2, None),
        (as_member(None), 1, LISTENER),
    ],
    ids=["another member", "another hub", "no member yet", "a client"],
)
def test_who_means_somebody_else_hears_that_this_is_not_that_member(
    dialler: Credentials, member: int, listener: Credentials | None
) -> None:
    with pytest.raises(NotThatMemberError):
        greet(dialler, member, listener)


def test_a_claim_that_was_overheard_is_of_no_use_with_another_listener_s_number() -> None:
    dialling, listening = Dialling(as_member(7), 2), Listening(KEY)
    hello = dialling.hello()
    claim = dialling.claim(listening.proof(hello))
    assert listening.judge(claim, LISTENER)[1] == 7

    again = Listening(KEY)
    again.proof(hello)
    with pytest.raises(RefusedError, match="has not the hub's key"):
        again.judge(claim, LISTENER)


def test_a_listener_s_proof_and_verdict_that_were_overheard_are_of_no_use() -> None:
    dialling, listening = Dialling(as_member(7), 2), Listening(KEY)
    proof = listening.proof(dialling.hello())
    claim = dialling.claim(proof)
    verdict, _ = listening.judge(claim, LISTENER)

    later = Dialling(as_member(7), 2)
    with pytest.raises(WrongKeyError):
        later.claim(proof)
    later.claim(Listening(KEY).proof(later.hello()))
    with pytest.raises(WrongKeyError):
        later.check(verdict)


def test_what_a_dialler_said_cannot_be_said_back_to_it_as_a_listener_s() -> None:
    dialling = Dialling(as_member(2), 2)
    hello = dialling.hello()
    with pytest.raises(WrongKeyError):
        dialling.claim(hello + hello[10:])

    # Its own listener would prove itself, and then it is not the member that was meant.
    own = Listening(KEY)
    other = Dialling(as_member(2), 3)
    claim = other.claim(own.proof(other.hello()))
    with pytest.raises(WrongKeyError):
        other.check(bytes([1]) + claim[-32:])
    with pytest.raises(RefusedError):
        own.judge(claim, LISTENER)


@pytest.mark.parametrize("place", range(CLAIM_SIZE))
def test_a_claim_that_is_changed_anywhere_is_refused(place: int) -> None:
    dialling, listening = Dialling(as_member(7), 2), Listening(KEY)
    claim = bytearray(dialling.claim(listening.proof(dialling.hello())))
    claim[place] ^= 1

    with pytest.raises(RefusedError) as refused:
        listening.judge(bytes(claim), LISTENER)
    assert not refused.value.is_known


@pytest.mark.parametrize("place", range(VERDICT_SIZE))
def test_a_verdict_that_is_changed_anywhere_is_not_believed(place: int) -> None:
    dialling, listening = Dialling(as_member(7), 2), Listening(KEY)
    claim = dialling.claim(listening.proof(dialling.hello()))
    verdict = bytearray(listening.judge(claim, LISTENER)[0])
    verdict[place] ^= 1

    with pytest.raises(WrongKeyError):
        dialling.check(bytes(verdict))


def test_another_version_is_said_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "VERSION", 9)
    head = Listening.head()
    monkeypatch.undo()

    for end in (Dialling(as_member(7), 2), Listening(KEY)):
        with pytest.raises(VersionsDifferError, match=r"version 9 .* version 1"):
            end.check_head(head)


def test_what_is_no_greeting_is_a_stranger() -> None:
    with pytest.raises(StrangerError):
        Listening(KEY).check_head(b"GET / HTTP")


def test_a_proof_is_of_the_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "VERSION", 9)
    dialling, listening = Dialling(as_member(7), 2), Listening(KEY)
    claim = dialling.claim(listening.proof(dialling.hello()))
    monkeypatch.undo()

    with pytest.raises(RefusedError, match="has not the hub's key"):
        listening.judge(claim, LISTENER)


def test_proofs_are_compared_in_a_time_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    greet(as_member(7), 2, LISTENER)

    assert compared == [32, 32, 32]


def test_a_proof_of_one_thing_is_none_of_another() -> None:
    proofs = {LISTENER.prove(what, b"x") for what in (b"listener", b"dialler", b"verdict")}

    assert len(proofs) == 3


def test_no_number_is_used_twice() -> None:
    hellos = {Dialling(as_member(7), 2).hello() for _ in range(100)}
    proofs = {Listening(KEY).proof(secrets.token_bytes(HELLO_SIZE))[10:42] for _ in range(100)}

    assert (len(hellos), len(proofs)) == (100, 100)


def test_credentials_do_not_show_their_key() -> None:
    assert "kkk" not in repr(LISTENER)
