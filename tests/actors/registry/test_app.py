from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from perdure.actors.errors import RegistrationError
from perdure.actors.ids import EntityId
from perdure.actors.registry.app import App
from perdure.actors.retry import RetryPolicy

if TYPE_CHECKING:
    from perdure.actors.contexts.entity import EntityContext
    from perdure.actors.contexts.orchestration import OrchestrationContext


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_decorated_function_is_the_function_itself() -> None:
    app = App()

    def act(number: int) -> int:
        return number

    async def orch(context: OrchestrationContext) -> None: ...

    assert app.activity(act) is act
    assert app.activity(name="other")(act) is act
    assert app.orchestration(orch) is orch
    assert app.orchestration(version="2")(orch) is orch


def test_options_are_kept() -> None:
    app = App()
    policy = RetryPolicy(first_interval=1.0)

    @app.activity(name="work", retry=policy, timeout=timedelta(minutes=1), max_concurrency=3)
    def act() -> None: ...

    @app.orchestration(name="flow", version="1.2", retry=policy)
    async def orch(context: OrchestrationContext) -> None: ...

    @app.entity(name="Thing", max_mailbox=10)
    class Other: ...

    activity = app.registry.find_activity("work")
    assert (activity.retry, activity.timeout, activity.max_concurrency) == (policy, 60.0, 3)
    orchestration = app.registry.find_orchestration("flow")
    assert (orchestration.version, orchestration.retry) == ("1.2", policy)
    assert app.registry.find_entity("thing").max_mailbox == 10
    assert EntityId(Other, "k").name == "thing"


def test_a_function_may_be_an_entity() -> None:
    app = App()

    @app.entity
    def counter(context: EntityContext) -> None: ...

    assert app.registry.find_entity(counter).is_function
    assert EntityId(counter, "k").name == "counter"


def test_a_second_registration_names_both_places() -> None:
    app = App()

    def first() -> None: ...

    def second() -> None: ...

    app.activity(name="same")(first)
    place = line() - 1
    with pytest.raises(RegistrationError) as raised:
        app.activity(name="same")(second)
    other = line() - 1

    assert f"{__file__}:{place}" in str(raised.value)
    assert f"{__file__}:{other}" in str(raised.value)


def test_a_second_entity_is_refused_whatever_the_case_and_the_first_stays() -> None:
    app = App()

    @app.entity
    class Thing: ...

    def other(context: EntityContext) -> None: ...

    with pytest.raises(RegistrationError, match="registered twice"):
        app.entity(name="THING")(other)
    assert app.registry.find_entity("thing").factory is Thing


def test_a_second_orchestration_of_a_version_is_refused() -> None:
    app = App()

    async def orch(context: OrchestrationContext) -> None: ...

    async def again(context: OrchestrationContext) -> None: ...

    app.orchestration(name="orch", version="1")(orch)
    app.orchestration(name="orch")(orch)

    with pytest.raises(RegistrationError, match="version '1' is registered twice"):
        app.orchestration(name="orch", version="1")(again)
    with pytest.raises(RegistrationError, match="orchestration 'orch' is registered twice"):
        app.orchestration(name="orch")(again)


def test_one_name_may_be_an_activity_an_orchestration_and_an_entity() -> None:
    app = App()

    def same(context: Any) -> None: ...

    app.activity(same)
    app.orchestration(same)
    app.entity(same)

    assert (app.activities, app.orchestrations, app.entities) == (["same"], ["same"], ["same"])


def test_the_same_function_and_class_may_be_in_two_apps() -> None:
    first, second = App(), App()

    @first.activity
    def act() -> None: ...

    @first.entity
    class Thing:
        value: int = 0

    second.activity(act)

    assert second.entity(Thing) is Thing
    assert second.registry.find_activity(act).function is act
    assert second.registry.find_entity(Thing).factory is Thing


def test_one_class_under_two_entity_names_is_refused() -> None:
    @App().entity
    class Thing: ...

    with pytest.raises(RegistrationError, match="as entity 'thing' already"):
        App().entity(name="other")(Thing)


def test_a_subclass_of_an_entity_is_another_entity() -> None:
    app = App()

    @app.entity
    class Thing: ...

    @app.entity
    class Other(Thing): ...

    assert EntityId(Other, "k").name == "other"
    assert app.registry.find_entity(Thing).factory is Thing


def function(context: Any) -> None: ...


def an_entity() -> Callable[[Any], None]:
    def entity(context: Any) -> None: ...

    return entity


def test_names_are_listed_sorted() -> None:
    app = App()
    for name in ("b", "a"):
        app.activity(name=name)(lambda: None)
        app.orchestration(name=name)(function)
        app.entity(name=name)(an_entity())

    assert app.activities == app.orchestrations == app.entities == ["a", "b"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257, 5])
def test_a_bad_name_is_refused(name: Any) -> None:
    app = App()

    for decorator in (app.activity, app.orchestration, app.entity):
        with pytest.raises(RegistrationError, match="name"):
            decorator(name=name)(function)


def test_an_entity_name_with_an_at_sign_is_refused() -> None:
    with pytest.raises(RegistrationError, match="'@'"):
        App().entity(name="a@b")(function)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": timedelta(0)},
        {"timeout": "1"},
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"retry": 3},
    ],
    ids=str,
)
def test_a_bad_option_of_an_activity_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match=next(iter(options))):
        App().activity(**options)


def test_a_bad_option_of_an_orchestration_is_refused() -> None:
    wrong: Any = 2

    with pytest.raises(RegistrationError, match="version"):
        App().orchestration(version=wrong)
    with pytest.raises(RegistrationError, match="retry"):
        App().orchestration(retry=wrong)


@pytest.mark.parametrize("kind", ["activity", "orchestration"])
@pytest.mark.parametrize("target", ["name", int, staticmethod(len), 5], ids=range(4))
def test_what_is_no_function_is_refused(kind: str, target: Any) -> None:
    with pytest.raises(RegistrationError, match="decorates a function"):
        getattr(App(), kind)(target)


def test_a_failed_registration_leaves_no_trace() -> None:
    app = App()

    def bad(a: int, b: int) -> None: ...

    with pytest.raises(RegistrationError):
        app.activity(bad)

    app.activity(name="bad")(function)
    assert app.registry.find_activity("bad").function is function
