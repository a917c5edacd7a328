"""Logs as JSON: one object a line, with what a record is about.

A record that code of actors writes by ``ctx.logger`` says whose it is. Where a trace is sampled, so
does any other that is written in an activity or an entity's operation, whatever logger it goes to.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName"}
)


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON.

    It has ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, ``exception`` and ``stack`` if
    there are any, ``trace_id`` and ``span_id`` if a span is current, and whatever was given by
    ``extra=``. So ``ctx.logger`` of an orchestration gives ``instance_id`` and ``orchestration``, that
    of an activity ``instance_id``, ``activity``, ``task_id`` and ``attempt``, and that of an entity
    ``entity_id`` and ``operation``. What cannot be JSON is written as a text.

        handler.setFormatter(JsonFormatter())
    """

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        said.update(_current_span())
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in said:
                said[name] = value
        if record.exc_info and record.exc_info[1] is not None:
            said["exception"] = _exception(record.exc_info[1])
        elif record.exc_text:
            said["exception"] = record.exc_text
        if record.stack_info:
            said["stack"] = record.stack_info
        return _dump(said)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg!s} (its arguments do not fit)"


def _exception(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return type(error).__name__


def _current_span() -> dict[str, Any]:
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return {}
    span = api.get_current_span()
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    found = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    return {**getattr(span, "ids", {}), **found}


def _dump(said: dict[str, Any]) -> str:
    try:
        return json.dumps(said, default=_text, ensure_ascii=False)
    except Exception:  # a key that is no text, a value that holds itself
        return json.dumps({name: _text(value) for name, value in said.items()}, ensure_ascii=False)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
