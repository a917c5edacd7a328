"""The program that the design shows first runs as it is written there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import perdure
from perdure import App, EntityId, Hub, OrchestrationContext, RetryPolicy

app = App()

@app.entity
class Counter:
    value: int = 0
    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value
    def get(self) -> int:
        return self.value

@app.activity
async def fetch(url: str) -> str: ...

@app.orchestration
async def crawl(ctx: OrchestrationContext, urls: list[str]) -> int:
    retry = RetryPolicy(first_interval=1.0, max_attempts=5, backoff=2.0)
    pages = await ctx.task_all([ctx.call_activity(fetch, url, retry=retry) for url in urls])
    total = EntityId(Counter, "bytes")
    for page in pages:
        ctx.signal_entity(total, Counter.add, len(page))
    return await ctx.call_entity(total, Counter.get)

async def main() -> None:
    async with Hub(app, store="sqlite:hub") as hub:
        handle = await hub.client.start_new(crawl, ["https://example.org"], instance_id="crawl-1")
        print(await handle.result(timeout=60))
        await hub.client.signal_entity(EntityId(Counter, "clicks"), Counter.add, 5)
        print(await hub.client.call_entity(EntityId(Counter, "clicks"), Counter.get))
"""

FETCH = "async def fetch(url: str) -> str: ..."


@pytest.mark.by_turns
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
async def test_the_first_program_runs(
    future: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    source = PROGRAM.replace(FETCH, FETCH.replace("...", "return 'page of ' + url"))
    assert source != PROGRAM
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(future + source, "program.py", "exec", dont_inherit=True), namespace)
    main = namespace["main"]

    await main()
    assert capsys.readouterr().out.split() == [str(len("page of https://example.org")), "5"]

    # crawl-1 has ended, so that its id is free again; the entities were kept.
    await main()
    assert capsys.readouterr().out.split() == [str(2 * len("page of https://example.org")), "10"]
