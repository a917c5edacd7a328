from __future__ import annotations

from typing import Any, ClassVar

import orjson
import pytest

from perdure import App, OrchestrationContext, Settings
from perdure.actors.messages import Operation, Start, encode_message
from perdure.runtime.client.applications import make_lookup
from perdure.storage import EntityRow
from perdure.testing.replaying.findings import ReplayFinding
from perdure.testing.replaying.judge import Judge
from perdure.testing.replaying.rows import StoredEntity, StoredMessage, StoredRow

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount


@app.entity
class Upgraded:
    schema_version: ClassVar[int] = 2
    value: int = 0

    @classmethod
    def upgrade(cls, stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise ValueError(f"from {version}")

    def get(self) -> int:
        return self.value


@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> None: ...


def judged(row: StoredRow) -> list[ReplayFinding]:
    return list(Judge(make_lookup(app, Settings())).judge(row))


def entity(name: str, state: bytes | None, **others: Any) -> StoredEntity:
    row = EntityRow(1, name, "a", 5, state, None, None, None)
    return StoredEntity(row._replace(**others), 4)


def test_a_state_that_its_class_reads_is_nothing_to_tell_of() -> None:
    assert judged(entity("counter", b'{"value":3}')) == []
    assert judged(entity("counter", b'{"value":3,"gone":1}')) == []
    assert judged(entity("counter", b"{}")) == []
    assert judged(entity("counter", None, lock=b'["x",1,2]')) == []
    assert judged(entity("upgraded", b'{"$schema":2,"value":3}')) == []


def test_a_state_that_its_class_does_not_read_is_told_with_the_path() -> None:
    [found] = judged(entity("counter", b'{"value":"x"}', parked=b'{"type":"T","reason":"r"}'))

    assert (found.kind, found.actor) == ("unreadable", "@counter@a")
    assert "at $.value" in found.message
    assert found.parked == "T: r"
    assert found.file == __file__


def test_an_upgrade_that_raises_is_told_with_its_line() -> None:
    [found] = judged(entity("upgraded", b'{"value":3}'))

    assert found.kind == "unreadable"
    assert "from 1" in found.message
    assert found.text == 'raise ValueError(f"from {version}")'


def test_a_state_of_a_later_class_is_told() -> None:
    [found] = judged(entity("upgraded", b'{"$schema":3,"value":3}'))

    assert found.kind == "unreadable"
    assert "stored by schema_version 3" in found.message


@pytest.mark.parametrize("lock", [b"[1", b"7", b"[]"])
def test_a_lock_that_is_none_is_damage(lock: bytes) -> None:
    [found] = judged(entity("counter", b'{"value":3}', lock=lock))

    assert found.kind == "damaged"


def test_messages_that_can_be_taken_are_nothing_to_tell_of() -> None:
    for actor, message in (
        ("@counter@a", Operation("add", b"1")),
        ("x", Start("flow", None, b"1")),
    ):
        assert judged(StoredMessage(actor, encode_message(message))) == []


@pytest.mark.parametrize(
    ("actor", "message", "kind", "why"),
    [
        ("@counter@a", Operation("add", b'"1"'), "unreadable", "operation 'add'"),
        ("@counter@a", Operation("take", b"1"), "unregistered", "no operation 'take'"),
        ("@nobody@a", Operation("add", b"1"), "unregistered", "no entity 'nobody'"),
        ("x", Start("flow", None, b'"1"'), "unreadable", "the input of orchestration 'flow'"),
        ("x", Start("flow", "2", b"1"), "unregistered", "no version '2'"),
        ("x", Start("gone", None, b"1"), "unregistered", "no orchestration 'gone'"),
    ],
    ids=["input", "operation", "entity", "start", "version", "name"],
)
def test_messages_that_cannot_be_taken_are_told(
    actor: str, message: Operation | Start, kind: str, why: str
) -> None:
    [found] = judged(StoredMessage(actor, encode_message(message)))

    assert (found.kind, found.actor) == (kind, actor)
    assert why in found.message


@pytest.mark.parametrize("body", [b"[", b'["nonsense",null]', orjson.dumps(["operation", 1])])
def test_a_message_that_is_none_is_damage(body: bytes) -> None:
    [found] = judged(StoredMessage("@counter@a", body))

    assert found.kind == "damaged"
