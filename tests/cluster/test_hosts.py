"""Nodes on hosts of their own, as ``examples/cluster/compose.yaml`` has them, and real cables."""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest

from tests.cluster.hosts import ROOT, Lan, can_have_hosts
from tests.cluster.nodes import until
from tests.postgres import versions

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not can_have_hosts(), reason="needs root and iproute2's namespaces"),
    pytest.mark.skipif(not versions(), reason="needs a PostgreSQL of this machine's"),
]

COMPOSE = ROOT / "examples" / "cluster" / "compose.yaml"
STORE = "postgresql://perdure@database/perdure"
NODES = ("node-1", "node-2")
PARTITIONS = 16
EVEN: dict[str, int] = dict.fromkeys(NODES, PARTITIONS // 2)


class Cluster:
    """The services of the compose file, each on its host, and a visitor that asks them."""

    def __init__(self, lan: Lan, folder: Path, database: Path) -> None:
        self.lan = lan
        self._database = database
        self._key = folder / "node-key"
        self._key.write_text(secrets.token_hex(32))
        self._key.chmod(0o600)
        self._env: dict[str, str] = {}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: list[subprocess.Popen[bytes]] = []
        self.longest_s = 0.0  # the longest call that was answered

    def start(self) -> None:
        """Start all in the order that the file has them in."""
        child = "tests.cluster.host_child"
        base = self.lan.host("database").start(
            child, "database", str(self._database), stdout=subprocess.PIPE
        )
        assert base.stdout is not None
        password = base.stdout.readline().decode().strip()
        assert password, self.lan.said()
        self._env["PGPASSWORD"] = password
        for name in NODES:
            self.start_node(name)
        self.until_shared("node-2", EVEN)
        self.visitor = self.lan.host("visitor").start(
            child,
            "visitor",
            STORE,
            str(self._key),
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def kill(self, name: str) -> None:
        """Kill a node."""
        self.killed.append(self.nodes[name])
        self.nodes[name].kill()

    def start_node(self, name: str) -> None:
        """Start what the file says of a node."""
        [command] = re.findall(
            rf"^  {name}:.*?^    command: >-\n((?:      [^\n]*\n)+)",
            COMPOSE.read_text("utf-8"),
            re.MULTILINE | re.DOTALL,
        )
        arguments = shlex.split(command.replace("/run/secrets/node-key", str(self._key)))
        arguments += ["--partitions", str(PARTITIONS)]
        self.nodes[name] = self.lan.host(name).start(*arguments, env=self._env)

    def ask(self, words: str = "") -> dict[str, Any]:
        """Have the visitor say how it goes."""
        visitor = self.visitor
        assert visitor.stdin is not None
        assert visitor.stdout is not None
        visitor.stdin.write(f"{words}\n".encode())
        visitor.stdin.flush()
        line = visitor.stdout.readline()
        assert line, self.lan.said()
        said: dict[str, Any] = orjson.loads(line)
        return said

    def partitions(self, asked: str) -> dict[str, int]:
        """Say how many partitions each host has, by the command line on one of them."""
        told = self.lan.host(asked).run("perdure", "nodes", STORE, "--json", env=self._env)
        assert all(node.poll() is None for node in self.nodes.values() if node not in self.killed)
        nodes: list[dict[str, Any]] = orjson.loads(told.stdout)["nodes"] if told.stdout else []
        return {
            node["host"].partition("/")[0]: len(node["partitions"])
            for node in nodes
            if node["partitions"]
        }

    def until_shared(self, asked: str, shares: dict[str, int], seconds: float = 60) -> None:
        """Return when the hosts have so many partitions each."""
        until(lambda: self.partitions(asked) == shares, seconds, self.lan.said, rest_s=0.5)

    def until_answers(self, more: int = 100, seconds: float = 60) -> None:
        """Return when the visitor got so many more answers."""
        start = self._answered()
        until(lambda: self._answered() >= start + more, seconds, self.lan.said)

    def _answered(self) -> int:
        how = self.ask("how")
        self.longest_s = max(self.longest_s, how["longest_s"])
        answered: int = how["answered"]
        return answered


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with (
        TemporaryDirectory(prefix="perdure-hosts-", ignore_cleanup_errors=True) as folder,
        Lan(tmp_path, ["database", *NODES, "visitor"]) as lan,
    ):
        Path(folder).chmod(0o755)  # the database is another user's
        cluster = Cluster(lan, tmp_path, Path(folder))
        cluster.start()
        cluster.until_answers()
        yield cluster


def test_a_host_takes_over_from_one_that_dies_or_loses_its_cable_and_nothing_is_lost(
    cluster: Cluster,
) -> None:
    def until_taken_over(since: str) -> None:
        cluster.until_shared("node-2", {"node-2": PARTITIONS})
        cluster.until_answers()
        # With -rP. Beside other work it says nothing: the target is that of a quiet machine.
        print(f"longest call since {since}: {cluster.longest_s:.2f} s")

    def until_even() -> None:
        cluster.until_shared("node-1", EVEN, 90)
        cluster.until_answers()
        cluster.longest_s = 0.0

    cluster.kill("node-1")
    until_taken_over("a node was killed")
    cluster.start_node("node-1")
    until_even()

    cluster.lan.host("node-1").unplug()
    until_taken_over("a cable was pulled")
    assert cluster.nodes["node-1"].poll() is None
    cluster.lan.host("node-1").plug()
    until_even()

    assert cluster.ask()["differences"] == []
