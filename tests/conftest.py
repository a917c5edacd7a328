"""The backends, the long runs, the profiles of hypothesis; nothing clever."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

from tests.postgres import (
    newest_postgres,
    oldest_postgres,
    own_postgres,
    postgres,
    postgres_servers,
)

__all__ = ["newest_postgres", "oldest_postgres", "own_postgres", "postgres", "postgres_servers"]

settings.register_profile("quick", deadline=None)
settings.register_profile("unattended", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "long", deadline=None, max_examples=1000, derandomize=False, print_blob=True
)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both."""
    backend: str = request.param
    return backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run slow tests and more examples, too")


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
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; runs with --long"))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of tests, which took it an eighth of all time."""
    gc.collect()
    gc.freeze()
