"""What is registered, and how it is found: by name, by version, by object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from perdure.actors.errors import RegistrationError, UnknownNameError
from perdure.actors.ids import EntityId
from perdure.actors.registry.app import App

if TYPE_CHECKING:
    from perdure.actors.contexts.orchestration import OrchestrationContext


def test_what_is_registered_is_found_by_object_and_by_name() -> None:
    app = App()

    @app.activity
    def act() -> None: ...

    @app.orchestration
    async def orch(context: OrchestrationContext) -> None: ...

    @app.entity
    class Thing: ...

    assert app.registry.find_activity(act) is app.registry.find_activity("act")
    assert app.registry.find_orchestration(orch) is app.registry.find_orchestration("orch")
    assert app.registry.find_entity(Thing) is app.registry.find_entity("thing")


def test_entity_names_ignore_case() -> None:
    app = App()

    @app.entity
    class BankAccount: ...

    assert EntityId(BankAccount, "k").name == "bankaccount"
    assert app.registry.find_entity("BANKaccount").factory is BankAccount


def test_a_name_without_version_is_its_highest_version_and_a_function_is_itself() -> None:
    app = App()

    @app.orchestration(name="orch", version="1.9")
    async def old(context: OrchestrationContext) -> None: ...

    @app.orchestration(name="orch", version="1.10")
    async def new(context: OrchestrationContext) -> None: ...

    @app.orchestration(name="orch")
    async def bare(context: OrchestrationContext) -> None: ...

    assert app.registry.find_orchestration("orch").function is new
    assert app.registry.find_orchestration("orch", "1.9").function is old
    assert app.registry.find_orchestration(old).function is old
    assert app.registry.find_orchestration(bare).version is None
    assert app.registry.find_orchestration(old, "1.10").function is new
    assert app.versions("orch") == [None, "1.9", "1.10"]


def test_a_function_of_several_versions_stands_for_the_highest() -> None:
    app = App()

    async def orch(context: OrchestrationContext) -> None: ...

    for version in ("2", "10", "9"):
        app.orchestration(version=version)(orch)

    assert app.registry.find_orchestration(orch).version == "10"


def test_an_unknown_version_is_answered_with_those_there_are() -> None:
    app = App()

    @app.orchestration(version="1")
    async def orch(context: OrchestrationContext) -> None: ...

    with pytest.raises(UnknownNameError, match="no version '2' of orchestration 'orch'; it has: 1"):
        app.registry.find_orchestration(orch, "2")


def test_an_unknown_name_suggests_those_like_it() -> None:
    app = App("shop")

    @app.activity
    def charge_card() -> None: ...

    with pytest.raises(
        UnknownNameError,
        match="app 'shop' has no activity 'charge_cart'; did you mean 'charge_card'",
    ):
        app.registry.find_activity("charge_cart")


def test_an_unknown_name_in_an_empty_app_says_so() -> None:
    app = App()

    for find in (
        app.registry.find_activity,
        app.registry.find_orchestration,
        app.registry.find_entity,
        app.versions,
    ):
        with pytest.raises(UnknownNameError, match="none are registered"):
            find("anything")


def test_a_function_of_another_app_is_said_not_to_be_registered_in_this_one() -> None:
    app, other = App("mine"), App()

    @other.activity
    def act() -> None: ...

    with pytest.raises(
        UnknownNameError, match="act is not registered as an activity in app 'mine'"
    ):
        app.registry.find_activity(act)


def test_another_function_of_a_registered_name_is_not_registered() -> None:
    app = App()

    def act() -> None: ...

    app.activity(name="act")(act)

    def impostor() -> None: ...

    impostor.__name__ = "act"
    with pytest.raises(UnknownNameError, match="not registered"):
        app.registry.find_activity(impostor)


@pytest.mark.parametrize("thing", [5, [], lambda: None, int], ids=range(4))
def test_what_cannot_be_registered_is_not_found(thing: Any) -> None:
    app = App()

    for find in (
        app.registry.find_activity,
        app.registry.find_orchestration,
        app.registry.find_entity,
    ):
        with pytest.raises(UnknownNameError, match="not registered"):
            find(thing)


def test_including_an_app_registers_all_that_it_has() -> None:
    app, other = App(), App()

    @other.activity
    def act() -> None: ...

    @other.orchestration(version="2")
    async def orch(context: OrchestrationContext) -> None: ...

    @other.entity
    class Thing: ...

    app.include(other)

    assert app.registry.find_activity(act).name == "act"
    assert app.registry.find_orchestration("orch").function is orch
    assert app.registry.find_orchestration(orch).version == "2"
    assert app.registry.find_entity(Thing).name == "thing"


def test_including_the_same_app_twice_changes_nothing() -> None:
    app, middle, other = App(), App(), App()

    @other.activity
    def act() -> None: ...

    middle.include(other)
    app.include(other)
    app.include(middle)

    assert app.activities == ["act"]


def an_entity() -> Callable[[Any], None]:
    def entity(context: Any) -> None: ...

    return entity


def test_including_an_app_with_a_name_that_is_taken_registers_nothing() -> None:
    app, other = App(), App()

    def act() -> None: ...

    def free() -> None: ...

    app.activity(act)
    other.activity(free)

    @other.entity(name="act")
    class Thing: ...

    app.entity(name="act")(an_entity())

    with pytest.raises(RegistrationError, match="entity 'act' is registered twice"):
        app.include(other)
    assert app.activities == ["act"]


def test_a_function_of_another_kind_is_said_to_be_one() -> None:
    app = App("shop")

    @app.activity
    async def pay() -> None: ...

    with pytest.raises(UnknownNameError, match=r"registered as an activity in .*, and is no orch"):
        app.registry.find_orchestration(pay)
