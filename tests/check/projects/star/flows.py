from names import *
from perdure import App, OrchestrationContext

app = App()


@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    nap()
