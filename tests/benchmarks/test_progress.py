from __future__ import annotations

from io import StringIO

from rich.console import Console

from perdure.benchmarks.progress import Bar


def shown(*, visible: bool) -> str:
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    with Bar(console, 4, visible=visible) as bar:
        bar.begin("hello", 1)
        bar.show("warming up", 30, 100)
    return text.getvalue()


def test_the_bars_say_which_run_and_load_is_under_way_and_how_far_it_has_come() -> None:
    text = shown(visible=True)

    assert "hello" in text
    assert "1/4" in text
    assert "warming up" in text
    assert "30/100" in text


def test_a_bar_that_nobody_sees_writes_nothing() -> None:
    assert shown(visible=False) == ""
