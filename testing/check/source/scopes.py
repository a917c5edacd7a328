"""The scopes of a module: which names each function, class and comprehension binds, and to what.

By the rules of the language: class bodies are invisible from the functions in them, comprehensions
have a scope of their own, a walrus binds in the function around, ``global`` and ``nonlocal`` lead
out.
"""

from __future__ import annotations

import ast
from typing import Any, Literal, TypeAlias

import attrs

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

Kind: TypeAlias = Literal[
    "import",  # `import a.b as c`, `from a import b`
    "def",
    "class",
    "value",  # `name = value`
    "annotated",  # `name: annotation`, with a value or without
    "parameter",
    "element",  # `for name in value`, and in comprehensions
    "entered",  # `with value as name`
    "other",  # whatever else: `except ... as name`, patterns, `name += value`
]


#: The decorators of an app; each may be called with what it is to register, too.
REGISTERING = frozenset({"activity", "entity", "orchestration"})


@attrs.define(eq=False, slots=True)
class Binding:
    """One place that gives a name something.

    Attributes:
        kind: what place.
        node: where it is.
        value: the expression that it is given; none if there is none.
        path: where in that value it lies: ``(1,)`` is ``b`` of ``a, b = value``.
        annotation: what it is said to be.
        owner: the function whose parameter it is.
        alias: the one name of an import that it is.
    """

    kind: Kind
    node: ast.AST
    value: ast.expr | None = None
    path: tuple[int, ...] = ()
    annotation: ast.expr | None = None
    owner: FunctionNode | None = None
    alias: ast.alias | None = None


class Scope:
    """The names of a module, function, class or comprehension.

    Attributes:
        node: what it is the scope of.
        parent: the scope around; None for a module.
        bindings: the places that give each of its names something, in the order of the source.
        outward: the names that are declared ``global`` or ``nonlocal`` in it.
        star_imports: modules of which all names are taken.
    """

    __slots__ = ("bindings", "global_names", "node", "outward", "parent", "star_imports")

    def __init__(self, node: ast.AST, parent: Scope | None) -> None:
        self.node = node
        self.parent = parent
        self.bindings: dict[str, list[Binding]] = {}
        self.global_names: set[str] = set()
        self.outward: set[str] = set()
        self.star_imports: list[ast.ImportFrom] = []

    @property
    def is_class(self) -> bool:
        """Whether it is the body of a class."""
        return isinstance(self.node, ast.ClassDef)

    @property
    def is_module(self) -> bool:
        """Whether it is a whole module."""
        return self.parent is None

    @property
    def module(self) -> Scope:
        """The scope of the module that it is in."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def bind(self, name: str, binding: Binding) -> None:
        """Note that a name is bound, in the scope that it then belongs to."""
        self._home(name).bindings.setdefault(name, []).append(binding)

    def _home(self, name: str) -> Scope:
        if name not in self.outward:
            return self
        if name in self.global_names:
            return self.module
        scope = self.parent
        while scope is not None and scope.parent is not None:
            if not scope.is_class and name in scope.bindings:
                return scope
            scope = scope.parent
        return self.parent or self

    def find(self, name: str) -> tuple[Scope, list[Binding]] | None:
        """Give the scope that a name used here is bound in, and its bindings there."""
        if name in self.global_names:
            scope: Scope | None = self.module
        elif name in self.outward:
            scope = self.parent
        else:
            scope = self
        is_first = scope is self
        while scope is not None:
            if is_first or not scope.is_class:
                found = scope.bindings.get(name)
                if found is not None:
                    return scope, found
            # A comprehension in a class body sees that only through its first iterable, which is
            # taken for all of it here: no name is lost.
            is_first = is_first and isinstance(scope.node, _COMPREHENSIONS)
            scope = scope.parent
        return None


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@attrs.define(eq=False, slots=True)
class Scopes:
    """All scopes of a module.

    Attributes:
        module: its own.
        of: the scope of each function, lambda, class and comprehension, by its node.
        around: the scope in which each of these stands.
        changed: the names of the module that some function rebinds by ``global``.
        registrations: calls such as ``app.activity(f)``, and the scope of each.
    """

    module: Scope
    of: dict[ast.AST, Scope]
    around: dict[ast.AST, Scope]
    changed: set[str]
    registrations: list[tuple[ast.Call, Scope]] = attrs.field(factory=list[tuple[ast.Call, Scope]])


def read_scopes(tree: ast.Module) -> Scopes:
    """Read the scopes of a module."""
    reader = _Reader(tree)
    for statement in tree.body:
        reader.visit(statement)
    return reader.scopes


class _Reader(ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        module = Scope(tree, None)
        self.scopes = Scopes(module, {tree: module}, {}, set())
        self._scope = module

    def _enter(self, node: ast.AST) -> Scope:
        scope = Scope(node, self._scope)
        self.scopes.of[node] = scope
        self.scopes.around[node] = self._scope
        return scope

    def _inside(self, scope: Scope, nodes: list[ast.AST]) -> None:
        before, self._scope = self._scope, scope
        for node in nodes:
            self.visit(node)
        self._scope = before

    def generic_visit(self, node: ast.AST) -> None:
        # As the original does, in half of the time: fields are lists, nodes or plain values.
        for name in node._fields:
            value: Any = getattr(node, name, None)
            if value.__class__ is list:
                for item in value:
                    if isinstance(item, ast.AST):
                        self.visit(item)
            elif isinstance(value, ast.AST):
                self.visit(value)

    # Functions and classes

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._scope.bind(node.name, Binding("def", node))
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._visit_defaults(node.args)
        scope = self._enter(node)
        self._bind_parameters(scope, node)
        self._declare(scope, node.body)
        self._inside(scope, [*node.body])

    visit_FunctionDef = _visit_function  # noqa: N815
    visit_AsyncFunctionDef = _visit_function  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_defaults(node.args)
        scope = self._enter(node)
        self._bind_parameters(scope, node)
        self._inside(scope, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope.bind(node.name, Binding("class", node))
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        scope = self._enter(node)
        self._declare(scope, node.body)
        self._inside(scope, [*node.body])

    def _visit_defaults(self, arguments: ast.arguments) -> None:
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)

    def _bind_parameters(self, scope: Scope, node: FunctionNode) -> None:
        for parameter in parameters_of(node):
            binding = Binding("parameter", parameter, annotation=parameter.annotation, owner=node)
            scope.bind(parameter.arg, binding)
        for rest in (node.args.vararg, node.args.kwarg):
            if rest is not None:
                scope.bind(rest.arg, Binding("other", rest))

    def _declare(self, scope: Scope, body: list[ast.stmt]) -> None:
        """Take the declarations first: they hold for all of a body."""
        ahead: list[ast.AST] = [*body]
        while ahead:
            node = ahead.pop()
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                scope.outward.update(node.names)
                if isinstance(node, ast.Global):
                    scope.global_names.update(node.names)
                    self.scopes.changed.update(node.names)
            elif isinstance(node, ast.stmt) and not isinstance(
                node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            ):
                ahead += [
                    child
                    for child in ast.iter_child_nodes(node)
                    if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case))
                ]
            elif isinstance(node, (ast.ExceptHandler, ast.match_case)):
                ahead += node.body

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func.func if isinstance(node.func, ast.Call) else node.func
        if isinstance(function, ast.Attribute) and function.attr in REGISTERING and node.args:
            self.scopes.registrations.append((node, self._scope))
        self.generic_visit(node)

    # Comprehensions

    def _visit_comprehension(self, node: _Comprehension) -> None:
        self.visit(node.generators[0].iter)  # in the scope around
        scope = self._enter(node)
        before, self._scope = self._scope, scope
        for index, generator in enumerate(node.generators):
            self._bind_target(generator.target, "element", generator.iter, generator)
            if index:
                self.visit(generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
        if isinstance(node, ast.DictComp):
            self.visit(node.key)
            self.visit(node.value)
        else:
            self.visit(node.elt)
        self._scope = before

    visit_ListComp = _visit_comprehension  # noqa: N815
    visit_SetComp = _visit_comprehension  # noqa: N815
    visit_DictComp = _visit_comprehension  # noqa: N815
    visit_GeneratorExp = _visit_comprehension  # noqa: N815

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        scope = self._scope
        while isinstance(scope.node, _COMPREHENSIONS) and scope.parent is not None:
            scope = scope.parent
        scope.bind(node.target.id, Binding("value", node, node.value))
        self.visit(node.value)

    # Statements that bind

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind_target(target, "value", node.value, node)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            binding = Binding("annotated", node, node.value, annotation=node.annotation)
            self._scope.bind(node.target.id, binding)
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._scope.bind(node.target.id, Binding("other", node, node.value))
        self.generic_visit(node)

    def _visit_for(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind_target(node.target, "element", node.iter, node)
        self.generic_visit(node)

    visit_For = _visit_for  # noqa: N815
    visit_AsyncFor = _visit_for  # noqa: N815

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._bind_target(node.optional_vars, "entered", node.context_expr, node)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name is not None:
            self._scope.bind(node.name, Binding("other", node))
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name is not None:
            self._scope.bind(node.name, Binding("other", node))
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name is not None:
            self._scope.bind(node.name, Binding("other", node))

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest is not None:
            self._scope.bind(node.rest, Binding("other", node))
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self._scope.bind(name, Binding("import", node, alias=alias))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self._scope.star_imports.append(node)
            else:
                name = alias.asname or alias.name
                self._scope.bind(name, Binding("import", node, alias=alias))

    def _bind_target(
        self,
        target: ast.expr,
        kind: Kind,
        value: ast.expr,
        node: ast.AST,
        path: tuple[int, ...] = (),
    ) -> None:
        if isinstance(target, ast.Name):
            self._scope.bind(target.id, Binding(kind, node, value, path))
        elif isinstance(target, (ast.Tuple, ast.List)):
            for index, part in enumerate(target.elts):
                self._bind_target(part, kind, value, node, (*path, index))
        elif isinstance(target, ast.Starred) and isinstance(target.value, ast.Name):
            self._scope.bind(target.value.id, Binding("other", node))


def parameters_of(node: FunctionNode) -> list[ast.arg]:
    """Give a function's parameters, without ``*args`` and ``**kwargs``."""
    arguments = node.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
