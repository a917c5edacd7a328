from __future__ import annotations

import pytest
from rich.text import Text

from perdure.adapters.cli.screen import Screen
from perdure.adapters.cli.words import frames_of, place_of

ROWS = [["a" * 30, "a name of three words", "Running"], ["b", "", "Completed"]]
HEADERS = ("id", "name", "status")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def test_rows_are_a_table_where_that_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    Screen().table(HEADERS, ROWS)

    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "ID                              NAME                   STATUS",
        f"{'a' * 30}  a name of three words  Running",
        f"b{' ' * 54}Completed",
    ]


HOSTILE = "a\x1b[2J\x1b]0;title\x07b\u202ec\x00d\re\x9b1mf\ud800g"
#: Some of it rich takes out of its own texts.
SHOWN_IN_STYLE = r"a\x1b[2J\x1b]0;titleb\u202ec\x00de\x9b1mf\ud800g"
SHOWN = r"a\x1b[2J\x1b]0;title\x07b\u202ec\x00d\re\x9b1mf\ud800g"


def test_nothing_that_is_shown_is_a_command_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    screen = Screen()

    screen.line(HOSTILE, Text(HOSTILE, style="bold"))
    screen.fields({"what": HOSTILE, "styled": Text(f"x\n{HOSTILE}")})
    screen.table(("id",), [[f"{HOSTILE}\n"]])
    screen.note(HOSTILE)

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        SHOWN + SHOWN_IN_STYLE,
        f"what    {SHOWN}",
        "styled  x",
        f"        {SHOWN_IN_STYLE}",
        "ID",
        rf"{SHOWN}\n",
    ]
    assert captured.err == f"{SHOWN}\n"


def test_the_frames_of_a_traceback_are_told_apart() -> None:
    ours = '  File "/x/site-packages/perdure/actors/replay/executor.py", line 7, in step\n    go()'
    theirs = (
        '  File "/home/me/perdure/examples/shop.py", line 42, in order\n    await pay()\n    ^^^'
    )
    text = f"Traceback (most recent call last):\n{ours}\n{theirs}\n{ours}"

    assert frames_of(text) == [
        ("Traceback (most recent call last):", False),
        (ours, True),
        (theirs, False),
        (ours, True),
    ]
    assert place_of(text) == "shop.py:42"
    assert place_of(r'  File "C:\work\shop.py", line 3, in f') == "shop.py:3"
    assert place_of(ours) is place_of("") is None


@pytest.mark.usefixtures("narrow")
def test_where_it_does_not_fit_each_row_is_some_lines_that_end_between_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().table(HEADERS, ROWS)

    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "a" * 30,
        "  name a name of three words, status",
        "  Running",
        "b",
        "  status Completed",
    ]


@pytest.mark.usefixtures("narrow")
def test_a_table_takes_the_first_cells_with_which_it_fits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().table(("id", "when"), [["a", "x" * 50]], [["a", "short"]])

    assert capsys.readouterr().out == "ID  WHEN\na   short\n"


@pytest.mark.usefixtures("narrow")
def test_a_word_that_is_longer_than_the_screen_stays_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().line("it is " + "x" * 60 + " here", indent="  ")

    assert capsys.readouterr().out.splitlines() == ["  it is", f"  {'x' * 60}", "  here"]


@pytest.mark.usefixtures("narrow")
def test_a_text_keeps_its_own_spaces_its_lines_and_where_it_begins(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().line("  await first(1),  second(22222222), third(3), fourth\n\nnext", indent="  ")

    assert capsys.readouterr().out.splitlines() == [
        "    await first(1),  second(22222222),",
        "  third(3), fourth",
        "  ",
        "  next",
    ]


def test_off_a_terminal_a_line_is_as_long_as_it_has_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    Screen().table(("id", "name"), [["a" * 90, "b" * 90]])

    assert capsys.readouterr().out.splitlines()[1] == f"{'a' * 90}  {'b' * 90}"


def test_text_that_looks_like_markup_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().table(("id",), [["[red]x[/] :smile:"]])
    Screen().line("[bold]")
    Screen().fields({"id": "[link=x]", "none": None})

    assert capsys.readouterr().out == "ID\n[red]x[/] :smile:\n[bold]\nid  [link=x]\n"
