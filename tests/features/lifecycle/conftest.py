"""A log that each test finds empty."""

from __future__ import annotations

import pytest

from tests.features.lifecycle.application import log


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()
