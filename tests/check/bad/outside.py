# %% a file
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    with open("rates.json") as file:  # PDU005
        return file.read()

# %% a path
from pathlib import Path

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    place = Path("rates") / "today.json"
    if place.exists():  # PDU005
        return place.read_text()  # PDU005
    return ""

# %% a path that is a parameter
from pathlib import Path

def load(place: Path) -> str:
    return place.read_text()  # PDU005

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return load(Path("x"))

# %% a path of the module
from pathlib import Path

RATES = Path(__file__).parent / "rates.json"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return RATES.read_text()  # PDU005

# %% folders
import os
import shutil

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    shutil.rmtree("old")  # PDU005
    return os.listdir(".")  # PDU005

# %% whether there is a file
from os.path import exists

@app.orchestration
async def flow(ctx: OrchestrationContext) -> bool:
    return exists("x")  # PDU005

# %% a database in a file
import sqlite3

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    sqlite3.connect("x")  # PDU005

# %% a file in an entity
@app.entity
class Log:
    lines: int = 0

    def add(self, line: str) -> None:
        with open("log", "a") as log:  # PDU005
            log.write(line)
        self.lines += 1

# %% a request
import requests

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return requests.get("https://example.org").text  # PDU006

# %% a session
import requests

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    session = requests.Session()  # PDU006
    return session.post("https://example.org").text  # PDU006

# %% an async client
import httpx

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    async with httpx.AsyncClient() as client:  # PDU006
        answer = await client.get("https://example.org")  # PDU006
    return answer.text

# %% a client of the module
import httpx

client = httpx.AsyncClient()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return (await client.get("https://example.org")).text  # PDU006

# %% aiohttp
import aiohttp

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    async with aiohttp.ClientSession() as session:  # PDU006
        async with session.get("https://example.org") as answer:  # PDU006
            return answer.reason

# %% the standard library
import urllib.request
from http.client import HTTPSConnection

@app.orchestration
async def flow(ctx: OrchestrationContext) -> bytes:
    HTTPSConnection("example.org")  # PDU006
    return urllib.request.urlopen("https://example.org").read()  # PDU006

# %% a socket
import socket

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    line = socket.create_connection(("example.org", 80))  # PDU006
    line.close()

# %% a cloud
import boto3

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    boto3.client("s3")  # PDU006

# %% a client that a helper takes
import httpx

async def ask(client: httpx.AsyncClient) -> str:
    return (await client.get("/")).text  # PDU006

@app.orchestration
async def flow(ctx: OrchestrationContext, client: Any) -> str:
    return await ask(client)

# %% a mail
import smtplib

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with smtplib.SMTP("localhost") as server:  # PDU006
        server.sendmail("a", "b", "c")  # PDU006

# %% a blocking request in an entity
import requests

@app.entity
class Rates:
    rate: float = 1.0

    async def renew(self) -> None:
        self.rate = requests.get("https://example.org").json()  # PDU006

# %% a process
import os
import subprocess

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    os.system("true")  # PDU007
    return subprocess.run(["true"]).returncode  # PDU007

# %% a process of the loop
import asyncio

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await asyncio.create_subprocess_exec("true")  # PDU007

# %% a process in an entity
from subprocess import check_output

@app.entity
class Build:
    log: str = ""

    def run(self) -> None:
        self.log = check_output(["make"]).decode()  # PDU007

# %% a model of django
from django.db import models

class User(models.Model):
    name = models.TextField()

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> None:
    user = User.objects.get(name=name)  # PDU006
    User(name=name).save()  # PDU006

# %% a class that derives from one of a library
import httpx
import threading

class Shop(httpx.Client):
    def price(self, what: str) -> str:
        return self.get(f"/{what}").text  # PDU006

class Worker(threading.Thread):
    def run(self) -> None:
        pass

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    Worker().start()  # PDU008
    return Shop(base_url="https://example.org").price("tea")  # PDU006
