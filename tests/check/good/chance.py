# %% the instance's numbers
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    names = ["a", "b", "c"]
    ctx.random.shuffle(names)
    return ctx.random.choice(names) + str(ctx.random.random())

# %% the instance's numbers under another name
@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    random = ctx.random
    return random.random()

# %% a seed
import random

@app.orchestration
async def flow(ctx: OrchestrationContext, seed: int) -> float:
    source = random.Random(seed)
    return source.random() + random.Random(x=7).random()

# %% a class of one's own that is called random
class random:
    @staticmethod
    def random() -> float:
        return 0.5

    @staticmethod
    def choice(of: list[str]) -> str:
        return of[0]

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return f"{random.random()} {random.choice(['a'])}"

# %% a function of one's own that is called random
def random() -> float:
    return 4.0

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return random()

# %% in an activity in the same file
import random

@app.activity
def roll() -> int:
    return random.randint(1, 6)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(roll)

# %% a helper that only an activity uses
import random

def rolled() -> int:
    return random.randint(1, 6)

@app.activity
def roll() -> int:
    return sum(rolled() for _ in range(3))

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(roll)

# %% an id of the instance's
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(ctx.new_uuid())

# %% an id of a name
import uuid

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    space = uuid.UUID(int=7)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "x")) + str(uuid.uuid3(space, "y"))

# %% types of ids
from uuid import UUID, uuid4
from dataclasses import dataclass, field

@dataclass
class Order:
    what: str
    id: UUID = field(default_factory=uuid4)

@app.orchestration
async def flow(ctx: OrchestrationContext, order: Order) -> UUID:
    return order.id

# %% an id that is given
from dataclasses import dataclass, field
from uuid import UUID, uuid4

@dataclass
class Order:
    what: str
    id: UUID = field(default_factory=uuid4)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return Order("tea", id=ctx.new_uuid()).what

# %% secrets are compared
import secrets

@app.orchestration
async def flow(ctx: OrchestrationContext, token: str) -> bool:
    return secrets.compare_digest(token, "x")

# %% a hash of a library
import hashlib
import zlib

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest() + str(zlib.crc32(b"x"))

# %% numpy that computes
import numpy as np

@app.orchestration
async def flow(ctx: OrchestrationContext, numbers: list[float]) -> float:
    source = np.random.default_rng(7)
    return float(np.mean(numbers)) + float(source.random())

# %% a retry with jitter
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    retry = RetryPolicy(first_interval=1.0, max_attempts=5, jitter=0.1)
    return await ctx.call_activity(charge, 1, retry=retry)

# %% defaults that are given by their places
from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID, uuid4

@dataclass
class Base:
    kinds: ClassVar[int] = 1
    what: str

@dataclass
class Order(Base):
    id: UUID = field(default_factory=uuid4)
    note: str = ""

@app.orchestration
async def flow(ctx: OrchestrationContext, row: tuple[str, UUID], named: dict[str, Any]) -> str:
    a, b, c = Order("tea", ctx.new_uuid()), Order(*row), Order(**named)
    return f"{a.id} {b.id} {c.id}"

# %% settings that only activities read
import os

from pydantic_settings import BaseSettings

class Settings(BaseSettings):
    tries: int = 3

class Paths:
    HOME = os.getenv("HOME")
    KIND = "x"

settings = Settings()

@app.activity
def work(n: int) -> str:
    return f"{settings.tries} {Paths.HOME}"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(work, 1) + Paths.KIND
