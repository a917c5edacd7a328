# %% a variable
import os

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    if os.environ.get("FAST"):  # PDU004
        return os.environ["HOME"]  # PDU004
    return os.getenv("USER", "")  # PDU004

# %% imported by itself
from os import environ, getenv

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return environ["HOME"] + (getenv("USER") or "")  # PDU004

# %% whether there is one
import os

@app.orchestration
async def flow(ctx: OrchestrationContext) -> bool:
    return "FAST" in os.environ  # PDU004

# %% at import
import os

FAST = os.environ.get("FAST") == "1"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    if FAST:  # PDU004
        return
    await ctx.call_activity(charge, 1)

# %% at import, made into a number
import os

LIMIT = int(os.getenv("LIMIT", "5"))

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for _ in range(LIMIT):  # PDU004
        await ctx.call_activity(charge, 1)

# %% what machine and process it is
import os
import platform
import socket

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return f"{socket.gethostname()}"  # PDU004

@app.orchestration
async def other(ctx: OrchestrationContext) -> str:
    return f"{platform.node()} {os.getpid()}"  # PDU004

# %% the arguments of the program
import sys

@app.orchestration
async def flow(ctx: OrchestrationContext) -> bool:
    return "--fast" in sys.argv  # PDU004

# %% in an entity
import os

@app.entity
class Stock:
    count: int = 0

    def add(self) -> None:
        self.count += int(os.environ["STEP"])  # PDU004

# %% an attribute of a class
import os

class Settings:
    FAST = os.getenv("FAST") == "1"
    SLOW = False

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    if Settings.FAST or Settings.SLOW:  # PDU004
        return
    await ctx.call_activity(charge, 1)

# %% settings that pydantic reads
from pydantic_settings import BaseSettings

class Settings(BaseSettings):
    tries: int = 3

settings = Settings()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for _ in range(settings.tries):  # PDU004
        await ctx.call_activity(charge, 1)
