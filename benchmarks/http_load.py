"""A client of HTTP in a process of its own: it keeps connections open and asks over them.

It is run as a script, and knows nothing but the standard library. What to ask comes as a line of
JSON on its standard input; it says ``ready`` when it is connected, begins at the next line, and
answers with a line of JSON: the seconds that each request took, and the bodies if they are wanted.
Then the next line says what to ask next.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

_CHUNK = 1 << 20


def _request(host: str, method: str, path: str, body: str | None) -> bytes:
    data = b"" if body is None else body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    return int(head[9:12]), await reader.readexactly(length)


class _Closed:
    """Clients that each send the next request when the last is answered."""

    def __init__(self, work: dict[str, Any]) -> None:
        host, port = work["address"]
        self._address = (host, port)
        self._requests = [_request(f"{host}:{port}", *one) for one in work["requests"]]
        self._connections: int = work["connections"]
        self._keeps: bool = work["keeps"]
        self.latencies = [0.0] * len(self._requests)
        self.statuses: dict[int, int] = {}
        self.bodies: list[str] = [""] * len(self._requests) if self._keeps else []

    async def connect(self) -> None:
        self._streams = [
            await asyncio.open_connection(*self._address, limit=_CHUNK)
            for _ in range(self._connections)
        ]

    async def run(self) -> None:
        numbers = iter(range(len(self._requests)))
        await asyncio.gather(*(self._send(numbers, *stream) for stream in self._streams))
        for _, writer in self._streams:
            writer.close()

    async def _send(
        self, numbers: Iterator[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for number in numbers:
            begun = perf_counter()
            writer.write(self._requests[number])
            status, body = await _answer(reader)
            self.latencies[number] = perf_counter() - begun
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if self._keeps:
                self.bodies[number] = body.decode()

    def told(self) -> dict[str, Any]:
        return {"latencies": self.latencies, "statuses": self.statuses, "bodies": self.bodies}


class _Streams:
    """Listeners to the stream of changes, each until it has seen the end of every instance."""

    def __init__(self, work: dict[str, Any]) -> None:
        self._address = work["address"]
        self._path: str = work["path"]
        self._count: int = work["connections"]
        self._wanted = frozenset(work["wanted"])
        self._begun = 0.0
        self.latencies = [0.0] * self._count

    async def connect(self) -> None:
        host, port = self._address
        self._readers: list[asyncio.StreamReader] = []
        self._writers: list[asyncio.StreamWriter] = []
        for _ in range(self._count):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(_request(f"{host}:{port}", "GET", self._path, None))
            self._readers.append(reader)
            self._writers.append(writer)
        for reader in self._readers:
            await reader.readuntil(b"event: reset")
            await reader.readuntil(b"\n\n")

    async def run(self) -> None:
        self._begun = perf_counter()
        await asyncio.gather(*(self._listen(n, one) for n, one in enumerate(self._readers)))
        for writer in self._writers:
            writer.close()

    async def _listen(self, number: int, reader: asyncio.StreamReader) -> None:
        left = set(self._wanted)
        while left:
            line = await reader.readline()
            if line.startswith(b"data: "):
                change = json.loads(line[6:])
                status = change["status"]
                if status is not None and status["runtime_status"] == "Completed":
                    left.discard(change["instance_id"])
        self.latencies[number] = perf_counter() - self._begun

    def told(self) -> dict[str, Any]:
        return {"latencies": self.latencies, "statuses": {200: self._count}, "bodies": []}


def main() -> None:
    """Do what the standard input says, one load after another, until it ends."""

    async def run() -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            work: dict[str, Any] = json.loads(line)
            load = _Streams(work) if work["kind"] == "streams" else _Closed(work)
            await load.connect()
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await load.run()
            print(json.dumps(load.told()), flush=True)

    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(run())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())


if __name__ == "__main__":
    main()
