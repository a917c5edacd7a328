from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from perdure.storage.sqlite.connection import Connector, location


@pytest.fixture
def connector(tmp_path: Path) -> Connector:
    path = tmp_path / "file.sqlite"
    sqlite3.connect(path).close()
    path.touch()
    return Connector(location(path, "rw"))


def test_what_was_opened_for_somebody_who_gave_up_is_closed(connector: Connector) -> None:
    made = connector()

    connector.give_up()

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made.execute("SELECT 1")


def test_nothing_stays_open_that_is_opened_after_it_was_given_up(connector: Connector) -> None:
    connector.give_up()

    with pytest.raises(ValueError, match="closed"):
        connector()
