from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perdure.benchmarks.peers import environment
from perdure.benchmarks.peers.contender import Needs, NotAvailableError
from perdure.benchmarks.peers.environment import prepare, run_command


def test_what_pip_cannot_install_is_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: Sequence[str | Path]) -> None:
        if "venv" in command:  # which takes seconds: this interpreter's pip will do
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir()
            python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
            python.chmod(0o755)
        else:
            run_command(command)

    monkeypatch.setattr(environment, "run_command", run)
    needs = Needs(name="nobody", python=(str(tmp_path / "no-such-package"),))

    with pytest.raises(NotAvailableError, match="no-such-package: ERROR"):
        prepare(needs, tmp_path)
    assert not (tmp_path / "nobody" / "installed").exists()


class Installer:
    """Stands for pip and npm: writes down what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, npm: str | None = "/usr/bin/npm") -> None:
        self.commands: list[list[str]] = []
        self._npm = npm
        monkeypatch.setattr(environment, "run_command", self.run)
        monkeypatch.setattr(shutil, "which", self.which)

    def which(self, name: str) -> str | None:
        return self._npm

    def run(self, command: Any) -> None:
        self.commands.append([*map(str, command)])


def test_who_needs_nothing_runs_here(tmp_path: Path) -> None:
    found = prepare(Needs(), tmp_path)

    assert found.python == Path(sys.executable)
    assert [*tmp_path.iterdir()] == []


def test_what_is_installed_is_not_installed_again_until_something_else_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = Installer(monkeypatch)

    first = prepare(Needs(name="x", python=("a==1",), npm=("b",)), tmp_path)
    count = len(installer.commands)
    again = prepare(Needs(name="x", python=("a==1",), npm=("b",)), tmp_path)
    assert len(installer.commands) == count == 3
    prepare(Needs(name="x", python=("a==2",)), tmp_path)

    assert first == again
    assert first.python == tmp_path / "x" / "bin" / "python"
    assert installer.commands[1][-1] == "a==1"
    assert installer.commands[2][0] == "/usr/bin/npm"
    assert len(installer.commands) == 5


def test_without_npm_who_needs_it_is_not_available_and_is_made_anew_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Installer(monkeypatch, npm=None)
    with pytest.raises(NotAvailableError, match="npm is needed for b"):
        prepare(Needs(name="x", npm=("b",)), tmp_path)
    (tmp_path / "x" / "half made").write_text("")
    Installer(monkeypatch)

    prepare(Needs(name="x", npm=("b",)), tmp_path)

    assert not (tmp_path / "x" / "half made").exists()
