"""What is installed is what lies in the rooms: all of it, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = CONFIGURATION["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]


def folder_of(package: str) -> str:
    """Say which folder a package is built from: its own, or one inside of its parent's."""
    if package in FOLDERS:
        return FOLDERS[package]
    parent, _, name = package.rpartition(".")
    return f"{folder_of(parent)}/{name}"


# The packages by the folder that each is built from.
PACKAGES: dict[str, str] = {folder_of(package): package for package in SETUPTOOLS["packages"]}
ROOMS = {folder for folder in PACKAGES if "/" not in folder}  # the others lie inside of these

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def folders_with_modules(root: Path) -> set[str]:
    """Name the folders of the rooms that hold Python modules; links are not followed."""
    return {
        Path(folder).relative_to(root).as_posix()
        for room in ROOMS
        for folder, _, files in os.walk(root / room)
        if any(name.endswith(".py") for name in files)
    }


def files_to_install(root: Path) -> set[str]:
    """Name what a wheel of this tree must hold, apart from its own description."""
    return {
        f"{package.replace('.', '/')}/{file.name}"
        for folder, package in PACKAGES.items()
        for file in (root / folder).iterdir()
        if file.is_file()
        and not file.is_symlink()
        and file.suffix in {".py", ".sql", ".typed", ".html", ".css", ".js", ".svg"}
    } | {"pytest_perdure.py"}  # which pytest imports without the package


def copy_tree(destination: Path) -> Path:
    """Copy what a build reads, so that it leaves nothing behind in the checkout."""
    destination.mkdir()
    leave_out = shutil.ignore_patterns("__pycache__")
    for name in [*ROOMS, "tests"]:
        shutil.copytree(ROOT / name, destination / name, symlinks=True, ignore=leave_out)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, destination)
    return destination


def build(hook: str, root: Path, output: Path) -> Path:
    """Call a hook of the build backend, with the environment's own setuptools."""
    output.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILD, hook, str(output)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output / done.stdout.splitlines()[-1]


def installed_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_every_package_of_the_tree_is_listed() -> None:
    listed: list[str] = CONFIGURATION["tool"]["setuptools"]["packages"]

    assert sorted(listed) == sorted(PACKAGES.values())
    assert folders_with_modules(ROOT) == set(PACKAGES)


def test_a_package_that_is_not_listed_is_found(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "storage" / "forgotten").mkdir()
    (tree / "storage" / "forgotten" / "module.py").touch()

    assert folders_with_modules(tree) - set(PACKAGES) == {"storage/forgotten"}


@pytest.mark.parametrize("room", sorted(ROOMS - {"perdure"}))
def test_a_link_leads_the_type_checkers_to_each_room(room: str) -> None:
    link = ROOT / "perdure" / room

    # Without support for links, git checks them out as text files.
    target = os.readlink(link) if link.is_symlink() else link.read_text("utf-8").strip()
    assert target == f"../{room}"


def test_the_wheel_holds_the_rooms_and_nothing_else(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")

    installed = installed_files(build("build_wheel", tree, tmp_path / "wheels"))

    assert installed == files_to_install(tree)
    assert {
        "perdure/__main__.py",
        "perdure/py.typed",
        "perdure/storage/sqlite/schema.sql",
    } <= installed


def test_a_room_missing_from_the_configuration_is_missed_in_the_wheel(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    configuration = (tree / "pyproject.toml").read_text("utf-8")
    without = configuration.replace('  "perdure.storage",\n', "")
    (tree / "pyproject.toml").write_text(without, "utf-8")

    installed = installed_files(build("build_wheel", tree, tmp_path / "wheels"))

    missed = files_to_install(tree) - installed
    assert missed == {name for name in missed if name.startswith("perdure/storage/")} != set()


def test_the_wheel_built_from_the_sdist_is_the_same(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")

    sdist = build("build_sdist", tree, tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    installed = installed_files(build("build_wheel", unpacked, tmp_path / "wheels"))

    assert installed == files_to_install(tree)
    assert (unpacked / "tests" / "conftest.py").exists()
