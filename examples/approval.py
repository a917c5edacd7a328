"""Wait for a person, but not for ever: ``python -m examples.approval``."""

from dataclasses import dataclass
from datetime import timedelta

import anyio

from perdure import App, Hub, OrchestrationContext

app = App()


@dataclass
class Request:
    what: str
    patience: timedelta


@dataclass
class Approval:
    approved: bool
    reason: str = ""


@app.activity
async def tell(message: str) -> None:
    print(message)


@app.orchestration
async def approve(ctx: OrchestrationContext, request: Request) -> str:
    await ctx.call_activity(tell, f"please approve: {request.what}")
    timeout = ctx.create_timer(ctx.current_utc_datetime + request.patience)
    approval = ctx.wait_for_external_event("ApprovalEvent", data_type=Approval)
    if await ctx.task_any([approval, timeout]) is timeout:
        await ctx.call_activity(tell, f"nobody answered: {request.what}")
        return "timeout"
    timeout.cancel()
    if approval.result.approved:
        await ctx.call_activity(tell, f"done: {request.what}")
        return "approved"
    return f"rejected, {approval.result.reason}"


async def main() -> None:
    async with Hub(app) as hub:
        start = hub.client.start_new
        day = timedelta(hours=24)
        laptop = await start(approve, Request("a laptop", day), instance_id="laptop")
        yacht = await start(approve, Request("a yacht", day), instance_id="yacht")
        holiday = await start(approve, Request("a holiday", timedelta(seconds=0.2)))
        await laptop.raise_event("ApprovalEvent", Approval(True))
        await yacht.raise_event("ApprovalEvent", Approval(False, "there is no sea here"))
        for name, handle in ("laptop", laptop), ("yacht", yacht), ("holiday", holiday):
            print(f"{name}: {await handle.result(timeout=60)}")


if __name__ == "__main__":
    anyio.run(main)
