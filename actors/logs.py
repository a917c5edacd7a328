"""The package's way to log: a log line is never worth more than what it tells of.

Handlers, filters and formatters are the application's. Whatever they raise, whoever logs goes on;
it is counted, and said on standard error the first time. One record is one line, whatever texts
of users it holds; a traceback comes apart from it, as logging has it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from .interrupts import is_interrupt
from .printing import one_line, text_of, type_name

# The slot of the built-in class: a subclass may have put a property over it that raises.
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__


class Log:
    """One of the package's loggers, by its dotted name.

    Attributes:
        lost: how many records a handler, filter or formatter failed on, in all of the process.
    """

    lost = 0

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *values: Any) -> None:
        """Say what only whoever looks for a fault wants to know."""
        self._write(logging.DEBUG, message, values, None)

    def info(self, message: str, *values: Any) -> None:
        """Say what happened in the course of things."""
        self._write(logging.INFO, message, values, None)

    def warning(self, message: str, *values: Any) -> None:
        """Say what somebody should look at."""
        self._write(logging.WARNING, message, values, None)

    def error(self, message: str, *values: Any, why: BaseException | None = None) -> None:
        """Say what went wrong, with the traceback of ``why``."""
        self._write(logging.ERROR, message, values, why)

    def critical(self, message: str, *values: Any, why: BaseException | None = None) -> None:
        """Say that something stops, with the traceback of ``why``."""
        self._write(logging.CRITICAL, message, values, why)

    def _write(
        self, level: int, message: str, values: tuple[Any, ...], why: BaseException | None
    ) -> None:
        try:
            if self._logger.isEnabledFor(level):
                shown = [_show(value) for value in values]
                trace = None if why is None else _exc_info(why)
                self._logger.log(level, message, *shown, exc_info=trace, stacklevel=3)
        except BaseException as error:
            if is_interrupt(error):
                raise
            _lose(self._logger.name, error)


class GuardedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for users' code: like any other, but that no record makes it raise.

    Whether a handler raises may differ from one day to the next; what code does after may not.
    """

    def __init__(self, name: str, extra: Mapping[str, object]) -> None:
        super().__init__(logging.getLogger(name), extra)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Whether a record of that level would go anywhere."""
        try:
            return super().isEnabledFor(level)
        except BaseException as error:
            if is_interrupt(error):
                raise
            _lose(self.logger.name, error)
            return False

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write a record; ``debug``, ``info`` and all the others come here."""
        try:
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the line that called this
            super().log(level, msg, *args, **kwargs)
        except BaseException as error:
            if is_interrupt(error):
                raise
            _lose(self.logger.name, error)


def _lose(name: str, error: BaseException) -> None:
    """Count a record that is lost, and tell of the first."""
    Log.lost += 1
    if Log.lost == 1:
        _complain(name, error)


def _exc_info(why: BaseException) -> tuple[Any, BaseException, Any]:
    """Give an exception as formatters take it; one that they cannot print is described instead."""
    trace = _traceback_of(why)
    try:
        traceback.format_exception(type(why), why, trace)
    except BaseException as broken:
        if is_interrupt(broken):
            raise
        described = RuntimeError(f"{type_name(why)}: {text_of(why)}")
        return RuntimeError, described, trace
    return type(why), why, trace


def _show(value: Any) -> Any:
    """Give a number as it is, for formats, and anything else as one line of text."""
    if type(value) is int or type(value) is float:
        return value
    return one_line(value if type(value) is str else text_of(value))


def _complain(name: str, error: BaseException) -> None:
    try:
        sys.stderr.write(
            f"perdure: a log handler, filter or formatter of {name!r} raised {type_name(error)}: "
            f"{one_line(text_of(error))}; records that it loses are counted, and not told again\n"
        )
    except BaseException as broken:
        if is_interrupt(broken):
            raise
        # Standard error is the application's as well; the count is what is left.
