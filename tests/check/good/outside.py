# %% a path that is only computed
from pathlib import Path, PurePosixPath

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> str:
    place = Path("out") / name
    other = PurePosixPath("/") / "x"
    return str(place.with_suffix(".txt").relative_to("out")) + place.name + place.parent.name + str(other)

# %% texts of paths
import os.path

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> str:
    return os.path.join("out", os.path.basename(name)) + os.path.splitext(name)[1] + os.sep

# %% an activity writes
from pathlib import Path

def save(name: str, text: str) -> None:
    Path(name).write_text(text)

@app.activity
def write(name: str) -> None:
    with open(name) as file:
        save(name, file.read())

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(write, "x")

# %% a method that is called open
class Door:
    def open(self, name: str) -> str:
        return name

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return Door().open("front")

# %% a function that is called open
def open(name: str) -> str:
    return name

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return open("front")

# %% a file in memory
import csv
import io
import json

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(["a", "b"])
    return json.dumps({"csv": out.getvalue()})

# %% addresses that are only computed
from http import HTTPStatus
from urllib.parse import quote, urlencode, urlsplit

@app.orchestration
async def flow(ctx: OrchestrationContext, url: str) -> str:
    parts = urlsplit(url)
    return f"{quote(parts.path)}?{urlencode({'a': 1})} {HTTPStatus.OK}"

# %% an exception of a library
import requests
import httpx

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    try:
        return await ctx.call_activity(charge, 1)
    except (requests.RequestException, httpx.HTTPError) as error:
        return str(error)

# %% types and values of a library
import httpx

@app.orchestration
async def flow(ctx: OrchestrationContext, status: int) -> bool:
    url = httpx.URL("https://example.org")
    return httpx.codes.is_success(status) and url.host == "example.org"

# %% an activity asks
import httpx
import requests

client = httpx.AsyncClient()

@app.activity
async def fetch(url: str) -> str:
    return (await client.get(url)).text

@app.activity
def fetch_slowly(url: str) -> str:
    return requests.get(url).text

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(fetch, "x") + await ctx.call_activity(fetch_slowly, "y")

# %% a dict has get, too
@app.orchestration
async def flow(ctx: OrchestrationContext, requests: dict[str, str]) -> str:
    return requests.get("x", "") + {"a": "b"}.get("a", "")

# %% a parameter that is called session
@app.orchestration
async def flow(ctx: OrchestrationContext, session: Any) -> str:
    return session.get("user")

# %% an entity awaits a client
import httpx

@app.entity
class Rates:
    rate: float = 1.0

    async def renew(self) -> None:
        async with httpx.AsyncClient() as client:
            self.rate = (await client.get("https://example.org")).json()

# %% an entity waits for a thread
import anyio
import asyncio

@app.entity
class Report:
    text: str = ""

    async def renew(self) -> None:
        self.text = await anyio.to_thread.run_sync(str)
        await asyncio.sleep(0)
        await asyncio.gather()

# %% a function handed to an activity by its name
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity("subprocess", "os.system('true')")

# %% ordinary libraries
import collections
import dataclasses
import decimal
import enum
import functools
import itertools
import json
import math
import operator
import re
import string
import textwrap

class Size(enum.Enum):
    SMALL = 1

@dataclasses.dataclass(frozen=True)
class Order:
    size: Size
    cents: int

@app.orchestration
async def flow(ctx: OrchestrationContext, orders: list[Order]) -> str:
    total = functools.reduce(operator.add, (order.cents for order in orders), 0)
    counts = collections.Counter(order.size for order in orders)
    pairs = list(itertools.pairwise(sorted(order.cents for order in orders)))
    text = re.sub(r"\d", "#", json.dumps({"total": math.floor(total), "pairs": pairs}))
    price = decimal.Decimal(total).quantize(decimal.Decimal("0.01"))
    first = dataclasses.replace(orders[0], cents=1)
    return textwrap.shorten(f"{text} {counts} {price} {first} {string.ascii_letters}", 80)

# %% messages in texts
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    """Calls time.time() and open("x"), says its docstring."""
    return "datetime.now() requests.get() os.environ['X']"

# %% constants of the environment's modules
import os
import sys

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return os.linesep + sys.version + str(sys.maxsize)

# %% the environment, read in an activity and at the start
import os

@app.activity
def region() -> str:
    return os.environ["REGION"]

STORE = os.environ.get("STORE", "memory:")

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(region)

async def main() -> None:
    print(STORE, os.getpid())

# %% a field that is called environ
from dataclasses import dataclass

@dataclass
class Place:
    environ: dict[str, str]
    argv: list[str]

@app.orchestration
async def flow(ctx: OrchestrationContext, os: Place) -> str:
    return os.environ["HOME"] + os.argv[0]

# %% classes that derive from harmless ones
import datetime
import httpx
import pathlib
import random
import requests

class Refused(requests.RequestException):
    pass

class Late(httpx.HTTPError):
    pass

class Day(datetime.date):
    def next(self) -> "Day":
        return Day.fromordinal(self.toordinal() + 1)

class Seeded(random.Random):
    pass

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    if not await ctx.call_activity(charge, 1):
        raise Refused("no")
    try:
        return str(Day(2026, 1, 1).next()) + str(Seeded(7).random())
    except Late:
        return str(pathlib.PurePath("x"))
