"""The keyword arguments of one call in a Python text, read from its syntax tree: nothing is run."""

from __future__ import annotations

import ast
from typing import Any

from lorascope.errors import LorascopeError

MOST_BYTES = 2**20


def call_arguments(text: str, where: str, functions: tuple[str, ...]) -> dict[str, Any]:
    """The literal keyword arguments of the first call of one of the functions, by the last part of its name.

    Args:
        text: Python source.
        where: The file, for messages.
        functions: Such as `LoraConfig`; the first of them that is called at all counts.

    Raises:
        LorascopeError: It is not Python, none of them is called, or an argument is no literal.
    """
    hint = f"Give a file that calls {functions[0]}(…) with its values written out."
    if len(text) > MOST_BYTES:
        raise LorascopeError(f"has more than the {MOST_BYTES} characters that are read", where=where, hint=hint)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        said = f"line {line} is not Python" if line else "it is not Python"
        raise LorascopeError(said, where=where, hint=hint) from error
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for function in functions:
        call = next((call for call in calls if _name(call.func) == function), None)
        if call is not None:
            return _arguments(call, function, where, hint)
    raise LorascopeError(f"does not call {' or '.join(functions)}", where=where, hint=hint)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _arguments(call: ast.Call, function: str, where: str, hint: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    faults = []
    for keyword in call.keywords:
        if keyword.arg is None:
            faults.append(f"{function}(**…) in line {call.lineno} hides its arguments")
            continue
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            faults.append(f"{keyword.arg} of {function} in line {keyword.value.lineno} is no value written out")
    if faults:
        raise LorascopeError(*faults, where=where, hint=hint)
    return found
