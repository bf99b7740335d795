"""What modeling code asks of a configuration: fields, values that it compares them with, and which question stands in which.

A field's default says nothing of the modules that another value would make. The code says it: the values in its comparisons
are those that decide.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

# Questions that stand within so many others are no longer paired with the outermost.
_MOST_VALUES = 12
# How deep classes that make each other are followed.
_DEEPEST = 6


@dataclasses.dataclass
class Options:
    """What a modeling file asks of its configurations.

    Attributes:
        read: Every name that it reads of anything.
        values: By name, the constants that it is compared with, or that are looked for in it.
        defaults: By name, the constants that `getattr(config, name, default)` falls back to.
        asked: Names that `getattr` or `hasattr` ask for, which a configuration may lack.
        tested: Names in the conditions of code.
        under: By name in a condition of a constructor, the names in the conditions around it.
        equal: By name, the names that it is compared with: whether two fields are equal may decide.
    """

    read: set[str] = dataclasses.field(default_factory=set)
    values: dict[str, dict[Any, None]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    defaults: dict[str, dict[Any, None]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    asked: dict[str, None] = dataclasses.field(default_factory=dict)
    tested: set[str] = dataclasses.field(default_factory=set)
    under: dict[str, dict[str, None]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    equal: dict[str, dict[str, None]] = dataclasses.field(default_factory=lambda: defaultdict(dict))

    def add(self, other: Options) -> None:
        """Takes in what another file asks."""
        self.read |= other.read
        self.tested |= other.tested
        self.asked |= other.asked
        mine = (self.values, self.defaults, self.under, self.equal)
        for table, more in zip(mine, (other.values, other.defaults, other.under, other.equal), strict=True):
            for name, found in more.items():
                table[name] |= found


def options_of(classes: Iterable[type]) -> Options:
    """What the modeling files of some classes ask: those of models, or beside those of configurations."""
    found = Options()
    for name in dict.fromkeys(_modeling_file(cls.__module__) for cls in classes):
        for module in _with_imported(name):
            found.add(_asked(module))
    for cls in classes:
        found.read |= _properties(cls)
    return found


def _modeling_file(module: str) -> str:
    folder, _, file = module.rpartition(".")
    return f"{folder}.{file.replace('configuration_', 'modeling_')}"


@functools.cache
def _with_imported(name: str) -> tuple[str, ...]:
    """A modeling file, and those of other models that it imports from."""
    tree = _tree(name)
    package = name.split(".")
    found = [name]
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.ImportFrom) and node.level and "modeling_" in (node.module or ""):
            found.append(".".join([*package[: -node.level], str(node.module)]))
    return tuple(dict.fromkeys(one for one in found if one.startswith("transformers.models.")))


@functools.cache
def _tree(name: str) -> ast.Module | None:
    try:
        module: ModuleType = importlib.import_module(name)
        return ast.parse(inspect.getsource(module))
    except Exception:  # not there, or of a package that is not installed
        return None


@functools.cache
def _properties(cls: type) -> frozenset[str]:
    """The fields that a configuration's properties are computed from."""
    functions = (value.fget for value in vars(cls).values() if isinstance(value, property) and value.fget is not None)
    return frozenset(name for function in functions for name in function.__code__.co_names)


@functools.cache
def _asked(name: str) -> Options:
    tree = _tree(name)
    found = Options()
    if tree is None:
        return found
    tables = dict(_tables(tree))
    constructors = dict(_constructors(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.read.add(node.attr)
        elif isinstance(node, ast.Call):
            _ask(node, found)
        elif isinstance(node, ast.Compare):
            _compare(node, found)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in tables:
            for field in _names(node.slice):
                found.values[field] |= dict.fromkeys(tables[node.value.id])
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            found.tested |= set(_names(node.test))
        elif isinstance(node, ast.BoolOp | ast.UnaryOp):
            found.tested |= set(_names(node))
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            _nest(node, (), found)
    for name, around in _made_under(constructors).items():
        for field in _conditions(constructors[name]):
            found.under[field] |= dict.fromkeys(outer for outer in around if outer != field)
    return found


def _constructors(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """(name, constructor) of the file's classes."""
    for node in tree.body:
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(node, ast.ClassDef) and isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                yield node.name, inner


def _made_under(constructors: dict[str, ast.FunctionDef]) -> dict[str, dict[str, None]]:
    """Of the classes that are made under conditions only, the names in these; those of the classes around count too."""
    places: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for owner, constructor in constructors.items():
        for made, around in _made(constructor, ()):
            if made in constructors and made != owner:
                places[made].append((owner, around))
    under: dict[str, dict[str, None]] = {}
    for _ in range(_DEEPEST):
        for made, sites in places.items():
            ways = [dict.fromkeys((*around, *under.get(owner, ()))) for owner, around in sites]
            if all(ways):
                under[made] = {name: None for way in ways for name in way}
    return under


def _made(node: ast.AST, around: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(class, names in the conditions around) of what a constructor calls by name."""
    for child in ast.iter_child_nodes(node):
        inner = around
        if isinstance(child, ast.If | ast.IfExp):
            inner = (*around, *_names(child.test))
        elif isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            yield child.func.id, around
        yield from _made(child, inner)


def _conditions(constructor: ast.FunctionDef) -> Iterator[str]:
    """Names in the conditions of a constructor."""
    for node in ast.walk(constructor):
        if isinstance(node, ast.If | ast.IfExp):
            yield from _names(node.test)


def _tables(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, keys) of the file's dictionaries: attention classes by what the configuration calls them."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(node.targets[0], ast.Name):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            texts = tuple(key for key in keys if isinstance(key, str))
            if len(texts) == len(node.value.keys) <= _MOST_VALUES:
                yield node.targets[0].id, texts


def _ask(call: ast.Call, found: Options) -> None:
    """Note `getattr(config, "name", default)` and `hasattr(config, "name")`."""
    if not (isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr") and len(call.args) > 1):
        return
    field = call.args[1]
    owner = call.args[0]
    last = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    if isinstance(field, ast.Constant) and isinstance(field.value, str):
        found.read.add(field.value)
        if last.endswith("config"):
            found.asked.setdefault(field.value)
            if len(call.args) > 2 and isinstance(call.args[2], ast.Constant):
                found.defaults[field.value].setdefault(call.args[2].value)


def _compare(node: ast.Compare, found: Options) -> None:
    sides = [node.left, *node.comparators]
    constants = [value for side in sides for value in _constants(side)]
    for field in (name for side in sides for name in _names(side)):
        found.tested.add(field)
        found.values[field] |= dict.fromkeys(constants[:_MOST_VALUES])
    if len(node.comparators) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq):
        left, right = node.left, node.comparators[0]
        if isinstance(left, ast.Attribute) and isinstance(right, ast.Attribute) and left.attr != right.attr:
            found.equal[left.attr].setdefault(right.attr)


def _constants(node: ast.expr) -> Iterator[Any]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        yield node.value
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        for one in node.elts:
            yield from _constants(one)


def _names(node: ast.expr) -> Iterator[str]:
    """Attributes, variables and names asked for in an expression: a field's value is often kept under its own name."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "getattr":
            yield from (str(one.value) for one in inner.args[1:2] if isinstance(one, ast.Constant))


def _nest(node: ast.AST, around: tuple[str, ...], found: Options) -> None:
    """Note which conditions of a constructor stand in which."""
    for child in ast.iter_child_nodes(node):
        inner = around
        if isinstance(child, ast.If | ast.IfExp):
            here = tuple(dict.fromkeys(_names(child.test)))
            for field in here:
                found.under[field] |= dict.fromkeys(outer for outer in around if outer != field)
            inner = (*around, *here)
        _nest(child, inner, found)
