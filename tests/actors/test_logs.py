"""The package's logging: an application's handlers cannot reach whoever logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from perdure.actors.logs import Log

NAME = "perdure.tests.logs"


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Collector(logging.Handler):
    """A handler whose collector does not answer."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(NAME)
    lost, Log.lost = Log.lost, 0
    yield logger
    Log.lost = lost
    logger.handlers.clear()
    logger.filters.clear()


ERRORS: list[BaseException] = [
    ConnectionError("no answer"),
    Broken(),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_handler_raises_stays_with_it_and_is_counted(
    logger: logging.Logger, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Collector(error))

    for _ in range(3):
        Log(NAME).error("a line")

    assert Log.lost == 3
    said = capsys.readouterr().err
    assert said.count(f"raised {type(error).__name__}") == 1  # once, and not for each record
    assert said.count("\n") == 1


def test_what_a_filter_raises_stays_with_it(logger: logging.Logger) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter")

    logger.addFilter(refuse)

    Log(NAME).warning("a line")

    assert Log.lost == 1


def test_one_record_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    Log(NAME).error("failed: %s, %d times in %.1f s", "a\nb\r\x1b[31m", 3, 0.25)

    assert caplog.messages == ["failed: a\\nb\\r\\x1b[31m, 3 times in 0.2 s"]


def test_a_value_that_cannot_be_printed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    Log(NAME).error("failed: %s", Broken())

    assert caplog.messages == ["failed: <str() of Broken failed: ValueError>"]


def test_a_record_names_the_line_that_logged_and_keeps_the_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise Broken
    except Broken as error:
        Log(NAME).error("failed", why=error)

    (record,) = caplog.records
    assert record.filename == "test_logs.py"
    assert record.exc_info is not None
    assert record.exc_info[0] is Broken
