import uuid

import apps
import deep.inner.names as names
from perdure import OrchestrationContext


@apps.first.orchestration
async def one(ctx: OrchestrationContext) -> str:
    return str(uuid.uuid4())  # PDU003


@apps.second.activity
def work() -> str:
    return names.fresh()


@apps.second.orchestration
async def two(ctx: OrchestrationContext) -> str:
    return names.fresh()
