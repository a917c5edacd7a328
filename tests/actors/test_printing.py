from __future__ import annotations

import sys
import traceback
from typing import Any

import pytest

from perdure.actors import printing
from perdure.actors.failures import encode_failure, failure_of, read_failure
from perdure.actors.printing import one_line, repr_of, stack_of, text_of, type_name


def refuse(*_: object) -> Any:
    raise SystemExit("no")


NoName: Any = type("NoName", (type,), {"__name__": property(refuse)})
Text: Any = type("Text", (str,), {"__len__": refuse, "encode": refuse})  # lies about all of itself


def broken(how: str) -> BaseException:
    class Broken(Exception):
        def __str__(self) -> Any:
            match how:
                case "none":
                    return None
                case "exit":
                    raise SystemExit
                case "interrupt":
                    raise KeyboardInterrupt
                case "endless":
                    return str(self)
                case "itself":
                    raise self
                case _:
                    return Text("a \ud800 text")

        __repr__ = __str__

    return Broken("x")


@pytest.mark.parametrize("how", ["none", "exit", "interrupt", "endless", "itself"])
def test_an_object_that_cannot_be_printed_has_a_stand_in(how: str) -> None:
    error = broken(how)

    assert text_of(error).startswith("<str() of Broken failed: ")
    assert repr_of(error).startswith("<repr() of Broken failed: ")
    assert failure_of(error).message == text_of(error)


def test_what_a_user_prints_becomes_a_plain_text_that_json_can_hold() -> None:
    assert text_of(broken("text")) == "a \\ud800 text"
    assert type(text_of(broken("text"))) is str
    assert text_of("x" * 9_000) == "x" * 3_999 + "…"


def test_a_class_without_a_usable_name_is_named_all_the_same() -> None:
    assert type_name(NoName("Nameless", (), {})()) == "Nameless"


def test_a_text_becomes_one_line() -> None:
    assert one_line("a\nb\r\x1b[31m \u2028 é") == "a\\nb\\r\\x1b[31m \\u2028 é"


def test_an_exception_with_broken_parts_is_described() -> None:
    parts = ["__cause__", "__context__", "__traceback__", "__suppress_context__", "__class__"]
    kind = type("Hostile", (ValueError,), {part: property(refuse) for part in parts})

    failure = failure_of(kind("text"))

    assert (failure.error_type, failure.message, failure.cause) == ("Hostile", "text", None)
    assert failure.bases == ("ValueError", "Exception", "BaseException")


def test_a_failure_knows_its_bases_and_members_also_after_a_round_trip() -> None:
    group = ExceptionGroup("two", [ConnectionResetError("a"), ExceptionGroup("in", [KeyError(1)])])

    failure = read_failure(encode_failure(failure_of(group)))

    assert failure == failure_of(group)
    assert [one.error_type for one in failure.members] == ["ConnectionResetError", "ExceptionGroup"]
    assert failure.members[0].is_caused_by(OSError)
    assert not failure.members[0].is_caused_by(ValueError)
    assert failure.members[1].members[0].error_type == "KeyError"


def test_a_failure_that_was_stored_without_bases_is_read() -> None:
    failure = read_failure(b'["ValueError","bad","",null,false]')

    assert (failure.error_type, failure.bases, failure.members) == ("ValueError", (), ())


def test_a_wide_and_deep_group_is_cut() -> None:
    inner: Any = ValueError("x")
    for _ in range(40):
        inner = BaseExceptionGroup("g", [inner] * 40)

    assert len(encode_failure(failure_of(inner))) < 100_000


def test_a_chain_that_has_no_end_is_cut() -> None:
    error = ValueError("x")
    error.__cause__ = KeyError("y")
    error.__cause__.__cause__ = error

    assert sys.getsizeof(encode_failure(failure_of(error))) < 10_000


def _raise(depth: int, number: int) -> None:
    if depth:
        _raise(depth - 1, number)
    raise ValueError(number) if number else KeyError(number)


def _caught(depth: int, number: int = 1) -> Exception:
    try:
        _raise(depth, number)
    except (ValueError, KeyError) as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("depth", [0, 1, 2, 5, 29, 30, 31, 200])
def test_a_traceback_is_the_same_where_one_like_it_wasformatted_before(depth: int) -> None:
    for error in (_caught(depth), _caught(depth), _caught(depth, 0), _caught(depth + 1)):
        assert stack_of(error, 100_000) == "".join(traceback.format_tb(error.__traceback__))


def test_few_formatted_tracebacks_are_kept() -> None:
    for number in range(2 * printing.FORMATTED_MAX):
        scope: dict[str, Any] = {}
        exec(f"def fail():\n    raise ValueError({number})", scope)
        with pytest.raises(ValueError, match=str(number)) as raised:
            scope["fail"]()
        assert "in fail" in stack_of(raised.value, 1_000)

    assert len(printing.formatted_before) <= printing.FORMATTED_MAX
