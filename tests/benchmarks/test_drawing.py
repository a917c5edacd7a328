from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.benchmarks.drawing import compact, nines, nines_of, save


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (999, "999"),
        (999.6, "1k"),
        (1_250, "1.25k"),
        (999_700, "1M"),
        (2_500_000, "2.5M"),
        (-1_500, "-1.5k"),
    ],
)
def test_a_number_is_written_as_a_person_would_say_it(value: float, words: str) -> None:
    assert compact(value) == words


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (90, 1), (99, 2), (99.9, 3)])
def test_each_nine_is_ten_times_as_rare(percent: float, count: float) -> None:
    assert nines_of(percent) == pytest.approx(count)


class Axes:
    def __init__(self) -> None:
        self.labels: list[str] = []

    def set_xticks(self, at: list[float], labels: list[str]) -> None:
        self.labels = labels

    def set_xlim(self, *, left: float) -> None: ...

    def set_xlabel(self, text: str) -> None: ...


@pytest.mark.parametrize(
    ("greatest", "shown"), [(99.95, ["50 %", "90 %", "99 %", "99.9 %"]), (10.0, ["50 %"])]
)
def test_no_percentile_is_marked_that_was_not_measured(greatest: float, shown: list[str]) -> None:
    axes = Axes()

    nines(axes, greatest)

    assert axes.labels == shown


class Figure:
    def savefig(self, where: Any, **options: Any) -> None:
        if options.get("format") == "svg":
            where.write('<?xml?><svg><path id="a"/><use href="#a"/><g clip-path="url(#a)"/></svg>')
        else:
            Path(where).write_bytes(b"png")


def test_ids_of_pictures_differ_where_several_are_put_into_one_page(tmp_path: Path) -> None:
    picture = save(Figure(), tmp_path, "bank")

    assert picture.svg == (
        '<svg><path id="bank-a"/><use href="#bank-a"/><g clip-path="url(#bank-a)"/></svg>'
    )
    assert 'id="a"' in (tmp_path / "bank.svg").read_text("utf-8")
    assert (tmp_path / "bank.png").read_bytes() == b"png"
