"""The front door: what `import perdure` offers, and that all of it is documented."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

import perdure
from perdure.actors import errors

# What a hub in memory on asyncio gets by without: other loops, other stores, other processes,
# classes as values, mistakes in a name; looks at what happens, and rewinding.
RARELY_NEEDED = {
    "aiosqlite",
    "cattrs",
    "ctypes",
    "difflib",
    "hypothesis",
    "multiprocessing",
    "perdure.actors.orchestrations.fork",
    "perdure.actors.orchestrations.rewind",
    "perdure.actors.orchestrations.rewind_plan",
    "perdure.actors.replay.rerun",
    "perdure.adapters",
    "perdure.benchmarks",
    "perdure.runtime.client.remote",
    "perdure.runtime.cluster.processes",
    "perdure.runtime.explanations",
    "perdure.runtime.partitions.explanation",
    "perdure.runtime.partitions.tracing",
    "perdure.runtime.statistics",
    "perdure.storage.sqlite",
    "pickle",
    "pydantic",
    "rich",
    "sqlite3",
    "tempfile",
    "trio",
    "zipfile",
}


def sort_key(name: str) -> tuple[int, str]:
    """Order as ruff does: constants, classes, the rest."""
    if name.isupper():
        return 0, name
    return (1 if name[0].isupper() else 2), name


def own_docstring(value: object) -> str:
    """Give the docstring of a class or function itself, not an inherited one."""
    assert inspect.isclass(value) or callable(value), "a public name is a class or a function"
    found = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return (found or "").strip()


def test_the_public_names_are_sorted_and_named_once() -> None:
    names = perdure.__all__

    assert list(names) == sorted(set(names), key=sort_key)


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    source = ast.parse(Path(perdure.__file__).read_text("utf-8"))
    seen = {
        alias.name: "." + (imported.module or "")
        for block in source.body
        if isinstance(block, ast.If)
        for imported in block.body
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    }

    assert seen.keys() == set(perdure.__all__) - {"__version__"}
    for name, home in seen.items():
        assert getattr(perdure, name) is getattr(import_module(home, "perdure"), name)


def test_the_front_door_can_be_looked_through_and_taken_whole() -> None:
    taken: dict[str, object] = {}

    exec("from perdure import *", taken)

    assert set(perdure.__all__) <= set(dir(perdure))
    assert set(perdure.__all__) == taken.keys() - {"__builtins__"}


def test_a_name_that_the_front_door_has_not_is_refused_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="module 'perdure' has no attribute 'Actor'"):
        _ = getattr(perdure, "Actor")  # noqa: B009 - type checkers know that there is none
    with pytest.raises(ImportError, match="cannot import name 'Actor' from 'perdure'"):
        exec("from perdure import Actor")


def loaded_by(program: str) -> set[str]:
    """Give the modules that a fresh interpreter has after a program, without those it began with."""
    code = f"import sys\nbefore = {{*sys.modules}}\n{program}\nprint(*{{*sys.modules}} - before)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_the_front_door_alone_loads_nothing_behind_it() -> None:
    loaded = loaded_by("import perdure")

    assert {name for name in loaded if name.startswith("perdure")} == {"perdure"}
    assert not loaded & {"anyio", "asyncio", "attrs", "cattrs", "orjson", "sqlite3", "inspect"}


def test_a_room_is_reached_through_the_front_door() -> None:
    loaded = loaded_by(
        "import perdure; assert perdure.actors.errors.UsageError is perdure.UsageError"
    )

    assert "perdure.runtime.hub" in loaded


def test_a_hub_in_memory_loads_nothing_that_it_does_not_need() -> None:
    loaded = loaded_by(
        "import anyio\n"
        "from perdure import App, EntityId, Hub, OrchestrationContext\n"
        "app = App()\n"
        "@app.orchestration\n"
        "async def hello(ctx: OrchestrationContext, name: str) -> str: return name\n"
        "async def main():\n"
        "    async with Hub(app) as hub:\n"
        "        handle = await hub.client.start_new(hello, 'you')\n"
        "        assert await handle.result() == 'you'\n"
        "anyio.run(main)\n"
    )

    assert not loaded & RARELY_NEEDED


def test_every_error_that_a_user_can_meet_is_public() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.PerdureError)
    }

    assert raised <= set(perdure.__all__)


@pytest.mark.parametrize("name", perdure.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    value: object = getattr(perdure, name)

    # A constant is described by its type.
    described = type(value) if isinstance(value, Enum) else value
    assert name == "__version__" or own_docstring(described)


@pytest.mark.parametrize("name", perdure.__all__)
def test_what_a_public_class_offers_says_what_it_does(name: str) -> None:
    value: object = getattr(perdure, name)

    members: dict[str, object] = {}
    for owner in inspect.getmro(value) if inspect.isclass(value) else ():
        if owner.__module__.startswith("perdure."):
            members = {**vars(owner), **members}
    silent = {
        member
        for member, found in members.items()
        if not member.startswith("_")
        and isinstance(found, FunctionType | property | classmethod | staticmethod)
        and not inspect.getdoc(getattr(value, member))  # an override may inherit its docstring
    }

    assert silent == set()
