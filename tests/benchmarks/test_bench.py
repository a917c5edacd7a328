from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from perdure import UsageError
from perdure.benchmarks.bench import Bench, Options, place, processor_s
from perdure.benchmarks.figures import WrongOutcomeError


async def test_what_never_comes_about_counts_as_lost() -> None:
    bench = Bench(Options(stalled_s=0.05), None)

    async def count() -> int:
        return 2

    with pytest.raises(WrongOutcomeError, match="things: 2 instead of 3"):
        await bench.wait_until("things", count, 3)


def test_the_processor_time_of_other_processes_is_counted() -> None:
    code = "import sys; [n * n for n in range(10**6)]; print(flush=True); sys.stdin.read()"
    with Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        own, both = processor_s({os.getpid()}), processor_s({os.getpid(), other.pid})

    if sys.platform == "linux":
        assert both - own > 0.01
    else:
        assert both != both  # not a number


def test_a_temporary_store_is_removed_and_one_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    with place(Options(), "hello") as temporary:
        assert temporary is not None
        assert temporary.is_dir()
    with place(Options(store=f"sqlite:{tmp_path / 'kept'}"), "hello") as kept:
        assert kept is not None
        assert kept.parent == tmp_path / "kept"

    assert not temporary.exists()
    assert kept.is_dir()


def test_two_runs_in_one_folder_do_not_share_a_store(tmp_path: Path) -> None:
    options = Options(store=f"sqlite:{tmp_path}")

    with place(options, "hello") as first, place(options, "hello") as second:
        folders = {first, second}

    assert len(folders) == 2


def test_a_store_of_an_unknown_kind_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="neither memory: nor sqlite:PATH"),
        place(Options(store="postgres://x"), "hello"),
    ):
        pass
