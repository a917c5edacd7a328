from perdure import OrchestrationContext


async def pay(context: OrchestrationContext) -> None:
    with open("log"):  # PDU005
        await context.call_activity("pay")
