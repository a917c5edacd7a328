"""Tells a KeyboardInterrupt that somebody at the keyboard made from one that code raised."""

from __future__ import annotations

import dis
import signal
import threading
from types import CodeType, TracebackType
from typing import Any

_RAISE = dis.opmap["RAISE_VARARGS"]

# The slot of the built-in class: a subclass may have put a property over it that raises.
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__


def is_interrupt(error: BaseException) -> bool:
    """Whether the exception is Ctrl-C's, which stops the whole program and not the code it met.

    A signal is handled on the main thread alone, between any two instructions or in the handler
    that an event loop has set; what a ``raise`` of any other code made is that code's failure.
    """
    if type(error) is not KeyboardInterrupt:
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    trace: TracebackType | None = _traceback_of(error)
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code: CodeType = trace.tb_frame.f_code
    raised = code.co_code[trace.tb_lasti] == _RAISE
    return not raised or code is _code_of(signal.getsignal(signal.SIGINT))


def _code_of(handler: Any) -> Any:
    function = getattr(handler, "func", handler)  # asyncio's is a partial
    return getattr(function, "__code__", None)
