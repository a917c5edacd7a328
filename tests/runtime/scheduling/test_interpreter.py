"""Tuning the interpreter for a process that runs a hub."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

import perdure


@pytest.fixture(autouse=True)
def untuned() -> Iterator[None]:
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


def test_tuning_looks_for_cycles_less_often_and_switches_threads_sooner() -> None:
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(0.005)

    perdure.tune()

    assert gc.get_threshold() == (100_000, 10, 10)
    assert sys.getswitchinterval() == pytest.approx(0.0005)


def test_a_hub_leaves_the_interpreter_as_it_is() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()

    perdure.Hub(perdure.App())

    assert (gc.get_threshold(), sys.getswitchinterval()) == before
