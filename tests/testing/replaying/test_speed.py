from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.replaying.large import CODE, DIFFERS, fill, look


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the work is done in other processes
async def test_a_hundred_thousand_live_instances_take_less_than_a_minute(tmp_path: Path) -> None:
    now = tmp_path / "now.py"
    await fill(tmp_path / "hub", 100_000)
    taken: list[float] = []

    for code, broken in ((CODE, 0), (DIFFERS, 100_000)):
        now.write_text(code, "utf-8")
        count, found = await look(tmp_path / "hub", f"{now}:app")
        assert (count.instances, count.broken, found) == (100_000, broken, broken)
        taken.append(count.seconds)

    assert max(taken) < 60
