"""Every Python block of the documents runs, and every file that they name exists.

A block that calls ``anyio.run`` is a program and runs as one. All other blocks of a page are one
program together: they run in order, in one namespace, with ``await`` at the top level, and
``hub`` and ``client`` belong to a hub of the page's ``app``, started where they are first used.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from importlib import import_module
from inspect import CO_COROUTINE
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import attrs
import pytest

import perdure
from perdure.actors.replay.history import FIELDS

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def blocks(page: Path) -> list[tuple[int, str]]:
    """Give the page's Python blocks, each with the number of its first line."""
    text = page.read_text("utf-8")
    return [
        (text.count("\n", 0, match.start(1)) + 1, match.group(1))
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def is_program(source: str) -> bool:
    return "anyio.run(" in source


def compiled(page: Path, line: int, source: str) -> CodeType:
    # Empty lines in front give errors the line numbers of the page.
    padded = "\n" * (line - 1) + source
    code: CodeType = compile(padded, str(page), "exec", TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


PROGRAMS = [
    pytest.param(page, source, id=f"{name_of(page)}:{line}")
    for page in PAGES
    for line, source in blocks(page)
    if is_program(source)
]
JOINED = [
    pytest.param(page, id=name_of(page))
    for page in PAGES
    if any(not is_program(source) for _, source in blocks(page))
]


def test_the_readme_shows_a_program() -> None:
    assert any(is_program(source) for _, source in blocks(ROOT / "README.md"))


@pytest.mark.parametrize(("page", "source"), PROGRAMS)
def test_a_program_runs(page: Path, source: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(source)

    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    # What a program prints, its comments say.
    said = re.findall(r"# prints (.*)$", source, re.MULTILINE)
    assert done.stdout.splitlines() == said


@pytest.mark.by_turns
@pytest.mark.parametrize("page", JOINED)
async def test_the_blocks_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    names = module.__dict__

    async with AsyncExitStack() as stack:
        for line, source in blocks(page):
            if is_program(source):
                continue
            code = compiled(page, line, source)
            if {"hub", "client"} & set(code.co_names) and "client" not in names:
                hub = await stack.enter_async_context(perdure.Hub(names["app"]))
                names.update(hub=hub, client=hub.client)
            await run(code, names)


async def run(code: CodeType, names: dict[str, Any]) -> None:
    names.setdefault("__builtins__", builtins)  # as exec does; typing looks for it since 3.13
    outcome = FunctionType(code, names)()
    if code.co_flags & CO_COROUTINE:
        await outcome


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES])
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")

    links = [
        page.parent / link.partition("#")[0]
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in link and not link.startswith("#")
    ]
    rooms = "actors|runtime|storage|perdure|tests|docs|examples|benchmarks"
    named = [ROOT / name for name in re.findall(rf"`((?:{rooms})/[\w./*-]+)`", text)]

    missing = [str(path) for path in links + named if not list(path.parent.glob(path.name or "."))]
    assert missing == []


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES])
def test_a_page_uses_public_names_only(page: Path) -> None:
    trees = [
        compile(source, str(page), "exec", ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT)
        for _, source in blocks(page)
    ]

    imported = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    ]
    ours = [node for node in imported if (node.module or "").partition(".")[0] == "perdure"]
    for node in ours:
        module = node.module or ""
        assert re.fullmatch(r"perdure(\.testing|\.adapters\.\w+)?", module), module
        assert {alias.name for alias in node.names} <= {*import_module(module).__all__}


def settings_documented() -> dict[str, str]:
    """Give the settings that the page on deploying lists, with their defaults."""
    text = (ROOT / "docs/how-to/deploying.md").read_text("utf-8")
    table = text[text.index("| setting | default |") :].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1].strip("`") for row in rows}


def read_default(text: str) -> object:
    """Read a default as the table writes it."""
    if text == "processors + 4, at most 32":
        return min(32, (os.cpu_count() or 1) + 4)
    if text.startswith('"'):
        return text.strip('"')
    units = {"s": 1, "ms": 0.001, "day": 86_400, "MiB": 1_048_576, "KiB": 1024, "min": 60}
    number, _, unit = text.replace(",", "").partition(" ")
    return float(number) * units.get(unit, 1)


def test_the_settings_are_documented_with_their_defaults() -> None:
    settings = perdure.Settings()
    fields = [field.name for field in attrs.fields(perdure.Settings)]

    assert {name: read_default(text) for name, text in settings_documented().items()} == {
        name: getattr(settings, name) for name in fields
    }


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES])
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bSettings[.(](\w+)", page.read_text("utf-8")))

    assert named <= {field.name for field in attrs.fields(perdure.Settings)}


def test_the_page_on_storage_lists_every_event_with_its_fields() -> None:
    text = (ROOT / "docs/storage.md").read_text("utf-8")
    listed = {
        kind: tuple(re.findall(r"`(\w+)`", fields))
        for kinds, fields in re.findall(
            r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \| (.*) \|$", text, re.MULTILINE
        )
        for kind in re.findall(r"`(\w+)`", kinds)
    }

    assert {kind: listed.get(kind) for kind in FIELDS} == FIELDS
