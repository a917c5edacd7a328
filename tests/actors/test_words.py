"""The words of closed unions: each table has all of them, and a word that is none is refused by name."""

from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest

from perdure import App, OrchestrationContext, RuntimeStatus
from perdure.actors.messages import Action, AnswerKind, Command, Start
from perdure.actors.orchestrations.commands import COMMANDS
from perdure.actors.registry.lookup import Lookup
from perdure.actors.replay.history import (
    ANSWERS,
    FIELDS,
    IDENTITY,
    INPUTS,
    SILENT,
    DecisionKind,
    EventKind,
    SilentKind,
)
from perdure.actors.replay.stored import read_message
from perdure.actors.values import TERMINAL, Status
from tests.actors.recording import Instance

app = App()


@app.orchestration
async def sleeps(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("never")


def words(kind: Any) -> set[str]:
    """Give the words of a Literal, or of a union of some."""
    parts = get_args(kind)
    return {word for part in parts for word in ({part} if isinstance(part, str) else words(part))}


def test_each_table_has_the_words_of_its_type() -> None:
    assert set(FIELDS) == words(EventKind)
    assert set(IDENTITY) == words(DecisionKind)
    assert set(INPUTS) < words(DecisionKind)
    assert set(ANSWERS) == words(AnswerKind)
    assert set(SILENT) == words(SilentKind)
    assert set(COMMANDS) | {"fold"} == words(Action)
    assert {str(status) for status in RuntimeStatus} == words(Status)
    assert words(Status) > TERMINAL


def test_a_command_for_entities_is_refused_by_an_instance_and_has_done_nothing() -> None:
    with Instance(Lookup(app, 1_000_000)) as instance:
        instance.take(Start("sleeps", None, None), 1)
        before = instance.history

        assert instance.take(Command("fold"), 2) == [("refuse", "InternalError")]
        assert (instance.actor.status, instance.history) == ("Running", before)


@pytest.mark.parametrize(
    "fields",
    [
        ["command", "sing", "", True, 0, None],
        ["completion", "TaskScheduled", 1, 1, 5, None],
    ],
    ids=str,
)
def test_a_stored_message_with_a_word_that_is_none_is_refused(fields: list[Any]) -> None:
    with pytest.raises(ValueError, match="are not those of one"):
        read_message(orjson.dumps(fields))
