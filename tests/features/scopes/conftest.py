"""Nothing is noted yet."""

from __future__ import annotations

import pytest

from tests.features.scopes.application import log


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()
