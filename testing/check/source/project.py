"""The project: its files, each read and parsed once, and which file a module's name means.

What lies in the project is followed; what is installed (the standard library, other packages) is
known by its name alone.
"""

from __future__ import annotations

import ast
import os
import sys
import tokenize
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from .scopes import Scope, Scopes, read_scopes

# Frames of Python alone, which need no room on the stack of C.
_FRAMES = 20_000
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages", "build"})


@attrs.define(eq=False)
class Module:
    """A file of the project.

    Attributes:
        path: where it is.
        name: its dotted name, from the folder that its packages lie in.
        root: that folder.
        text: its source.
        tree: the source, parsed.
        scopes: what its names mean.
    """

    path: Path
    name: str
    root: Path
    text: str = attrs.field(repr=False)
    tree: ast.Module = attrs.field(repr=False)
    scopes: Scopes = attrs.field(repr=False)
    lines: list[str] = attrs.field(factory=list[str], repr=False)

    @property
    def package(self) -> str:
        """The name that its relative imports begin at."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def scope(self) -> Scope:
        """Its own scope."""
        return self.scopes.module


@attrs.frozen
class Folder:
    """A package without a file of its own, a namespace: its dotted name, and where it is."""

    name: str
    path: Path


@attrs.frozen
class Trouble:
    """A file that cannot be looked at, and why."""

    path: Path
    reason: str
    line: int = 0
    column: int = 0


class Project:
    """The files of a project.

    Args:
        roots: folders in which modules are looked for, besides those that each file's own
            packages lie in.

    Attributes:
        troubles: what could not be looked at.
    """

    def __init__(self, roots: Iterable[Path] = ()) -> None:
        self._roots = list(dict.fromkeys(root.resolve() for root in roots))
        self._modules: dict[Path, Module | None] = {}
        self._found: dict[tuple[Path, str], Module | Folder | None] = {}
        self._folders: dict[Path, frozenset[str]] = {}
        self.troubles: list[Trouble] = []

    @property
    def modules(self) -> list[Module]:
        """All that have been read."""
        return [module for module in self._modules.values() if module is not None]

    def read(self, path: Path) -> Module | None:
        """Read a file; None if that cannot be done, which ``troubles`` says then."""
        real = path.resolve()
        if real not in self._modules:
            self._modules[real] = None  # a file that imports itself
            self._modules[real] = self._parse(path, real)
        return self._modules[real]

    def add(self, path: Path, text: str, name: str = "__main__") -> Module | None:
        """Take a text for a file that need not exist."""
        module = self._make(path, name, path.parent, text)
        self._modules[path] = module
        return module

    def _parse(self, path: Path, real: Path) -> Module | None:
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except OSError as error:
            self.troubles.append(Trouble(path, f"cannot be read: {error.strerror}"))
            return None
        except (SyntaxError, UnicodeDecodeError, LookupError) as error:
            self.troubles.append(Trouble(path, f"cannot be read: {error}"))
            return None
        name, root = _name_of(real)
        return self._make(path, name, root, text)

    def _make(self, path: Path, name: str, root: Path, text: str) -> Module | None:
        try:
            with deep_recursion(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the source does not matter here
                tree = ast.parse(text, str(path))
                return Module(path, name, root, text, tree, read_scopes(tree))
        except SyntaxError as error:
            line, column = error.lineno or 0, error.offset or 0
            self.troubles.append(Trouble(path, f"is no Python: {error.msg}", line, column))
        except ValueError as error:  # null bytes
            self.troubles.append(Trouble(path, f"is no Python: {error}"))
        except RecursionError:
            self.troubles.append(Trouble(path, "is nested too deeply to be read"))
        return None

    def find(self, name: str, origin: Module) -> Module | Folder | None:
        """Find the module of an absolute name, as a file of the project has it; None: not in it."""
        key = (origin.root, name)
        if key not in self._found:
            self._found[key] = self._look_for(name, origin.root)
        return self._found[key]

    def _look_for(self, name: str, root: Path) -> Module | Folder | None:
        first, *_ = parts = name.split(".")
        if first == "perdure" or first in sys.builtin_module_names:
            return None
        folder: Folder | None = None
        for start in dict.fromkeys([root, *self._roots]):
            if not self._has(start, first):
                continue
            place = start.joinpath(*parts)
            if self._has(place, "__init__.py"):
                return self.read(place / "__init__.py")
            if self._has(place.parent, f"{place.name}.py"):
                return self.read(place.with_name(f"{place.name}.py"))
            is_installed = first in sys.stdlib_module_names  # and then comes before such a folder
            if folder is None and not is_installed and self._names(place):
                folder = Folder(name, place)
        return folder

    def inside(self, package: Module | Folder, name: str) -> Module | Folder | None:
        """Find a module in a package."""
        if isinstance(package, Module):
            if package.path.name != "__init__.py":
                return None
            place = package.path.parent / name
        else:
            place = package.path / name
        if self._has(place, "__init__.py"):
            return self.read(place / "__init__.py")
        if self._has(place.parent, f"{name}.py"):
            return self.read(place.with_name(f"{name}.py"))
        return Folder(f"{package.name}.{name}", place) if self._names(place) else None

    def _has(self, folder: Path, name: str) -> bool:
        names = self._names(folder)
        return name in names or f"{name}.py" in names

    def _names(self, folder: Path) -> frozenset[str]:
        """Give what a folder has that may be a module, or a package of some."""
        if folder not in self._folders:
            names = set[str]()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py") or (
                            entry.name.isidentifier()
                            and entry.name not in _SKIPPED
                            and entry.is_dir()
                        ):
                            names.add(entry.name)
            except OSError:
                pass  # no folder, or none that may be looked into: it has no modules for us
            self._folders[folder] = frozenset(names)
        return self._folders[folder]


def _name_of(path: Path) -> tuple[str, Path]:
    """Give the dotted name of a file, and the folder from which it counts."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts)), folder


@contextmanager
def deep_recursion() -> Generator[None]:
    """Let what goes down a syntax tree call itself more often than is usual: trees may be deep."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def python_files(place: Path) -> Iterator[Path]:
    """Give the Python files in a folder and below, or the one that is named.

    Not those of virtual environments, of what is installed, and of hidden folders; nor, below a
    folder, hidden ones (such as the links that an editor leaves as its locks) and pipes.
    """
    if not place.is_dir():
        yield place
        return
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED
            and not name.startswith(".")
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        )
        for name in sorted(files):
            if name.endswith((".py", ".pyw")) and not name.startswith("."):
                file = Path(folder, name)
                if file.is_file() or not file.exists():  # what is a link to nothing is said
                    yield file
