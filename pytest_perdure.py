"""Perdure's plugin for pytest: fixtures with a hub under test, and crashes at every commit.

* ``perdure_app``: the application; a test module or a ``conftest.py`` says which, by a fixture of
  this name.
* ``perdure_hub``: a running ``perdure.testing.TestHub`` of it. A test that anyio's plugin runs has
  it on its own event loop; any other one, async or not, has it in a thread of its own, and reaches
  it by its client from any loop, or by ``perdure_hub.sync``.
* ``@pytest.mark.perdure_hub(auto_advance=True)``: what ``TestHub`` is made with.
* ``@pytest.mark.perdure_crash_everywhere``: with ``pytest --perdure-crash-everywhere`` the test is
  run once for each of its commits with a crash there, by ``perdure.testing.crash_everywhere``;
  without, it is a test like any other.

perdure is imported where a fixture is asked for, and not before.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

if TYPE_CHECKING:
    from perdure import App
    from perdure.testing import TestHub

pytest.register_assert_rewrite("perdure.testing.store_conformance")

_OPTION = "--perdure-crash-everywhere"
_MARK = "perdure_crash_everywhere"
_HUB = "perdure_hub"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("perdure").addoption(
        _OPTION,
        action="store_true",
        help="run each test marked perdure_crash_everywhere once for each of its commits, with a "
        "crash of the hub there",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line(
        "markers", f"{_HUB}(**options): what the TestHub of this test is made with"
    )
    config.addinivalue_line(
        "markers", f"{_MARK}: with {_OPTION}, run once for each commit with a crash there"
    )


@pytest.fixture
def perdure_app(request: pytest.FixtureRequest) -> NoReturn:
    """Give the application whose hub is tested: to be overridden."""
    raise pytest.UsageError(
        f"{request.node.nodeid} asks for perdure_hub: say what application it is of, by a fixture "
        "perdure_app in the test's module or in conftest.py that returns the App"
    )


@pytest.fixture
def perdure_hub(request: pytest.FixtureRequest, perdure_app: App) -> TestHub:
    """Give a running ``TestHub`` of ``perdure_app``."""
    if _is_crashed_everywhere(request.node):
        return cast("TestHub", _HubLater(perdure_app))
    # anyio's plugin runs the fixtures of its own tests on the loop of these, and no others.
    is_anyios = "anyio_backend" in request.fixturenames and inspect.iscoroutinefunction(
        request.function
    )
    kind = "_perdure_hub_on_loop" if is_anyios else "_perdure_hub_in_thread"
    return cast("TestHub", request.getfixturevalue(kind))


@pytest.fixture
async def _perdure_hub_on_loop(
    request: pytest.FixtureRequest, perdure_app: App
) -> AsyncGenerator[TestHub]:
    from perdure.testing import TestHub

    async with TestHub(perdure_app, **_options(request.node)) as hub:
        yield hub


@pytest.fixture
def _perdure_hub_in_thread(request: pytest.FixtureRequest, perdure_app: App) -> Generator[TestHub]:
    from anyio.from_thread import start_blocking_portal

    from perdure.testing import TestHub

    hub = TestHub(perdure_app, **_options(request.node))
    with start_blocking_portal() as portal:
        portal.call(hub.start)
        try:
            yield hub
        finally:
            portal.call(hub.stop)


def _options(node: pytest.Item) -> dict[str, Any]:
    """Give the options of the markers, those nearest to the test before the others."""
    options: dict[str, Any] = {}
    for mark in node.iter_markers(_HUB):
        if mark.args:
            raise pytest.UsageError(
                f"{node.nodeid}: the marker {_HUB} takes what TestHub is made with by name, such as "
                f"auto_advance=True, and not {mark.args!r}"
            )
        options = {**mark.kwargs, **options}
    return options


def _is_crashed_everywhere(node: pytest.Item) -> bool:
    return bool(node.config.getoption(_OPTION)) and node.get_closest_marker(_MARK) is not None


class _HubLater:
    """Stands for the hub where each run of the test gets another one."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __getattr__(self, name: str) -> NoReturn:
        raise pytest.UsageError(
            f"perdure_hub.{name}: with {_OPTION} each run of a marked test has a hub of its own, so "
            "fixtures cannot use one; let the test itself do it, or leave the marker out"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the marked tests run once for each commit, where that is asked for."""
    for item in items:
        if isinstance(item, pytest.Function) and _is_crashed_everywhere(item):
            if _HUB not in inspect.signature(item.obj).parameters:
                raise pytest.UsageError(
                    f"{item.nodeid} is marked {_MARK} and does not take perdure_hub, which is what "
                    "would crash: have it take that as an argument of its own, or leave the marker "
                    "out"
                )
            item.obj = _crashing(item.obj, _options(item))


@contextmanager
def _failing_as_others() -> Generator[None]:
    """Have pytest.fail(), and pytest.raises() in vain, fail as any assertion: theirs is no Exception.

    So ``crash_everywhere`` says where the hub crashed, as it does of others.
    """
    try:
        yield
    except pytest.fail.Exception as failed:
        raise AssertionError(str(failed)) from failed


def _crashing(test: Any, options: dict[str, Any]) -> Any:
    """Give what runs a test as the scenario of ``crash_everywhere``."""
    if inspect.iscoroutinefunction(test):

        @wraps(test)
        async def crash_async(*arguments: Any, **given: Any) -> None:
            from perdure.testing import crash_everywhere

            async def scenario(hub: TestHub) -> None:
                with _failing_as_others():
                    await test(*arguments, **{**given, _HUB: hub})

            await crash_everywhere(given[_HUB].app, scenario, **options)

        return crash_async

    @wraps(test)
    def crash(*arguments: Any, **given: Any) -> None:
        import anyio
        from anyio.to_thread import run_sync

        from perdure.testing import crash_everywhere

        async def scenario(hub: TestHub) -> None:
            with _failing_as_others():
                await run_sync(partial(test, *arguments, **{**given, _HUB: hub}))

        async def run() -> None:
            await crash_everywhere(given[_HUB].app, scenario, **options)

        anyio.run(run)

    return crash
