"""Variables of modules and classes that change: nobody records them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.arguments import defaults_of
from ..source.functions import returned
from ..source.imports import source_of
from ..source.project import Module
from ..source.scopes import Scope, parameters_of
from ..source.values import Class, Display, ExternalObject, File, Function, Object
from ..source.visit import Visit
from .rule import BOTH, Found, Rule, shown

_CHANGING = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "update",
    ]
)
_MUTABLE = frozenset(
    {
        "builtins.bytearray",
        "builtins.dict",
        "builtins.list",
        "builtins.set",
        "collections.ChainMap",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.deque",
    }
)
_ITERATORS = frozenset({"itertools.count", "itertools.cycle"})
_FIX = "pass it in with the input, or keep it in an entity"
_ENTITY_FIX = "make it a field of the entity"


class Shared(Rule):
    """Variables that outlive the turn without being durable."""

    code = "PDU015"
    title = "A variable that changes is shared between instances"
    kinds = BOTH

    def __init__(self) -> None:
        self._changed: dict[Module, frozenset[str]] = {}

    def check(self, visit: Visit) -> Iterator[Found]:
        fix = _FIX if visit.kind == "orchestration" else _ENTITY_FIX
        changed = set[ast.AST]()
        for node, target, is_itself in _changes(visit):
            if _is_global(visit, target) if is_itself else _is_shared(visit, target):
                changed.update(ast.walk(node))
                yield Found(node, f"{shown(target)} is changed, which no history keeps", fix)
        for call in visit.of(ast.Call):
            if "builtins.next" in visit.called(call) and call.args:
                target = call.args[0]
                if _is_global(visit, target) and any(
                    isinstance(value, ExternalObject) and value.name in _ITERATORS
                    for value in visit.values(target)
                ):
                    changed.update(ast.walk(call))
                    yield Found(call, f"{shown(target)} is taken from, which no history keeps", fix)
        if visit.kind == "orchestration":
            yield from self._check_reads(visit, changed)

    def _check_reads(self, visit: Visit, changed: set[ast.AST]) -> Iterator[Found]:
        for node in visit.of(ast.Name):
            if not isinstance(node.ctx, ast.Load) or node in changed:
                continue
            module = _home(visit, node)
            if module is None:
                continue
            if _is_rebound(module, node.id) or (
                _mutable(visit, node) and node.id in self._changed_in(module)
            ):
                what = f"{shown(node)} is read, which other code changes meanwhile"
                yield Found(node, what, _FIX)

    def _changed_in(self, module: Module) -> frozenset[str]:
        known = self._changed.get(module)
        if known is None:
            known = self._changed[module] = frozenset(_look_for_changes(module))
        return known


def _changes(visit: Visit) -> Iterator[tuple[ast.AST, ast.expr, bool]]:
    """Give what changes something: the statement or call, the variable, and whether it is rebound."""
    for node in visit.nodes:
        match node:
            case ast.Assign():
                for target in node.targets:
                    yield from _stored(node, target)
            case ast.AugAssign() | ast.AnnAssign() if getattr(node, "value", None) is not None:
                yield from _stored(node, node.target)
            case ast.Delete():
                for target in node.targets:
                    yield from _stored(node, target)
            case ast.Call(func=ast.Attribute() as function) if function.attr in _CHANGING:
                if _mutable(visit, function.value):
                    yield node, function.value, False
            case _:
                pass


def _stored(node: ast.AST, target: ast.expr) -> Iterator[tuple[ast.AST, ast.expr, bool]]:
    match target:
        case ast.Name():
            yield node, target, True
        case ast.Subscript() | ast.Attribute():
            yield node, target.value, False
        case ast.Tuple() | ast.List():
            for part in target.elts:
                yield from _stored(node, part)
        case _:
            pass


def _is_shared(visit: Visit, node: ast.expr) -> bool:
    """Whether an expression is, or lies in, what instances share: a global, or a class."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if _is_global(visit, node) or _is_shared_default(visit, node):
        return True
    if any(isinstance(value, (Class, Function)) for value in visit.values(node)):
        return True
    return isinstance(node, ast.Attribute) and (
        _is_of_class(visit, node) or _is_shared(visit, node.value)
    )


def _is_shared_default(visit: Visit, node: ast.expr) -> bool:
    """Whether an expression is a parameter's default, which all calls share: ``items=[]``."""
    found = visit.scope(node).find(node.id) if isinstance(node, ast.Name) else None
    if found is None or len(found[1]) != 1 or found[1][0].owner is not visit.function.node:
        return False
    parameter = found[1][0].node
    for one, default in defaults_of(visit.function.node.args):
        if one is parameter and isinstance(default, (ast.List, ast.Dict, ast.Set)):
            given = visit.resolver.given.get(one, ())
            is_left_out = any(
                isinstance(value, Display) and value.node is default for value in given
            )
            return is_left_out or not visit.path
    return False


def _is_of_class(visit: Visit, node: ast.Attribute) -> bool:
    """Whether an object has an attribute from its class alone, which all of its objects share."""
    for value in visit.values(node.value):
        if not isinstance(value, Object) or visit.roles.is_entity(value.cls):
            continue
        own, _ = visit.resolver.classes.family(value.cls)
        for one in own:
            if node.attr in visit.resolver.classes.set_by(one):
                return False
        for one in own:
            for binding in one.module.scopes.of[one.node].bindings.get(node.attr, ()):
                return binding.kind == "value" and isinstance(
                    binding.value, (ast.List, ast.Dict, ast.Set)
                )
    return False


def _is_global(visit: Visit, node: ast.expr) -> bool:
    """Whether an expression is a variable of a module: no class, function or module itself."""
    if isinstance(node, ast.Attribute):
        return any(
            isinstance(value, File) and isinstance(value.module, Module)
            for value in visit.values(node.value)
        )
    return isinstance(node, ast.Name) and _home(visit, node) is not None


def _home(visit: Visit, node: ast.Name) -> Module | None:
    """Give the module of whose variables a name is one; None of what has another kind of name."""
    found = visit.scope(node).find(node.id)
    if found is None or not found[0].is_module:
        return None
    module = visit.module
    bindings = found[1]
    name = node.id
    for _ in range(4):
        kinds = {binding.kind for binding in bindings}
        if kinds <= {"value", "annotated", "other", "entered", "element"}:
            return module
        if kinds != {"import"}:
            return None
        source = source_of(visit.resolver.project, bindings[0], module)
        alias = bindings[0].alias
        if source is None or alias is None or alias.name not in source.scope.bindings:
            return None
        name, module = alias.name, source
        bindings = source.scope.bindings[name]
    return None


def _mutable(visit: Visit, node: ast.expr) -> bool:
    return any(
        isinstance(value, (Display, ExternalObject))
        and (not isinstance(value, ExternalObject) or value.name in _MUTABLE)
        for value in visit.values(node)
    )


def _is_rebound(module: Module, name: str) -> bool:
    """Whether a function gives a variable of its module another value."""
    return name in module.scopes.changed


def _look_for_changes(module: Module) -> Iterator[str]:
    """Name the variables of a module that its functions change in place."""
    for node, scope in module.scopes.of.items():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = {name for name in _changed_by(node) if _leads_out(scope, name)}
            if names and not _runs_at_import(module, node):
                yield from names


def _changed_by(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Name the variables that a function changes in place."""
    for node in ast.walk(function):
        target: ast.expr | None = None
        match node:
            case ast.Call(func=ast.Attribute() as method) if method.attr in _CHANGING:
                target = method.value
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                target = node.value
            case _:
                pass
        while isinstance(target, ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            yield target.id


def _runs_at_import(module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function only fills tables while modules are imported: a decorator, mostly."""
    outer: ast.AST = node
    while (around := module.scopes.around[outer]).parent is not None:
        outer = around.node
    if not isinstance(outer, ast.FunctionDef):
        return False
    own = set(ast.walk(outer))
    uses = [
        one
        for one in ast.walk(module.tree)
        if isinstance(one, ast.Name) and one.id == outer.name and one not in own
    ]
    in_functions = {
        inner
        for function in module.scopes.of
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for part in (function.body if isinstance(function.body, list) else [function.body])
        for inner in ast.walk(part)
    }
    if any(use in in_functions for use in uses):
        return False
    parameters = {parameter.arg for parameter in parameters_of(outer)}
    gives = {one.id for one in returned(outer) if isinstance(one, ast.Name)}
    made = {one.name for one in outer.body if isinstance(one, ast.FunctionDef)}
    return bool(uses or gives & (parameters | made))


def _leads_out(scope: Scope, name: str) -> bool:
    found = scope.find(name)
    return found is not None and found[0].is_module
