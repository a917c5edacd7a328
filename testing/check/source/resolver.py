"""What expressions give: names, attributes and calls, followed to what the source says of them.

It never guesses: what it cannot follow gives nothing. Where a name is bound in several places, it
gives all that these may be.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence

from .annotations import Annotations, class_around
from .classes import Classes
from .functions import decorator_name, returned
from .imports import absolute
from .known import (
    CLASSES,
    ELEMENTS,
    PERDURE_NAMES,
    RESULTS,
    SAME_CLASS,
    SET_METHODS,
    SETS,
    WRAPPERS,
)
from .project import Folder, Module, Project
from .scopes import Binding, Scope, parameters_of
from .values import (
    Bases,
    Class,
    Display,
    Expression,
    External,
    ExternalObject,
    File,
    Function,
    Object,
    Value,
    Values,
)

_BUILTINS = frozenset(dir(builtins))
_SET = ExternalObject("builtins.set")
_PATH = ExternalObject("pathlib.Path")
# A name may be bound to many things; all of them are followed up to here.
_WIDE = 12
_DEEP = 100


class Resolver:
    """Follows the expressions of a project.

    Args:
        project: its files.

    Attributes:
        given: what is known of a parameter from who calls its function.
        annotations: reads annotations.
        classes: looks attributes up.
        under_way: what is being followed: who comes back to it stops there.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.given: dict[ast.arg, dict[Value, None]] = {}
        self.annotations = Annotations(self)
        self.classes = Classes(self)
        self._known: dict[ast.AST, Values] = {}
        self.under_way: set[object] = set()
        self._cuts = 0

    def give(self, parameter: ast.arg, values: Iterable[Value]) -> None:
        """Say what a parameter is called with, before its function is looked at."""
        known = self.given.setdefault(parameter, {})
        known.update(dict.fromkeys(values))

    # Expressions

    def values(self, node: ast.expr, module: Module, scope: Scope) -> Values:
        """Give what an expression in a scope may be."""
        found = self._known.get(node)
        if found is not None:
            return found
        if self.is_under_way(node):
            return ()
        cuts = self._cuts
        self.under_way.add(node)
        try:
            found = tuple(dict.fromkeys(self._values(node, module, scope)))[:_WIDE]
        finally:
            self.under_way.discard(node)
        if cuts == self._cuts or not self.under_way:  # else it may lack what is under way itself
            self._known[node] = found
        return found

    def is_under_way(self, key: object) -> bool:
        """Whether following something has led back to it, or too far away."""
        if key in self.under_way or len(self.under_way) > _DEEP:
            self._cuts += 1
            return True
        return False

    def _values(self, node: ast.expr, module: Module, scope: Scope) -> Iterable[Value]:
        match node:
            case ast.Name():
                return self.name(node.id, module, scope)
            case ast.Attribute():
                return self._attribute(node, module, scope)
            case ast.Call():
                return self._call(node, module, scope)
            case ast.Await() | ast.YieldFrom() if isinstance(node.value, ast.Call):
                return self._awaited(node.value, module, scope)
            case ast.Lambda():
                return (Function(node, module),)
            case ast.Set() | ast.SetComp():
                return (_SET,)
            case ast.List() | ast.Tuple() | ast.Dict():
                return (Display(node, module, scope),)
            case ast.IfExp():
                return (
                    *self.values(node.body, module, scope),
                    *self.values(node.orelse, module, scope),
                )
            case ast.BoolOp():
                return [value for part in node.values for value in self.values(part, module, scope)]
            case ast.NamedExpr() | ast.Starred():
                return self.values(node.value, module, scope)
            case ast.BinOp():
                return self._operation(node, module, scope)
            case ast.Subscript():
                return self._item(node, module, scope)
            case _:
                return ()

    def _operation(self, node: ast.BinOp, module: Module, scope: Scope) -> Iterable[Value]:
        if isinstance(node.op, ast.Div):
            sides = (node.left, node.right)
            is_path = any(_PATH in self.values(side, module, scope) for side in sides)
            return (_PATH,) if is_path else ()
        if isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
            left = self.values(node.left, module, scope)
            right = self.values(node.right, module, scope)
            if any(map(is_set, left)) and (not isinstance(node.op, ast.Sub) or left):
                return (_SET,)
            # `d.keys() & other` is a set, too; so is what is taken with one.
            views = any(isinstance(one, ExternalObject) and one.name == "dict_keys" for one in left)
            if views or any(map(is_set, right)):
                return (_SET,)
        return ()

    def _item(self, node: ast.Subscript, module: Module, scope: Scope) -> Iterator[Value]:
        for value in self.values(node.value, module, scope):
            match value:
                case Display(node=ast.Dict() as table):
                    for part in table.values:
                        yield from self.values(part, value.module, value.scope)
                case Display(node=ast.List() | ast.Tuple() as row):
                    index = node.slice
                    if isinstance(index, ast.Constant) and isinstance(index.value, int):
                        parts: Sequence[ast.expr] = row.elts[index.value : index.value + 1]
                    else:
                        parts = row.elts
                    for part in parts:
                        yield from self.values(part, value.module, value.scope)
                case ExternalObject(name="builtins.dict", arguments=(_, kept)):
                    yield from self.annotations.objects(kept)
                case ExternalObject() if value.arguments and ELEMENTS.get(value.name) == 0:
                    if not isinstance(node.slice, ast.Slice):
                        yield from self.annotations.objects(value.arguments[0])
                    else:
                        yield value
                case External() | Class():  # `Box[int](...)`
                    yield value
                case _:
                    pass

    # Names

    def name(self, name: str, module: Module, scope: Scope) -> Values:
        """Give what a name that is used in a scope may be."""
        found = scope.find(name)
        if found is None:
            if name in _BUILTINS:
                return (External(f"builtins.{name}"),)
            for statement in module.scope.star_imports:
                values = self._imported_from(statement, name, module)
                if values:
                    return values
            return ()
        where, bindings = found
        return self.bound(bindings, module, where)

    def bound(self, bindings: Sequence[Binding], module: Module, scope: Scope) -> Values:
        """Give what all the places bind a name to."""
        values: dict[Value, None] = {}
        for binding in bindings[:_WIDE]:
            values.update(dict.fromkeys(self.binding(binding, module, scope)))
        return tuple(values)

    def binding(self, binding: Binding, module: Module, scope: Scope) -> Iterable[Value]:
        """Give what one place binds a name to."""
        node = binding.node
        match binding.kind:
            case "import":
                return self._imported(binding, module)
            case "def":
                assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                owner = scope.node
                return (
                    Function(
                        node,
                        module,
                        Class(owner, module) if isinstance(owner, ast.ClassDef) else None,
                    ),
                )
            case "class":
                assert isinstance(node, ast.ClassDef)
                return (Class(node, module),)
            case "annotated":
                assert binding.annotation is not None
                typed = self.annotations.objects(Expression(binding.annotation, module, scope))
                if typed or binding.value is None:
                    return typed
                return self.values(binding.value, module, scope)
            case "value":
                assert binding.value is not None
                return self._inside(self.values(binding.value, module, scope), binding.path)
            case "element":
                assert binding.value is not None
                return self._inside(self.elements(binding.value, module, scope), binding.path)
            case "entered":
                assert binding.value is not None
                return self._entered(binding.value, module, scope)
            case "parameter":
                return self._parameter(binding, module, scope)
            case _:
                return ()

    def _parameter(self, binding: Binding, module: Module, scope: Scope) -> Iterable[Value]:
        parameter, owner = binding.node, binding.owner
        assert isinstance(parameter, ast.arg)
        assert owner is not None
        if binding.annotation is not None:
            around = module.scopes.around.get(owner, module.scope)
            typed = self.annotations.objects(Expression(binding.annotation, module, around))
            if typed and all(isinstance(value, Object) for value in typed):
                # What it is called with says more: which class stands behind a protocol.
                given = self.given.get(parameter, ())
                return [value for value in given if isinstance(value, Object)] or typed
            if typed:
                return typed
        around = module.scopes.around.get(owner, module.scope)
        if isinstance(around.node, ast.ClassDef) and not isinstance(owner, ast.Lambda):
            first = parameters_of(owner)[0] is parameter
            kinds = {decorator_name(decorator) for decorator in owner.decorator_list}
            if first and "classmethod" in kinds:
                return (Class(around.node, module),)
            if first and "staticmethod" not in kinds:
                return tuple(self.given.get(parameter, ())) or (Object(Class(around.node, module)),)
        return tuple(self.given.get(parameter, ()))

    def _inside(self, values: Values, path: tuple[int, ...]) -> Values:
        for index in path:
            inner: dict[Value, None] = {}
            for value in values:
                if isinstance(value, Display) and not isinstance(value.node, ast.Dict):
                    parts = value.node.elts[index : index + 1]
                elif isinstance(value, ExternalObject) and value.name == "builtins.tuple":
                    inner.update(
                        dict.fromkeys(
                            one
                            for typed in value.arguments[index : index + 1]
                            for one in self.annotations.objects(typed)
                        )
                    )
                    continue
                else:
                    continue
                for part in parts:
                    inner.update(dict.fromkeys(self.values(part, value.module, value.scope)))
            values = tuple(inner)
        return values

    def elements(self, node: ast.expr, module: Module, scope: Scope) -> Values:
        """Give what an expression may give one after the other."""
        found: dict[Value, None] = {}
        for value in self.values(node, module, scope):
            match value:
                case Display(node=ast.List() | ast.Tuple() as row):
                    for part in row.elts[:_WIDE]:
                        if not isinstance(part, ast.Starred):
                            one = self.values(part, value.module, value.scope)
                            found.update(dict.fromkeys(one))
                case ExternalObject() if value.name in ELEMENTS:
                    index = ELEMENTS[value.name]
                    for typed in value.arguments[index : index + 1]:
                        found.update(dict.fromkeys(self.annotations.objects(typed)))
                case _:
                    pass
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found.update(dict.fromkeys(self._elements_of_view(node.func, module, scope)))
        return tuple(found)

    def _elements_of_view(
        self, view: ast.Attribute, module: Module, scope: Scope
    ) -> Iterator[Value]:
        """Give what ``table.values()`` gives, where the table says so."""
        if view.attr != "values":
            return
        for value in self.values(view.value, module, scope):
            match value:
                case ExternalObject(name="builtins.dict", arguments=(_, kept)):
                    yield from self.annotations.objects(kept)
                case Display(node=ast.Dict() as table):
                    for part in table.values[:_WIDE]:
                        yield from self.values(part, value.module, value.scope)
                case _:
                    pass

    def _entered(self, node: ast.expr, module: Module, scope: Scope) -> Iterator[Value]:
        for value in self.values(node, module, scope):
            match value:
                case Object():
                    yield value
                case ExternalObject():
                    yield value
                case _:
                    pass

    # Imports

    def _imported(self, binding: Binding, module: Module) -> Values:
        node, alias = binding.node, binding.alias
        assert alias is not None
        if isinstance(node, ast.Import):
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            return (self._module(name, module),)
        assert isinstance(node, ast.ImportFrom)
        return self._imported_from(node, alias.name, module)

    def _module(self, name: str, origin: Module) -> Value:
        found = self.project.find(name, origin)
        return External(name) if found is None else File(found)

    def _imported_from(self, node: ast.ImportFrom, name: str, module: Module) -> Values:
        base = absolute(node, module)
        if base is None:
            return ()
        if not base:  # `from . import sibling`, in a folder that is no package
            sibling = self.project.find(name, module)
            return () if sibling is None else (File(sibling),)
        found = self.project.find(base, module)
        if found is not None:
            return self._of_file(found, name)
        return () if node.level else (External(canonical(f"{base}.{name}")),)

    def _of_file(self, file: Module | Folder, name: str) -> Values:
        if isinstance(file, Module):
            bindings = file.scope.bindings.get(name)
            if bindings is not None:
                key = (file, name)
                if self.is_under_way(key):
                    return ()
                self.under_way.add(key)
                try:
                    return self.bound(bindings, file, file.scope)
                finally:
                    self.under_way.discard(key)
        inner = self.project.inside(file, name)
        if inner is not None:
            return (File(inner),)
        if isinstance(file, Module):
            for statement in file.scope.star_imports:
                key = (file, name)
                if self.is_under_way(key):
                    return ()
                self.under_way.add(key)
                try:
                    values = self._imported_from(statement, name, file)
                finally:
                    self.under_way.discard(key)
                if any(not isinstance(value, External) for value in values):
                    return values
        return ()

    # Attributes

    def _attribute(self, node: ast.Attribute, module: Module, scope: Scope) -> Iterator[Value]:
        for value in self.values(node.value, module, scope):
            yield from self.member(value, node.attr)

    def member(self, value: Value, name: str) -> Values:
        """Give what an attribute of a value may be."""
        match value:
            case External():
                return self.known_result(canonical(f"{value.name}.{name}"), is_called=False)
            case ExternalObject():
                if value.name == "builtins.dict" and name == "keys":
                    return (External("builtins.dict.keys"),)
                return self.known_result(f"{value.name}.{name}", is_called=False)
            case File():
                return self._of_file(value.module, name)
            case Class():
                return self.classes.member(value, name)
            case Object():
                return self.classes.member_of_object(value.cls, name)
            case Bases():
                return tuple(
                    found
                    for base in self.classes.bases(value.cls)
                    for found in (
                        self.classes.member(base, name)
                        if isinstance(base, Class)
                        else (External(f"{base.name}.{name}"),)
                    )
                )
            case _:
                return ()

    def known_result(self, name: str, *, is_called: bool) -> Values:
        """Give what is known of an attribute of something of others, or of calling that."""
        result = RESULTS.get(f"{name}()" if is_called else name)
        return (ExternalObject(result),) if result else () if is_called else (External(name),)

    # Calls

    def _call(self, node: ast.Call, module: Module, scope: Scope) -> Iterator[Value]:
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args:
            cls = class_around(scope)
            if cls is not None:
                yield Bases(Class(cls, module))
            return
        for function in self.values(node.func, module, scope):
            yield from self._called(function, node, module, scope)

    def _called(
        self, function: Value, node: ast.Call, module: Module, scope: Scope
    ) -> Iterable[Value]:
        match function:
            case Class():
                return (Object(function),)
            case Function():
                return () if function.is_async else self.result(function)
            case External():
                return self._external_result(function, node, module, scope)
            case _:
                return ()

    def _external_result(
        self, function: External, node: ast.Call, module: Module, scope: Scope
    ) -> Values:
        name = function.name
        if name in WRAPPERS and node.args:  # functools.partial(f, ...) and the like
            return self.values(node.args[0], module, scope)
        if name == "typing.cast" and len(node.args) == 2:
            return self.annotations.objects(Expression(node.args[0], module, scope))
        if name == "builtins.getattr" and len(node.args) > 1:
            attribute = node.args[1]
            if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
                owners = self.values(node.args[0], module, scope)
                return tuple(
                    value for owner in owners for value in self.member(owner, attribute.value)
                )
            return ()
        if name == "builtins.type" and len(node.args) == 1:
            made = self.values(node.args[0], module, scope)
            return tuple(one.cls for one in made if isinstance(one, Object))
        if name == "builtins.dict.keys":
            return (ExternalObject("dict_keys"),)
        if name in ("builtins.list", "builtins.tuple", "builtins.sorted", "builtins.reversed"):
            return self._rowed(node, module, scope)
        if name in CLASSES:
            return (ExternalObject(name),)
        known = self.known_result(name, is_called=True)
        if known:
            return known
        owner, _, last = name.rpartition(".")
        if owner in SETS:
            return (_SET,) if last in SET_METHODS else ()
        if last in SAME_CLASS.get(owner, ()):
            return (ExternalObject(owner),)
        return (ExternalObject(name),) if last[:1].isupper() and not last.isupper() else ()

    def _rowed(self, node: ast.Call, module: Module, scope: Scope) -> Values:
        """Give a list of the same elements."""
        for value in self.values(node.args[0], module, scope) if node.args else ():
            if isinstance(value, Display):
                return (value,)
            if isinstance(value, ExternalObject) and ELEMENTS.get(value.name) == 0:
                return (ExternalObject("builtins.list", value.arguments[:1]),)
        return (ExternalObject("builtins.list"),)

    def _awaited(self, node: ast.Call, module: Module, scope: Scope) -> Iterator[Value]:
        for function in self.values(node.func, module, scope):
            if isinstance(function, Function):
                yield from self.result(function)
            else:
                yield from self._called(function, node, module, scope)

    def result(self, function: Function) -> Values:
        """Give what a function of the project may return."""
        node, module = function.node, function.module
        if isinstance(node, ast.Lambda):
            return self.values(node.body, module, module.scopes.of[node])
        if node.returns is not None:
            around = module.scopes.around[node]
            typed = self.annotations.objects(Expression(node.returns, module, around))
            if typed:
                return typed
        if self.is_under_way(node):
            return ()
        self.under_way.add(node)
        try:
            found: dict[Value, None] = {}
            scope = module.scopes.of[node]
            for value in returned(node):
                found.update(dict.fromkeys(self.values(value, module, scope)))
            return tuple(found)[:_WIDE]
        finally:
            self.under_way.discard(node)


def is_set(value: Value) -> bool:
    """Whether a value is a set, whose order is nobody's promise."""
    return isinstance(value, ExternalObject) and value.name in SETS


def canonical(name: str) -> str:
    """Give the name by which something outside of the project is known here."""
    if name.startswith("perdure."):
        last = name.split(".")
        for index in range(len(last) - 1, 0, -1):
            if last[index] in PERDURE_NAMES:
                return ".".join(["perdure", *last[index:]])
    if name.startswith("typing_extensions."):
        return f"typing.{name.partition('.')[2]}"
    return name
