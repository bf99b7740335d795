"""Keyword arguments of calls in Python source.

They are read from the syntax tree; nothing is run. A name stands for what it is set to, if that happens once in
the whole text.
"""

from __future__ import annotations

import ast
import contextlib
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.sources.files.json_text import first_faults

# A quarter of a megabyte of calls takes Python a second. Scripts that train have some ten kilobytes.
MOST_BYTES = 2**18
# Such a number is beyond floats, and further up Python does not write it out.
_LONGEST_INT_BITS = 1_000
_NOT_LITERAL = (ValueError, TypeError, RecursionError, MemoryError)
# What is computed: numbers below this, and texts and lists up to this length.
_LARGEST = 2**53
_LONGEST_SUM = 10_000
_CALCULATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """The calls of a Python text.

    Attributes:
        where: The file, for messages.
        hint: What to give instead of a text without the call.
        calls: All of them, outer ones first.
        constants: What names stand for that are set once in the whole text.
    """

    where: str
    hint: str
    calls: tuple[ast.Call, ...]
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_script(text: str, where: str, function: str) -> Script:
    """The calls of a Python text.

    Args:
        text: Python source.
        where: The file, for messages.
        function: The function to find, for messages.

    Raises:
        LorascopeError: It is not Python, or longer than any script.
    """
    hint = f"Give a file that calls {function}(…) with its values written out."
    if len(text) > MOST_BYTES:
        raise LorascopeError(f"has more than the {MOST_BYTES} characters that are read", where=where, hint=hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python thinks of a foreign text's escapes
            tree = ast.parse(text)
        calls = tuple(node for node in ast.walk(tree) if isinstance(node, ast.Call))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        message = f"line {line} is not Python" if line else "it is not Python"
        raise LorascopeError(message, where=where, hint=hint) from error
    return Script(where, hint, calls, _constants(tree))


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Names that are set once in the whole text, to a value that is written out."""
    nodes = list(ast.walk(tree))
    times = Counter(name for node in nodes for name in _bound(node))
    fields = {id(line) for node in nodes if isinstance(node, ast.ClassDef) for line in node.body}
    lines = [node for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign) and id(node) not in fields]
    constants: dict[str, Any] = {}
    for line in sorted(lines, key=lambda node: node.lineno):
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        target, value = targets[0], line.value
        if isinstance(target, ast.Name) and len(targets) == 1 and value is not None and times[target.id] == 1:
            with contextlib.suppress(*_NOT_LITERAL):
                constants[target.id] = _value(value, constants)
    return constants


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a part of a text sets."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(name=name, asname=other):
            yield other or name.partition(".")[0]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names


def call_arguments(script: Script, functions: tuple[str, ...], unread: Collection[str] = ()) -> dict[str, Any]:
    """The literal keyword arguments of the first call of a function.

    Args:
        script: A script.
        functions: Such as `LoraConfig`; the first of them that is called at all counts.
        unread: Arguments that may be anything, and are left out.

    Raises:
        LorascopeError: None of them is called, or an argument is not a literal, or a number too large for a float.
    """
    call, function = _first_call(script, functions)
    return _arguments(call, function, script, unread)


def call_owner(script: Script, function: str) -> tuple[str, int]:
    """The object whose method is called first, and the positional count.

    Raises:
        LorascopeError: The function is not called.
    """
    call, _ = _first_call(script, (function,))
    return _name(call.func.value) if isinstance(call.func, ast.Attribute) else "", len(call.args)


def calls_function(script: Script, function: str) -> bool:
    """A function is called, by the last part of its name."""
    return any(_name(call.func) == function for call in script.calls)


def call_text(script: Script, function: str, argument: str) -> str:
    """A string argument of a function's first call."""
    if not calls_function(script, function):
        return ""
    call, _ = _first_call(script, (function,))
    named = [keyword.value for keyword in call.keywords if keyword.arg == argument]
    node = next(iter([*named, *call.args[:1]]), None)
    value = _value_or_dots(node, script.constants) if node is not None else None
    return value if isinstance(value, str) else ""


def method_arguments(script: Script, owners: Collection[str], function: str) -> dict[str, Any]:
    """Keyword arguments of the first call of a method of some objects.

    Nothing if it is not called.
    """
    for call in script.calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == function and _name(call.func.value) in owners:
            return {
                keyword.arg: _value_or_dots(keyword.value, script.constants) for keyword in call.keywords if keyword.arg
            }
    return {}


def _first_call(script: Script, functions: tuple[str, ...]) -> tuple[ast.Call, str]:
    for function in functions:
        call = next((call for call in script.calls if _name(call.func) == function), None)
        if call is not None:
            return call, function
    raise LorascopeError(f"does not call {' or '.join(functions)}", where=script.where, hint=script.hint)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _value(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """A literal, a constant, or what is computed of them; `TaskType.CAUSAL_LM` of PEFT is the text of its last part.

    Raises:
        ValueError: It is nothing of these, or too large.
    """
    match node:
        case ast.Attribute(value=owner, attr=attr) if _name(owner) == "TaskType":
            return attr
        case ast.Name(id=name):
            if name not in constants:
                raise ValueError(name)
            return constants[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _computed(_value(left, constants), op, _value(right, constants))
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            values = [_value(item, constants) for item in items]
            return (
                values if isinstance(node, ast.List) else tuple(values) if isinstance(node, ast.Tuple) else set(values)
            )
        case ast.Dict(keys=keys, values=items) if None not in keys:
            pairs = zip(keys, items, strict=True)
            return {_value(key, constants): _value(item, constants) for key, item in pairs if key is not None}
    return ast.literal_eval(node)


def _computed(left: Any, op: ast.operator, right: Any) -> Any:
    """What two values make.

    Raises:
        ValueError: They are no numbers, or no texts or lists to join, or make more than a configuration holds.
    """
    if isinstance(op, ast.Add) and type(left) is type(right) and type(left) in (str, list, tuple):
        if len(left) + len(right) > _LONGEST_SUM:
            raise ValueError("too long")
        return left + right
    calculation = _CALCULATIONS.get(type(op))
    numbers = all(type(value) in (int, float) and abs(value) < _LARGEST for value in (left, right))
    if calculation is None or not numbers or (right == 0 and not isinstance(op, ast.Add | ast.Sub | ast.Mult)):
        raise ValueError("is not computed here")
    return calculation(left, right)


def _value_or_dots(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    try:
        return _value(node, constants)
    except _NOT_LITERAL:
        return ...


def _arguments(call: ast.Call, function: str, script: Script, unread: Collection[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    faults = []
    for keyword in call.keywords:
        if keyword.arg is None:
            faults.append(f"{function}(**…) in line {call.lineno} hides its arguments")
            continue
        if keyword.arg in unread:
            continue
        place = f"{keyword.arg} of {function} in line {keyword.value.lineno}"
        if keyword.arg in arguments:
            faults.append(f"{place} is given twice")
        if any(map(_is_beyond_floats, ast.walk(keyword.value))):
            faults.append(f"{place} is a whole number of hundreds of digits")
            continue
        try:
            arguments[keyword.arg] = _value(keyword.value, script.constants)
        except _NOT_LITERAL:
            faults.append(f"{place} is not written out")
    if faults:
        raise LorascopeError(*first_faults(faults), where=script.where, hint=script.hint)
    return arguments


def _is_beyond_floats(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS
