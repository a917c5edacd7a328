# %% a thread
import threading

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    threading.Thread(target=print).start()  # PDU008

# %% an executor
from concurrent.futures import ThreadPoolExecutor

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with ThreadPoolExecutor() as pool:  # PDU008
        pool.submit(print)  # PDU008

# %% a thread of the loop
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await asyncio.to_thread(print)  # PDU008

# %% a thread of anyio
from anyio import to_thread

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await to_thread.run_sync(print)  # PDU008

# %% the executor of the loop
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    loop = asyncio.get_running_loop()  # PDU014
    await loop.run_in_executor(None, print)  # PDU008

# %% a lock of threads
import threading

LOCK = threading.Lock()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with LOCK:  # PDU008
        pass

# %% a thread in an entity
from threading import Thread

@app.entity
class Job:
    begun: bool = False

    def begin(self) -> None:
        Thread(target=print).start()  # PDU008
        self.begun = True

# %% sleeping
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    time.sleep(1)  # PDU009

# %% sleeping on the loop
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await asyncio.sleep(60)  # PDU009

# %% sleeping on any loop
import anyio
import trio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await anyio.sleep(60)  # PDU009
    await trio.sleep(60)  # PDU009

# %% sleeping in a branch
import anyio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with ctx.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 1)  # PDU009

# %% sleeping in a sync operation
import time

@app.entity
class Slow:
    done: int = 0

    def work(self) -> None:
        time.sleep(1)  # PDU009
        self.done += 1

# %% sleeping in an async operation
from time import sleep

@app.entity
class Slow:
    done: int = 0

    async def work(self) -> None:
        sleep(1)  # PDU009
        self.done += 1

# %% sleeping in an entity that is a function
import time

@app.entity
def slow(ctx: EntityContext) -> None:
    time.sleep(1)  # PDU009
    ctx.set_result(1)

# %% sleeping in a helper, given as a partial
import functools
import time

def nap(seconds: float) -> None:
    time.sleep(seconds)  # PDU009

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    wait = functools.partial(nap, 1)
    wait()

# %% a question
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return input("sure? ")  # PDU010

# %% a queue of threads
import queue

LINE: queue.Queue[int] = queue.Queue()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return LINE.get()  # PDU010

# %% a loop in a turn
import asyncio

async def work() -> int:
    return 1

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return asyncio.run(work())  # PDU010

# %% a result of a thread
from concurrent.futures import Future

def taken(future: Future[int]) -> int:
    return future.result()  # PDU010

@app.orchestration
async def flow(ctx: OrchestrationContext, future: Any) -> int:
    return taken(future)

# %% select, in an entity
import select

@app.entity
class Door:
    count: int = 0

    def knock(self) -> None:
        select.select([], [], [], 1)  # PDU010
        self.count += 1
