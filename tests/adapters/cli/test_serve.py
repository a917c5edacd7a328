from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

import perdure
from perdure import App, Hub, RuntimeStatus
from perdure.__main__ import main
from tests.greeter import app_folder, command, read_line, start_for_later


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with app_folder(tmp_path, monkeypatch) as folder:
        yield folder


@pytest.mark.by_turns
@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
async def test_serve_runs_a_hub_until_a_signal_and_leaves_it_in_order(
    folder: Path, signalled: signal.Signals, anyio_backend_name: str
) -> None:
    await start_for_later(folder, "sqlite:hub")
    arguments = ["greeter:app", "--store", "sqlite:hub", "--backend", anyio_backend_name]

    with command(folder, "-m", "perdure", "serve", *arguments) as process:
        lines = {read_line(process), read_line(process)}
        process.send_signal(signalled)
        rest, errors = process.communicate(timeout=30)

    assert "served\n" in lines
    [announced] = lines - {"served\n"}
    assert "serves greeter:app on sqlite:hub (sqlite WAL synchronous=FULL)" in announced
    assert "2 orchestrations, 1 entity, 2 activities" in announced
    assert rest == "stopped; what had not ended goes on at the next start\n"
    assert errors == ""
    assert process.returncode == 0
    assert not list((folder / "hub").glob("*-wal")), "the store was not closed in order"


@pytest.mark.by_turns
async def test_what_was_served_is_completed_in_the_store(folder: Path) -> None:
    await start_for_later(folder, "sqlite:hub")
    with command(
        folder, "-m", "perdure", "serve", "greeter:app", "--store", "sqlite:hub"
    ) as process:
        lines = {read_line(process), read_line(process)}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    async with Hub(App(), store="sqlite:hub") as hub:
        status = await hub.client.get_status("one")

    assert "served\n" in lines
    assert status is not None
    assert (status.runtime_status, status.output) == (RuntimeStatus.COMPLETED, "served")


@pytest.mark.by_turns
async def test_a_served_hub_is_found_by_its_store_without_workers_too(folder: Path) -> None:
    with command(
        folder, "-m", "perdure", "serve", "greeter:app", "--store", "sqlite:hub"
    ) as process:
        read_line(process)
        async with perdure.connect("sqlite:hub") as client:
            handle = await client.start_new("greet", "found", instance_id="two")
            result = await handle.result(timeout=30)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert result == "found"
    assert not (folder / "hub" / "hub.sock").exists()


TRACED = """
import sys
from greeter import app
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

class Printed(SpanExporter):
    def export(self, spans):
        for span in spans:
            print("span", span.name, file=sys.stderr, flush=True)
        return SpanExportResult.SUCCESS

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Printed()))
trace.set_tracer_provider(provider)
"""


@pytest.mark.by_turns
@pytest.mark.parametrize("by", ["serve", "dev"])
async def test_a_served_hub_is_traced_where_an_observer_is_named(by: str, folder: Path) -> None:
    (folder / "traced.py").write_text(TRACED, "utf-8")
    observed = ["--observer", "perdure.adapters.telemetry:Tracing", "--store", "sqlite:hub"]
    http = ["--http", "127.0.0.1:0"] if by == "dev" else []

    with command(folder, "-m", "perdure", by, "traced:app", *observed, *http) as process:
        while "serves traced:app" not in (line := read_line(process)):
            assert line, process.communicate()[1]
        async with perdure.connect("sqlite:hub") as client:
            handle = await client.start_new("greet", "traced")
            await handle.result(timeout=30)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    spans = [line for line in errors.splitlines() if line.startswith("span ")]
    assert sorted(spans) == ["span activity say", "span orchestration greet"]


def test_serve_says_in_one_line_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["serve", "greeter:app", "--store", "sqlit:hub"])

    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("perdure: store 'sqlit:hub' is not understood")
    assert captured.err.count("\n") == 1


def test_an_observer_that_there_is_not_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--store", "memory:", "--observer", "greeter:no_such"]

    assert main(["serve", "greeter:app", *given]) == 2

    assert "observer: there is no 'no_such'" in capsys.readouterr().err


def test_serve_wants_to_be_told_where_the_hub_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "greeter:app"]) == 2

    assert "--store" in capsys.readouterr().err


class Served:
    """A hub that is not run; what it was to be run with is written down."""

    durability = "nowhere"

    def __init__(self, orchestrations: int, entities: int, activities: int) -> None:
        self.app = self
        self.orchestrations = [*range(orchestrations)]
        self.entities = [*range(entities)]
        self.activities = [*range(activities)]
        self.given: dict[str, Any] = {}

    def run(self, app: str, *, on_ready: Callable[[Any], None], **given: Any) -> None:
        self.given = {"app": app, **given}
        on_ready(self)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    one = Served(1, 2, 0)
    monkeypatch.setattr(perdure, "run", one.run)
    return one


NO_NODE = dict.fromkeys(("node_listen", "node_address", "node_key", "node_http"))


def test_serve_runs_a_hub_with_what_it_was_given(served: Served) -> None:
    arguments = ["--store", "sqlite:hub", "--partitions", "8", "--shards", "2", "--workers", "3"]
    arguments += ["--socket", "x.sock", "--backend", "trio", "--no-uvloop"]
    arguments += ["--observer", "shop.telemetry:make_observer"]

    assert main(["serve", "shop:app", *arguments]) == 0

    assert served.given == {
        "app": "shop:app",
        "store": "sqlite:hub",
        "partitions": 8,
        "shards": 2,
        "workers": 3,
        "socket": "x.sock",
        "backend": "trio",
        "beside": None,
        "uvloop": False,
        "observer": "shop.telemetry:make_observer",
        **NO_NODE,
    }


def test_serve_says_how_a_process_of_several_is_reached(served: Served) -> None:
    arguments = ["--store", "postgresql://db/shop", "--node-listen", "0.0.0.0:7000"]
    arguments += ["--node-address", "10.0.0.5:7000", "--node-key-file", "key"]

    assert main(["serve", "shop:app", *arguments]) == 0

    assert {name: served.given[name] for name in NO_NODE} == {
        "node_listen": "0.0.0.0:7000",
        "node_address": "10.0.0.5:7000",
        "node_key": "key",
        "node_http": None,
    }


@pytest.mark.parametrize(
    ("more", "host"),
    [
        (["--http", "127.0.0.1:0"], "127.0.0.1"),
        (["--http", "0.0.0.0:0"], gethostname()),
        (["--http", "0.0.0.0:0", "--node-address", "10.0.0.5:7000"], "10.0.0.5"),
        (
            ["--http", "[::]:0", "--allowed-host", "a.shop", "--node-address", "10.0.0.5:7000"],
            "a.shop",
        ),
    ],
)
def test_serve_publishes_where_its_http_api_is(
    more: list[str], host: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_KEYS", "shop full hush-hush-hush-7")

    assert main(["serve", "shop:app", "--store", "postgresql://db/shop", *more]) == 0

    assert re.fullmatch(rf"http://{re.escape(host)}:[1-9]\d+", served.given["node_http"])


def test_serve_publishes_nothing_where_nobody_looks(served: Served) -> None:
    arguments = ["--store", "sqlite:hub", "--http", "127.0.0.1:0"]

    assert main(["serve", "shop:app", *arguments]) == 0

    assert served.given["node_http"] is None


def test_serve_prints_no_password(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    place = "postgresql://shop:hush-hush@db/shop?schema=shop&sslpassword=hush-hush"

    assert main(["serve", "shop:app", "--store", place]) == 0

    told = capsys.readouterr()
    assert served.given["store"] == place
    assert "on postgresql://shop@db/shop?schema=shop (" in told.out
    assert "hush" not in told.out + told.err


def test_serve_leaves_to_the_hub_what_it_was_not_given(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "shop:app", "--store", "memory:"]) == 0

    assert served.given == {
        "app": "shop:app",
        "store": "memory:",
        "partitions": None,
        "shards": 1,
        "workers": 0,
        "socket": None,
        "backend": "asyncio",
        "beside": None,
        "uvloop": None,
        "observer": None,
        **NO_NODE,
    }
    announced, stopped = capsys.readouterr().out.splitlines()
    assert "serves shop:app on memory: (nowhere): 1 orchestration, 2 entities, 0 activities" in (
        announced
    )
    assert stopped.startswith("stopped;")


@pytest.mark.parametrize("wrong", [["--partitions", "many"], ["--backend", "curio"], ["--fast"]])
def test_serve_refuses_what_it_does_not_take(wrong: list[str], served: Served) -> None:
    assert main(["serve", "shop:app", "--store", "memory:", *wrong]) == 2
    assert served.given == {}
