"""DBOS Transact, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .contender import FANOUT_ACTIVITIES, Contender, Needs, Place
from .processes import Postgres

# Synchronous workflows and steps were faster than async ones. More threads than these were slower: on
# PostgreSQL 16 and 100; on SQLite 4, whose writers wait for each other by sleeping, and with 100 some
# of them until their 30 s of patience were over.
_SQLITE_THREADS = 2
_POSTGRES_THREADS = 4


class _Dbos(Contender):
    needs = Needs(name="dbos", python=("dbos", "uvloop"))
    entity = (
        "none: a workflow of one datasource transaction that changes a row, "
        "so each addition is applied once; answered when applied and durable"
    )
    _threads: int
    _isolation: str
    _url: str
    _dbos: Any
    _hello: Callable[[int], list[str]]
    _fanout: Any
    _add: Callable[[str, int], None]
    _datasource: Any

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads)

    async def start(self, place: Place) -> str:
        database = await self._open(place)
        await asyncio.to_thread(self._launch)
        return f"dbos {version('dbos')}, SQLAlchemy {version('SQLAlchemy')}, {database}"

    async def _open(self, place: Place) -> str:
        """Set the address of an empty database; gives the database's version."""
        raise NotImplementedError

    def _launch(self) -> None:
        dbos: Any = import_module("dbos")
        sqlalchemy: Any = import_module("sqlalchemy")
        self._dbos = dbos.DBOS
        self._dbos(
            config={
                "name": "peers",
                "system_database_url": self._url,
                "log_level": "ERROR",
            }
        )
        self._datasource = datasource = dbos.SQLAlchemyDatasource.create(self._url)
        with datasource.engine.begin() as connection:
            connection.execute(
                sqlalchemy.text(
                    "CREATE TABLE meter (name TEXT PRIMARY KEY, count BIGINT, total BIGINT)"
                )
            )
        upsert = sqlalchemy.text(
            "INSERT INTO meter VALUES (:key, 1, :number) ON CONFLICT (name) DO UPDATE"
            " SET count = meter.count + 1, total = meter.total + :number"
        )
        step, workflow = self._dbos.step(), self._dbos.workflow()

        def greet(name: str) -> str:
            return f"Hello {name}!"

        async def double(number: int) -> int:
            return number * 2

        def change(key: str, number: int) -> None:
            datasource.sql_session().execute(upsert, {"key": key, "number": number})

        greet_step, double_step = step(greet), step(double)
        change_row = datasource.transaction(change, isolation_level=self._isolation)

        def hello(number: int) -> list[str]:
            return [
                greet_step(f"Tokyo {number}"),
                greet_step(f"Seattle {number}"),
                greet_step(f"London {number}"),
            ]

        async def fan_out(start: int) -> list[int]:
            numbers = range(start, start + FANOUT_ACTIVITIES)
            found: list[int] = await asyncio.gather(*[double_step(number) for number in numbers])
            return found

        def add(key: str, number: int) -> None:
            change_row(key, number)

        self._hello, self._fanout, self._add = workflow(hello), workflow(fan_out), workflow(add)
        self._dbos.launch()

    async def hello(self, number: int) -> list[str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._hello, number)

    async def fanout(self, start: int) -> list[int]:
        found: list[int] = await self._fanout(start)
        return found

    async def add(self, key: str, number: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._add, key, number)

    async def totals(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        sqlalchemy: Any = import_module("sqlalchemy")
        with self._datasource.engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT name, count, total FROM meter"))
            found = {name: (int(count), int(total)) for name, count, total in rows}
        return {key: found[key] for key in keys if key in found}

    async def stop(self) -> None:
        if hasattr(self, "_dbos"):
            await asyncio.to_thread(self._dbos.destroy)
        self._pool.shutdown()


class DbosSqlite(_Dbos):
    """On its default database."""

    durability = "every step's checkpoint on the disk: SQLite WAL, synchronous=FULL"
    tuning = (
        "journal_mode=WAL, which its documentation does not mention and which triples its rates "
        f"(it leaves SQLite's default, a rollback journal); {_SQLITE_THREADS} threads; uvloop"
    )
    _threads = _SQLITE_THREADS
    _isolation = "SERIALIZABLE"

    async def _open(self, place: Place) -> str:
        path = place.folder / "dbos.sqlite"
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = WAL")  # the file remembers it
        connection.close()
        self._url = f"sqlite:///{path}"
        return f"SQLite {sqlite3.sqlite_version}"


class DbosPostgres(_Dbos):
    """On the database that it recommends for production."""

    durability = "every step's checkpoint on the disk: fsync=on, synchronous_commit=on"
    tuning = (
        "PostgreSQL, as its documentation advises for production, on a Unix socket, "
        f"shared_buffers=256MB; READ COMMITTED for the row; {_POSTGRES_THREADS} threads; uvloop"
    )
    # The default, SERIALIZABLE, retries on conflict: a quarter of the rate on a hot row.
    _isolation = "READ COMMITTED"
    _threads = _POSTGRES_THREADS
    _postgres: Postgres

    async def _open(self, place: Place) -> str:
        self._postgres = await asyncio.to_thread(Postgres, place.folder)
        self._url = f"postgresql+psycopg://postgres@/postgres?host={self._postgres.folder}"
        return await self._postgres.ready()

    async def stop(self) -> None:
        await super().stop()
        if hasattr(self, "_postgres"):
            self._postgres.stop()  # here: DBOS has taken the loop's threads with it
