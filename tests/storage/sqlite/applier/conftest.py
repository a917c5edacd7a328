"""A store in a folder, and how soon what it commits is applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.storage.sqlite import SqliteStore, applier as applying


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def store(folder: Path) -> SqliteStore:
    return SqliteStore(folder, synchronous="OFF")


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is applied that nobody asks for."""
    monkeypatch.setattr(applying, "GATHER_S", 3600.0)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is applied as soon as it is committed."""
    monkeypatch.setattr(applying, "GATHER_S", 0.0)
