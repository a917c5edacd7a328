"""Servers that a contender needs beside it, as processes of its own.

Only the standard library is imported here: this runs in the environments of the other frameworks.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .contender import NotAvailableError

#: Seconds that a server has to begin, and then to end before it is made to.
START_S = 60.0
STOP_S = 30.0


class Server:
    """A process that runs until it is stopped; what it says is in a file."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._name = Path(command[0]).name
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=log.parent,
                **as_user(user),
            )

    async def until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the server is ready.

        Raises:
            NotAvailableError: it ended, or was not ready after a minute.
        """
        try:
            async with asyncio.timeout(START_S):
                while not await ready():
                    if self._process.poll() is not None:
                        raise NotAvailableError(f"{self._name} ended: {self._last_words()}")
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise NotAvailableError(
                f"{self._name} was not ready after {START_S:.0f} s: {self._last_words()}"
            ) from error

    def _last_words(self) -> str:
        return self._log.read_text("utf-8", errors="replace").strip()[-300:]

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for that; by force if it takes too long."""
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def as_user(user: str | None) -> dict[str, Any]:
    """Give the arguments for ``subprocess`` that run something as somebody else."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": ()}


def free_port() -> int:
    """Give a port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def accepts(port: int) -> bool:
    """Say whether somebody listens on a port of the loopback interface."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Postgres:
    """A PostgreSQL server in a folder, on a Unix socket, with every commit on the disk."""

    def __init__(self, folder: Path) -> None:
        """Make an empty database cluster and start it.

        Raises:
            NotAvailableError: PostgreSQL is not installed, or cannot run here.
        """
        self._programs = find_postgres()
        self.folder = folder / "postgres"
        self.folder.mkdir()
        user = None
        if os.geteuid() == 0:  # the server refuses to run as root
            user = "postgres" if _exists("postgres") else "nobody"
            folder.chmod(0o711)
            shutil.chown(self.folder, user)
        data = self.folder / "data"
        made = subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **as_user(user),
        )
        if made.returncode != 0:
            raise NotAvailableError(f"initdb failed: {made.stderr.strip()[-300:]}")
        self._server = Server(
            [
                *(self._programs / "postgres", "-D", data, "-k", self.folder, "-h", ""),
                *("-c", "fsync=on", "-c", "synchronous_commit=on"),
                *("-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB"),
            ],
            folder / "postgres.log",
            user=user,
        )

    async def ready(self) -> str:
        """Wait until it takes connections; gives its version."""
        await self._server.until(lambda: asyncio.to_thread(self._takes_connections))
        return f"PostgreSQL {self._run('postgres', '--version').stdout.split()[2]}"

    def _takes_connections(self) -> bool:
        return self._run("pg_isready", "-q", "-h", self.folder).returncode == 0

    def _run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._programs / program, *arguments], capture_output=True, text=True, check=False
        )

    def stop(self) -> None:
        """End it, connections or not."""
        self._server.stop(signal.SIGINT)


def find_postgres() -> Path:
    """Find the folder of PostgreSQL's programs: that of the path, or else the newest there is.

    Raises:
        NotAvailableError: they are not installed.
    """
    # Debian keeps the programs of each version off the PATH.
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    for folder in [*candidates, *reversed(places)]:
        if all((folder / name).exists() for name in ("postgres", "initdb", "pg_isready")):
            return folder
    raise NotAvailableError(
        "PostgreSQL's programs (postgres, initdb, pg_isready) are not installed"
    )


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
