"""The plugin for pytest, as users' projects have it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest_plugins = ["pytester"]

#: Loads it where it is not installed, and not a second time where it is.
PLUGIN = ("-p", "no:perdure", "-p", "pytest_perdure")

APP = """
from datetime import timedelta

import pytest

from perdure import App, OrchestrationContext
from perdure.testing import TestHub

app = App()
OUTBOX: list[str] = []


@app.activity
async def send(text: str) -> None: ...


@app.orchestration
async def welcome(ctx: OrchestrationContext, name: str) -> str:
    await ctx.create_timer(timedelta(days=30))
    await ctx.call_activity(send, name)
    return f"welcome {name}"


@app.orchestration
async def send_itself(ctx: OrchestrationContext, name: str) -> None:
    await ctx.create_timer(timedelta(days=30))
    OUTBOX.append(name)


@pytest.fixture
def perdure_app():
    return app


@pytest.fixture(autouse=True)
def empty():
    OUTBOX.clear()
"""

MISTAKE = '''
"""An e-mail that is sent by the orchestration itself: what crashes find."""

from datetime import timedelta

import pytest

from examples.mail import OUTBOX, app, welcome
from perdure import App
from perdure.testing import TestHub


@pytest.fixture
def perdure_app() -> App:
    return app


@pytest.mark.perdure_crash_everywhere
async def test_one_mail_is_sent(perdure_hub: TestHub) -> None:
    OUTBOX.clear()
    handle = await perdure_hub.client.start_new(welcome, "ann")
    await perdure_hub.advance(timedelta(days=1))
    await handle.result()
    assert OUTBOX == ["welcome ann"]
'''

MAIL = '''
"""Send an e-mail a day after, by the orchestration itself."""

from datetime import timedelta

from perdure import App, OrchestrationContext

app = App()
OUTBOX: list[str] = []


@app.orchestration
async def welcome(ctx: OrchestrationContext, name: str) -> None:
    await ctx.create_timer(timedelta(days=1))
    OUTBOX.append(f"welcome {name}")
'''


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nanyio_mode = auto\n")
    return pytester


def run(project: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    project.makepyfile(APP + tests)
    given = *PLUGIN, "-p", "no:xdist", "-p", "no:cacheprovider"
    return project.runpytest_inprocess(*given, *arguments)


TESTS = """
async def test_on_the_loop(perdure_hub: TestHub, anyio_backend_name) -> None:
    handle = await perdure_hub.client.start_new(welcome, "ann")
    await perdure_hub.advance(timedelta(days=30))
    assert await handle.result() == "welcome ann"
    assert [call.input for call in perdure_hub.calls(send)] == ["ann"]


def test_beside_the_loop(perdure_hub: TestHub) -> None:
    run = perdure_hub.sync.run
    handle = run(perdure_hub.client.start_new, welcome, "ann")
    perdure_hub.sync.advance(timedelta(days=30))
    assert run(handle.result) == "welcome ann"


@pytest.mark.perdure_hub(auto_advance=True)
async def test_by_itself(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(welcome, "ann")
    assert await handle.result() == "welcome ann"
"""


def test_a_test_has_a_running_hub_on_its_loop_or_beside_it(project: pytest.Pytester) -> None:
    run(project, TESTS).assert_outcomes(passed=5)  # asyncio and trio, and one without a loop


CRASHED = """
@pytest.mark.perdure_crash_everywhere
async def test_by_an_activity(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(welcome, "ann")
    await perdure_hub.advance(timedelta(days=30))
    assert await handle.result() == "welcome ann"
    assert [call.input for call in perdure_hub.calls(send)] == ["ann"]


@pytest.mark.perdure_crash_everywhere
async def test_by_itself(perdure_hub: TestHub) -> None:
    OUTBOX.clear()
    handle = await perdure_hub.client.start_new(send_itself, "ann")
    await perdure_hub.advance(timedelta(days=30))
    await handle.result()
    assert OUTBOX == ["ann"]


@pytest.mark.perdure_crash_everywhere
@pytest.mark.perdure_hub(auto_advance=True)
def test_by_itself_beside_the_loop(perdure_hub: TestHub) -> None:
    OUTBOX.clear()
    run = perdure_hub.sync.run
    run(run(perdure_hub.client.start_new, send_itself, "ann").result)
    assert OUTBOX == ["ann"]


async def test_that_is_not_marked(perdure_hub: TestHub) -> None:
    await perdure_hub.client.start_new(send_itself, "ann")
    await perdure_hub.advance(timedelta(days=30))
    assert OUTBOX == ["ann"]
"""


def test_marked_tests_are_like_others_without_the_option(project: pytest.Pytester) -> None:
    run(project, CRASHED).assert_outcomes(passed=7)


def test_marked_tests_are_crashed_at_each_commit_with_the_option(project: pytest.Pytester) -> None:
    result = run(project, CRASHED, "--perdure-crash-everywhere")

    result.assert_outcomes(passed=4, failed=3)
    failed = {line.split("::")[1].split(" ")[0] for line in result.outlines if "FAILED" in line}
    assert failed == {
        "test_by_itself[asyncio]",
        "test_by_itself[trio]",
        "test_by_itself_beside_the_loop",
    }
    result.stdout.fnmatch_lines(["*CrashDifference: where the hub crashes at commit * of *"])


def test_a_test_without_an_application_is_told_what_to_write(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(perdure_hub): ...")

    result = project.runpytest_inprocess(*PLUGIN, "-p", "no:xdist")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*say what application it is of, by a fixture perdure_app*"])


def test_what_could_not_be_crashed_is_refused(project: pytest.Pytester) -> None:
    marked = "@pytest.mark.perdure_crash_everywhere\nasync def test_it() -> None: ...\n"

    result = run(project, marked, "--perdure-crash-everywhere")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it* does not take perdure_hub*"])


INDIRECT = """
@pytest.mark.perdure_crash_everywhere
@pytest.mark.usefixtures("perdure_hub")
async def test_it() -> None: ...
"""


def test_what_has_the_hub_by_another_fixture_alone_is_refused(project: pytest.Pytester) -> None:
    run(project, INDIRECT).assert_outcomes(passed=2)

    result = run(project, INDIRECT, "--perdure-crash-everywhere")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it* does not take perdure_hub*an argument of its own*"])


OPTIONS = """
@pytest.mark.perdure_hub(inline_activities=True)
@pytest.mark.perdure_crash_everywhere
async def test_inline(perdure_hub: TestHub) -> None:
    await perdure_hub.client.start_new(welcome, "ann")
    await perdure_hub.quiet()
"""


def test_inline_activities_are_no_hindrance_to_crashes(project: pytest.Pytester) -> None:
    run(project, OPTIONS).assert_outcomes(passed=2)

    run(project, OPTIONS, "--perdure-crash-everywhere").assert_outcomes(passed=2)


def test_options_without_a_name_are_refused(project: pytest.Pytester) -> None:
    result = run(project, OPTIONS.replace("inline_activities=True", "True"))

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*takes what TestHub is made with by name*"])


IN_VAIN = """
@pytest.mark.perdure_crash_everywhere
async def test_one_mail(perdure_hub: TestHub) -> None:
    handle = await perdure_hub.client.start_new(send_itself, "ann")
    await perdure_hub.advance(timedelta(days=30))
    await handle.result()
    two = len(OUTBOX) > 1
    OUTBOX.clear()
    with pytest.raises(ValueError):
        if not two:
            raise ValueError


@pytest.mark.perdure_crash_everywhere
def test_one_mail_beside_the_loop(perdure_hub: TestHub) -> None:
    handle = perdure_hub.sync.run(perdure_hub.client.start_new, send_itself, "ann")
    perdure_hub.sync.advance(timedelta(days=30))
    perdure_hub.sync.run(handle.result)
    two = len(OUTBOX) > 1
    OUTBOX.clear()
    if two:
        pytest.fail("two mails")
"""


def test_it_is_said_where_a_crash_has_pytest_itself_fail(project: pytest.Pytester) -> None:
    result = run(project, IN_VAIN, "--perdure-crash-everywhere")

    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*CrashDifference: where the hub crashes at commit *",
            "*raises AssertionError: DID NOT RAISE*",
            "*raises AssertionError: two mails*",
        ]
    )


SHARED = """
@pytest.fixture
async def ann(perdure_hub: TestHub):
    return await perdure_hub.client.start_new(welcome, "ann")


@pytest.mark.perdure_crash_everywhere
async def test_it(ann, perdure_hub: TestHub) -> None:
    await perdure_hub.advance(timedelta(days=30))
    assert await ann.result() == "welcome ann"
"""


def test_fixtures_may_use_the_hub_unless_it_crashes(project: pytest.Pytester) -> None:
    run(project, SHARED).assert_outcomes(passed=2)

    crashed = run(project, SHARED, "--perdure-crash-everywhere")

    crashed.assert_outcomes(errors=2)
    crashed.stdout.fnmatch_lines(["*perdure_hub.client: * each run of a marked test has a hub*"])


def test_perdure_is_not_imported_for_tests_that_do_not_ask_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert not any(m.startswith('perdure') for m in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGIN, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_crashing_the_examples_finds_a_planted_mistake_and_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "examples/mail.py").write_text(MAIL)
    (tmp_path / "examples/tests/test_mail.py").write_text(MISTAKE)
    given = (
        "--perdure-crash-everywhere",
        "examples",
        *PLUGIN,
        "-k",
        "not trio",
        "-rfE",
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    lines = done.stdout.splitlines()
    found = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    assert found == ["FAILED examples/tests/test_mail.py::test_one_mail_is_sent[asyncio]"], lines
    assert any("passed" in line and "1 failed" in line for line in lines)
