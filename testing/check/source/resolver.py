"""What expressions give: names, attributes and calls, followed to what the source says of them.

It never guesses: what it cannot follow gives nothing. Where a name is bound in several places, it
gives all that these may be.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence

from .known import (
    CLASSES,
    CONTEXTS,
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
    External,
    ExternalObject,
    File,
    Function,
    Object,
    Typed,
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
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.given: dict[ast.arg, dict[Value, None]] = {}
        self._known: dict[ast.AST, Values] = {}
        self._under_way: set[object] = set()
        self._cuts = 0
        self._texts: dict[ast.Constant, ast.expr | None] = {}
        self._attributes: dict[ast.ClassDef, dict[str, list[tuple[ast.expr, ast.AST]]]] = {}

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
        if self._is_under_way(node):
            return ()
        cuts = self._cuts
        self._under_way.add(node)
        try:
            found = tuple(dict.fromkeys(self._values(node, module, scope)))[:_WIDE]
        finally:
            self._under_way.discard(node)
        if cuts == self._cuts or not self._under_way:  # else it may lack what is under way itself
            self._known[node] = found
        return found

    def _is_under_way(self, key: object) -> bool:
        """Whether following something has led back to it, or too far away."""
        if key in self._under_way or len(self._under_way) > _DEEP:
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
                    yield from self.annotated(kept)
                case ExternalObject() if value.arguments and ELEMENTS.get(value.name) == 0:
                    if not isinstance(node.slice, ast.Slice):
                        yield from self.annotated(value.arguments[0])
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
        return self._bound(bindings, module, where)

    def _bound(self, bindings: Sequence[Binding], module: Module, scope: Scope) -> Values:
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
                typed = self.annotated(Typed(binding.annotation, module, scope))
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
            typed = self.annotated(Typed(binding.annotation, module, around))
            if typed and all(isinstance(value, Object) for value in typed):
                # What it is called with says more: which class stands behind a protocol.
                given = self.given.get(parameter, ())
                return [value for value in given if isinstance(value, Object)] or typed
            if typed:
                return typed
        around = module.scopes.around.get(owner, module.scope)
        if isinstance(around.node, ast.ClassDef) and not isinstance(owner, ast.Lambda):
            first = parameters_of(owner)[0] is parameter
            kinds = {_last(decorator) for decorator in owner.decorator_list}
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
                            for one in self.annotated(typed)
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
                        found.update(dict.fromkeys(self.annotated(typed)))
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
                    yield from self.annotated(kept)
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

    def source_of(self, binding: Binding, module: Module) -> Module | None:
        """Give the file of the project that a name is imported from."""
        node = binding.node
        if not isinstance(node, ast.ImportFrom):
            return None
        base = _absolute(node, module)
        found = self.project.find(base, module) if base else None
        return found if isinstance(found, Module) else None

    def files_of(self, node: ast.ImportFrom, module: Module) -> list[Module | Folder]:
        """Give the files of the project that an import reads."""
        base = _absolute(node, module)
        found = self.project.find(base, module) if base else None
        files = [] if found is None else [found]
        for alias in node.names:
            inner = (
                self.project.inside(found, alias.name)
                if found is not None
                else self.project.find(alias.name, module)
                if base == ""
                else None
            )
            if inner is not None:
                files.append(inner)
        return files

    def _imported_from(self, node: ast.ImportFrom, name: str, module: Module) -> Values:
        base = _absolute(node, module)
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
                if self._is_under_way(key):
                    return ()
                self._under_way.add(key)
                try:
                    return self._bound(bindings, file, file.scope)
                finally:
                    self._under_way.discard(key)
        inner = self.project.inside(file, name)
        if inner is not None:
            return (File(inner),)
        if isinstance(file, Module):
            for statement in file.scope.star_imports:
                key = (file, name)
                if self._is_under_way(key):
                    return ()
                self._under_way.add(key)
                try:
                    values = self._imported_from(statement, name, file)
                finally:
                    self._under_way.discard(key)
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
                return self._known_result(canonical(f"{value.name}.{name}"), is_called=False)
            case ExternalObject():
                if value.name == "builtins.dict" and name == "keys":
                    return (External("builtins.dict.keys"),)
                return self._known_result(f"{value.name}.{name}", is_called=False)
            case File():
                return self._of_file(value.module, name)
            case Class():
                return self._class_member(value, name)
            case Object():
                return self._object_member(value.cls, name)
            case Bases():
                return tuple(
                    found
                    for base in self.bases(value.cls)
                    for found in (
                        self._class_member(base, name)
                        if isinstance(base, Class)
                        else (External(f"{base.name}.{name}"),)
                    )
                )
            case _:
                return ()

    def _known_result(self, name: str, *, is_called: bool) -> Values:
        result = RESULTS.get(f"{name}()" if is_called else name)
        return (ExternalObject(result),) if result else () if is_called else (External(name),)

    def bases(self, cls: Class) -> list[Class | External]:
        """Give what a class derives from directly."""
        around = cls.module.scopes.around[cls.node]
        return [
            value
            for base in cls.node.bases
            for value in self.values(base, cls.module, around)
            if isinstance(value, (Class, External))
        ]

    def family(self, cls: Class) -> tuple[list[Class], list[External]]:
        """Give a class and all that it derives from: in the project, and outside of it."""
        own: dict[Class, None] = {}
        outside: dict[External, None] = {}
        ahead: list[Class | External] = [cls]
        while ahead:
            one = ahead.pop(0)
            if isinstance(one, External):
                outside[one] = None
            elif one not in own:
                own[one] = None
                ahead += self.bases(one)
        return list(own), list(outside)

    def _class_member(self, cls: Class, name: str) -> Values:
        own, outside = self.family(cls)
        for one in own:
            scope = one.module.scopes.of[one.node]
            bindings = scope.bindings.get(name)
            if bindings is not None:
                return self._bound(bindings, one.module, scope)
        return tuple(External(f"{base.name}.{name}") for base in outside)

    def _object_member(self, cls: Class, name: str) -> Values:
        found: dict[Value, None] = {}
        own, outside = self.family(cls)
        for one in own:
            scope = one.module.scopes.of[one.node]
            bindings = scope.bindings.get(name)
            if bindings is not None:
                for value in self._bound(bindings, one.module, scope):
                    if isinstance(value, Function) and is_property(value):
                        found.update(dict.fromkeys(self.result(value)))
                    else:
                        found[value] = None
                if found:
                    return tuple(found)
            for expression, function in self._set_by(one).get(name, ()):
                inner = one.module.scopes.of[function]
                found.update(dict.fromkeys(self.values(expression, one.module, inner)))
            if found or bindings is not None:
                return tuple(found)
        if name.startswith("__"):
            return ()
        return tuple(
            value
            for base in outside
            for value in self._known_result(f"{base.name}.{name}", is_called=False)
        )

    def _set_by(self, cls: Class) -> dict[str, list[tuple[ast.expr, ast.AST]]]:
        """Give what a class's methods assign to attributes of their object."""
        found = self._attributes.get(cls.node)
        if found is not None:
            return found
        found = self._attributes[cls.node] = {}
        for method in cls.node.body:
            if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            parameters = parameters_of(method)
            if not parameters:
                continue
            itself = parameters[0].arg
            for node in ast.walk(method):
                value: ast.expr | None = None
                targets: list[ast.expr] = []
                if isinstance(node, ast.Assign):
                    value, targets = node.value, node.targets
                elif isinstance(node, ast.AnnAssign):
                    value, targets = node.value, [node.target]
                for target in targets:
                    match target:
                        case ast.Attribute(value=ast.Name(id=name)) if name == itself:
                            if value is not None:
                                found.setdefault(target.attr, []).append((value, method))
                        case _:
                            pass
        return found

    # Calls

    def _call(self, node: ast.Call, module: Module, scope: Scope) -> Iterator[Value]:
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args:
            cls = _class_around(scope)
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
            return self.annotated(Typed(node.args[0], module, scope))
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
        known = self._known_result(name, is_called=True)
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
            typed = self.annotated(Typed(node.returns, module, around))
            if typed:
                return typed
        if self._is_under_way(node):
            return ()
        self._under_way.add(node)
        try:
            found: dict[Value, None] = {}
            scope = module.scopes.of[node]
            for value in returned(node):
                found.update(dict.fromkeys(self.values(value, module, scope)))
            return tuple(found)[:_WIDE]
        finally:
            self._under_way.discard(node)

    # Annotations

    def annotated(self, typed: Typed) -> Values:
        """Give the objects that an annotation speaks of."""
        node, module, scope = typed.annotation, typed.module, typed.scope
        key = (node, "annotation")
        if self._is_under_way(key):
            return ()
        self._under_way.add(key)
        try:
            return tuple(dict.fromkeys(self._annotated(node, module, scope)))
        finally:
            self._under_way.discard(key)

    def _annotated(self, node: ast.expr, module: Module, scope: Scope) -> Iterator[Value]:
        match node:
            case ast.Constant(value=str()):
                inner = self._text(node)
                if inner is not None:
                    yield from self._annotated(inner, module, scope)
            case ast.BinOp(op=ast.BitOr()):
                yield from self._annotated(node.left, module, scope)
                yield from self._annotated(node.right, module, scope)
            case ast.Subscript():
                yield from self._annotated_generic(node, module, scope)
            case ast.Name() | ast.Attribute():
                for value in self.values(node, module, scope):
                    yield from self._object_of(value, module, scope)
            case _:
                pass

    def _object_of(self, value: Value, module: Module, scope: Scope) -> Iterator[Value]:
        match value:
            case Class():
                yield Object(value)
            case External(name="typing.Self"):
                cls = _class_around(scope)
                if cls is not None:
                    yield Object(Class(cls, module))
            case External(name="typing.Any" | "builtins.object"):
                pass
            case External():
                yield ExternalObject(_plain(value.name))
            case _:
                pass

    def _annotated_generic(
        self, node: ast.Subscript, module: Module, scope: Scope
    ) -> Iterator[Value]:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for value in self.values(node.value, module, scope):
            match value:
                case External(name="typing.Optional" | "typing.Union"):
                    for part in parts:
                        yield from self._annotated(part, module, scope)
                case External(
                    name="typing.Annotated"
                    | "typing.Final"
                    | "typing.ClassVar"
                    | "typing.Required"
                    | "typing.NotRequired"
                ):
                    yield from self._annotated(parts[0], module, scope)
                case External(name="typing.Literal" | "typing.Callable"):
                    pass
                case External(name="builtins.type" | "typing.Type"):
                    for part in parts:
                        yield from self.values(part, module, scope)
                case External():
                    arguments = tuple(Typed(part, module, scope) for part in parts)
                    yield ExternalObject(_plain(value.name), arguments)
                case Class():
                    yield Object(value)
                case _:
                    pass

    def _text(self, node: ast.Constant) -> ast.expr | None:
        if node not in self._texts:
            try:
                inner = ast.parse(str(node.value).strip(), mode="eval").body
            except (SyntaxError, ValueError):
                self._texts[node] = None
            else:
                self._texts[node] = inner
        return self._texts[node]


def _plain(name: str) -> str:
    """Give the built-in class that a name of ``typing`` or ``collections.abc`` stands for."""
    return CONTEXTS.get(name, name)


def is_set(value: Value) -> bool:
    """Whether a value is a set, whose order is nobody's promise."""
    return isinstance(value, ExternalObject) and value.name in SETS


def is_property(function: Function) -> bool:
    """Whether a function is run by looking an attribute up."""
    return not isinstance(function.node, ast.Lambda) and any(
        _last(decorator) in ("property", "cached_property")
        for decorator in function.node.decorator_list
    )


def _last(decorator: ast.expr) -> str:
    if isinstance(decorator, ast.Attribute):
        return decorator.attr
    return decorator.id if isinstance(decorator, ast.Name) else ""


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


def _absolute(node: ast.ImportFrom, module: Module) -> str | None:
    """Give the absolute name of what names are imported from; None if it leads too far up."""
    base = node.module or ""
    if not node.level:
        return base
    package = module.package.split(".") if module.package else []
    if node.level - 1 > len(package):
        return None
    parts = package[: len(package) - (node.level - 1)]
    return ".".join([*parts, base] if base else parts)


def _class_around(scope: Scope) -> ast.ClassDef | None:
    inner: Scope | None = scope
    while inner is not None:
        if isinstance(inner.node, ast.ClassDef):
            return inner.node
        inner = inner.parent
    return None


def returned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """Give what a function returns, but not what functions in it do."""
    ahead: list[ast.AST] = [*function.body]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Return):
            if node.value is not None:
                yield node.value
        elif isinstance(node, (ast.stmt, ast.excepthandler, ast.match_case)) and not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ):
            ahead += ast.iter_child_nodes(node)
