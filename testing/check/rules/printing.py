"""Printing and logging that a replay repeats."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.visit import Visit
from .rule import Found, Rule, shown

_LOGGING = frozenset(["critical", "debug", "error", "exception", "info", "log", "warn", "warning"])


class Printing(Rule):
    """``print`` and loggers, which say everything again at each replay; off by default."""

    code = "PDU024"
    title = "A replay prints or logs again"
    is_default = False

    def check(self, visit: Visit) -> Iterator[Found]:
        for call in visit.of(ast.Call):
            if not _guarded(visit, call) and any(map(tells, visit.called(call))):
                yield Found(call, f"{shown(call)} says it again at each replay", "use `ctx.logger`")


def tells(name: str) -> bool:
    """Whether something of others prints or logs, by its name."""
    owner, _, last = name.rpartition(".")
    return name in ("builtins.print", "pprint.pprint", "rich.print") or (
        owner in ("logging", "logging.Logger") and last in _LOGGING
    )


def _guarded(visit: Visit, call: ast.Call) -> bool:
    """Whether it is only done where the code is not replayed."""
    return any(
        isinstance(one, ast.If) and "is_replaying" in ast.unparse(one.test)
        for one in visit.around(call)
    )
