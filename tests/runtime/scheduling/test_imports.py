"""What is imported at first use holds no loop."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid

import pytest

from perdure.runtime.scheduling import imports
from perdure.runtime.scheduling.imports import imported

FIRST_LOOKS = """
import sys

import anyio

from perdure import App, Hub, OrchestrationContext, RuntimeStatus
from tests.runtime.stretches import measured

app = App()


@app.orchestration
async def wait(ctx: OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


async def main() -> None:
    async with Hub(app, store="memory:", rebalance=None) as hub:
        handle = await hub.client.start_new(wait, instance_id="w")
        while (await handle.status()).runtime_status != RuntimeStatus.RUNNING:
            await anyio.sleep(0.001)
        assert "perdure.runtime.explanations" not in sys.modules
        with measured() as stretches:
            await handle.explain()
            await hub.client.trace("w")
            print(stretches.longest_s / stretches.bound_s)


anyio.run(main, backend=sys.argv[1])
"""


def test_the_first_one_that_is_explained_holds_no_loop(anyio_backend_name: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", FIRST_LOOKS, anyio_backend_name],
        check=True,
        capture_output=True,
        text=True,
    )

    assert float(said.stdout) < 1


async def test_they_are_imported_beside_the_loop_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def note(name: str) -> None:
        threads.append(threading.get_ident())

    monkeypatch.setattr(imports, "import_module", note)
    names = f"{uuid.uuid4()}", f"{uuid.uuid4()}"

    await imported(*names)
    await imported(*names)

    assert len(threads) == 2
    assert threading.get_ident() not in threads
