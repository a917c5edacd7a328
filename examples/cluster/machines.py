"""The processes of the demo: a database, and nodes that serve the hub on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

START_S = 60.0


class DemoError(Exception):
    """Something that the demo needs is not there, or has ended."""


class Process:
    """One process, which ends with the demo.

    Args:
        name: what the demo calls it.
        log: the file that has what it says.
        arguments: of ``perdure``.
        env: what it finds in its environment beside this process's.
    """

    def __init__(
        self, name: str, log: Path, arguments: list[str], env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perdure", *arguments],
                stdout=subprocess.PIPE,
                stderr=file,
                env=os.environ | (env or {}),
                start_new_session=True,  # Ctrl-C is for the demo, which stops all in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def first_line(self) -> str:
        """Wait for the first line that it prints.

        Raises:
            DemoError: it ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        if not line:
            self._process.wait()
            raise DemoError(self.why())
        return line

    def why(self) -> str:
        """Say what its log says."""
        return f"{self.name} has ended: {self.log.read_text(errors='replace').strip()[-2_000:]}"

    def kill(self) -> None:
        """End it as a machine ends whose power is cut."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Have it end in order."""
        if self.is_up:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Machines:
    """A database, and the nodes on it; all are stopped when this is left.

    Args:
        folder: for the database and for logs.
        store: a database that runs already, as ``postgresql://...``; None to start one.
        application: what the nodes serve.
    """

    def __init__(self, folder: Path, store: str | None, application: str) -> None:
        self._folder = folder
        self._application = application
        self._database: Process | None = None
        self._given = store
        self.store = ""
        self.nodes: list[Process] = []
        self._env: dict[str, str] = {}

    @property
    def starts_database(self) -> bool:
        """Whether none was given."""
        return self._given is None

    def start_database(self) -> None:
        """Have a database.

        Raises:
            DemoError: there is none.
        """
        dsn = self._given
        if dsn is None:
            arguments = ["dev-postgres", str(self._folder / "postgres")]
            self._database = Process("the database", self._folder / "postgres.log", arguments)
            dsn = self._database.first_line()
        # Nodes and the client have the password from the environment: the list of processes
        # shows what a command line says.
        parts = urlsplit(dsn)
        if parts.password is not None:
            self._env["PGPASSWORD"] = os.environ["PGPASSWORD"] = parts.password
            who = parts.netloc.partition(":")[0]
            dsn = parts._replace(netloc=f"{who}@{parts.netloc.rpartition('@')[2]}").geturl()
        self.store = dsn

    def start_node(self) -> Process:
        """Start one more node."""
        name = f"node {len(self.nodes) + 1}"
        arguments = ["serve", self._application, "--store", self.store]
        log = self._folder / f"{name.replace(' ', '-')}.log"
        node = Process(name, log, [*arguments, "--node-listen", "127.0.0.1:0"], self._env)
        self.nodes.append(node)
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in [*self.nodes, self._database]:
            if process is not None:
                process.stop()
