"""What belongs to the world outside of a turn: found by the names of what is called.

Each rule of this kind is a table: names, and what to write instead of each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs

from ..source.fields import factories
from ..source.imports import source_of
from ..source.project import Module
from ..source.roles import RoleKind
from ..source.values import Class, Expression, External, ExternalObject, File, Value
from ..source.visit import Visit
from .rule import BOTH, Found, Rule, shown

_AGAIN: dict[RoleKind, str] = {
    "orchestration": "at every replay",
    "entity": "where the operation is run again",
}


@attrs.frozen
class Outside:
    """Something of others that must not be used.

    Attributes:
        verb: what it does: "reads the clock"; "{again}" in it says when code runs once more.
        fix: what an orchestration has instead.
        entity_fix: what an entity has instead; where it is empty, an entity may use it.
        unless_given: with so many arguments it does no harm: ``random.Random(7)``; 0: never.
        by_name: whether to name it is to use it: ``os.environ``.
        is_whole: whether all that it has is meant as well.
        awaitable: whether it is no harm to an entity, which may await it.
    """

    verb: str
    fix: str
    entity_fix: str = ""
    unless_given: int = 0
    by_name: bool = False
    is_whole: bool = False
    awaitable: bool = False

    def said(self, kind: RoleKind) -> str:
        """Say what it does, in an orchestration or in an entity."""
        return self.verb.format(again=_AGAIN[kind])


def table(text: str, entry: Outside, prefix: str = "") -> dict[str, Outside]:
    """Make a table of names, parted by spaces, that all have one entry."""
    return {f"{prefix}{name}": entry for name in text.split()}


class OutsideRule(Rule):
    """A rule that is a table.

    Attributes:
        names: what must not be used.
        at_import: whether what it gives stays wrong when it was asked for at import.
    """

    kinds = BOTH
    names: ClassVar[Mapping[str, Outside]]
    at_import: ClassVar[bool] = False

    def check(self, visit: Visit) -> Iterator[Found]:
        for call in visit.of(ast.Call):
            yield from self._check_call(visit, call)
        for node in visit.loads:
            yield from self._check_name(visit, node)
        for block in visit.withs:
            for item in block.items:
                yield from self._check_entered(visit, item.context_expr)

    def find(self, name: str) -> Outside | None:
        """Give what the table says of a name."""
        entry = self.names.get(name)
        if entry is not None:
            return entry
        while "." in name:
            name = name.rpartition(".")[0]
            entry = self.names.get(name)
            if entry is not None:
                return entry if entry.is_whole else None
        return None

    def _check_call(self, visit: Visit, call: ast.Call) -> Iterator[Found]:
        for value in visit.values(call.func):
            entry = self._entry(visit, value)
            name = value.name if isinstance(value, External) else ""
            if entry is not None and not self._is_let_pass(visit, call, entry, name):
                yield self._found(visit, call, entry, shown(call))
                return
            if isinstance(value, Class) and visit.kind == "orchestration":
                yield from self._check_defaults(visit, call, value)

    def _check_defaults(self, visit: Visit, call: ast.Call, cls: Class) -> Iterator[Found]:
        """Look at what makes the defaults of an object's fields."""
        for factory in factories(visit.resolver, cls, call):
            made = factory.expression
            for value in visit.resolver.values(made, factory.module, factory.scope):
                entry = self.find(value.name) if isinstance(value, External) else None
                if entry is not None and not entry.unless_given:
                    does = f"fills `{factory.field}` by {shown(made)}, which"
                    what = f"{shown(call)} {does} {entry.said(visit.kind)}"
                    yield Found(call, what, f"pass `{factory.field}=`, and for it {entry.fix}")

    def _is_let_pass(self, visit: Visit, call: ast.Call, entry: Outside, name: str) -> bool:
        if _is_given_enough(entry, call):
            return True
        if visit.kind == "entity":
            if not entry.entity_fix:
                return True
            return entry.awaitable and (visit.is_awaited(call) or is_asynchronous(name))
        return False

    def _check_name(self, visit: Visit, node: ast.expr) -> Iterator[Found]:
        yield from self._check_import(visit, node)
        parent = visit.parents.get(node)
        if isinstance(parent, ast.Attribute) or (
            isinstance(parent, ast.Call) and parent.func is node
        ):
            return
        is_given = isinstance(parent, (ast.Call, ast.keyword, ast.Starred))
        for value in visit.values(node):
            entry = self.find(value.name) if isinstance(value, External) else None
            if entry is None or (visit.kind == "entity" and not entry.entity_fix):
                continue
            is_used = is_given and not entry.unless_given and not self._is_harmless(visit, parent)
            if entry.by_name or is_used:
                yield self._found(visit, node, entry, shown(node))
                return

    def _is_harmless(self, visit: Visit, parent: ast.AST | None) -> bool:
        """Whether a function is only named to a call that does not run it in the turn."""
        call = parent if isinstance(parent, ast.Call) else visit.parents.get(parent or ast.Pass())
        if not isinstance(call, ast.Call):
            return True
        for name in visit.called(call):
            if name in ("builtins.isinstance", "builtins.issubclass", "typing.cast"):
                return True
            if name.startswith("perdure.") and not name.endswith(".start_soon"):
                return True
        return False

    def _check_import(self, visit: Visit, node: ast.expr) -> Iterator[Found]:
        """Look at a variable of a module, which was given its value when that was imported."""
        if not self.at_import or visit.kind != "orchestration":
            return
        value = global_value(visit, node)
        made = None if value is None else self._made_at_import(visit, value)
        if made is not None:
            entry, source = made
            what = f"{shown(node)} was made at import by {source}, which {entry.said(visit.kind)}"
            yield Found(node, what, "pass it in with the input, or have an activity give it")

    def _made_at_import(self, visit: Visit, typed: Expression) -> tuple[Outside, str] | None:
        ahead: list[ast.AST] = [typed.node]
        while ahead:
            node = ahead.pop()
            if isinstance(node, (ast.Lambda, ast.GeneratorExp)):
                continue
            if isinstance(node, (ast.Call, ast.Attribute, ast.Name)):
                target = node.func if isinstance(node, ast.Call) else node
                for value in visit.resolver.values(target, typed.module, typed.scope):
                    entry = self._entry(visit, value)
                    if entry is None or not (isinstance(node, ast.Call) or entry.by_name):
                        continue
                    if not _is_given_enough(entry, node):
                        return entry, shown(node)
            ahead += ast.iter_child_nodes(node)
        return None

    def _entry(self, visit: Visit, value: Value) -> Outside | None:
        """Give what the table says of a value, or of what its class derives from."""
        if isinstance(value, External):
            return self.find(value.name)
        if isinstance(value, Class):
            _, outside = visit.resolver.classes.family(value)
            return next((entry for one in outside if (entry := self.find(one.name))), None)
        return None

    def _check_entered(self, visit: Visit, node: ast.expr) -> Iterator[Found]:
        """Look at something that was made elsewhere, and is entered here: ``with LOCK``."""
        if isinstance(node, ast.Call):
            return
        for value in visit.values(node):
            if isinstance(value, ExternalObject):
                entry = self.find(value.name)
                if entry is not None and (visit.kind == "orchestration" or entry.entity_fix):
                    if entry.awaitable and visit.kind == "entity" and visit.is_awaited(node):
                        continue
                    yield self._found(visit, node, entry, shown(node))
                    return

    def _found(self, visit: Visit, node: ast.AST, entry: Outside, name: str) -> Found:
        fix = entry.fix if visit.kind == "orchestration" else entry.entity_fix
        return Found(node, f"{name} {entry.said(visit.kind)}", fix)


def _is_given_enough(entry: Outside, node: ast.AST) -> bool:
    """Whether a call has the arguments with which it does no harm."""
    if not entry.unless_given or not isinstance(node, ast.Call):
        return False
    return len(node.args) + len(node.keywords) >= entry.unless_given


def is_asynchronous(name: str) -> bool:
    """Whether something goes by an event loop, by its name."""
    parts = name.split(".")
    return parts[0] in _ASYNCHRONOUS or any(
        part.startswith("Async") or part in ("aio", "asyncio") for part in parts
    )


_ASYNCHRONOUS = frozenset(
    {
        "aio_pika",
        "aioboto3",
        "aiobotocore",
        "aiofiles",
        "aiohttp",
        "aiokafka",
        "aiomysql",
        "aioredis",
        "aiosmtplib",
        "aiosqlite",
        "anyio",
        "asyncio",
        "asyncpg",
        "motor",
        "trio",
    }
)


def global_value(visit: Visit, node: ast.expr) -> Expression | None:
    """Give the expression that a variable of a module has its value from, and where that stands."""
    module = visit.module
    if isinstance(node, ast.Name):
        name, found = node.id, visit.scope(node).find(node.id)
        if found is None or not found[0].is_module:
            return None
    elif isinstance(node, ast.Attribute):
        for value in visit.values(node.value):
            if isinstance(value, Class):
                return _class_value(visit, value, node.attr)
        files = [value.module for value in visit.values(node.value) if isinstance(value, File)]
        if len(files) != 1 or not isinstance(files[0], Module):
            return None
        name, module = node.attr, files[0]
    else:
        return None
    for _ in range(4):  # through so many modules that import it from each other
        bindings = module.scope.bindings.get(name, ())
        if len(bindings) != 1:
            return None
        binding = bindings[0]
        if binding.kind in ("value", "annotated") and binding.value is not None:
            return Expression(binding.value, module, module.scope)
        source = source_of(visit.resolver.project, binding, module) if binding.alias else None
        if source is None or binding.alias is None:
            return None
        name, module = binding.alias.name, source
    return None


def _class_value(visit: Visit, cls: Class, name: str) -> Expression | None:
    """Give the expression that an attribute of a class has its value from."""
    for one in visit.resolver.classes.family(cls)[0]:
        scope = one.module.scopes.of[one.node]
        bindings = scope.bindings.get(name, [])
        if bindings and one.module.scopes.around[one.node].is_module:
            value = bindings[0].value if len(bindings) == 1 else None
            is_made = value is not None and bindings[0].kind in ("value", "annotated")
            return Expression(value, one.module, scope) if is_made and value is not None else None
    return None
