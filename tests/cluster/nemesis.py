"""A seeded nemesis, clients that call meanwhile, and what must have come of it in the end.

    run = Trial(seed, cluster, server, ttl_s=0.6, seconds=3)
    run.go()

What is done to the cluster, and when, follows from the seed alone, and so does what the clients
ask; how the two meet does not, so a seed that has failed may have to be run a few times to fail
again. ``Anomaly`` says what was found, and the schedule.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from random import Random
from typing import Any, Protocol

from attrs import frozen

from perdure.storage.postgres.links import driver
from perdure.storage.postgres.place import read_place
from perdure.storage.postgres.server import Server
from tests.cluster.app import Account
from tests.cluster.histories import (
    Anomaly,
    Call,
    History,
    breaches,
    check_applied,
    check_bank,
    check_ended,
    check_locks,
    check_order,
    check_register,
    check_sum,
    left_undone,
    requests_of,
)
from tests.cluster.nodes import GoneError, NodeError, standing_still
from tests.cluster.proxy import Net

NODES = 3
CLIENTS = 6
PARTITIONS = 6
COUNTERS, REGISTERS, LOGS, SPEAKERS, ACCOUNTS = 3, 2, 2, 3, 4
#: Seconds between two calls of a client.
PAUSE_S = 0.01
#: Seconds after which a client asks another node, and those in which all must be well again.
ASK_S = 4.0
END_S = 90.0
#: How often a node is started for what the last one has left.
AGAIN_MAX = 10
#: Errors that say to repeat.
PASSING = ("UnavailableError", "OutcomeUnknownError", "HubStoppingError")

OF_NODES = ("kill", "pause", "cut", "part", "lose", "skew", "move", "join", "leave")
OF_DATABASE = ("terminate", "crash", "still", "lock", "horizon")
KINDS = OF_NODES + OF_DATABASE
#: What no client must notice: no request of theirs may fail for it.
GENTLE = ("move", "join", "leave")

Edge = tuple[str, str]

_log = logging.getLogger("nemesis")


class AnyNode(Protocol):
    """A node, whatever it is."""

    @property
    def name(self) -> str: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def was_killed(self) -> bool: ...

    @property
    def is_asked(self) -> bool: ...

    def ask(self, operation: str, /, **arguments: Any) -> Future[Any]: ...

    def wait_ready(self, seconds: float = ...) -> None: ...

    def kill(self) -> None: ...

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def set_clock(self, seconds: float) -> None: ...

    def stop(self, seconds: float = ...) -> None: ...

    def tail(self) -> str: ...


class AnyCluster(Protocol):
    """Several nodes, whatever they are."""

    @property
    def place(self) -> str: ...

    @property
    def net(self) -> Net: ...

    @property
    def nodes(self) -> Sequence[Any]: ...

    def start(self, count: int = 1, *, wait: bool = True) -> Sequence[Any]: ...

    def to_database(self, node: Any) -> Edge: ...

    def between(self, one: Any, other: Any) -> list[Edge]: ...


@frozen
class Act:
    """One thing that is done.

    Attributes:
        at: seconds from the beginning.
        kind: one of ``KINDS``.
        which: chooses among those that there are then: nodes, edges, tables, sessions.
        seconds: how long it lasts, if it does.
    """

    at: float
    kind: str
    which: int
    seconds: float

    def __str__(self) -> str:
        return f"at {self.at:.2f} s: {self.kind} {self.which} for {self.seconds:.2f} s"


def schedule(
    seed: int, *, ttl_s: float, seconds: float, kinds: Collection[str] = KINDS
) -> list[Act]:
    """Draw what is done, in order."""
    random = Random(seed)
    acts = list[Act]()
    if not kinds:
        return acts
    at = random.uniform(0, 0.4)
    while at < seconds:
        kind = random.choice(sorted(kinds))
        lasts = ttl_s * random.choice((0.1, 0.3, 0.8, 1.2, 2.0, 3.0))
        if kind in ("lock", "still"):
            lasts = min(lasts, 2.0)
        acts.append(Act(at, kind, random.randrange(10_000), lasts))
        at += random.choice((0.05, 0.2, 0.5, 1.0)) * seconds / 3
    return acts


class Nemesis:
    """Does what a schedule says to a cluster.

    Args:
        cluster: whom it hurts.
        server: of the database.
        acts: the schedule.
    """

    def __init__(self, cluster: AnyCluster, server: Server, acts: Sequence[Act]) -> None:
        self._cluster = cluster
        self._server = server
        self._acts = acts
        self._place = read_place(cluster.place)
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._database = threading.Lock()
        self._nodes = threading.Lock()
        self.done: list[str] = []
        self.troubles: list[str] = []
        self.leaving = set[str]()

    @property
    def up(self) -> list[AnyNode]:
        """The nodes that are up."""
        return [node for node in self._cluster.nodes if node.is_up]

    def run(self) -> None:
        """Do all of it, each when its time has come; return when that is over."""
        began = time.monotonic()
        for act in self._acts:
            self._over.wait(max(0.0, began + act.at - time.monotonic()))
            work: Callable[[Act], None] = getattr(self, f"_{act.kind}")
            thread = threading.Thread(target=self._try, args=(work, act), name=str(act))
            self._threads.append(thread)
            thread.start()
        for thread in self._threads:
            thread.join()

    def mend(self) -> None:
        """Have all be well again."""
        if self._server.process_id is None:
            self._server.start()
        for node in self.up:
            node.go_on()
        self._cluster.net.mend_all()
        # One that came while nobody could reach the database has said so, and ended.
        for node in self._cluster.nodes:
            if (
                node.is_ready
                and not node.is_up
                and not node.was_killed
                and not node.stopped_in_order
            ):
                self.troubles.append(f"{node.name} has ended: {node.tail()}")
        if not any(node.is_ready for node in self.up):
            self._cluster.start()

    def _try(self, work: Callable[[Act], None], act: Act) -> None:
        try:
            work(act)
        except Exception as error:
            self.troubles.append(f"{act}: {type(error).__name__}: {error}")

    def _note(self, act: Act, what: object) -> None:
        self.done.append(f"{act}: {what}")

    def _pick(self, act: Act) -> AnyNode | None:
        up = self.up
        return up[act.which % len(up)] if up else None

    def _wait(self, act: Act) -> None:
        self._over.wait(act.seconds)

    # Nodes.

    def _kill(self, act: Act) -> None:
        node = self._pick(act)
        if node is None:
            return
        self._note(act, node.name)
        node.kill()
        self._wait(act)
        self._join(act)

    def _pause(self, act: Act) -> None:
        node = self._pick(act)
        if node is None:
            return
        self._note(act, node.name)
        node.pause()
        self._wait(act)
        node.go_on()

    def _skew(self, act: Act) -> None:
        node = self._pick(act)
        if node is None:
            return
        self._note(act, node.name)
        node.set_clock((-3_600.0, 3_600.0)[act.which % 2])

    def _cut(self, act: Act) -> None:
        node = self._pick(act)
        if node is None:
            return
        edge, way = self._cluster.to_database(node), act.which % 3
        self._note(act, (edge, way))
        net = self._cluster.net
        if way == 0:
            net.hold(*edge)
        elif way == 1:
            net.hold(*edge, "back")
        else:
            net.refuse(*edge)
            net.reset(*edge)
        self._wait(act)
        net.mend(*edge)

    def _lose(self, act: Act) -> None:
        node = self._pick(act)
        if node is None:
            return
        edge = self._cluster.to_database(node)
        self._note(act, edge)
        self._cluster.net.lose(*edge, "back", of=b"perdure commits")
        self._over.wait(min(act.seconds, 0.3))
        self._cluster.net.mend(*edge)

    def _part(self, act: Act) -> None:
        up = self.up
        if len(up) < 2:
            return
        one, other = Random(act.which).sample(up, 2)
        edges = self._cluster.between(one, other)
        if act.which % 3 == 0:
            edges = edges[:1]
        self._note(act, edges)
        for edge in edges:
            self._cluster.net.hold(*edge)
        self._wait(act)
        for edge in edges:
            self._cluster.net.mend(*edge)

    def _join(self, act: Act) -> None:
        with self._nodes:
            if len(self.up) >= NODES + 1:
                return
            [node] = self._cluster.start(wait=False)
        self._note(act, node.name)

    def _leave(self, act: Act) -> None:
        with self._nodes:
            staying = [node for node in self.up if node.is_ready and node.name not in self.leaving]
            if len(staying) < 2:
                return
            node = staying[act.which % len(staying)]
            self.leaving.add(node.name)
        self._note(act, node.name)
        # As whoever serves HTTP does it: nothing new is taken, what is asked is answered, and then
        # the hub stops.
        self._over.wait(0.1)
        deadline = time.monotonic() + 5 * ASK_S
        while node.is_asked and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            node.stop()
        except AssertionError:
            if not node.was_killed:
                raise

    def _move(self, act: Act) -> None:
        node = self._pick(act)
        if node is None:
            return
        random = Random(act.which)
        with suppress(NodeError, GoneError, TimeoutError):
            found = node.ask("nodes").result(ASK_S)
            members = [row["member"] for row in found["nodes"] if not row["is_expired"]]
            if not members:
                return
            to, partition = random.choice(members), random.randrange(PARTITIONS)
            self._note(act, (partition, to))
            node.ask("move_partition", partition=partition, to=to).result(ASK_S)

    # The database.

    def _do(self, *statements: str, seconds: float = 0.0) -> None:
        """Do something in a transaction, and keep that open for a while."""

        async def work() -> None:
            connection = await driver().connect(self._place.dsn, timeout=5)
            try:
                async with connection.transaction(isolation="repeatable_read"):
                    for statement in statements:
                        await connection.execute(statement.replace("{s}", self._place.quoted))
                    await asyncio.sleep(seconds)
            finally:
                connection.terminate()

        # It may be away, or go away.
        with suppress(OSError, driver().PostgresError, driver().InterfaceError):
            asyncio.run(work())

    def _terminate(self, act: Act) -> None:
        self._note(act, "a session")
        self._do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE"
            f" 'perdure%' ORDER BY md5(pid::text || '{act.which}') LIMIT {1 + act.which % 3}"
        )

    def _crash(self, act: Act) -> None:
        with self._database:
            self._note(act, "the server")
            self._server.stop("immediate")
            self._over.wait(min(act.seconds, 1.0))
            self._server.start()

    def _down(self, act: Act) -> None:
        with self._database:
            self._note(act, "the server")
            self._server.stop()
            self._wait(act)
            self._server.start()

    def _still(self, act: Act) -> None:
        with self._database:
            process = self._server.process_id
            assert process is not None
            self._note(act, "the server")
            with standing_still(process):
                self._wait(act)

    def _lock(self, act: Act) -> None:
        table = ("journal", "partition", "member", "folded")[act.which % 4]
        self._note(act, table)
        self._do(f"LOCK TABLE {{s}}.{table} IN ACCESS EXCLUSIVE MODE", seconds=act.seconds)

    def _horizon(self, act: Act) -> None:
        self._note(act, "held")
        self._do("SELECT count(*) FROM {s}.journal", seconds=act.seconds)


class Clients:
    """Clients that ask one thing after another, each of what a seed says, of any node.

    Args:
        cluster: whom they ask.
        seed: of what they ask.
        leaving: names of nodes that are about to stop: nobody asks anything new of them.
        ask_s: seconds after which they ask another node.
    """

    def __init__(
        self,
        cluster: AnyCluster,
        seed: int,
        leaving: Collection[str] = (),
        *,
        ask_s: float = ASK_S,
    ) -> None:
        self._cluster = cluster
        self._ask_s = ask_s
        self._leaving = leaving
        self._seed = seed
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._value = 0
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"client {number}")
            for number in range(CLIENTS)
        ]
        self.history = History()
        self.troubles: list[str] = []

    def start(self) -> None:
        """Have all of them begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Have each end what it is about; return when all have."""
        self._deadline = time.monotonic() + END_S
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        random = Random(f"{self._seed}-{client}")
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                self._once(client, random, f"r{client}-{number}")
            except Exception as error:
                self.troubles.append(f"client {client}: {type(error).__name__}: {error}")
                return
            self._stop.wait(random.uniform(0, 2 * PAUSE_S))

    def _once(self, client: int, random: Random, request: str) -> None:
        kind = random.choice(("add", "note", "write", "read", "read", "say", "count", "transfer"))
        if kind == "add":
            self._call(
                client, random, "counter", f"s{random.randrange(COUNTERS)}", kind, 2, request
            )
        elif kind == "note":
            key = f"n{random.randrange(COUNTERS)}"
            self._call(client, random, "counter", key, kind, request, request)
        elif kind == "write":
            with self._lock:
                self._value += 1
                value = self._value
            key = f"x{random.randrange(REGISTERS)}"
            self._call(client, random, "register", key, kind, value, request)
        elif kind == "read":
            key = f"x{random.randrange(REGISTERS)}"
            self._call(client, random, "register", key, kind, None, "")
        elif kind == "say":
            to = f"l{random.randrange(LOGS)}"
            self._call(
                client, random, "speaker", str(random.randrange(SPEAKERS)), kind, to, request
            )
        elif kind == "count":
            self._start(client, random, kind, f"o{random.randrange(COUNTERS)}", request)
        else:
            order = [f"a{n}" for n in random.sample(range(ACCOUNTS), 2)]
            self._start(client, random, kind, order, request)

    def _call(
        self,
        client: int,
        random: Random,
        name: str,
        key: str,
        operation: str,
        input: Any,
        request: str,
    ) -> None:
        call = self.history.begin(client, key, operation, input, request)
        arguments: dict[str, Any] = {"entity": f"@{name}@{key}", "operation": operation}
        if input is not None:
            arguments["input"] = input
        if request:
            arguments["request_id"] = request
        if (answer := self._ask(call, random, "call", arguments)) is not None:
            call.answer(answer["result"])

    def _start(self, client: int, random: Random, name: str, input: Any, request: str) -> None:
        call = self.history.begin(client, name, name, input, request)
        arguments = {
            "name": name,
            "input": input,
            "instance_id": f"{name}-{request}",
            "request_id": request,
        }
        if (answer := self._ask(call, random, "start", arguments)) is not None:
            call.answer(answer["instance_id"])

    def _ask(
        self, call: Call, random: Random, operation: str, arguments: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Ask one node after another until one answers; None where none did in time."""
        while True:
            up = [
                node
                for node in self._cluster.nodes
                if node.is_up and node.is_ready and node.name not in self._leaving
            ]
            try:
                if not up:
                    raise GoneError("all")
                answer = random.choice(up).ask(operation, **arguments)
                result: dict[str, Any] = answer.result(self._ask_s)
                return result
            except NodeError as error:
                self.history.note_error(f"{error.kind} of {call.operation}")
                _log.info("%s of %s: %s", call.operation, call.request or call.key, error)
                if error.kind not in PASSING:
                    raise
            except (GoneError, TimeoutError) as error:
                self.history.note_error(type(error).__name__)
            if time.monotonic() > self._deadline:
                call.fail("unknown")
                return None
            if call.operation == "read":
                # Another read is another call.
                call.fail("error")
                return None
            call.tries += 1
            time.sleep(random.uniform(0, 0.05))


class Trial:
    """One run of clients under a nemesis, with all that is checked in the end.

    Args:
        seed: of what is done and of what is asked.
        cluster: entered already, with no nodes.
        server: of the database.
        ttl_s: the members' time to live.
        seconds: how long it is hurt.
        kinds: what is done to it.
        acts: what is done to it, where no seed says that.
        ask_s: seconds after which a client asks another node.
        again: how a failed one is run again.

    Attributes:
        forgotten: requests that were acknowledged, and are not there any more.
    """

    def __init__(
        self,
        seed: int,
        cluster: AnyCluster,
        server: Server,
        *,
        ttl_s: float,
        seconds: float,
        kinds: Collection[str] = KINDS,
        acts: Sequence[Act] | None = None,
        ask_s: float = ASK_S,
        again: str = "",
    ) -> None:
        self.seed = seed
        self._cluster = cluster
        self._again = again
        if acts is None:
            acts = schedule(seed, ttl_s=ttl_s, seconds=seconds, kinds=kinds)
        self.nemesis = Nemesis(cluster, server, acts)
        self.clients = Clients(cluster, seed, self.nemesis.leaving, ask_s=ask_s)
        self._random = Random(seed)
        self.forgotten = 0

    @property
    def history(self) -> History:
        """What the clients saw."""
        return self.clients.history

    def go(self, hurt: Callable[[], None] = lambda: None, *, forgets: bool = False) -> None:
        """Do it, and check what has come of it.

        Args:
            hurt: what is done besides, when the nemesis is through.
            forgets: whether that makes the database forget the last of what it has acknowledged.

        Raises:
            Anomaly: something has come of it that must not.
        """
        try:
            self._hurt(hurt)
            if forgets:
                self._check_what_is_left()
            else:
                self._check()
        except (Exception, KeyboardInterrupt) as error:
            raise Anomaly(f"{type(error).__name__}: {error}\n{self.story()}") from error

    def story(self) -> str:
        """Tell what was done, and what came of it."""
        return "\n".join(
            (
                f"seed {self.seed}; again: {self._again}",
                *self.nemesis.done,
                *self.nemesis.troubles,
                *self.clients.troubles,
                f"{len(self.history.calls)} calls; errors: {dict(self.history.errors)}",
                *(node.tail() for node in self._cluster.nodes),
            )
        )

    def _hurt(self, hurt: Callable[[], None]) -> None:
        self._cluster.start(NODES)
        self.clients.start()
        try:
            self.nemesis.run()
            hurt()
        finally:
            self.nemesis.mend()
            self.clients.finish()
        self._check_stored(at_rest=False)
        if troubles := self.nemesis.troubles + self.clients.troubles:
            raise Anomaly(troubles[0])

    # What must have come of it.

    def _ask(self, operation: str, /, **arguments: Any) -> Any:
        """Ask whoever answers."""
        deadline = time.monotonic() + END_S
        while True:
            try:
                up = self.nemesis.up
                return self._random.choice(up).ask(operation, **arguments).result(END_S)
            except (NodeError, GoneError, TimeoutError) as error:
                kind = getattr(error, "kind", "TimeoutError")
                if kind not in (*PASSING, "TimeoutError") or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _state(self, name: str, key: str) -> dict[str, Any]:
        found = self._ask("entity_state", entity=f"@{name}@{key}")
        state: dict[str, Any] = {} if found is None else found["state"]
        return state

    def _check(self) -> None:
        calls = self.history.calls
        if unanswered := [call for call in calls if call.outcome in ("unknown", "open")]:
            raise Anomaly(f"not answered in {END_S:g} s: {unanswered[0]}")
        self._check_instances()
        for n in range(COUNTERS):
            adds = [call for call in self.history.of("add") if call.key == f"s{n}"]
            check_sum(self._state("counter", f"s{n}").get("total", 0), adds)
            notes = [call for call in self.history.of("note") if call.key == f"n{n}"]
            check_applied(self._state("counter", f"n{n}").get("applied", {}), notes)
        for n in range(REGISTERS):
            self._check_one_register(f"x{n}")
        self._check_speakers()
        self._stop_all()
        self._check_stored(at_rest=True)

    def _check_what_is_left(self) -> None:
        """Check that a database which has forgotten its last moments is that of an earlier one."""
        for call in self.history.of("count", "transfer"):
            if call.outcome == "answer" and self._has(call.result):
                status = self._ask("status", instance_id=call.result, wait=END_S)
                page = self._ask("history", instance_id=call.result, limit=1_000)
                check_ended(call.result, status["runtime_status"], page["items"])
        for n in range(COUNTERS):
            for key in (f"n{n}", f"o{n}"):
                applied = self._state("counter", key).get("applied", {})
                check_applied(applied, self._may_be(key))
                notes = [call for call in self.history.of("note") if call.key == key]
                self.forgotten += len(requests_of(notes, "answer") - applied.keys())
        self._check_accounts()
        self._check_heard([self._state("speaker", str(n)).get("said", 0) for n in range(SPEAKERS)])
        self._stop_all()
        self._check_stored(at_rest=True)

    def _has(self, instance: str) -> bool:
        try:
            return bool(self._ask("status", instance_id=instance))
        except NodeError as error:
            if error.kind != "InstanceNotFoundError":
                raise
            return False

    def _may_be(self, key: str) -> list[Call]:
        """Give the calls that a counter may have been given, each of which may be forgotten."""
        calls = self.history.of("note", "count")
        return [
            Call(call.client, key, "note", None, request, call.begun, outcome="unknown")
            for call in calls
            for request in (call.request, f"count-{call.request}")
        ]

    def _check_one_register(self, key: str) -> None:
        last = self.history.begin(-1, key, "read", None)
        answer = self._ask("call", entity=f"@register@{key}", operation="read")
        last.answer(answer["result"])
        check_register([call for call in self.history.of("read", "write") if call.key == key], 0)

    def _check_instances(self) -> None:
        counted: dict[str, set[str]] = {}
        moved = dict.fromkeys((f"a{n}" for n in range(ACCOUNTS)), Account().balance)
        for call in self.history.of("count", "transfer"):
            status = self._ask("status", instance_id=call.result, wait=END_S)
            page = self._ask("history", instance_id=call.result, limit=1_000)
            check_ended(call.result, status["runtime_status"], page["items"])
            if call.operation == "count":
                counted.setdefault(call.input, set()).add(call.result)
                if status["output"] != 1:
                    raise Anomaly(f"{call.result} counted {status['output']} times")
            else:
                moved[call.input[0]] -= 1
                moved[call.input[1]] += 1
        for n in range(COUNTERS):
            applied = self._state("counter", f"o{n}").get("applied", {})
            if applied != dict.fromkeys(counted.get(f"o{n}", ()), 1):
                raise Anomaly(f"counter o{n} has {applied}, by {counted.get(f'o{n}')}")
        if (balances := self._check_accounts()) != moved:
            raise Anomaly(f"the accounts have {balances}, and should have {moved}")

    def _check_accounts(self) -> dict[str, int]:
        accounts = {f"a{n}": self._state("account", f"a{n}") for n in range(ACCOUNTS)}
        balances = {key: one.get("balance", Account().balance) for key, one in accounts.items()}
        check_bank(balances, Account().balance)
        for key, one in accounts.items():
            check_locks(key, [(way, who) for way, who in one.get("entries", ())])
        return balances

    def _check_speakers(self) -> None:
        said = [self._state("speaker", str(n)).get("said", 0) for n in range(SPEAKERS)]
        if sum(said) != len(self.history.of("say")):
            raise Anomaly(f"speakers said {said}, asked {len(self.history.of('say'))} times")
        self._check_heard(said)

    def _check_heard(self, said: list[int]) -> None:
        deadline = time.monotonic() + END_S
        while True:
            logs = [self._state("log", f"l{n}").get("lines", []) for n in range(LOGS)]
            if sum(map(len, logs)) >= sum(said) or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        # A speaker counts over all whom it speaks to, so each of them gets some of its numbers.
        heard: dict[int, list[int]] = {}
        for lines in logs:
            ordered: dict[int, list[int]] = {}
            for speaker, number in lines:
                ordered.setdefault(speaker, []).append(number)
            for speaker, numbers in ordered.items():
                if numbers != sorted(numbers):
                    raise Anomaly(f"of speaker {speaker} there came {numbers}")
                heard.setdefault(speaker, []).extend(numbers)
        lines = [(speaker, n) for speaker, numbers in heard.items() for n in sorted(numbers)]
        check_order(lines, dict(enumerate(said)))

    def _stop_all(self) -> None:
        # Who is the last to stop may still wait to hear that something has come, and may have too
        # little time to say all that it has to: the next one does that.
        for _ in range(AGAIN_MAX):
            for node in self.nemesis.up:
                node.stop()
            if not asyncio.run(left_undone(self._cluster.place)):
                return
            self._cluster.start()
            time.sleep(0.2)

    def _check_stored(self, *, at_rest: bool) -> None:
        if found := asyncio.run(breaches(self._cluster.place, at_rest=at_rest)):
            raise Anomaly("; ".join(found))
