"""What is read where others may take over is read by who is sure, or where the partition is."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from perdure.actors.errors import StorageError, StoreDamagedError, UnavailableError
from perdure.runtime.partitions import tenure
from perdure.runtime.partitions.gate import Gate
from perdure.runtime.partitions.tenure import SureRecords, patiently, surely
from perdure.runtime.placement.places import MovedError


class Held:
    """A tenure that is as the test says."""

    def __init__(self) -> None:
        self.sure = True
        self.error: Exception | None = None
        self.asked = 0

    def is_sure(self) -> bool:
        return self.sure

    async def until_sure(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.sure = True


class Stored:
    """Records that give what they are called, or fail so often first."""

    def __init__(self, name: str, *errors: Exception) -> None:
        self.name = name
        self.errors = [*errors]
        self.reads = 0

    async def read_instances(self, keys: list[str]) -> list[str]:
        self.reads += 1
        if self.errors:
            raise self.errors.pop(0)
        return [f"{self.name} {key}" for key in keys]


def records(gate: Gate, held: Held, here: Any, elsewhere: Any, *is_here: bool) -> Any:
    answers = [*is_here]

    async def ask() -> bool:
        return answers.pop(0)

    return SureRecords(here, gate, held, elsewhere, ask)


async def test_who_is_sure_reads_at_once() -> None:
    held, here = Held(), Stored("here")

    assert await surely(held, lambda: here.read_instances(["a"])) == ["here a"]
    assert held.asked == 0


async def test_who_is_not_sure_reads_when_he_is() -> None:
    held, here = Held(), Stored("here")
    held.sure = False

    assert await surely(held, lambda: here.read_instances(["a"])) == ["here a"]
    assert held.asked == 1


async def test_who_cannot_be_sure_reads_nothing() -> None:
    held, here = Held(), Stored("here")
    held.sure, held.error = False, MovedError("somebody may have it")

    with pytest.raises(MovedError):
        await surely(held, lambda: here.read_instances(["a"]))
    assert here.reads == 0


@pytest.mark.by_turns
async def test_a_store_that_is_away_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "backoff", float)
    here = Stored("here", StorageError("away"), StorageError("away"))

    assert await patiently(Gate(0, 1), lambda: here.read_instances(["a"])) == ["here a"]
    assert here.reads == 3


async def test_a_store_that_stays_away_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenure, "STORE_PATIENCE_S", -1.0)
    here = Stored("here", StorageError("no route to it"))

    with pytest.raises(UnavailableError, match="no route to it"):
        await patiently(Gate(0, 1), lambda: here.read_instances(["a"]))


async def test_what_is_damaged_is_not_read_again() -> None:
    here = Stored("here", StoreDamagedError("a row"), StorageError("away"))

    with pytest.raises(StoreDamagedError):
        await patiently(Gate(0, 1), lambda: here.read_instances(["a"]))
    assert here.reads == 1


async def test_a_partition_that_has_left_is_not_read_here() -> None:
    gate, here, elsewhere = Gate(0, 1), Stored("here"), Stored("elsewhere")
    gate.reason = MovedError("it moved")

    found = records(gate, Held(), here, elsewhere, False)

    assert await found.read_instances(["a"]) == ["elsewhere a"]
    assert here.reads == 0


async def test_a_partition_that_leaves_while_it_is_read_is_read_where_it_is() -> None:
    gate, elsewhere = Gate(0, 1), Stored("elsewhere")

    class Leaving(Stored):
        async def read_instances(self, keys: list[str]) -> list[str]:
            gate.reason = MovedError("it moved")
            raise StorageError("closed")

    found = records(gate, Held(), Leaving("here"), elsewhere, False)

    assert await found.read_instances(["a"]) == ["elsewhere a"]


async def test_a_partition_that_comes_back_is_read_here() -> None:
    gate, here, elsewhere = Gate(0, 1), Stored("here"), Stored("elsewhere")
    held = Held()
    held.sure, held.error = False, MovedError("somebody may have it")

    async def ask() -> bool:
        held.error = None
        return True

    stored: Any = [here, elsewhere]
    found: Any = SureRecords(stored[0], gate, held, stored[1], ask)

    with anyio.fail_after(10):
        assert await found.read_instances(["a"]) == ["here a"]
    assert elsewhere.reads == 0
