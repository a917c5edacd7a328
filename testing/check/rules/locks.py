"""What holds inside of ``async with ctx.lock_entities(...)``."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.visit import Visit, locked_by, locks_around
from .rule import Found, Rule, shown


class Locks(Rule):
    """Calls that the lock on some entities does not allow."""

    code = "PDU018"
    title = "A call breaks the rules of lock_entities"

    def check(self, visit: Visit) -> Iterator[Found]:
        if visit.is_locked or visit.has_locks:
            for call in visit.of(ast.Call):
                name = visit.context_call(call)
                if name is not None:
                    yield from self._check_call(visit, call, name)
        if visit.has_locks:
            for block in visit.of(ast.With):
                for item in block.items:
                    yield from self._check_entered(visit, item)

    def _check_call(self, visit: Visit, call: ast.Call, name: str) -> Iterator[Found]:
        lock = locks_around(visit, call)
        if lock is None and not visit.is_locked:
            return
        if name == "lock_entities":
            fix = "lock all of them at once: `ctx.lock_entities(a, b)`"
            yield Found(call, f"{shown(call)} stands inside of another lock", fix)
        elif name == "call_sub_orchestrator":
            yield Found(
                call,
                f"{shown(call)} stands inside of `lock_entities`",
                "call it before the lock or behind it",
            )
        elif lock is not None and name == "task_all":
            yield from self._check_together(visit, call, _Entities(visit, lock))
        elif lock is not None and call.args and name in ("call_entity", "signal_entity"):
            entities = _Entities(visit, lock)
            target = call.args[0]
            if name == "call_entity" and entities.certainly_lacks(target):
                what = f"{shown(target)} is called, which the lock around does not hold"
                yield Found(call, what, "lock it as well, or call it behind the block")
            elif name == "signal_entity" and entities.certainly_has(target):
                what = f"{shown(target)} is signalled, which the lock around holds"
                yield Found(
                    call, what, "call it by `ctx.call_entity`, or signal it behind the block"
                )

    def _check_together(self, visit: Visit, call: ast.Call, entities: _Entities) -> Iterator[Found]:
        """Look for an entity that is called twice at a time."""
        seen = set[str]()
        tasks = call.args[0] if call.args else None
        for task in tasks.elts if isinstance(tasks, (ast.List, ast.Tuple)) else ():
            if isinstance(task, ast.Call) and visit.context_call(task) == "call_entity":
                key = entities.key(task.args[0]) if task.args else None
                if key in seen:
                    what = f"{shown(task.args[0])} is called twice at a time, inside of its lock"
                    yield Found(task, what, "await one call before the next")
                elif key is not None:
                    seen.add(key)

    def _check_entered(self, visit: Visit, item: ast.withitem) -> Iterator[Found]:
        lock = locked_by(visit, item)
        if lock is not None and item.context_expr is lock:
            what = f"{shown(lock)} is entered before it is granted"
            node = visit.function.node
            fix = (
                "write `async with`"
                if isinstance(node, ast.AsyncFunctionDef)
                else "write `with (yield ctx.lock_entities(...)):`"
            )
            yield Found(lock, what, fix)


class _Entities:
    """The entities that a lock is on, as far as the source says it.

    Args:
        visit: where it is.
        lock: the call of ``lock_entities``.
    """

    def __init__(self, visit: Visit, lock: ast.Call) -> None:
        self._visit = visit
        self._keys: set[str] = set()
        self._is_known = True
        for argument in lock.args:
            for part in (
                argument.elts if isinstance(argument, (ast.List, ast.Tuple)) else [argument]
            ):
                key = self.key(part)
                if key is None:
                    self._is_known = False
                else:
                    self._keys.add(key)

    def certainly_has(self, node: ast.expr) -> bool:
        """Whether an entity is locked for certain."""
        key = self.key(node)
        return key is not None and key in self._keys

    def certainly_lacks(self, node: ast.expr) -> bool:
        """Whether an entity is not locked for certain."""
        key = self.key(node)
        return self._is_known and key is not None and key not in self._keys

    def key(self, node: ast.expr) -> str | None:
        """Give a text that is the same for the same entity; None if that cannot be said."""
        value = self._followed(node)
        if isinstance(value, ast.Name):
            found = self._visit.scope(value).find(value.id)
            is_parameter = found is not None and [one.kind for one in found[1]] == ["parameter"]
            return f"parameter {value.id}" if is_parameter else None
        if not isinstance(value, ast.Call) or any(
            isinstance(one, (ast.Await, ast.Yield)) for one in ast.walk(value)
        ):
            return None
        parts = [self._followed(argument) for argument in value.args]
        if "perdure.EntityId" in self._visit.called(value) and len(parts) == 2:
            name = parts[0].value if isinstance(parts[0], ast.Constant) else ast.unparse(parts[0])
            return f"{str(name).casefold()} {ast.unparse(parts[1])}"
        keywords = [f"{one.arg}={ast.unparse(one.value)}" for one in value.keywords]
        texts = [ast.unparse(value.func), *map(ast.unparse, parts), *keywords]
        return " ".join(texts)

    def _followed(self, node: ast.expr) -> ast.expr:
        """Give the expression that a variable has its one value from, or what there is instead."""
        for _ in range(4):
            if not isinstance(node, ast.Name):
                break
            found = self._visit.scope(node).find(node.id)
            binding = found[1][0] if found is not None and len(found[1]) == 1 else None
            if binding is None or binding.kind not in ("value", "annotated"):
                break
            value = binding.value
            for index in binding.path:
                row = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
                value = row[index] if index < len(row) else None
            if value is None:
                break
            node = value
        return node
