"""The check: files, or an application, in; a report out. Nothing of what it looks at is run."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import attrs

from .findings import Finding
from .noqa import Silences
from .rules import RULES, Rule
from .source.calls import visits
from .source.imports import files_of
from .source.project import Folder, Module, Project, Trouble, deep_recursion, python_files
from .source.resolver import Resolver
from .source.roles import Roles, Unseen
from .source.visit import Visit


@attrs.frozen
class Report:
    """What a check says.

    Attributes:
        findings: what is wrong, by file and line.
        troubles: what could not be looked at.
        unseen: registrations that the source alone does not show.
        orchestrations: how many were looked at.
        operations: how many operations of entities were.
        files: how many files were read.
    """

    findings: list[Finding]
    troubles: list[Trouble]
    unseen: list[Unseen]
    orchestrations: int
    operations: int
    files: int


class CheckError(Exception):
    """What was asked for cannot be looked at; the message says why."""


def chosen_rules(select: Collection[str] = (), ignore: Collection[str] = ()) -> list[Rule]:
    """Give the rules to look for.

    Args:
        select: codes, or beginnings of codes, or "ALL"; none: those that are on by default.
        ignore: codes, or beginnings of codes, to leave out.

    Raises:
        CheckError: no rule has such a code.
    """
    for code in (*select, *ignore):
        if code != "ALL" and not any(rule.code.startswith(code) for rule in RULES):
            raise CheckError(
                f"there is no rule {code}; {RULES[0].code} to {RULES[-1].code} there are"
            )

    def is_chosen(rule: type[Rule]) -> bool:
        if any(rule.code.startswith(code) for code in ignore) or "ALL" in ignore:
            return False
        if not select:
            return rule.is_default
        return any(code == "ALL" or rule.code.startswith(code) for code in select)

    return [rule() for rule in RULES if is_chosen(rule)]


def check_files(
    places: Iterable[str | Path],
    rules: Sequence[Rule] | None = None,
    *,
    roots: Iterable[Path] = (),
) -> Report:
    """Check files, and what is in folders.

    Args:
        places: the files and folders.
        rules: what to look for; by default, all that are on.
        roots: folders in which imported modules are looked for, besides those.

    Raises:
        CheckError: there is no such file, or no Python in it.
    """
    paths: list[Path] = []
    folders: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise CheckError(f"there is no {place}")
        found = list(python_files(place))
        if not found:
            raise CheckError(f"{place} has no Python files in it")
        paths += found
        folders.append(place if place.is_dir() else place.parent)
    project = Project([*folders, Path.cwd(), *roots])
    modules = [module for path in paths if (module := project.read(path)) is not None]
    return _report(project, modules, rules)


def check_text(text: str, rules: Sequence[Rule] | None = None, *, path: str = "text.py") -> Report:
    """Check a text."""
    project = Project()
    module = project.add(Path(path), text)
    return _report(project, [] if module is None else [module], rules)


def check_app(place: str, rules: Sequence[Rule] | None = None) -> Report:
    """Check an application: its module, and all of the project that this imports.

    Args:
        place: ``MODULE:APP`` or ``FILE.py:APP``.
        rules: what to look for; by default, all that are on.

    Raises:
        CheckError: there is no such module, or it has no such app.
    """
    name, _, app = place.rpartition(":")
    if not name or not app:
        raise CheckError(
            f"{place!r} does not say which app that is: give {place}:app, if it is app"
        )
    path = _find_module(name)
    project = Project([path.parent if name.endswith(".py") else _root(path, name), Path.cwd()])
    module = project.read(path)
    if module is None:
        return _report(project, [], rules)
    head = app.partition(".")[0].partition("(")[0]
    if head not in module.scope.bindings and not module.scope.star_imports:
        raise CheckError(f"{name} has no {head}, as far as its source says")
    return _report(project, _imported(project, module), rules)


def _find_module(name: str) -> Path:
    """Find the file of a module, by its path or its dotted name."""
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise CheckError(f"there is no file {name}")
        return path
    parts = name.split(".")
    for start in [Path.cwd(), Path.cwd() / "src", *map(Path, sys.path)]:
        place = start.joinpath(*parts)
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                here = os.path.relpath(path)
                return path if here.startswith("..") else Path(here)
    raise CheckError(f"there is no module {name}, neither here nor on the path of Python")


def _root(path: Path, name: str) -> Path:
    """Give the folder that a module's name counts from."""
    folder = path.resolve().parent
    depth = name.count(".") + (path.name == "__init__.py")
    for _ in range(depth):
        folder = folder.parent
    return folder


def _imported(project: Project, module: Module) -> list[Module]:
    """Give a module and all of the project that it imports, the same way on."""
    resolver = Resolver(project)
    found: dict[Module, None] = {}
    ahead = [module]
    while ahead:
        one = ahead.pop()
        if one in found:
            continue
        found[one] = None
        for node in ast.walk(one.tree):
            ahead += [file for file in _meant(resolver, node, one) if isinstance(file, Module)]
    return list(found)


def _meant(resolver: Resolver, node: ast.AST, module: Module) -> list[Module | Folder]:
    if isinstance(node, ast.Import):
        files = [resolver.project.find(alias.name, module) for alias in node.names]
        return [file for file in files if file is not None]
    if not isinstance(node, ast.ImportFrom):
        return []
    return files_of(resolver.project, node, module)


def _report(project: Project, modules: list[Module], rules: Sequence[Rule] | None) -> Report:
    resolver = Resolver(project)
    roles = Roles(resolver)
    with deep_recursion():
        roles.read(modules)
    silences = Silences()
    chosen = chosen_rules() if rules is None else rules
    found: dict[tuple[object, ...], Finding] = {}
    with deep_recursion():
        for visit in visits(resolver, roles):
            for finding in _findings(visit, chosen):
                key = (finding.path, finding.line, finding.column, finding.code)
                if key not in found and not silences.covers(finding, visit.module):
                    found[key] = finding
    return Report(
        findings=sorted(found.values()),
        troubles=project.troubles,
        unseen=roles.unseen,
        orchestrations=roles.count("orchestration"),
        operations=roles.count("entity"),
        files=len(project.modules),
    )


def _findings(visit: Visit, rules: Sequence[Rule]) -> Iterable[Finding]:
    for rule in rules:
        if visit.kind not in rule.kinds:
            continue
        for node, what, fix in rule.check(visit):
            line = getattr(node, "lineno", 1)
            end = getattr(node, "end_lineno", None) or line
            yield Finding(
                path=visit.module.path,
                line=line,
                column=_column(visit.module, line, getattr(node, "col_offset", 0)),
                end_line=end,
                end_column=_column(visit.module, end, getattr(node, "end_col_offset", None) or 0),
                code=rule.code,
                message=what,
                fix=fix,
                where=visit.where,
                role=visit.role.function.name,
            )


def _column(module: Module, line: int, offset: int) -> int:
    """Give the character of a line that lies so many bytes behind its begin, from 1."""
    if not module.lines:
        module.lines = module.text.split("\n")
    if line > len(module.lines):
        return offset + 1
    return len(module.lines[line - 1].encode()[:offset].decode("utf-8", "ignore")) + 1
