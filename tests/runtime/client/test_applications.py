from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from perdure import App, UsageError
from perdure.runtime.client.applications import SCRIPT, load_app, place_of

ROOT = Path(__file__).parents[3]
app = App("here")


@pytest.fixture(autouse=True)
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what is put on the search path, and the script that was loaded."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, SCRIPT, sys.modules.get(SCRIPT))


@contextmanager
def module(name: str, **contents: object) -> Generator[ModuleType]:
    """Have a module of that name for a while."""
    made = ModuleType(name)
    vars(made).update(contents)
    before = sys.modules.get(name)
    sys.modules[name] = made
    try:
        yield made
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder whose modules can be imported, and forgotten."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


FLOWS = "from perdure import App\napp = App('flows')\nclass Box:\n    app = App('inner')\n"


def test_an_app_is_loaded_from_a_module(folder: Path) -> None:
    write(folder, "flows_of_module.py", FLOWS)

    assert load_app("flows_of_module:app").name == "flows"
    assert load_app("flows_of_module:Box.app").name == "inner"


def test_an_app_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "flows.py", FLOWS)

    assert load_app(f"{path}:app").name == "flows"


def test_a_script_that_is_loaded_does_not_start_what_it_starts_as_a_program(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "s.py", FLOWS + "if __name__ == '__main__':\n    raise SystemExit(9)\n")

    assert load_app(f"{path}:app").name == "flows"


def test_a_file_s_folder_is_where_its_own_imports_are_looked_for(tmp_path: Path) -> None:
    write(tmp_path, "beside_it.py", "NAME = 'beside'\n")
    path = write(
        tmp_path, "s.py", "from perdure import App\nimport beside_it\napp = App(beside_it.NAME)\n"
    )

    assert load_app(f"{path}:app").name == "beside"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("flows", "module:name"),
        (":app", "module:name"),
        ("flows:", "module:name"),
        ("no_such_module:app", "no module 'no_such_module'"),
        ("no.such.module:app", "no module 'no.such.module'"),
        ("nowhere.py:app", "no file 'nowhere.py'"),
        ("json:loads", "no perdure.App"),
        ("json:nothing", "no perdure.App"),
        ("json:decoder.nothing.more", "no perdure.App"),
    ],
)
def test_a_place_without_an_app_is_refused(place: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_app(place)


def test_a_module_that_imports_what_is_not_there_says_so_itself(folder: Path) -> None:
    write(folder, "broken_flows.py", "import no_such_thing\n")

    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        load_app("broken_flows:app")


def test_a_named_place_is_taken_as_it_is() -> None:
    assert place_of("shop.flows:app") == "shop.flows:app"


def test_an_app_of_a_module_is_found_there() -> None:
    assert load_app(place_of(app)) is app


def test_an_app_that_main_has_from_a_module_is_found_in_the_module() -> None:
    mine = App()

    with module("__main__", app=mine), module("shop_flows", flows=mine):
        assert place_of(mine) == "shop_flows:flows"


def test_an_app_of_a_script_is_found_by_its_file(tmp_path: Path) -> None:
    mine, path = App(), write(tmp_path, "script.py", "")

    with module("__main__", app=mine, __file__=str(path), __spec__=None):
        assert place_of(mine) == f"{path}:app"


def test_an_app_of_a_module_that_is_run_is_found_by_its_name() -> None:
    mine, spec = App(), SimpleNamespace(name="shop.run")

    with module("__main__", app=mine, __spec__=spec, __file__="/somewhere/shop/run.py"):
        assert place_of(mine) == "shop.run:app"


def test_an_app_of_a_script_that_a_worker_has_loaded_is_found_by_its_file(tmp_path: Path) -> None:
    mine, path = App(), write(tmp_path, "script.py", "")

    with module(SCRIPT, app=mine, __file__=str(path), __spec__=SimpleNamespace(name=SCRIPT)):
        assert place_of(mine) == f"{path}:app"


def test_an_app_of_a_script_that_imports_multiprocessing_is_found_by_its_file(
    tmp_path: Path,
) -> None:
    mine, path = App(), write(tmp_path, "script.py", "")

    with (
        module("__main__", app=mine, __file__=str(path), __spec__=None) as main,
        module("__mp_main__"),
    ):
        sys.modules["__mp_main__"] = main
        assert place_of(mine) == f"{path}:app"


def test_an_app_of_a_folder_that_is_run_is_found_by_its_file(tmp_path: Path) -> None:
    mine, path = App(), write(tmp_path, "__main__.py", "")
    spec = SimpleNamespace(name="__main__")

    with module("__main__", app=mine, __spec__=spec, __file__=str(path)):
        assert place_of(mine) == f"{path}:app"


@pytest.mark.parametrize("file", [None, "<stdin>"])
def test_an_app_of_an_interactive_session_is_refused_with_the_way_out(file: str | None) -> None:
    mine = App()
    contents: dict[str, object] = {} if file is None else {"__file__": file}

    with (
        module("__main__", app=mine, __spec__=None, **contents),
        pytest.raises(UsageError, match=r"interactive session.*shop\.flows:app"),
    ):
        place_of(mine)


def test_an_app_that_no_module_has_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"no module's variable.*shop\.flows:app"):
        place_of(App())


def test_a_module_whose_variables_raise_when_looked_at_is_passed_over() -> None:
    class Touchy:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("do not compare me")

        def __hash__(self) -> int:
            raise RuntimeError("do not hash me")

    with module("touchy", thing=Touchy()):
        assert load_app(place_of(app)) is app


PROGRAM = """
from perdure import App
from perdure.runtime.client.applications import load_app, place_of
app = App("program")
if __name__ == "__main__":
    place = place_of(app)
    print(place)
    print(load_app(place).name)
"""


@pytest.mark.parametrize("as_module", [False, True])
def test_a_program_that_runs_finds_itself(tmp_path: Path, as_module: bool) -> None:
    path = write(tmp_path, "program.py", PROGRAM)
    arguments = ["-m", "program"] if as_module else [str(path)]

    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
    )

    place = "program:app" if as_module else f"{path}:app"
    assert done.stdout.split() == [place, "program"]


def test_a_program_from_the_standard_input_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=PROGRAM,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "interactive session" in done.stderr
