from __future__ import annotations

import pytest

from perdure.adapters.cli.screen import Screen

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
