"""Do many things at once, bounded, and put them together: ``python -m examples.fan_out``."""

from dataclasses import dataclass

import anyio

from perdure import ActivityError, App, Hub, OrchestrationContext, Task

app = App()


@dataclass
class BatchInput:
    items: list[int]
    batch_size: int


@dataclass
class BatchResult:
    total: int
    failed: list[int]


@app.activity(max_concurrency=8)
def collatz_steps(start: int) -> int:
    if start < 1:
        raise ValueError(f"{start} is not positive")
    steps = 0
    while start != 1:
        start = start * 3 + 1 if start % 2 else start // 2
        steps += 1
    return steps


@app.orchestration
async def process_batch(ctx: OrchestrationContext, batch: BatchInput) -> BatchResult:
    result = BatchResult(0, [])
    for start in range(0, len(batch.items), batch.batch_size):
        items = batch.items[start : start + batch.batch_size]
        tasks: list[Task[int]] = [ctx.call_activity(collatz_steps, item) for item in items]
        try:
            await ctx.task_all(tasks, fail_fast=False)  # waits for all, whatever fails
        except* ActivityError:
            result.failed += [item for item, t in zip(items, tasks, strict=True) if t.is_faulted]
        result.total += sum(task.result for task in tasks if not task.is_faulted)
        ctx.set_custom_status({"done": start + len(items), "of": len(batch.items)})
    return result


async def main() -> None:
    async with Hub(app) as hub:
        batch = BatchInput(items=list(range(-2, 200)), batch_size=50)
        handle = await hub.client.start_new(process_batch, batch)
        result = await handle.result(timeout=60)
        print(f"{result.total} steps; failed: {result.failed}")


if __name__ == "__main__":
    anyio.run(main)
