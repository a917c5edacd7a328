from __future__ import annotations

import subprocess
import sys

import pytest

from perdure.__main__ import main


def test_bench_runs_a_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["bench", "hot", "--store", "memory:", "-n", "20"])

    assert status == 0
    assert {"hot-signal", "hot-call"} <= set(capsys.readouterr().out.split())


def test_the_suite_is_imported_for_its_own_command_alone() -> None:
    code = (
        "import sys\n"
        "from perdure.__main__ import main\n"
        "try: main(['shards', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not [name for name in sys.modules if name.startswith('perdure.benchmarks')]\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)
