"""An entity, an activity, an orchestration and a hub: ``python -m examples.counter``."""

import anyio

from perdure import App, EntityId, Hub, OrchestrationContext, RetryPolicy

app = App()


@app.entity  # annotated fields are the durable state, public methods the operations
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value


@app.activity  # sync functions run in worker threads, async ones on the loop
async def measure(text: str) -> int:
    return len(text)


@app.orchestration  # survives a crash between any two awaits
async def count_characters(ctx: OrchestrationContext, texts: list[str]) -> int:
    retry = RetryPolicy(first_interval=1.0, max_attempts=5, backoff=2.0)
    sizes = await ctx.task_all([ctx.call_activity(measure, text, retry=retry) for text in texts])
    total = EntityId(Counter, "characters")
    for size in sizes:
        ctx.signal_entity(total, Counter.add, size)
    return await ctx.call_entity(total, Counter.get)


async def main() -> None:
    async with Hub(app) as hub:  # store="sqlite:FOLDER" keeps everything
        texts = ["to perdure:", "to last", "through anything"]
        handle = await hub.client.start_new(count_characters, texts, instance_id="count-1")
        print("characters:", await handle.result(timeout=60))

        clicks = EntityId(Counter, "clicks")
        await hub.client.signal_entity(clicks, Counter.add, 5)
        print("clicks:", await hub.client.call_entity(clicks, Counter.get))


if __name__ == "__main__":
    anyio.run(main)
