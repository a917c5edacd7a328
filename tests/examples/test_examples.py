"""Each small example runs as a process of its own and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

WEBHOOKS = "/runtime/webhooks/durabletask"

ROOT = Path(__file__).parents[2]


def run(name: str) -> list[str]:
    """Run an example as a reader would, and give its lines."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_every_small_example_has_a_test_and_fits_a_screen() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"}

    lengths = {
        name: len((ROOT / "examples" / f"{name}.py").read_text("utf-8").splitlines())
        for name in names
    }

    assert names == {"counter", "approval", "saga", "monitor", "fan_out", "shop", "transfer", "web"}
    assert max(lengths.values()) < 70


def test_counter_counts_by_orchestration_and_by_client() -> None:
    lines = run("counter")

    assert lines == ["characters: 34", "clicks: 5"]


def test_approval_ends_in_each_of_its_three_ways() -> None:
    lines = run("approval")

    assert lines.count("done: a laptop") == 1
    assert "laptop: approved" in lines
    assert "yacht: rejected, there is no sea here" in lines
    assert lines.index("nobody answered: a holiday") < lines.index("holiday: timeout")


def test_saga_releases_what_it_reserved_when_the_payment_fails() -> None:
    lines = run("saga")

    assert lines == [
        "o-1: reserved tea",
        "o-1: shipped",
        "o-2: reserved piano",
        "o-2: released",
        "o-2: failed, process_payment failed: ValueError: the card was declined",
        "o-3: rejected: no items",
    ]


def test_shop_ships_what_is_paid_and_has_no_more_than_there_is() -> None:
    assert run("shop") == ["shipped 2 tea", "no tea left"]


def test_monitor_alerts_and_keeps_its_history_short() -> None:
    lines = run("monitor")

    assert lines[:3] == ["alert: 23 degrees", "alert: 31 degrees", "alert: 24 degrees"]
    length = re.fullmatch(r"7 executions, (\d+) events in the history", lines[3])
    assert length is not None
    assert int(length[1]) < 10


def test_fan_out_gives_the_total_and_the_failures() -> None:
    def steps(start: int) -> int:
        return 0 if start == 1 else 1 + steps(start * 3 + 1 if start % 2 else start // 2)

    expected = sum(map(steps, range(1, 200)))

    lines = run("fan_out")

    assert lines == [f"{expected} steps; failed: [-2, -1, 0]"]


def test_web_has_a_hub_in_an_application_of_ones_own() -> None:
    assert run("web") == ["202", "shipped tea"]


def test_web_is_served_with_its_lifespan() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "examples.web:web", "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
            with httpx.Client(base_url=url, timeout=20) as http:
                ready = http.get("/hub/readyz")
                id = http.post("/orders/tea").json()
                links = http.post(f"/hub{WEBHOOKS}/instances/{id}/restart")
                seen = http.get(links.json()["statusQueryGetUri"])
        finally:
            process.terminate()
            _, rest = process.communicate(timeout=20)

    assert ready.status_code == 200
    assert seen.status_code == 202
    assert "Application shutdown complete" in rest


def test_transfers_neither_make_nor_lose_money() -> None:
    (line,) = run("transfer")

    found = re.fullmatch(r"(\d+) of 30 transfers; 300 in all: \[(\d+), (\d+), (\d+)\]", line)
    assert found is not None, line
    done, *balances = map(int, found.groups())
    assert 0 < done < 30
    assert sum(balances) == 300
