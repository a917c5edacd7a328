from __future__ import annotations

from pathlib import Path

import pytest

from perdure.actors.errors import StoreMovedError
from perdure.storage.sqlite.presence import Presence


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    tables, journal = tmp_path / "partition-00.sqlite", tmp_path / "journal-00.sqlite"
    for path in (tables, journal, Path(f"{tables}-wal"), Path(f"{journal}-wal")):
        path.touch()
    return tables, journal


def test_files_that_stay_where_they_are_are_present(files: tuple[Path, Path]) -> None:
    presence = Presence(*files)

    for _ in range(2):
        presence.check()
        presence.check(logs=True)
        files[0].write_bytes(b"more")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("harm", ["gone", "replaced", "gone at first"])
def test_a_file_that_is_not_the_one_of_the_first_time_is_missed(
    files: tuple[Path, Path], which: int, harm: str
) -> None:
    presence = Presence(*files)
    if harm != "gone at first":
        presence.check()

    path = files[which]
    moved = path.rename(path.with_name("moved"))
    if harm == "replaced":
        path.write_bytes(moved.read_bytes())

    with pytest.raises(StoreMovedError, match=path.name):
        presence.check()
    if harm != "gone at first":
        path.unlink(missing_ok=True)
        moved.rename(path)
        presence.check()  # it was put back


@pytest.mark.parametrize("which", [0, 1])
def test_logs_are_looked_for_only_where_they_are_in_use(
    files: tuple[Path, Path], which: int
) -> None:
    presence = Presence(*files)
    presence.check(logs=True)
    log = Path(f"{files[which]}-wal")

    log.unlink()

    presence.check()
    with pytest.raises(StoreMovedError, match=log.name):
        presence.check(logs=True)
