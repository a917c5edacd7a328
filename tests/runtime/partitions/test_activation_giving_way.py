"""What an orchestration awaits of code elsewhere does not keep a terminate waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from perdure import App, Hub, OrchestrationContext
from perdure.actors.orchestrations import orchestration
from perdure.actors.replay.executor import Executor
from tests.faults import within
from tests.runtime.harness import until

app = App()


@app.orchestration
async def take(ctx: OrchestrationContext) -> list[int]:
    return [await ctx.wait_for_external_event("go") for _ in range(2)]


class Elsewhere:
    """Where code runs that answers when it may."""

    def __init__(self) -> None:
        self.may = anyio.Event()
        self.may.set()
        self.asked = self.cancelled = self.answered = 0

    async def answer(self, do: Callable[[Any], None], given: Any) -> None:
        self.asked += 1
        try:
            await self.may.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        do(given)
        self.answered += 1

    async def has(self, **counts: int) -> bool:
        """Whether it was asked, and has answered or was cancelled, so often."""
        return all(getattr(self, name) == count for name, count in counts.items())


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Have the code of orchestrations run there."""
    there = Elsewhere()

    class Later(Executor):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.answers_later = True

        def start(self, input: bytes | None) -> Any:
            return there.answer(super().start, input)

        def apply(self, event: tuple[Any, ...]) -> Any:
            return there.answer(super().apply, event)

    monkeypatch.setattr(orchestration, "Executor", Later)
    return there


async def test_a_terminate_goes_through_while_an_answer_is_awaited(elsewhere: Elsewhere) -> None:
    async with within(), Hub(app, partitions=1) as hub:
        handle = await hub.client.start_new(take, instance_id="t")
        await until(lambda: elsewhere.has(answered=1))
        elsewhere.may = anyio.Event()
        await hub.client.raise_event("t", "go", 1)  # which is stored, and has to wait
        await until(lambda: elsewhere.has(asked=2))

        await handle.terminate("it takes too long")

        status = await handle.status()
        assert status.runtime_status == "Terminated"
        kinds = [event.event_type for event in await handle.history()]
        assert kinds == ["ExecutionStarted", "ExecutionTerminated", "ExecutionCompleted"]
        await until(lambda: elsewhere.has(cancelled=1))
    assert elsewhere.answered == 1


async def test_what_has_not_begun_is_terminated_while_its_begin_is_awaited(
    elsewhere: Elsewhere,
) -> None:
    elsewhere.may = anyio.Event()
    async with within(), Hub(app, partitions=1) as hub:
        handle = await hub.client.start_new(take, instance_id="t")
        await until(lambda: elsewhere.has(asked=1))

        await handle.terminate("never mind")

        assert (await handle.status()).runtime_status == "Terminated"
        await until(lambda: elsewhere.has(cancelled=1))


async def test_other_messages_wait_for_the_answer(elsewhere: Elsewhere) -> None:
    async with within(), Hub(app, partitions=1) as hub:
        handle = await hub.client.start_new(take, instance_id="t")
        await until(lambda: elsewhere.has(answered=1))
        elsewhere.may = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(hub.client.raise_event, "t", "go", number)
            await until(lambda: elsewhere.has(asked=2))
            elsewhere.may.set()

        assert sorted(await handle.result()) == [0, 1]
    assert elsewhere.cancelled == 0
