"""Services that have done nothing yet."""

from __future__ import annotations

import pytest

from tests.features.seeds.services import answers, log


@pytest.fixture(autouse=True)
def fresh() -> None:
    log.clear()
    answers.clear()
