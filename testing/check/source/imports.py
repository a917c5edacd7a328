"""Imports: which files of the project they read."""

from __future__ import annotations

import ast

from .project import Folder, Module, Project
from .scopes import Binding


def absolute(node: ast.ImportFrom, module: Module) -> str | None:
    """Give the absolute name of what names are imported from; None if it leads too far up."""
    base = node.module or ""
    if not node.level:
        return base
    package = module.package.split(".") if module.package else []
    if node.level - 1 > len(package):
        return None
    parts = package[: len(package) - (node.level - 1)]
    return ".".join([*parts, base] if base else parts)


def source_of(project: Project, binding: Binding, module: Module) -> Module | None:
    """Give the file of the project that a name is imported from."""
    node = binding.node
    if not isinstance(node, ast.ImportFrom):
        return None
    base = absolute(node, module)
    found = project.find(base, module) if base else None
    return found if isinstance(found, Module) else None


def files_of(project: Project, node: ast.ImportFrom, module: Module) -> list[Module | Folder]:
    """Give the files of the project that an import reads."""
    base = absolute(node, module)
    found = project.find(base, module) if base else None
    files = [] if found is None else [found]
    for alias in node.names:
        inner = (
            project.inside(found, alias.name)
            if found is not None
            else project.find(alias.name, module)
            if base == ""
            else None
        )
        if inner is not None:
            files.append(inner)
    return files
