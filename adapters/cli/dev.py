"""``perdure dev``: an application served while it is written, and served anew when it changes.

A process of its own serves it. When a file has changed, another one sees first whether the
application can be imported; only then does the one that serves come to a stop, and the next begins.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from .http import Keys
from .hubs import FOLDER
from .serve import Application, Backend, Observer

_LOOK_S = 0.3
#: How long files have to rest before they are looked at: an editor writes several.
_REST_S = 0.2
#: How long the one that serves has to stop in order.
_STOP_S = 30.0

#: What files are known by, by their paths.
States = dict[str, tuple[int, int]]


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about a hub that does not run yet, so its kind is another."""
    del kind
    app.command("dev", epilog="Example: perdure dev examples/shop.py:app")(dev)


def dev(
    app: Application,
    store: Annotated[
        str, typer.Option(help="sqlite:PATH, a folder; or memory:.")
    ] = f"sqlite:{FOLDER}",
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Serve HTTP there; port 0: a free one.")
    ] = "127.0.0.1:7071",
    partitions: Annotated[int, typer.Option(help="Of a new store.")] = 4,
    backend: Annotated[Backend, typer.Option(help="The event loop.")] = Backend.asyncio,
    observer: Observer = None,
    key_file: Keys = None,
    expose_errors: Annotated[
        bool,
        typer.Option(
            "--expose-errors/--no-expose-errors", help="Show tracebacks in answers over HTTP."
        ),
    ] = True,
) -> None:
    """Serve an application, anew whenever its code changes.

    Code that cannot be imported is shown, and what was served before goes on. So is what is
    logged from INFO on, unless the application sets that up, and which instances fail.
    """
    if ":" not in app:  # no change of its code would bring that
        from perdure import UsageError

        raise UsageError(f"{app!r} does not say which app that is: give {app}:app, if it is app")
    arguments = ["--store", store, "--http", http, "--partitions", str(partitions)]
    arguments += ["--backend", backend.value]
    arguments += [] if observer is None else ["--observer", observer]
    arguments += [] if key_file is None else ["--key-file", key_file]
    arguments += ["--expose-errors"] if expose_errors else []
    with told_to_stop():
        raise typer.Exit(_Development(app, arguments).run())


class Stopped(BaseException):
    """SIGINT or SIGTERM came."""


@contextmanager
def told_to_stop() -> Generator[None]:
    """Have SIGINT and SIGTERM raise ``Stopped``."""

    def stop(*_: object) -> None:
        raise Stopped

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Development:
    """An application that is served again and again.

    Args:
        app: where it is.
        arguments: what ``perdure serve`` is given.
    """

    def __init__(self, app: str, arguments: list[str]) -> None:
        self._app = app
        self._arguments = arguments
        self._served: subprocess.Popen[bytes] | None = None
        self._folders = {_folder_of(app)}
        self._reloads = 0

    def run(self) -> int:
        """Serve until a signal comes, or what serves ends by itself; gives the exit status."""
        try:
            seen = self._look()
            self._reload()
            while True:
                time.sleep(_LOOK_S)
                status = self._ended()
                if status is not None:
                    return status
                if self._look() != seen:
                    seen = self._rested()
                    self._reload()
        except Stopped:
            return 0
        finally:
            with suppress(Stopped):  # once more, which has told it to what serves
                self._stop()

    def _ended(self) -> int | None:
        """Give the status that all ends with, if what serves has ended by itself."""
        if self._served is None or self._served.poll() is None:
            return None
        status, self._served = self._served.returncode, None
        if self._reloads <= 1:
            return status
        print(f"perdure dev: what served ended with {status}; waits for a change", flush=True)
        return None

    def _reload(self) -> None:
        """Serve the application as it is now, if it can be imported."""
        files = _import(self._app)
        if files is None:
            goes_on = "what was served goes on" if self._served else "nothing is served"
            print(f"perdure dev: {goes_on}; waits for a change", flush=True)
            return
        self._folders |= {str(Path(file).parent) for file in files}
        if self._served is not None:
            print("perdure dev: the code has changed", flush=True)
        self._stop()
        self._reloads += 1
        # Of a session of its own: Ctrl-C is told to it from here, once.
        command = [sys.executable, "-m", "perdure", "serve", self._app, *self._arguments]
        self._served = subprocess.Popen(
            [*command, "--parent", str(os.getpid()), "--tell"], start_new_session=True
        )

    def _stop(self) -> None:
        served, self._served = self._served, None
        if served is None or served.poll() is not None:
            return
        served.terminate()
        try:
            served.wait(_STOP_S)
        except Stopped:
            served.terminate()  # a second one does not wait for a stop in order
            served.wait()
            raise
        except subprocess.TimeoutExpired:
            served.kill()
            served.wait()

    def _look(self) -> States:
        return {
            str(path): state
            for folder in sorted(self._folders)
            for path in Path(folder).glob("*.py")
            if (state := _state(path)) is not None
        }

    def _rested(self) -> States:
        """Give what files are like when nobody writes to them any more."""
        before = self._look()
        while True:
            time.sleep(_REST_S)
            now = self._look()
            if now == before:
                return now
            before = now


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # it has gone
    return found.st_size, found.st_mtime_ns


def _folder_of(app: str) -> str:
    module = app.rpartition(":")[0]
    if module.endswith(".py") or os.sep in module:
        return str(Path(module).resolve().parent)
    return str(Path(*module.split(".")[:-1]).resolve()) if module else os.getcwd()


def _import(app: str) -> list[str] | None:
    """Import an application in a process that ends again; gives its own files, None if it fails."""
    reading, writing = os.pipe()
    with open(reading, "rb") as told:
        code = "from perdure.adapters.cli.dev import tell_files; tell_files()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, app, str(writing)], pass_fds=[writing]
        )
        os.close(writing)
        try:
            files: list[str] | None = json.loads(told.read() or b"null")
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode < 0:
        print(f"perdure dev: its import ended with {process.returncode}", flush=True)
    return files


def tell_files() -> None:
    """In a process of its own: import an application, and tell which files it has."""
    from perdure import Hub, PerdureError

    app, writing = sys.argv[1], int(sys.argv[2])
    try:
        Hub(app)
    except PerdureError as error:
        raise SystemExit(f"perdure: {error}") from None
    except Exception:
        import traceback

        traceback.print_exc()
        raise SystemExit(1) from None
    with open(writing, "w") as told:
        json.dump(sorted(own_files()), told)


def own_files() -> Iterator[str]:
    """Give the files of modules that are neither Python's, nor installed, nor this package's."""
    package = str(Path(__file__).resolve().parents[2])
    for module in [*sys.modules.values()]:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = str(Path(file).resolve())
        theirs = ("site-packages" in path, path.startswith((sys.prefix, sys.base_prefix)))
        rooms = tuple(
            f"{package}{os.sep}{room}"
            for room in ("actors", "adapters", "perdure", "runtime", "storage")
        )
        if not any(theirs) and not path.startswith(rooms):
            yield path
