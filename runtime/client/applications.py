"""Where an application is, so that another process can import it."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast
from zipimport import zipimporter

from ...actors.arguments import instance, is_a, text
from ...actors.errors import UsageError
from ...actors.printing import repr_of
from ...actors.registry.app import App
from ...actors.registry.lookup import Lookup
from ..scheduling.stage import STAGE
from ..settings import Settings

#: The name under which a worker process imports the script that its hub was started from, so that
#: ``if __name__ == "__main__"`` keeps the script from starting another hub.
SCRIPT = "__perdure_main__"


def load_app(place: str) -> App:
    """Import the application that ``"module:name"`` or ``"path/to/file.py:name"`` means.

    Raises:
        UsageError: there is no such module or file, or no such application in it.
    """
    module, attribute = _module_of(place, "app")
    app: Any = module
    for name in attribute.split("."):
        if not hasattr(app, name):
            known = [name for name in dir(module) if is_a(getattr(module, name, None), App)]
            there = f"its apps are {', '.join(known)}" if known else "it has no perdure.App"
            at = place.rpartition(":")[0]
            raise UsageError(f"app: {at!r} has no {attribute!r}; {there}")
        app = getattr(app, name)
    if not is_a(app, App):
        raise UsageError(f"app={place!r} is no perdure.App but {repr_of(app)}")
    return cast("App", app)


def load_observer(place: str) -> Any:
    """Import the observer that ``"module:name"`` means: one, or what makes one when it is called.

    Raises:
        UsageError: there is no such module or file, or no such name in it.
    """
    found, attribute = _module_of(place, "observer")
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise UsageError(f"observer: there is no {attribute!r} where observer={place!r} says")
        found = getattr(found, name)
    makes = is_a(found, type) or (callable(found) and not hasattr(found, "begin_turn"))
    return found() if makes else found


def _module_of(place: str, argument: str) -> tuple[Any, str]:
    """Import the module of ``"module:name"``; gives the name as well."""
    module_name, _, attribute = text(place, argument).rpartition(":")
    if not module_name or not attribute:
        raise UsageError(
            f"{argument}={place!r} does not say where the {argument} is: give 'module:name'"
        )
    if module_name.endswith(".py") or os.sep in module_name:
        return _load_file(Path(module_name), argument), attribute
    return _load_module(module_name, argument), attribute


def app_of(app: object) -> App:
    """Give the application that was given itself, or by where it is.

    Raises:
        UsageError: it is none, or is not there.
    """
    if is_a(app, str):
        return load_app(cast("str", app))
    return instance(app, App, "app", "a perdure.App, or where one is, such as 'module:name'")


def make_lookup(app: App, settings: Settings) -> Lookup:
    """Give the door to an application, with the limits of its hub."""
    return Lookup(
        app,
        settings.max_payload,
        stripe_fold_s=settings.stripe_fold_s,
        stripe_hot_per_s=settings.stripe_hot_per_s,
        stage=STAGE,
    )


def _load_module(name: str, argument: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{argument}: {name!r} is no name of a module, nor the path of a file")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there, and imports something that is not
        raise UsageError(f"{argument}: there is no module {name!r} here or on sys.path") from error


def _load_file(path: Path, argument: str) -> ModuleType:
    if not _is_program_file(path):
        raise UsageError(f"{argument}: there is no file {str(path)!r}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as Python does for a script, and for an archive
    loader, code = _read_program(path)
    module = ModuleType(SCRIPT)
    module.__file__ = str(path)
    module.__loader__ = loader  # by which a traceback finds the lines of an archive's
    sys.modules[SCRIPT] = module  # annotations in it are looked up there
    exec(code, module.__dict__)
    return module


def _is_program_file(path: Path) -> bool:
    """Whether code can be read at a path: of a file, whatever its name, or of one in an archive."""
    if "\0" in str(path):
        return False
    if path.is_file():
        return True
    import zipfile  # here, since hardly a program is an archive

    return zipfile.is_zipfile(path.parent)


def _read_program(path: Path) -> tuple[Any, CodeType]:
    """Give the code of a program's file, and what has read it.

    Raises:
        UsageError: there is none.
    """
    loader: SourceFileLoader | SourcelessFileLoader | zipimporter
    code: CodeType | None
    try:
        if not path.is_file():
            loader = zipimporter(str(path.parent))
            code = loader.get_code(path.stem)
        elif path.suffix == ".pyc":
            loader = SourcelessFileLoader(SCRIPT, str(path))
            code = loader.get_code(SCRIPT)
        else:
            loader = SourceFileLoader(SCRIPT, str(path))
            # No compiled form is written beside it, as Python writes none of a script.
            code = loader.source_to_code(path.read_bytes(), str(path))
    except ImportError as error:
        raise UsageError(f"{path} is no file of Python code: {error}") from error
    if code is None:
        raise UsageError(f"{path} is no file of Python code")
    return loader, code


def _is_program(name: str) -> bool:
    """Whether a module's name is that of the program which runs, and means another elsewhere.

    ``multiprocessing`` gives the program a second name, and runs it under that one in its children.
    """
    return name in ("__main__", "__mp_main__", SCRIPT)


def place_of(app: App | str) -> str:
    """Say where an application is, for ``load_app`` in another process.

    Raises:
        UsageError: no module has it, or only one that another process cannot import.
    """
    if isinstance(app, str):
        return app
    found = [
        (name, attribute)
        for name, module in list(sys.modules.items())
        for attribute, value in list(getattr(module, "__dict__", {}).items())
        if value is app
    ]
    for name, attribute in found:
        if not _is_program(name):
            return f"{name}:{attribute}"
    for name, attribute in found:
        module = sys.modules[name]
        spec = getattr(module, "__spec__", None)
        if spec is not None and not _is_program(spec.name):
            return f"{spec.name}:{attribute}"  # python -m package.module
        file = getattr(module, "__file__", None)
        if file is not None and _is_program_file(Path(file)):
            return f"{Path(file).resolve()}:{attribute}"
    raise UsageError(
        "worker processes cannot import this app: it is "
        + (
            "in an interactive session, or a program that is no file"
            if found
            else "no module's variable"
        )
        + "; put it in a module and name it there, as in Hub('shop.flows:app', workers=2)"
    )
