"""What tests of the SQLite store do to its files, and to processes that write them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def rows(path: Path, sql: str) -> list[Any]:
    """Give what a query finds in a file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def change(path: Path, *statements: str) -> None:
    """Change a file as nobody should."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def kill_committing(code: str, *arguments: object, after: int) -> int:
    """Kill a program some commits in; gives the last one it printed, which it does for each."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for _ in range(after):
        child.stdout.readline()
    child.kill()
    seen = [line for line in child.stdout if line.endswith("\n")]
    child.stdout.close()
    child.wait()
    return int(seen[-1]) if seen else after
