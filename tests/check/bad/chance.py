# %% random numbers
import random

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    random.shuffle([1, 2])  # PDU002
    return random.random()  # PDU002

# %% a function of random
from random import choice as pick

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return pick(["a", "b"])  # PDU002

# %% a generator without a seed
import random

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    source = random.Random()  # PDU002
    return source.random()

# %% a generator of the whole module
import random

SOURCE = random.Random()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return SOURCE.random()  # PDU002

# %% as a key
import random

@app.orchestration
async def flow(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    return sorted(names, key=lambda _: random.random())  # PDU002

# %% given to map
import random

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[int]:
    return list(map(random.randrange, [6, 6]))  # PDU002

# %% secrets and bytes of the system
import os
import secrets

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return secrets.token_hex() + os.urandom(4).hex()  # PDU002

# %% numpy
import numpy as np

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    source = np.random.default_rng()  # PDU002
    return float(source.random() + np.random.rand())  # PDU002

# %% in an entity
import random

@app.entity
class Dice:
    last: int = 0

    def roll(self) -> int:
        self.last = random.randint(1, 6)  # PDU002
        return self.last

# %% an id
import uuid

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(uuid.uuid4())  # PDU003

# %% an id of the clock
from uuid import uuid1

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return uuid1().hex  # PDU003

# %% an id at import
from uuid import uuid4

RUN = uuid4().hex

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return RUN  # PDU003

# %% an id as a default
from uuid import UUID, uuid4

import attrs

@attrs.define
class Order:
    what: str
    id: UUID = attrs.field(factory=uuid4)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return Order("tea").what  # PDU003

# %% an id as a default, by a lambda
import uuid
from dataclasses import dataclass, field

@dataclass
class Order:
    what: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)  # PDU003

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return Order("tea").what

# %% an id for a child
import uuid

@app.orchestration
async def child(ctx: OrchestrationContext) -> None: ...

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_sub_orchestrator(child, instance_id=f"child-{uuid.uuid4()}")  # PDU003

# %% a seeded generator that all instances share
import random

SOURCE = random.Random(7)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return SOURCE.random()  # PDU002

# %% a default that a place before it leaves out
from dataclasses import dataclass, field
from uuid import UUID, uuid4

@dataclass
class Order:
    what: str
    note: str = ""
    id: UUID = field(default_factory=uuid4)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> UUID:
    return Order("tea", "note").id  # PDU003
