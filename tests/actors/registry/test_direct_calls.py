from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Any, cast

import pytest

from perdure.actors.errors import NonDurableAwaitError
from perdure.actors.registry.definitions import OrchestrationDefinition
from perdure.actors.registry.direct_calls import guard
from perdure.actors.registry.functions import define_orchestration
from perdure.actors.registry.outside import INSIDE

LINE = 0


def flow(context: Any) -> None:
    return None


def orchestration(name: str) -> OrchestrationDefinition:
    return define_orchestration(flow, name=name)


def guarded(function: Any, title: str = "activity 'work'") -> Callable[..., Any]:
    return guard(function, title, "ctx.call_activity(work, ...)")


def inside(run: Callable[[], Any], name: str = "flow") -> Any:
    """Run something as the code of an orchestration."""
    context = copy_context()
    context.run(INSIDE.set, orchestration(name))
    return context.run(run)


def make(step: int) -> Callable[..., int]:
    def add(number: int, other: int = 1, *, more: int = 0) -> int:
        """Add them."""
        return number + other + more + step

    return add


def test_whoever_is_no_orchestration_calls_it_as_it_was() -> None:
    add = make(10)
    signature = inspect.signature(add)

    plain = guarded(add)

    assert add(1) == plain(1) == 12
    assert add(1, 2, more=3) == plain(1, 2, more=3) == 16
    assert inspect.signature(add) == signature
    assert (add.__name__, add.__doc__) == (plain.__name__, plain.__doc__) == ("add", "Add them.")
    with pytest.raises(TypeError):
        add()


def test_an_orchestration_that_calls_it_is_refused_at_its_line_and_the_hub_is_not() -> None:
    add = make(10)
    plain = guarded(add)

    with pytest.raises(NonDurableAwaitError) as raised:
        inside(lambda: add(1))
    line = (
        inspect.getsourcelines(
            test_an_orchestration_that_calls_it_is_refused_at_its_line_and_the_hub_is_not
        )[1]
        + 5
    )

    assert str(raised.value) == (
        f"orchestration 'flow' called activity 'work' directly at {__file__}:{line}, where it "
        "would run again at every replay; use ctx.call_activity(work, ...) instead"
    )
    assert inside(lambda: plain(1)) == 12


def test_versions_of_one_orchestration_may_share_their_code() -> None:
    add = make(10)
    guarded(add, orchestration("flow").title)

    assert inside(lambda: add(1)) == 12
    with pytest.raises(NonDurableAwaitError):
        inside(lambda: add(1), "other")


def test_an_async_function_stays_one() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    plain = guarded(work)

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(work(1)) == asyncio.run(plain(1)) == 2
    with pytest.raises(NonDurableAwaitError):
        inside(lambda: asyncio.run(work(1)))


def test_a_generator_function_stays_one() -> None:
    def steps(number: int) -> Generator[int, str, str]:
        answer = yield number
        return answer * 2

    plain = guarded(steps)

    for function in (steps, plain):
        running = cast("Generator[int, str, str]", function(1))
        assert next(running) == 1
        with pytest.raises(StopIteration) as ended:
            running.send("a")
        assert ended.value.value == "aa"
    assert inspect.isgeneratorfunction(steps)
    with pytest.raises(NonDurableAwaitError):
        inside(lambda: next(steps(1)))


def test_a_function_that_is_guarded_twice_is_guarded_once() -> None:
    add = make(10)

    plain = guarded(add)

    assert guarded(add) is plain
    assert add(1) == 12


def test_a_wrapper_that_copied_what_the_function_in_it_has_is_another_function() -> None:
    add = make(10)
    plain = guarded(add)

    @functools.wraps(add)
    def wrapper(number: int) -> int:
        return 100 * add(number)

    outer = guarded(wrapper)

    assert outer is not plain
    assert (wrapper(1), outer(1)) == (1200, 1200)


@pytest.mark.parametrize("function", [len, functools.partial(make(1), 1), int], ids=range(3))
def test_what_is_not_written_in_python_is_given_as_it_is(function: Any) -> None:
    assert guarded(function) is function


def add_alone(number: int) -> int:
    raise KeyError(number)


def test_who_looks_at_the_variables_of_its_frames_finds_them() -> None:
    """As debuggers and pytest do; in a frame that has not taken its closure, they ended Python."""

    def outer() -> None:
        raise KeyError(outer)

    async def later() -> None:
        raise KeyError(outer)

    def steps() -> Generator[None]:
        yield
        raise KeyError(outer)

    guarded(add_alone)
    for one in (outer, later, steps):
        guarded(one)
    calls: list[Callable[[], Any]] = [
        lambda: add_alone(1),
        outer,
        lambda: asyncio.run(later()),
        lambda: list(steps()),
    ]
    for call in calls:
        with pytest.raises(KeyError) as raised:
            call()

        seen: list[dict[str, Any]] = []
        trace = raised.value.__traceback__
        while trace is not None:
            seen.append(dict(trace.tb_frame.f_locals))
            trace = trace.tb_next
        assert any("door" in names for names in seen)
        assert seen[-1].get("outer", outer) is outer
