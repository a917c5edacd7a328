"""Installs what a contender needs, once, in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from .contender import Needs, NotAvailableError


@frozen(kw_only=True)
class Environment:
    """Where a contender's packages are: the interpreter to run, and npm's folder."""

    python: Path
    programs: Path


def prepare(needs: Needs, cache: Path) -> Environment:
    """Install what is needed below ``cache``, unless it is there; gives where it is.

    Raises:
        NotAvailableError: pip or npm could not install something, or npm is not there.
    """
    folder = cache.absolute() / needs.name
    if not needs.name:
        return Environment(python=Path(sys.executable), programs=folder)
    environment = Environment(python=folder / "bin" / "python", programs=folder)
    # Written last: without it the environment is half made, and made anew.
    mark = folder / "installed"
    wanted = "\n".join([sys.version, *needs.python, *needs.npm])
    if mark.exists() and mark.read_text("utf-8") == wanted:
        return environment
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    run_command([sys.executable, "-m", "venv", folder])
    run_command([environment.python, "-m", "pip", "--no-input", "install", "-q", *needs.python])
    if needs.npm:
        npm = shutil.which("npm")
        if npm is None:
            raise NotAvailableError(f"npm is needed for {', '.join(needs.npm)}, and not installed")
        run_command([npm, "install", "--silent", "--prefix", folder, *needs.npm])
    mark.write_text(wanted, "utf-8")
    return environment


def run_command(command: Sequence[str | Path]) -> None:
    """Run a command that installs something, to its end.

    Raises:
        NotAvailableError: it fails.
    """
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        reason = (errors or said or [f"status {done.returncode}"])[-1]
        raise NotAvailableError(f"{' '.join(map(str, command))}: {reason[:300]}")
