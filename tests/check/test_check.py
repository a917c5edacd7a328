from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.testing.check.check import CheckError, Report, check_app, check_files, chosen_rules
from perdure.testing.check.source.project import python_files

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    return write_file


def places(report: Report) -> list[tuple[str, int, str]]:
    return [(one.path.name, one.line, one.code) for one in report.findings]


def test_what_is_an_activity_in_another_file_is_not_entered(write: Write) -> None:
    write(
        "work.py",
        "from perdure import App\napp = App()\n"
        "@app.activity\ndef save(text: str) -> None:\n    open(text).close()\n"
        "@app.orchestration\nasync def other(ctx):\n    open('x').close()\n",
    )
    flows = write(
        "flows.py",
        "from work import app, save\n"
        "@app.orchestration\nasync def flow(ctx):\n    save('x')\n    await ctx.call_activity(save, 'x')\n",
    )

    report = check_files([flows])

    assert places(report) == [("flows.py", 4, "PDU013")]
    assert report.orchestrations == 1


def test_a_finding_in_a_helper_says_who_calls_it(write: Write) -> None:
    file = write(
        "flows.py",
        "import time\nfrom perdure import App\napp = App()\n"
        "class Clock:\n    def now(self):\n        return time.time()\n"
        "@app.orchestration\nasync def flow(ctx):\n    return Clock().now()\n"
        "@app.entity\nclass Log:\n    def add(self):\n        Clock().now()\n",
    )

    report = check_files([file])

    assert [(one.where, one.role) for one in report.findings] == [
        ("in `Clock.now`, called by orchestration `flow`", "flow")
    ]


def test_what_serves_both_is_told_as_the_orchestration_s(write: Write) -> None:
    file = write(
        "flows.py",
        "import asyncio\nfrom perdure import App\napp = App()\n"
        "async def nap():\n    await asyncio.sleep(1)\n"
        "@app.entity\nclass Log:\n    async def add(self):\n        await nap()\n"
        "@app.orchestration\nasync def flow(ctx):\n    await nap()\n",
    )

    report = check_files([file])

    assert places(report) == [("flows.py", 5, "PDU009")]  # which an operation may do
    assert report.findings[0].role == "flow"


def test_a_file_is_parsed_once_however_often_it_is_named(write: Write) -> None:
    flows = write("flows.py", "from perdure import App\nimport helper\napp = App()\n")
    helper = write("helper.py", "import flows\n")

    report = check_files([flows, flows.parent, helper, "./flows.py"])

    assert report.files == 2


def test_a_link_to_a_file_is_that_file(write: Write) -> None:
    flows = write("flows.py", "import time\nfrom perdure import App\napp = App()\n")
    (flows.parent / "link.py").symlink_to(flows)

    assert check_files([flows.parent]).files == 1


def test_what_is_installed_is_not_entered(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("elsewhere/lib.py", "import time\ndef now():\n    return time.time()\n")
    monkeypatch.setattr(sys, "path", [str(Path("elsewhere").resolve()), *sys.path])
    flows = write(
        "project/flows.py",
        "from lib import now\nfrom perdure import App\napp = App()\n"
        "@app.orchestration\nasync def flow(ctx):\n    return now()\n",
    )
    monkeypatch.chdir(flows.parent)

    assert places(check_files([flows])) == []


def test_an_application_in_a_folder_of_sources_is_found(write: Write) -> None:
    write(
        "src/shop/app.py",
        "from perdure import App\nfrom .flows import register\napp = App()\nregister(app)\n",
    )
    write("src/shop/__init__.py", "")
    write(
        "src/shop/flows.py",
        "import time\nfrom perdure import App\n"
        "def register(app: App) -> None:\n    app.orchestration(flow)\n"
        "async def flow(ctx):\n    return time.time()\n",
    )

    assert places(check_app("shop.app:app")) == [("flows.py", 6, "PDU001")]


@pytest.mark.parametrize("place", ["shop", ":app", "shop:", ""])
def test_what_names_no_application_is_refused(place: str) -> None:
    with pytest.raises(CheckError, match="does not say which app that is"):
        check_app(place)


def test_what_calls_itself_is_followed_once(write: Write) -> None:
    file = write(
        "flows.py",
        "import time\nfrom perdure import App\napp = App()\n"
        "def even(n):\n    return odd(n - 1) if n else time.time()\n"
        "def odd(n):\n    return even(n - 1)\n"
        "@app.orchestration\nasync def flow(ctx):\n    again = lambda: again()\n    return even(3)\n",
    )

    assert places(check_files([file])) == [("flows.py", 5, "PDU001")]


def test_a_long_chain_is_read_to_its_end(write: Write) -> None:
    chain = "ctx" + ".a()" * 600
    file = write(
        "flows.py",
        "import time\nfrom perdure import App\napp = App()\n"
        f"@app.orchestration\nasync def flow(ctx):\n    x = {chain}\n    return time.time()\n",
    )

    report = check_files([file])

    assert places(report) == [("flows.py", 7, "PDU001")]
    assert report.troubles == []


def test_a_lock_in_what_calls_itself_is_no_lock_in_a_lock(write: Write) -> None:
    file = write(
        "flows.py",
        "from perdure import App, EntityId, OrchestrationContext\napp = App()\n"
        "async def step(ctx: OrchestrationContext, plan):\n"
        "    if plan[0] == 'lock':\n"
        "        async with ctx.lock_entities(EntityId('counter', 'a')):\n"
        "            for part in plan[1:]:\n"
        "                await step(ctx, part)\n"
        "    await ctx.call_sub_orchestrator('child')\n"
        "@app.orchestration\nasync def flow(ctx: OrchestrationContext, plan: list):\n"
        "    await step(ctx, plan)\n",
    )

    assert places(check_files([file])) == []


def test_the_beginning_of_a_code_chooses_all_that_begin_so() -> None:
    codes = [rule.code for rule in chosen_rules(["PDU00"], ["PDU003"])]

    assert codes == [f"PDU00{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)]
    assert [rule.code for rule in chosen_rules(["ALL"])][-1] == "PDU024"
    assert "PDU024" not in [rule.code for rule in chosen_rules()]


@pytest.mark.parametrize("code", ["E501", "PDU1", "pdu001", "PDU0012"])
def test_a_code_that_no_rule_has_is_refused(code: str) -> None:
    with pytest.raises(CheckError, match=f"there is no rule {code}"):
        chosen_rules([], [code])


def test_in_a_folder_neither_hidden_files_nor_pipes_are_read(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("")
    (tmp_path / ".#shop.py").symlink_to("somebody@somewhere.1")  # the lock of an editor
    os.mkfifo(tmp_path / "pipe.py")

    assert [file.name for file in python_files(tmp_path)] == ["shop.py"]
