"""Whoever waits at a partition that is lost asks elsewhere, unless that might do something twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perdure.actors.errors import OutcomeUnknownError
from perdure.actors.messages import Message, Operation
from perdure.runtime.partitions.loss import fail_batch, fail_mail
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.waiter import Countdown

PARTITION: Any = SimpleNamespace(index=4)


class Waiting:
    """Notes the error that it is given."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def set(self, value: Any) -> None:
        raise AssertionError("it has no value")

    def fail(self, error: BaseException) -> None:
        self.error = error


def call(*, request: Any = None, row: int = 0) -> Message:
    message = Operation("add", b"1")
    message.request, message.row = request, row
    return message


def told(message: Message | None, *, may_be_stored: bool = False) -> BaseException | None:
    """Give the error that is told to who waits for a message of a batch."""
    waiting: Any = Waiting()
    batch: Any = SimpleNamespace(replies=[(waiting, None, message)])
    fail_batch(PARTITION, batch, may_be_stored=may_be_stored)
    error: BaseException | None = waiting.error
    return error


@pytest.mark.parametrize("may_be_stored", [False, True])
def test_a_request_with_an_id_is_repeated_elsewhere(may_be_stored: bool) -> None:
    error = told(call(request=("r", b"1"), row=7), may_be_stored=may_be_stored)

    assert type(error) is MovedError
    assert "partition 4" in str(error)


def test_what_cannot_be_stored_is_repeated_elsewhere() -> None:
    assert type(told(call())) is MovedError
    assert type(told(None)) is MovedError


def test_of_what_may_be_stored_the_outcome_is_unknown() -> None:
    for error in (told(call(), may_be_stored=True), told(call(row=7))):
        assert type(error) is OutcomeUnknownError
        assert "repeat it under the same request id" in str(error)


def test_one_of_many_that_one_waits_for_is_not_repeated_alone() -> None:
    waiting: Any = Waiting()
    batch: Any = SimpleNamespace(replies=[(Countdown(waiting, 1), None, call())])

    fail_batch(PARTITION, batch)

    assert type(waiting.error) is OutcomeUnknownError


def test_a_message_that_nobody_waits_for_is_in_nobodys_way() -> None:
    waiting: Any = Waiting()
    batch: Any = SimpleNamespace(replies=[(None, None, call()), (waiting, None, call())])

    fail_batch(PARTITION, batch)

    assert type(waiting.error) is MovedError


def test_whoever_waits_for_a_mailbox_is_told_by_what_became_of_the_message() -> None:
    fresh, stored, silent = call(), call(row=3), call()
    first: Any = Waiting()
    second: Any = Waiting()
    fresh.reply, stored.reply = first, second
    activation: Any = SimpleNamespace(unconsumed=[fresh, stored, silent])

    fail_mail(PARTITION, [activation])

    assert type(first.error) is MovedError
    assert type(second.error) is OutcomeUnknownError
