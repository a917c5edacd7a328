"""Code that cannot be ended, since it catches all that could end it, and begins again."""

from __future__ import annotations


def keep_for_ever(code: object) -> None:
    """Keep such code, suspended, until the process is gone.

    Were it collected, Python would throw into it once more and complain aloud; and at the end of
    the interpreter, where nothing that it waits for is there any more, it would go round for ever.
    A module's list does not keep it that long, so it gets a reference that nobody gives back.
    """
    import ctypes  # here, since hardly a program has such code

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(code))
