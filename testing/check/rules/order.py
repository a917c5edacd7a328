"""Order that is nobody's promise: of sets, and of what ``id()`` and ``hash()`` give."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from ..source.resolver import is_set
from ..source.values import External, ExternalObject
from ..source.visit import Visit
from .rule import BOTH, Found, Rule, shown

#: Takes things in whatever order, and gives the same.
_ORDERLESS = frozenset(
    f"builtins.{name}"
    for name in ("all", "any", "bool", "frozenset", "len", "max", "min", "set", "sorted", "sum")
) | {"collections.Counter", "math.fsum", "math.prod", "statistics.mean", "statistics.median"}
#: Keeps the order of what it is given.
_ORDERED = frozenset(
    f"builtins.{name}"
    for name in ("dict", "enumerate", "filter", "iter", "list", "map", "reversed", "tuple", "zip")
) | {
    "builtins.dict.fromkeys",
    "collections.OrderedDict",
    "collections.deque",
    "functools.reduce",
    "itertools.accumulate",
    "itertools.batched",
    "itertools.chain",
    "itertools.cycle",
    "itertools.islice",
    "itertools.permutations",
    "itertools.combinations",
    "itertools.product",
}
_FIX = "iterate over `sorted(...)` of it"


class SetOrder(Rule):
    """Iteration over a set, whose order differs from process to process."""

    code = "PDU011"
    title = "A set is iterated over in its own order"
    kinds = BOTH

    def check(self, visit: Visit) -> Iterator[Found]:
        for loop in visit.loops:
            if self._is_set(visit, loop.iter) and not _is_orderless(visit, loop.body):
                yield self._found(loop.iter)
        for generator in visit.of(ast.comprehension):
            if (
                self._is_set(visit, generator.iter)
                and not self._is_consumed(visit, generator)
                and not _is_sorted_later(visit, visit.parents[generator])
            ):
                yield self._found(generator.iter)
        for call in visit.of(ast.Call):
            yield from self._check_call(visit, call)
        for starred in visit.of(ast.Starred):
            parent = visit.parents.get(starred)
            if (
                isinstance(starred.ctx, ast.Load)
                and not isinstance(parent, ast.Set)
                and self._is_set(visit, starred.value)
            ):
                yield self._found(starred.value)
        for assignment in visit.of(ast.Assign):
            if any(
                isinstance(target, (ast.Tuple, ast.List)) and len(target.elts) > 1
                for target in assignment.targets
            ) and self._is_set(visit, assignment.value):
                yield self._found(assignment.value)

    def _check_call(self, visit: Visit, call: ast.Call) -> Iterator[Found]:
        function = call.func
        if isinstance(function, ast.Attribute):
            if function.attr == "pop" and not call.args and self._is_set(visit, function.value):
                yield Found(
                    call, f"{shown(call)} takes any element of a set", "take `min(...)` of it"
                )
                return
            is_text = isinstance(function.value, ast.Constant) or any(
                isinstance(value, ExternalObject) and value.name == "builtins.str"
                for value in visit.values(function.value)
            )
            takes_in_order = (function.attr == "join" and is_text) or function.attr == "extend"
        else:
            takes_in_order = False
        names = set(visit.called(call))
        context = visit.context_call(call) in ("task_all", "task_any")
        if takes_in_order or context or (names & _ORDERED and not self._is_given(visit, call)):
            for argument in call.args:
                if self._is_set(visit, argument) and not _is_sorted_later(visit, call):
                    yield self._found(argument)

    def _is_set(self, visit: Visit, node: ast.expr) -> bool:
        return any(map(is_set, visit.values(node)))

    def _is_consumed(self, visit: Visit, generator: ast.comprehension) -> bool:
        """Whether the order of a comprehension is lost again."""
        comprehension = visit.parents[generator]
        if _acts(visit, comprehension):
            return False
        # A dict is made to look things up by their keys, mostly.
        is_orderless = isinstance(comprehension, (ast.SetComp, ast.DictComp))
        return is_orderless or self._is_given(visit, comprehension)

    def _is_given(self, visit: Visit, node: ast.AST) -> bool:
        """Whether something is given, at once, to what does not mind its order."""
        parent = visit.parents.get(node)
        if isinstance(parent, ast.comprehension):
            return self._is_consumed(visit, parent)
        if isinstance(parent, ast.Compare):
            return all(isinstance(one, (ast.In, ast.NotIn)) for one in parent.ops)
        if not isinstance(parent, ast.Call) or node is parent.func:
            return False
        function = parent.func
        if isinstance(function, ast.Attribute) and function.attr in _SET_TAKERS:
            return True
        for value in visit.values(function):
            if isinstance(value, External):
                if value.name in _ORDERLESS:
                    return True
                if value.name in _ORDERED:
                    return self._is_given(visit, parent)
        return False

    def _found(self, node: ast.AST) -> Found:
        return Found(node, f"{shown(node, whole=True)} is a set, and its order is used", _FIX)


def _is_sorted_later(visit: Visit, node: ast.AST) -> bool:
    """Whether something is given a name, and then sorted: ``names = list(s); names.sort()``."""
    parent = visit.parents.get(node)
    if not isinstance(parent, ast.Assign) or not isinstance(parent.targets[0], ast.Name):
        return False
    name = parent.targets[0].id
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "sort"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == name
        for call in visit.of(ast.Call)
    )


_SET_TAKERS = frozenset(
    {"difference", "intersection", "issubset", "issuperset", "isdisjoint", "union", "update"}
    | {"difference_update", "intersection_update", "symmetric_difference"}
)


def _is_orderless(visit: Visit, body: list[ast.stmt]) -> bool:
    """Whether the body of a loop does the same in whatever order it runs."""
    return all(_is_orderless_statement(visit, statement) for statement in body)


def _is_orderless_statement(visit: Visit, statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Continue():
            return True
        case ast.AugAssign(op=ast.Add() | ast.Sub() | ast.BitOr() | ast.BitAnd()):
            return isinstance(statement.target, ast.Name) and _is_plain(visit, statement.value)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="add" | "discard"))):
            return _is_plain(visit, statement.value)
        case ast.Return(value=ast.Constant(value=bool())):
            return True
        case ast.If():
            return (
                _is_plain(visit, statement.test)
                and _is_orderless(visit, statement.body)
                and _is_orderless(visit, statement.orelse)
            )
        case _:
            return False


def _is_plain(visit: Visit, node: ast.expr) -> bool:
    """Whether an expression only computes, and what it gives can be added in any order."""
    is_row = any(isinstance(inner, (ast.List, ast.JoinedStr)) for inner in ast.walk(node))
    return not is_row and not _acts(visit, node)


def _acts(visit: Visit, node: ast.AST) -> bool:
    """Whether something durable, or by chance, is done in an expression."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Await, ast.Yield, ast.YieldFrom)):
            return True
        if isinstance(inner, ast.Call) and any(
            name.startswith(("perdure.OrchestrationContext.", "perdure.Random"))
            for name in visit.called(inner)
        ):
            return True
    return False


class Identity(Rule):
    """What differs from process to process: ``id()``, and ``hash()`` of texts."""

    code = "PDU012"
    title = "id() or hash() decides"
    kinds = BOTH
    _WORDS: ClassVar = {
        "builtins.id": (
            "is an address in memory, another in every process",
            "compare a key of its own",
        ),
        "builtins.hash": (
            "is another for the same text in every process",
            "use `hashlib`, or `zlib.crc32` of its bytes",
        ),
    }

    def check(self, visit: Visit) -> Iterator[Found]:
        for call in visit.of(ast.Call):
            if visit.function.name == "__hash__":
                continue
            for name in visit.called(call):
                if name in self._WORDS and call.args:
                    verb, fix = self._WORDS[name]
                    yield Found(call, f"{shown(call)} {verb}", fix)
            for keyword in call.keywords:
                for value in visit.values(keyword.value):
                    if isinstance(value, External) and value.name in self._WORDS:
                        verb, fix = self._WORDS[value.name]
                        yield Found(keyword.value, f"{shown(keyword.value)} {verb}", fix)
