"""Closes the code of the instances that a test has made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.actors.orchestrations import flows


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    flows.ways.clear()
    yield
    while flows.made:
        flows.made.pop().actor.close()
