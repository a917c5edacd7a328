from perdure import OrchestrationContext

from . import times
from .app import app
from .random import choice


@app.orchestration
async def order(ctx: OrchestrationContext, what: str) -> str:
    return f"{choice([what])} {times.stamp()}"
