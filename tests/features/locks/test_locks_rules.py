"""The rules of a lock."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Client, OrchestrationFailedError
from tests.features.locks.application import (
    break_rule,
    call_neighbours,
    lock_none,
    lock_unknown,
    until_free,
)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("nested", "cannot be nested"),
        ("child", "no sub-orchestrations inside lock_entities"),
        ("call another", "@account@c is not among the locked entities"),
        ("two calls", "a call to @account@a is under way"),
        ("signal a locked one", "@account@a is locked by this orchestration"),
    ],
)
async def test_a_broken_rule_is_a_clear_error_at_the_call(
    client: Client, rule: str, text: str
) -> None:
    handle = await client.start_new(break_rule, rule)

    error, then = await handle.result(10)

    assert text in error
    assert then == "free"
    await until_free(client, "a", "b", "c")


@pytest.mark.parametrize("rule", ["two waves", "signal another", "both at once", "no rule at all"])
async def test_what_the_rules_allow_works_inside_a_lock(client: Client, rule: str) -> None:
    handle = await client.start_new(break_rule, rule)

    assert await handle.result(10) == ["free"]


async def test_entities_whose_keys_begin_alike_are_called_at_the_same_time(client: Client) -> None:
    handle = await client.start_new(call_neighbours)

    assert await handle.result(10) == [1, 1, 1]


@pytest.mark.parametrize(
    ("orchestration", "error"),
    [(lock_none, "UsageError"), (lock_unknown, "UnknownNameError")],
)
async def test_a_lock_of_nothing_or_of_the_unknown_is_refused(
    client: Client, orchestration: Any, error: str
) -> None:
    handle = await client.start_new(orchestration)

    with pytest.raises(OrchestrationFailedError) as caught:
        await handle.result(10)

    assert caught.value.error_type == error
