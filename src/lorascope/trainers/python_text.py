"""The keyword arguments of one call in a Python text, read from its syntax tree: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Any

from lorascope.errors import LorascopeError

MOST_BYTES = 2**20


def call_arguments(text: str, where: str, functions: tuple[str, ...], unread: Collection[str] = ()) -> dict[str, Any]:
    """The literal keyword arguments of the first call of one of the functions, by the last part of its name.

    Args:
        text: Python source.
        where: The file, for messages.
        functions: Such as `LoraConfig`; the first of them that is called at all counts.
        unread: Arguments that may be anything, and are left out.

    Raises:
        LorascopeError: It is not Python, none of them is called, or an argument is no literal.
    """
    call, function, hint = _first_call(text, where, functions)
    return _arguments(call, function, where, hint, unread)


def call_owner(text: str, where: str, function: str) -> tuple[str, int]:
    """Whose method the first call of a function is, by the last part of that name, and how many arguments have no name.

    Raises:
        LorascopeError: It is not Python, or the function is not called.
    """
    call, _, _ = _first_call(text, where, (function,))
    return _name(call.func.value) if isinstance(call.func, ast.Attribute) else "", len(call.args)


def call_text(text: str, where: str, function: str, argument: str) -> str:
    """An argument of the first call of a function, by its name or as the first; empty if it is no text written out.

    Raises:
        LorascopeError: It is not Python, or the function is not called.
    """
    call, _, _ = _first_call(text, where, (function,))
    named = [keyword.value for keyword in call.keywords if keyword.arg == argument]
    value = next(iter([*named, *call.args[:1]]), None)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def method_arguments(text: str, where: str, owners: Collection[str], function: str) -> dict[str, Any]:
    """The arguments with a name of the first call of a method of one of these; `...` for those that are not written out.

    Nothing if it is not called.

    Raises:
        LorascopeError: It is not Python.
    """
    for call in _calls(text, where, f"Give a file that calls {function}(…)."):
        if isinstance(call.func, ast.Attribute) and call.func.attr == function and _name(call.func.value) in owners:
            return {keyword.arg: _value_or_dots(keyword.value) for keyword in call.keywords if keyword.arg}
    return {}


def _first_call(text: str, where: str, functions: tuple[str, ...]) -> tuple[ast.Call, str, str]:
    hint = f"Give a file that calls {functions[0]}(…) with its values written out."
    calls = _calls(text, where, hint)
    for function in functions:
        call = next((call for call in calls if _name(call.func) == function), None)
        if call is not None:
            return call, function, hint
    raise LorascopeError(f"does not call {' or '.join(functions)}", where=where, hint=hint)


def _calls(text: str, where: str, hint: str) -> list[ast.Call]:
    if len(text) > MOST_BYTES:
        raise LorascopeError(f"has more than the {MOST_BYTES} characters that are read", where=where, hint=hint)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        said = f"line {line} is not Python" if line else "it is not Python"
        raise LorascopeError(said, where=where, hint=hint) from error
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _value(node: ast.expr) -> Any:
    """A literal; `TaskType.CAUSAL_LM` of PEFT is the text of its last part."""
    if isinstance(node, ast.Attribute) and _name(node.value) == "TaskType":
        return node.attr
    return ast.literal_eval(node)


def _value_or_dots(node: ast.expr) -> Any:
    try:
        return _value(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return ...


def _arguments(call: ast.Call, function: str, where: str, hint: str, unread: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    faults = []
    for keyword in call.keywords:
        if keyword.arg is None:
            faults.append(f"{function}(**…) in line {call.lineno} hides its arguments")
            continue
        if keyword.arg in unread:
            continue
        try:
            found[keyword.arg] = _value(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            faults.append(f"{keyword.arg} of {function} in line {keyword.value.lineno} is no value written out")
    if faults:
        raise LorascopeError(*faults, where=where, hint=hint)
    return found
