"""Files of a hub that are damaged, gone, foreign or out of reach: found, and said which."""
# ruff: noqa: ASYNC240 (a test blocks nobody when it looks at its files)

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure.actors.errors import (
    StorageError,
    StoreDamagedError,
    StoreInUseError,
    StoreReadOnlyError,
)
from perdure.storage import ChunkRow, MailRow, open_store
from perdure.storage.sqlite import (
    SqliteStore,
    applier as applying,
    store as sqlite,
    takeover as recovering,
)
from perdure.testing.store_conformance import Owner, created, own
from tests.storage.files import ROOT, change, rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply without waiting for more."""
    monkeypatch.setattr(applying, "GATHER_S", 0.0)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply only when asked to."""
    monkeypatch.setattr(applying, "GATHER_S", 1e6)


async def kill_with(folder: Path, **parts: Any) -> None:
    """Leave a folder behind as a hub does that is killed after one commit."""
    store = SqliteStore(folder)
    owner = await own(store)
    await owner.commit(**parts)
    shutil.copytree(folder, folder.with_name("copy"))
    await store.close()
    _remove(folder)
    folder.with_name("copy").rename(folder)


# Under a running hub.


async def _commit_until_refused(owner: Owner) -> StorageError:
    with anyio.fail_after(10):
        for id in range(1, 100_000):
            try:
                await owner.commit(created=[created(id)])
            except StorageError as error:
                return error
            await anyio.sleep(0.001)
    raise AssertionError("never refused")


def _delete(folder: Path) -> None:
    _remove(folder)


def _move(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _remove(folder: Path) -> None:
    while folder.exists():  # what is applied may have made a file meanwhile
        shutil.rmtree(folder, ignore_errors=True)


def _replace(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    _remove(folder)
    folder.with_name("copy").rename(folder)


def _unlink_journal(folder: Path) -> None:
    (folder / "journal-00.sqlite").unlink()


def _unlink_log(folder: Path) -> None:
    (folder / "journal-00.sqlite-wal").unlink()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("harm", [_delete, _move, _replace, _unlink_journal, _unlink_log])
async def test_a_folder_that_is_gone_is_noticed_and_nothing_more_is_acknowledged(
    folder: Path, harm: Any
) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    owner = await own(store)
    await owner.commit(created=[created(1)])

    harm(folder)

    error = await _commit_until_refused(owner)
    assert "was moved or deleted under the running hub" in str(error)
    assert str(folder) in str(error)
    with pytest.raises(StorageError):
        await store.close()


@pytest.mark.usefixtures("at_once")
async def test_a_folder_that_is_put_back_is_taken_up_again(folder: Path) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    owner = await own(store)
    _move(folder)
    await _commit_until_refused(owner)
    with pytest.raises(StorageError):
        await owner.partition.recover()

    folder.with_name("elsewhere").rename(folder)
    again = Owner(owner.partition, await owner.partition.recover())
    await again.commit(created=[created(1_000_000)])

    assert await owner.partition.read_instances(["i1000000"])
    await store.close()


# When it is opened.


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("harm", ["gone", "garbage"])
@pytest.mark.parametrize("file", ["partition-00.sqlite", "journal-00.sqlite"])
async def test_a_write_ahead_log_that_is_lost_is_damage(folder: Path, file: str, harm: str) -> None:
    await kill_with(folder, created=[created(1)])
    log = folder / f"{file}-wal"
    if harm == "gone":
        log.unlink()
    else:
        log.write_bytes(b"garbage" * 1_000)

    store = SqliteStore(folder)
    with pytest.raises(StoreDamagedError, match=f"{file} is older"):
        await own(store)
    await store.close()


@pytest.mark.usefixtures("never")
async def test_a_takeover_that_was_cut_off_is_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for statement in ("FENCE", "TAKEN"):
        store = SqliteStore(folder)
        [partition] = await store.open(1)
        with monkeypatch.context() as patch:
            patch.setattr(recovering, statement, "SELECT cut_off")
            with pytest.raises(StorageError, match="cut_off"):
                await partition.recover()
        await store.close()

    store = SqliteStore(folder)
    await (await own(store)).commit(created=[created(1)])
    await store.close()


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize(
    "values",
    [
        "created = '[[1,'",
        "created = 'zz'",
        """created = '[[1,null,"f",null,1,5,null,0,0,null,null,null,"Pending",5,null,0,0]]'""",
        "next_id = 'zz'",
        "next_row = 'zz'",
        "history = '[[1,0,1,9]]', history_bodies = NULL",
        "created = CAST(x'ff' AS TEXT)",
    ],
)
async def test_a_checkpoint_that_cannot_be_read_is_named(folder: Path, values: str) -> None:
    await kill_with(folder, created=[created(1)])
    change(folder / "journal-00.sqlite", f"UPDATE entry SET {values}")

    store = SqliteStore(folder)
    with pytest.raises(StoreDamagedError, match=r"journal-00\.sqlite"):
        await own(store)
    await store.close()


@pytest.mark.parametrize("file", ["partition-00", "journal-00"])
@pytest.mark.parametrize("column", ["partitions", "sequence", "epoch", "created"])
async def test_a_head_that_is_no_number_is_damage(folder: Path, file: str, column: str) -> None:
    store = SqliteStore(folder)
    await own(store)
    await store.close()
    change(folder / f"{file}.sqlite", f"UPDATE meta SET {column} = 'zz'")

    with pytest.raises(StoreDamagedError, match=rf"{file}.sqlite"):
        await store.open(1)


@pytest.mark.parametrize("name", ["owner.sqlite", "partition-00.sqlite", "journal-00.sqlite"])
async def test_a_folder_in_the_place_of_a_file_is_damage(folder: Path, name: str) -> None:
    store = SqliteStore(folder)
    await own(store)
    await store.close()
    (folder / name).unlink()
    (folder / name).mkdir()

    with pytest.raises(StoreDamagedError, match=name):
        await store.open(1)


FILES = ["partition-00.sqlite", "journal-00.sqlite"]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("put", [_pipe, _link_to_nowhere, Path.mkdir])
@pytest.mark.parametrize("name", ["owner.sqlite", *FILES, f"{FILES[0]}-wal", f"{FILES[1]}-shm"])
async def test_what_is_no_file_is_damage(folder: Path, name: str, put: Any) -> None:
    store = SqliteStore(folder)
    await own(store)
    await store.close()
    (folder / name).unlink(missing_ok=True)
    put(folder / name)

    with anyio.fail_after(10), pytest.raises(StoreDamagedError, match=name):
        await store.open(1)


async def test_a_file_that_cannot_be_made_is_said(folder: Path) -> None:
    (folder / "partition-00.new").mkdir(parents=True)

    with pytest.raises(StorageError, match="partition-00"):
        await SqliteStore(folder).open(1)


def _lie_elsewhere(folder: Path, name: str) -> Path:
    """Move a file to another folder, and leave a link to it behind."""
    elsewhere = folder.with_name("disk")
    elsewhere.mkdir()
    (folder / name).rename(elsewhere / name)
    (folder / name).symlink_to(elsewhere / name)
    return elsewhere / name


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", ["owner.sqlite", *FILES])
async def test_a_file_may_be_a_link_to_another_disk(folder: Path, name: str) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await own(store)
    await store.close()
    _lie_elsewhere(folder, name)

    for id in (1, 2):
        owner = await own(store)
        await owner.commit(created=[created(id)])
        assert len(await owner.keys()) == id
        with pytest.raises(StoreInUseError):
            await SqliteStore(folder).open(1)
        await store.close()


@pytest.mark.usefixtures("at_once")
async def test_a_linked_file_whose_log_is_gone_is_noticed(folder: Path) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await own(store)
    await store.close()
    file = _lie_elsewhere(folder, FILES[1])
    owner = await own(store)
    await owner.commit(created=[created(1)])

    file.with_name(f"{FILES[1]}-wal").unlink()

    assert "was moved or deleted" in str(await _commit_until_refused(owner))
    with pytest.raises(StorageError):
        await store.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["pragma", "copy"])
async def test_a_file_that_another_program_left_without_a_log_gets_one(
    folder: Path, name: str, how: str
) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await (await own(store)).commit(created=[created(1)])
    await store.close()
    file = folder / name
    if how == "pragma":
        change(file, "PRAGMA journal_mode = DELETE")
    else:
        change(file, f"VACUUM INTO '{folder}/copy'")
        (folder / "copy").rename(file)
    assert rows(file, "PRAGMA journal_mode") == [("delete",)]

    owner = await own(store)
    await owner.commit(created=[created(2)])
    assert await owner.keys() == ["i1", "i2"]
    await store.close()

    assert rows(file, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        (FILES[0], "VIEW", "checkpoint"),
        (FILES[0], "TRIGGER", "checkpoint_applied"),
        (FILES[0], "INDEX", "instance_live"),
        (FILES[0], "INDEX", "request_id"),
        (FILES[0], "VIEW", "instances"),
        (FILES[1], "TRIGGER", "entry_added"),
    ],
)
async def test_what_holds_no_data_and_is_missing_is_made_anew(
    folder: Path, name: str, kind: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await (await own(store)).commit(created=[created(1)])
    await store.close()
    change(folder / name, f"DROP {kind} {what}")

    owner = await own(store)
    await owner.commit(created=[created(2)])
    assert await owner.keys() == ["i1", "i2"]
    await store.close()

    assert f"{name} lacked the {kind.lower()} {what}" in caplog.text
    assert rows(folder / name, f"SELECT count(*) FROM sqlite_master WHERE name = '{what}'") == [
        (1,)
    ]


@pytest.mark.parametrize(
    ("name", "statement", "what"),
    [
        (FILES[0], "DROP TABLE mail_row", "lacks the table mail_row"),
        (FILES[0], "DROP TABLE meta", "lacks the table meta"),
        (
            FILES[1],
            "ALTER TABLE entry DROP COLUMN activities",
            "the column activities of the table",
        ),
        (FILES[1], "DROP TABLE entry", "lacks the table entry"),
        (FILES[0], "PRAGMA user_version = 0", "schema version 0 in its head and 5 in"),
        (FILES[0], "PRAGMA user_version = -1", "schema version -1 in its head and 5 in"),
        (FILES[0], "PRAGMA user_version = 2", "schema version 2 in its head and 5 in"),
        (FILES[1], "PRAGMA user_version = 0", "schema version 0 in its head and 5 in"),
        (FILES[1], "UPDATE meta SET schema_version = 1", "schema version 5 in its head and 1 in"),
        (FILES[0], f"UPDATE meta SET epoch = {2**63 - 1}", "is no count"),
        (FILES[0], f"UPDATE meta SET next_row = {2**63 - 1}", "is no count"),
        (FILES[1], f"UPDATE meta SET sequence = {2**63 - 1}", "is no count"),
    ],
)
async def test_a_file_that_is_not_what_its_version_is_is_refused_before_it_serves(
    folder: Path, name: str, statement: str, what: str
) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await (await own(store)).commit(created=[created(1)])
    await store.close()
    change(folder / name, statement)

    with pytest.raises(StoreDamagedError, match=what) as raised:
        await store.open(1)
    assert name in str(raised.value)


async def test_a_journal_that_is_older_than_its_tables_is_refused(folder: Path) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await own(store)
    await store.close()
    older = "UPDATE meta SET schema_version = 2", "PRAGMA user_version = 2"
    change(folder / FILES[1], *older)

    with pytest.raises(StoreDamagedError, match=f"{FILES[1]} has schema version 2, which is older"):
        await store.open(1)


async def test_a_file_of_an_older_version_that_is_damaged_is_not_upgraded(folder: Path) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await own(store)
    await store.close()
    older = "UPDATE meta SET schema_version = 2", "PRAGMA user_version = 2"
    change(folder / FILES[0], *older)  # and yet it has what version 3 brought

    with pytest.raises(StoreDamagedError, match="is not what a file of its schema version is"):
        await store.open(1)
    assert rows(folder / FILES[0], "PRAGMA user_version") == [(2,)]


async def test_an_index_that_no_unique_values_allow_is_damage(folder: Path) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await (await own(store)).commit(created=[created(1), created(2)])
    await store.close()
    change(folder / FILES[0], "DROP INDEX instance_key", "UPDATE instance_row SET key = 'same'")

    with pytest.raises(StoreDamagedError, match="lacks the index instance_key"):
        await store.open(1)


@pytest.mark.parametrize("table", ["instance_row", "mail_row"])
async def test_a_number_that_is_beyond_all_use_leaves_numbers_for_others(
    folder: Path, table: str
) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    await (await own(store)).commit(created=[created(1)], mail=[MailRow(1, "i1", b"{}")])
    await store.close()
    column = "id" if table == "instance_row" else "n"
    change(folder / FILES[0], f"UPDATE {table} SET {column} = {2**63 - 1}")

    owner = await own(store)
    assert owner.recovered.next_id < 2**62
    assert owner.recovered.next_row < 2**62
    await owner.commit(created=[created(2)])
    assert "i2" in await owner.keys()
    await store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # Task.cancel is its own
async def test_a_recovery_that_is_cut_off_fences_nobody_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> recovering.Taken:
        begun.set()
        go_on.wait(10)
        return recovering.take_over(*arguments)

    store = SqliteStore(folder)
    [partition] = await store.open(1)
    monkeypatch.setattr(sqlite, "take_over", slow)
    task = asyncio.ensure_future(partition.recover())
    await anyio.to_thread.run_sync(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    closing = asyncio.ensure_future(store.close())
    threading.Timer(0.1, go_on.set).start()
    await closing
    monkeypatch.undo()

    again = SqliteStore(folder)
    owner = await own(again)
    await owner.commit(created=[created(1)])
    await again.close()


# Paths and limits.


@pytest.mark.parametrize(
    "name", ["a?b", "a#b", "a%41", "a b", "é☃", "x" * 255, "a\nb", "a&mode=ro", "ünï?c=1"]
)
async def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    for given in (f"sqlite:{tmp_path / name}", tmp_path / name):
        store = open_store(given)
        owner = await own(store)
        await owner.commit(entities=[])
        await store.close()

    assert (tmp_path / name / "partition-00.sqlite").exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    for given in ("sqlite:~/hub", Path("~/hub")):
        store = open_store(given)
        await own(store)
        await store.close()

    assert (tmp_path / "hub" / "owner.sqlite").exists()


async def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreReadOnlyError, match="give another path"):
        await SqliteStore(tmp_path / "file/hub").open(1)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("x" * 256, "part 'xxxx.* has 256 bytes"),
        ("é" * 128, "part 'éééé.* has 256 bytes"),
        (f"{'x' * 300}/hub", "part 'xxxx.* has 300 bytes"),
        ("/".join(["x" * 200] * 30), "has 6,... bytes"),
    ],
    ids=range(4),
)
async def test_a_name_that_is_too_long_is_said_to_be(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(StorageError, match=rf"too long: .*{what}.*give another path") as raised:
        await SqliteStore(tmp_path / name).open(1)

    assert type(raised.value) is StorageError
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("part", ["x" * 200, "d"])
async def test_a_path_that_sqlite_cannot_take_is_refused_with_nothing_made(
    tmp_path: Path, part: str
) -> None:
    deep = tmp_path.joinpath(*[part] * (3 if len(part) > 1 else 1_900))

    with pytest.raises(StorageError, match="too long"):
        await SqliteStore(deep).open(1)
    assert not list(tmp_path.iterdir())


async def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "hub"
    link.symlink_to(tmp_path / "nowhere")

    with pytest.raises(StoreDamagedError, match="nowhere, which is not there"):
        await SqliteStore(link).open(1)
    assert not (tmp_path / "nowhere").exists()


FEW_FILES = """
import resource, sys, anyio
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from perdure import App, Hub, PerdureError
async def main():
    try:
        async with Hub(App(), store="sqlite:" + sys.argv[1], partitions=16):
            pass
    except PerdureError as error:
        print(type(error).__name__, error)
anyio.run(main)
"""


def test_too_few_file_descriptors_are_said(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FEW_FILES, tmp_path / "hub"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.stdout.startswith("StorageError"), ran.stdout + ran.stderr
    assert "ulimit -n" in ran.stdout


async def test_text_that_cannot_be_read_does_not_hold_later_reads_in_the_past(
    folder: Path,
) -> None:
    store = SqliteStore(folder, synchronous="OFF")
    owner = await own(store)
    await owner.commit(created=[created(1)], history=[ChunkRow(1, 0, b"[[]]")])
    await owner.partition.apply()
    change(folder / "partition-00.sqlite", "UPDATE history_row SET seq = CAST(x'ff41' AS TEXT)")
    gc.disable()  # it may come at any time, and would end what holds them
    try:
        with pytest.raises(StoreDamagedError, match="seq is"):
            await owner.partition.read_history(1)
        await owner.commit(created=[created(2)])
        await owner.partition.apply()

        found = await owner.partition.read_instances([created(2).key])
    finally:
        gc.enable()

    assert [record.id for record in found] == [2]
    await store.close()
