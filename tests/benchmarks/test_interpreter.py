"""A report names the interpreter that measured, and how it was built."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from perdure.benchmarks.bench import Options
from perdure.benchmarks.interpreter import (
    build_words,
    gil_words,
    interpreter_words,
    loop_words,
)
from perdure.benchmarks.report import describe_run


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param(
            {"CONFIG_ARGS": "'--prefix=/opt' '--enable-optimizations' '--with-lto'"},
            "an optimised build (PGO and LTO)",
            id="both",
        ),
        pytest.param(
            {"CONFIG_ARGS": "'--enable-optimizations' '--with-lto=no'"},
            "an optimised build (PGO)",
            id="a profile",
        ),
        pytest.param(
            {"CONFIG_ARGS": "", "PY_CFLAGS": "-O3 -fprofile-use -flto=thin"},
            "an optimised build (PGO and LTO)",
            id="by flags of the compiler",
        ),
        pytest.param(
            {"CONFIG_ARGS": "'--with-lto=full'"},
            "built with LTO and without --enable-optimizations",
            id="the linker",
        ),
        pytest.param(
            {"CONFIG_ARGS": "'--prefix=/usr'", "PY_CFLAGS": "-O2"},
            "configured without --enable-optimizations and LTO",
            id="neither",
        ),
        pytest.param({}, "which does not say how it was built", id="silent"),
    ],
)
def test_a_build_is_told_by_what_it_left(variables: dict[str, str], words: str) -> None:
    assert build_words(variables) == words


def test_a_free_threaded_python_is_told_from_one_whose_lock_is_on() -> None:
    assert gil_words({}, has_gil=True) == "with the GIL"
    assert gil_words({"Py_GIL_DISABLED": 0}, has_gil=True) == "with the GIL"
    assert gil_words({"Py_GIL_DISABLED": 1}, has_gil=False) == "free-threaded"
    assert (
        gil_words({"Py_GIL_DISABLED": 1}, has_gil=True) == "free-threaded, with the GIL turned on"
    )


def test_a_loop_is_told_with_its_version() -> None:
    assert loop_words("asyncio", uvloop=False) == "asyncio"
    assert loop_words("asyncio", uvloop=True) == f"uvloop {version('uvloop')}"
    assert loop_words("trio", uvloop=False) == f"trio {version('trio')}"


def test_the_head_of_a_report_names_interpreter_and_loop() -> None:
    head = describe_run(Options(), "perdure bench", "asyncio", uvloop=False)

    assert head["python"] == interpreter_words()
    assert head["python"].startswith(f"CPython {platform.python_version()}, ")
    assert head["event loop"] == "asyncio"
