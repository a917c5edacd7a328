"""Hosts of their own on one machine, with names, addresses and cables: Linux's network namespaces.

    with Lan(tmp_path, ["database", "node-1"]) as lan:
        node = lan.host("node-1").start("perdure", "serve", ...)
        lan.host("node-1").unplug()

A host has its own name and its own loopback, and reaches others by their names. What is pulled is
its end of the cable: nobody is told, as with a real one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
_NET = "10.77.0"
_NAMED = Path("/etc/netns")  # where `ip netns exec` looks for a namespace's own /etc/hosts
_STOP_S = 20.0


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@cache
def can_have_hosts() -> bool:
    """Whether this machine lets the tests make them: it takes root, and iproute2."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"perdure-{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError:
        return False
    try:
        _ip("-n", name, "link", "add", "lan", "type", "bridge")
        subprocess.run(["ip", "netns", "exec", name, "unshare", "--uts", "true"], check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        _ip("netns", "del", name)
    return True


class Host:
    """One of them.

    Attributes:
        name: by which others reach it.
        address: its own.
    """

    def __init__(self, lan: Lan, name: str, number: int) -> None:
        self.name = name
        self.address = f"{_NET}.{number}"
        self._lan = lan
        self._port = f"port{number}"
        self._space = f"{lan.token}-{name}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def set_up(self, hosts: str) -> None:
        """Make it, with its cable plugged in."""
        switch, space, port = self._lan.token, self._space, self._port
        _ip("netns", "add", space)
        folder = _NAMED / space
        folder.mkdir(parents=True)
        (folder / "hosts").write_text(hosts)
        _ip(
            "-n",
            switch,
            "link",
            "add",
            port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            space,
        )
        _ip("-n", switch, "link", "set", port, "master", "lan", "up")
        _ip("-n", space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")

    def tear_down(self) -> None:
        """End what runs on it, and remove it."""
        for process in self._processes:
            process.kill()
            process.wait(_STOP_S)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        _ip("netns", "del", self._space)
        shutil.rmtree(_NAMED / self._space)

    def start(
        self,
        *command: str,
        env: dict[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Run ``python -m`` with these arguments there; what it says is in its log."""
        number = len(self._processes) + 1
        with open(self._lan.folder / f"{self.name}-{number}.log", "wb") as log:
            process = subprocess.Popen(
                self._command(command),
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
                stdin=stdin,
                stdout=log if stdout is None else stdout,
            )
        self._processes.append(process)
        return process

    def run(
        self, *command: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Do the same to its end, and give what it says."""
        return subprocess.run(
            self._command(command),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
            timeout=60,
            check=False,
        )

    def _command(self, arguments: Sequence[str]) -> list[str]:
        # Each replaces the one before it, so the process is that which was started.
        enter = ["ip", "netns", "exec", self._space, "unshare", "--uts", "sh", "-c"]
        named = ['hostname "$0" && exec "$@"', self.name]
        return [*enter, *named, sys.executable, "-m", *arguments]

    def unplug(self) -> None:
        """Pull its cable."""
        _ip("-n", self._lan.token, "link", "set", self._port, "nomaster")

    def plug(self) -> None:
        """Put it in again."""
        _ip("-n", self._lan.token, "link", "set", self._port, "master", "lan")

    def said(self) -> str:
        """What its logs say."""
        logs = sorted(self._lan.folder.glob(f"{self.name}-*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-3_000:]}" for log in logs)


class Lan:
    """Hosts on one switch.

    Args:
        folder: for their logs.
        names: of the hosts.

    Attributes:
        folder: as it was given.
        token: names the switch, and begins the names of all else.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.token = f"perdure-{secrets.token_hex(3)}"
        self._hosts = {name: Host(self, name, number) for number, name in enumerate(names, 1)}

    def host(self, name: str) -> Host:
        """Give one of them."""
        return self._hosts[name]

    def said(self) -> str:
        """What all logs say."""
        return "\n".join(host.said() for host in self._hosts.values())

    def __enter__(self) -> Self:
        _ip("netns", "add", self.token)
        _ip("-n", self.token, "link", "add", "lan", "type", "bridge")
        _ip("-n", self.token, "link", "set", "lan", "up")
        hosts = "".join(f"{host.address} {host.name}\n" for host in self._hosts.values())
        for host in self._hosts.values():
            host.set_up(f"127.0.0.1 localhost\n{hosts}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for host in self._hosts.values():
            host.tear_down()
        _ip("netns", "del", self.token)
