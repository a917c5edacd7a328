from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from perdure import UsageError
from perdure.benchmarks import wordcount
from perdure.benchmarks.wordcount import REDUCERS, count_words, find_texts, map_file


def test_fewer_files_are_a_sample_of_all(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("some words")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "other.bin").write_text("no text")

    found = [path.stem for path in find_texts(tmp_path, 5)]

    assert found == ["0", "2", "4", "6", "8"]
    assert len(find_texts(tmp_path, 100)) == 10


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose another --text"):
        find_texts(tmp_path, 5)


def test_words_are_runs_of_letters_in_lower_case(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"Und und, groesse 7 x_y \xff")

    found = count_words(path)

    assert (found["und"], found["groesse"], found["Und"]) == (2, 1, 0)
    assert found["7"] == 0


def test_the_shares_of_a_file_are_all_of_its_words_each_once(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one two three two three three " * 3, "utf-8")

    shares = map_file(str(path))

    assert len(shares) == REDUCERS
    assert sum((Counter(share) for share in shares), Counter[str]()) == count_words(path)
    assert sum(map(len, shares)) == 3


def test_what_is_no_text_or_too_large_or_empty_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordcount, "FILE_MAX", 10)
    (tmp_path / "site-packages").mkdir()
    for name, size in (("a.py", 10), ("b.md", 11), ("c.txt", 0), ("d.so", 5)):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "site-packages" / "e.py").write_text("x")

    assert find_texts(tmp_path, 9) == [tmp_path / "a.py"]
