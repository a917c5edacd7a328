from lib.steps import pay
from perdure import App

app = App()


@app.orchestration
async def flow(ctx) -> None:
    await pay(ctx)
