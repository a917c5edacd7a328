"""Which functions are orchestrations, activities and operations of entities, and by what name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs

from .functions import is_property, returned
from .project import Module
from .resolver import Resolver
from .scopes import REGISTERING, FunctionNode, Scope, parameters_of
from .values import Class, External, ExternalObject, File, Function, Object, Value

RoleKind: TypeAlias = Literal["orchestration", "entity", "activity"]

#: What the first parameter of each is.
_CONTEXTS: dict[RoleKind, str] = {
    "orchestration": "OrchestrationContext",
    "entity": "EntityContext",
    "activity": "ActivityContext",
}
_KINDS: dict[str, RoleKind] = {name: kind for kind, name in _CONTEXTS.items()}


@attrs.frozen
class Role:
    """What a function is to a hub.

    Attributes:
        kind: what it is, or belongs to.
        function: the function.
        title: how findings call it.
        is_registered: whether the hub calls it; else it is one that can only serve such.
    """

    kind: RoleKind
    function: Function
    title: str
    is_registered: bool = True


@attrs.frozen
class Unseen:
    """A registration of something that the source alone does not show."""

    module: Module
    line: int
    text: str


class Roles:
    """The roles of a project's functions, by their nodes.

    Attributes:
        unseen: registrations that cannot be followed.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._roles: dict[FunctionNode, Role] = {}
        self._entities: set[ast.ClassDef] = set()
        self._registrars: dict[FunctionNode, RoleKind] = {}
        self._given: set[Module] = set()
        self._read_already: set[Module] = set()
        self.unseen: list[Unseen] = []

    def of(self, function: Function) -> Role | None:
        """Give a function's role; None if it has none of its own."""
        self._read([function.module])
        return self._roles.get(function.node)

    def roots(self) -> list[Role]:
        """Give all whose code a hub runs in turns: orchestrations, and operations of entities.

        Those of the modules that were asked for, and not of what these import.
        """
        return [
            role
            for role in self._roles.values()
            if role.kind != "activity" and role.function.module in self._given
        ]

    def is_entity(self, cls: Class) -> bool:
        """Whether a class is an entity."""
        self._read([cls.module])
        return cls.node in self._entities

    def count(self, kind: RoleKind) -> int:
        """Say how many registered ones of a kind there are; operations each count."""
        return sum(
            role.kind == kind and role.is_registered and role.function.module in self._given
            for role in self._roles.values()
        )

    def read(self, modules: list[Module]) -> None:
        """Find the roles in some modules; those in others are found when they are asked for."""
        self._given.update(modules)
        self._read(modules)

    def _read(self, modules: list[Module]) -> None:
        modules = [module for module in modules if module not in self._read_already]
        self._read_already.update(modules)
        for module in modules:
            for call, scope in module.scopes.registrations:
                self._read_registrar(call, module, scope)
        for module in modules:
            for call, scope in module.scopes.registrations:
                self._read_call(call, module, scope)
            for node, around in module.scopes.around.items():
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    self._read_decorators(node, module, around)
        for module in modules:
            for node, around in module.scopes.around.items():
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self._read_parameters(node, module, around)

    # By decorators and calls of the app

    def _read_decorators(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
        module: Module,
        around: Scope,
    ) -> None:
        for decorator in node.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            kind = self._kind(target, module, around)
            if kind is not None:
                self._register(kind, self._value_of(node, module, around))

    def _value_of(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
        module: Module,
        around: Scope,
    ) -> Value:
        if isinstance(node, ast.ClassDef):
            return Class(node, module)
        owner = around.node
        return Function(
            node, module, Class(owner, module) if isinstance(owner, ast.ClassDef) else None
        )

    def _kind(self, target: ast.expr, module: Module, scope: Scope) -> RoleKind | None:
        """Say as what a decorator registers."""
        values = self._resolver.values(target, module, scope)
        for value in values:
            if isinstance(value, Function):
                kind = self._registrars.get(value.node)
                if kind is not None:
                    return kind
            if isinstance(value, External) and value.name.startswith("perdure.App."):
                return _named(value.name.rpartition(".")[2])
        if not isinstance(target, ast.Attribute) or target.attr not in REGISTERING:
            return None
        known = self._resolver.values(target.value, module, scope)
        is_elsewhere = all(isinstance(value, External) for value in known)
        if is_elsewhere and (target.attr == "orchestration" or _uses_perdure(module)):
            return _named(target.attr)
        return None

    def _read_call(self, call: ast.Call, module: Module, scope: Scope) -> None:
        target = call.func.func if isinstance(call.func, ast.Call) else call.func
        kind = self._kind(target, module, scope)
        if kind is None:
            return
        argument = call.args[0]
        is_parameter = self._parameter(argument, scope) is not None
        found = False
        for value in self._resolver.values(argument, module, scope):
            if isinstance(value, (Class, Function)):
                self._register(kind, value)
                found = True
        is_seen = found or is_parameter or isinstance(argument, ast.Constant)
        if not is_seen and module in self._given:
            self.unseen.append(Unseen(module, call.lineno, ast.unparse(call)))

    def _read_registrar(self, call: ast.Call, module: Module, scope: Scope) -> None:
        """Note a function that registers what it is given: a decorator of the project's own."""
        owner = self._parameter(call.args[0], scope)
        if owner is None or isinstance(owner, ast.Lambda):
            return
        target = call.func.func if isinstance(call.func, ast.Call) else call.func
        kind = self._kind(target, module, scope)
        if kind is None:
            return
        self._registrars[owner] = kind
        around = module.scopes.around[owner].node
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(
            isinstance(one, ast.Name) and one.id == owner.name for one in returned(around)
        ):
            self._registrars[around] = kind

    def _parameter(self, node: ast.expr, scope: Scope) -> FunctionNode | None:
        """Give the function whose parameter an expression is."""
        if not isinstance(node, ast.Name):
            return None
        found = scope.find(node.id)
        if found is None or len(found[1]) != 1 or found[1][0].kind != "parameter":
            return None
        return found[1][0].owner

    def _register(self, kind: RoleKind, value: Value) -> None:
        if isinstance(value, Class):
            if kind == "entity":
                self._entities.add(value.node)
                for operation in self._operations(value):
                    title = f"operation `{value.node.name}.{operation.name}`"
                    self._roles.setdefault(operation.node, Role("entity", operation, title))
                    if operation.node.args.args or operation.node.args.posonlyargs:
                        itself = parameters_of(operation.node)[0]
                        self._resolver.give(itself, [Object(value)])
        elif isinstance(value, Function):
            self._roles[value.node] = Role(kind, value, f"{kind} `{value.name}`")
            self._give_context(kind, value)

    def _give_context(self, kind: RoleKind, function: Function) -> None:
        parameters = parameters_of(function.node)
        if function.owner is not None:
            parameters = parameters[1:]
        if kind != "activity" and parameters and parameters[0].annotation is None:
            context = ExternalObject(f"perdure.{_CONTEXTS[kind]}")
            self._resolver.give(parameters[0], [context])

    def _operations(self, cls: Class) -> Iterator[Function]:
        seen = set[str]()
        own, _ = self._resolver.classes.family(cls)
        for one in own:
            for node in one.node.body:
                if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
                function = Function(node, one.module, one)
                if (
                    node.name.startswith("_")
                    or node.name in seen
                    or decorators & {"staticmethod", "classmethod"}
                    or is_property(function)
                ):
                    continue
                seen.add(node.name)
                yield function

    # By what they take

    def _read_parameters(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, module: Module, around: Scope
    ) -> None:
        """Take a function that is given a context for one that runs where that is."""
        if node in self._roles:
            return
        for parameter in parameters_of(node):
            if parameter.annotation is None:
                continue
            kind = self._context_kind(parameter.annotation, module, around)
            if kind is not None:
                value = self._value_of(node, module, around)
                assert isinstance(value, Function)
                title = f"`{value.name}`, which serves {_article(kind)}"
                self._roles[node] = Role(kind, value, title, is_registered=False)
                return

    def _context_kind(self, annotation: ast.expr, module: Module, around: Scope) -> RoleKind | None:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            members = [part.strip() for part in annotation.value.split("|")]
            names = {member.rpartition(".")[2] for member in members}
            return next((kind for name, kind in _KINDS.items() if name in names), None)
        if isinstance(annotation, ast.BinOp):
            left = self._context_kind(annotation.left, module, around)
            return left or self._context_kind(annotation.right, module, around)
        last = getattr(annotation, "attr", None) or getattr(annotation, "id", None)
        kind = _KINDS.get(last or "")
        if kind is None:
            return None
        values = self._resolver.values(annotation, module, around)
        if any(isinstance(value, (Class, File)) for value in values):
            return None  # a class of the project's own that has this name
        return kind


def _named(name: str) -> RoleKind | None:
    kinds: dict[str, RoleKind] = {
        "activity": "activity",
        "entity": "entity",
        "orchestration": "orchestration",
    }
    return kinds.get(name)


def _article(kind: RoleKind) -> str:
    return f"an {kind}"


def _uses_perdure(module: Module) -> bool:
    for bindings in module.scope.bindings.values():
        for binding in bindings:
            node = binding.node
            if binding.kind != "import" or binding.alias is None:
                continue
            name = node.module or "" if isinstance(node, ast.ImportFrom) else binding.alias.name
            if name.partition(".")[0] == "perdure":
                return True
    return False
