"""What commands say of a store that something has damaged."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.adapters.cli.shop import Run

COMMANDS = (
    ("list", "--json"),
    ("list", "--tag", "a=b"),
    ("show", "waits"),
    ("history", "waits"),
    ("explain", "waits"),
    ("entities",),
    ("parked",),
)


def damage(folder: Path, chance: random.Random) -> None:
    """Do to a file what disks and people do to files."""
    file = chance.choice(sorted(folder.glob("*-0*.sqlite")))
    content = bytearray(file.read_bytes())
    match chance.choice(["bytes", "end", "page", "noise", "file"]):
        case "bytes":
            for _ in range(chance.choice([1, 200])):
                content[chance.randrange(len(content))] = chance.randrange(256)
        case "end":
            del content[chance.randrange(len(content)) :]
        case "page":
            at = chance.randrange(0, len(content), 4096)
            content[at : at + 4096] = bytes(len(content[at : at + 4096]))
        case "noise":
            content = bytearray(chance.randbytes(5_000))
        case _:
            file.unlink()
            return
    file.write_bytes(content)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_store_is_read_or_refused_with_the_file_named(
    run: Run, stopped: str, tmp_path: Path, seed: int
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(stopped.removeprefix("sqlite:"), folder)
    damage(folder, random.Random(seed))

    for name, *arguments in COMMANDS:
        ended = run(name, f"sqlite:{folder}", *arguments)

        assert ended.status in (0, 1, 3), (name, ended)
        if ended.status == 1:
            assert ".sqlite" in ended.err, (name, ended)
            assert ended.err.count("\n") <= 2
