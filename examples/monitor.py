"""Look again and again with a history that does not grow: ``python -m examples.monitor``."""

from dataclasses import dataclass, replace
from datetime import timedelta

import anyio

from perdure import App, Hub, OrchestrationContext

app = App()
READINGS = [18, 19, 23, 31, 24, 20, 19]


@dataclass
class Watch:
    limit: int
    every: timedelta
    looks: int = 0


@app.activity
async def read_temperature(look: int) -> int:
    return READINGS[look % len(READINGS)]


@app.activity
async def send_alert(temperature: int) -> None:
    print(f"alert: {temperature} degrees")


@app.orchestration
async def monitor(ctx: OrchestrationContext, watch: Watch) -> None:
    temperature = await ctx.call_activity(read_temperature, watch.looks)
    watch = replace(watch, looks=watch.looks + 1)
    if temperature > watch.limit:
        await ctx.call_activity(send_alert, temperature)
    ctx.set_custom_status(watch.looks)
    if watch.looks == len(READINGS):
        await ctx.wait_for_external_event("next round")
    await ctx.create_timer(ctx.current_utc_datetime + watch.every)
    ctx.continue_as_new(watch)


async def main() -> None:
    async with Hub(app) as hub:
        watch = Watch(limit=22, every=timedelta(seconds=0.05))
        handle = await hub.client.start_new(monitor, watch, instance_id="monitor")
        status = await handle.status()
        while (status.custom_status or 0) < len(READINGS):
            await anyio.sleep(0.05)
            status = await handle.status()
        await handle.terminate("enough seen")
        print(f"{status.execution} executions, {status.history_length} events in the history")


if __name__ == "__main__":
    anyio.run(main)
