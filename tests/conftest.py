"""The backends, the long runs, the profiles of hypothesis; nothing clever."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.postgres import (
    locked_postgres,
    newest_postgres,
    oldest_postgres,
    own_postgres,
    postgres,
    postgres_servers,
)

__all__ = [
    "locked_postgres",
    "newest_postgres",
    "oldest_postgres",
    "own_postgres",
    "postgres",
    "postgres_servers",
]

settings.register_profile("quick", deadline=None, max_examples=50)
settings.register_profile(
    "unattended", deadline=None, max_examples=50, derandomize=True, print_blob=True
)
settings.register_profile(
    "long", deadline=None, max_examples=1000, derandomize=False, print_blob=True
)


LOOPS = ("asyncio", "trio")


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both."""
    backend: str = request.param
    return backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run slow tests and more examples, too")
    parser.addoption(
        "--seeds", type=int, help="how many seeds the tests under a nemesis are run with"
    )
    parser.addoption("--seed", type=int, help="the first of these seeds; alone, the only one")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--long"):
        settings.load_profile("long")
    elif "CI" in os.environ:
        settings.load_profile("unattended")
    else:
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    turns: dict[tuple[object, ...], int] = {}
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; runs with --long"))
        elif not _has_its_turn(item, turns) and item.nodeid not in config.args:
            item.add_marker(pytest.mark.skip(reason="on the other loop; on both with --long"))


def _has_its_turn(item: pytest.Item, turns: dict[tuple[object, ...], int]) -> bool:
    """Say whether a test that is ``by_turns`` runs on the loop that it is for."""
    mark = item.get_closest_marker("by_turns")
    if mark is None:
        return True
    assert isinstance(item, pytest.Function)
    params: dict[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    # The test's own loop, or that of a process that it starts.
    loop = next(
        (params[name] for name in ("anyio_backend", "loop", "backend") if name in params), None
    )
    if loop is None:
        return True
    first = mark.args[0] if mark.args else LOOPS[len(item.originalname) % len(LOOPS)]
    key = (item.parent, item.originalname, loop)
    turn = turns[key] = turns.get(key, -1) + 1
    # Not simply one by one: each value of a parameter that has two would always be on the same loop.
    # And the other way about on the newest Python that is claimed, so that both loops are tried.
    place = LOOPS.index(first) + turn.bit_count() + (sys.version_info >= (3, 13))
    return LOOPS[place % len(LOOPS)] == loop


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector the thousands of tests, which took it an eighth of all time.

    While they come it would go through them again and again, a sixth of the time of that.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
