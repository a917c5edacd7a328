from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

import pytest

from perdure.actors.errors import NonDurableAwaitError
from perdure.actors.registry import outside
from perdure.actors.registry.functions import define_orchestration
from perdure.actors.registry.outside import (
    INSIDE,
    calling_line,
    line_of,
    refuse_await,
    translated,
)


def flow(context: Any) -> None:
    return None


def suspended(code: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, Any]:
    """Run code until it waits; gives it and what it awaits."""
    coroutine = code()
    return coroutine, coroutine.send(None)


def here(back: int = 0) -> str:
    """The caller's line, or one so many before it."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno - back}"


@types.coroutine
def thing() -> Generator[Any, None, None]:
    yield object()


async def sleep_of_asyncio() -> None:
    await asyncio.sleep(0)


async def waits_for_a_thing() -> None:
    await thing()


@pytest.mark.parametrize(
    ("code", "used", "instead"),
    [
        (sleep_of_asyncio, "asyncio.", "ctx.create_timer(timedelta(seconds=...))"),
        (waits_for_a_thing, "object", "only tasks made by its context, and an activity for other"),
    ],
    ids=range(2),
)
def test_what_is_no_task_of_the_context_is_refused_with_its_line_and_what_does_the_same(
    code: Any, used: str, instead: str
) -> None:
    coroutine, awaited = suspended(code)

    error = refuse_await("orchestration 'flow'", coroutine, awaited)
    coroutine.close()

    first = inspect.getsourcelines(code)[1] + 1
    assert f"awaited something that is not durable ({used}" in str(error)
    assert f") at {__file__}:{first}" in str(error)
    assert f"; await {instead}" in str(error)


async def inner() -> None:
    await thing()


async def outer() -> None:
    await inner()


def test_where_users_functions_await_each_other_both_lines_are_named() -> None:
    coroutine, awaited = suspended(outer)

    text = str(refuse_await("orchestration 'flow'", coroutine, awaited))
    line = line_of(coroutine)
    coroutine.close()

    first, last = inspect.getsourcelines(outer)[1] + 1, inspect.getsourcelines(thing)[1] + 2
    assert line == f"{__file__}:{first}"
    assert f"at {__file__}:{first} (by way of {__file__}:{last});" in text


def test_what_has_ended_stands_nowhere() -> None:
    coroutine, _ = suspended(outer)
    coroutine.close()

    assert line_of(coroutine) == "unknown"


def ours(code: str) -> Any:
    """Run code as a module of this package."""
    module = types.ModuleType("perdure.actors.made")
    vars(module).update(outside=outside)
    exec(code, vars(module))
    return module


def test_use_of_an_event_loop_is_refused_with_the_line_of_the_user() -> None:
    hook = ours("def current_task():\n    return outside.refuse_use('current_task')")
    context = copy_context()
    context.run(INSIDE.set, define_orchestration(flow, name="flow"))

    run = ours("def run(code):\n    return code()").run
    error, line = context.run(run, lambda: (hook.current_task(), here()))

    assert type(error) is NonDurableAwaitError
    assert str(error) == (
        f"orchestration 'flow' used current_task at {line}, which belongs to the event loop and "
        "not to its history; use ctx.move_on_after(seconds), whose scope can be cancelled instead"
    )
    assert str(hook.current_task()).startswith("an orchestration used current_task at ")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("gather", "ctx.task_all(tasks)"),
        ("TaskGroup", "ctx.create_task_group()"),
        ("create_task", "ctx.create_task_group() and its start_soon()"),
        ("wait_for", "ctx.fail_after(seconds)"),
        ("CancelScope", "ctx.move_on_after(seconds) or ctx.fail_after(seconds)"),
        ("Event", "ctx.wait_for_external_event(name)"),
        ("as_completed", "ctx.task_any(tasks) or ctx.task_all(tasks)"),
        ("run_sync", "a sync activity"),
        ("nothing_known", "only tasks made by its context"),
    ],
)
def test_each_thing_of_a_loop_has_something_durable_in_its_place(name: str, instead: str) -> None:
    error = ours(f"def ask():\n    return outside.refuse_use({name!r})").ask()

    assert f"; use {instead}" in str(error)


def test_a_clients_method_is_refused_with_what_of_the_context_does_the_same() -> None:
    client = ours(
        "class EntityClient:\n"
        "    def signal_entity(self): return outside.refuse_use('x')\n"
        "    def list_entities(self): return outside.refuse_use('x')\n"
    ).EntityClient()

    assert "used Client.signal_entity at" in str(client.signal_entity())
    assert "use ctx.signal_entity(id, op, input) instead" in str(client.signal_entity())
    assert "and an activity for what these do not do," in str(client.list_entities())


def test_an_error_of_a_users_own_is_left_as_it_is() -> None:
    with pytest.raises(KeyError) as raised:
        raise KeyError("no")

    assert translated("orchestration 'flow'", raised.value) is raised.value
    assert translated("orchestration 'flow'", KeyError("never raised")).__traceback__ is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_error_that_a_library_of_loops_raised_becomes_the_refusal() -> None:
    async def work() -> None:
        raise AssertionError("it ran")

    given = work()
    with pytest.raises(RuntimeError) as raised:
        asyncio.run(given)

    error = translated("orchestration 'flow'", raised.value)

    assert type(error) is NonDurableAwaitError
    assert error.__cause__ is raised.value
    assert f"used asyncio.run at {__file__}:" in str(error)
    assert "which needs an event loop of its own; use only tasks made by its context" in str(error)
    assert inspect.getcoroutinestate(given) == inspect.CORO_CLOSED


def test_the_calling_line_is_that_of_the_innermost_user() -> None:
    asked = ours("def ask():\n    return outside.calling_line()")

    assert (asked.ask(), calling_line()) == (here(), here())


def test_a_coroutine_that_a_library_was_given_is_closed_unbegun() -> None:
    async def work() -> None:
        raise AssertionError("it ran")

    given = work()
    module = types.ModuleType("asyncio.made")
    hook = ours("def ask():\n    return outside.refuse_use('gather')")
    vars(module).update(ask=hook.ask)
    exec("def gather(*works):\n    return ask()", vars(module))

    error = vars(module)["gather"](given)

    assert inspect.getcoroutinestate(given) == inspect.CORO_CLOSED
    assert "use ctx.task_all(tasks) instead" in str(error)
    assert "used asyncio.gather at" in str(error)
