from perdure import App, OrchestrationContext

import two

app = App()


@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return two.count(3)


def again(n: int) -> int:
    return two.count(n - 1)
