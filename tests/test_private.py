"""Tests and examples use what is public: a name with an underscore is for its own module.

What is private may change at any time, and a test that leans on it holds the code back instead of
what it promises. What a test has to see is said in public: in what users see, in ``perdure.testing``,
or as a member that its class describes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rooms import ROOT

pytestmark = pytest.mark.once

LOOKED_AT = ("tests", "examples", "pytest_perdure.py")

# Programs that `perdure check` is tested with: nobody runs them.
PROGRAMS = ("tests/check/bad/", "tests/check/good/", "tests/check/projects/")

# The underscore keeps these out of the way of fields and members, and they are documented.
DOCUMENTED = {"_asdict", "_fields", "_field_defaults", "_make", "_replace"} | {"_name_", "_value_"}

# What is private and used all the same: by file and name, and why.
EXCEPTIONS = {
    ("tests/actors/codec/crossing.py", "_private"): "pydantic's word for what no field is",
    ("tests/actors/entities/lone.py", "_take"): "of another object of this file's own class",
    ("tests/actors/recording.py", "_take"): "of another object of this file's own class",
    ("tests/actors/registry/test_entity_classes.py", "_private"): "of this file's own entity",
    ("tests/adapters/http/test_family_client.py", "_close_session"): "azure's session has no door",
    ("tests/adapters/telemetry/test_ended_spans.py", "_set_tracer_config"): "OpenTelemetry's",
    ("tests/adapters/telemetry/test_ended_spans.py", "_tracer_config"): "OpenTelemetry's",
    ("tests/features/test_orchestrations_retries.py", "_now"): "of ManualClock, to be looked at",
    ("tests/cluster/app.py", "_exit"): "os._exit is documented",
    ("tests/guarantees/worker_load.py", "_exit"): "os._exit is documented",
    ("tests/runtime/scheduling/test_forks.py", "_exit"): "os._exit is documented",
    ("tests/runtime/scheduling/test_hands.py", "_asyncio"): "anyio's, with a part taken away",
    ("tests/runtime/scheduling/test_hands.py", "_backends"): "anyio's, with a part taken away",
    ("tests/runtime/scheduling/test_hands.py", "_task_states"): "anyio's, to be taken away",
    ("tests/runtime/scheduling/test_stage.py", "_asyncio"): "anyio's, which the stage has to suit",
    ("tests/runtime/scheduling/test_stage.py", "_backends"): "anyio's, which the stage has to suit",
    (
        "tests/runtime/scheduling/test_stage.py",
        "_swap_current_task",
    ): "asyncio's, as the stage has it",
    ("tests/runtime/scheduling/test_stage.py", "_get_running_loop"): "asyncio documents it",
    ("tests/testing/test_crashes.py", "_ALLOW_DETERMINISTIC_SCHEDULING"): "trio's",
    ("tests/testing/test_crashes.py", "_r"): "trio's",
    ("tests/testing/test_order.py", "_ALLOW_DETERMINISTIC_SCHEDULING"): "trio's",
    ("tests/testing/test_order.py", "_r"): "trio's",
}


class Use(NamedTuple):
    """A private name of something else, and where it is used."""

    path: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"


def is_private(name: str) -> bool:
    return bool(re.fullmatch(r"_[^\W_]\w*", name)) and name not in DOCUMENTED


def private_names(node: ast.AST) -> Iterator[str]:
    """Give the names that a node reaches for: a member, an import, or one that is named by text."""
    match node:
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            return
        case ast.Attribute(attr=name):
            yield name
        case ast.ImportFrom(module=module, names=aliases):
            yield from (module or "").split(".")
            yield from (alias.name for alias in aliases)
        case ast.Import(names=aliases):
            for alias in aliases:
                yield from alias.name.split(".")
        case ast.Call(
            func=ast.Name(id="getattr" | "setattr" | "delattr" | "hasattr")
            | ast.Attribute(attr="setattr" | "delattr"),
            args=[_, ast.Constant(value=str(name)), *_],
        ):
            yield name
        case _:
            return


def private_uses(source: str, path: str) -> list[Use]:
    nodes = ast.walk(ast.parse(source))
    return [
        Use(path, getattr(node, "lineno", 0), name)
        for node in nodes
        for name in private_names(node)
        if is_private(name)
    ]


def files(start: Path) -> Iterator[tuple[str, str]]:
    """Give the path and the source of each module that is looked at."""
    for path in [start] if start.is_file() else sorted(start.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(PROGRAMS):
            yield name, path.read_text("utf-8")


@cache
def all_uses() -> list[Use]:
    return [
        use
        for top in LOOKED_AT
        for path, source in files(ROOT / top)
        for use in private_uses(source, path)
    ]


def test_tests_and_examples_use_no_private_names_but_those_excepted() -> None:
    found = [str(use) for use in all_uses() if (use.path, use.name) not in EXCEPTIONS]

    assert found == []


def test_each_exception_is_needed() -> None:
    used = {(use.path, use.name) for use in all_uses()}

    assert sorted(EXCEPTIONS.keys() - used) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("hub._crew.run_id", ["_crew"]),
        ("one.two._three = 4", ["_three"]),
        ("self._own", []),
        ("self.other._theirs", ["_theirs"]),
        ("pair._replace(one=1)", []),
        ("model.__dict__", []),
        ("from perdure.runtime.hub import _Body", ["_Body"]),
        ("from perdure._connect import connect", ["_connect"]),
        ("import perdure._connect", ["_connect"]),
        ("getattr(hub, '_crew')", ["_crew"]),
        ("monkeypatch.setattr(module, '_SPAN_S', 1)", ["_SPAN_S"]),
        ("name.startswith('_own')", []),
    ],
)
def test_private_names_are_found_however_they_are_reached(source: str, names: list[str]) -> None:
    assert [use.name for use in private_uses(source, "x.py")] == names
