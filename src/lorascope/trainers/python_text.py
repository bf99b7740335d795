"""Keyword arguments of calls in Python source.

They are read from the syntax tree; nothing is run.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.sources.files.json_text import first_faults

# A quarter of a megabyte of calls takes Python a second. Scripts that train have some ten kilobytes.
MOST_BYTES = 2**18
# Such a number is beyond floats, and further up Python does not write it out.
_LONGEST_INT_BITS = 1_000
_NOT_LITERAL = (ValueError, TypeError, RecursionError, MemoryError)


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """The calls of a Python text.

    Attributes:
        where: The file, for messages.
        hint: What to give instead of a text without the call.
        calls: All of them, outer ones first.
    """

    where: str
    hint: str
    calls: tuple[ast.Call, ...]


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
    return Script(where, hint, calls)


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
    value = next(iter([*named, *call.args[:1]]), None)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def method_arguments(script: Script, owners: Collection[str], function: str) -> dict[str, Any]:
    """Keyword arguments of the first call of a method of some objects.

    Nothing if it is not called.
    """
    for call in script.calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == function and _name(call.func.value) in owners:
            return {keyword.arg: _value_or_dots(keyword.value) for keyword in call.keywords if keyword.arg}
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


def _value(node: ast.expr) -> Any:
    """A literal; `TaskType.CAUSAL_LM` of PEFT is the text of its last part."""
    if isinstance(node, ast.Attribute) and _name(node.value) == "TaskType":
        return node.attr
    return ast.literal_eval(node)


def _value_or_dots(node: ast.expr) -> Any:
    try:
        return _value(node)
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
            arguments[keyword.arg] = _value(keyword.value)
        except _NOT_LITERAL:
            faults.append(f"{place} is not written out")
    if faults:
        raise LorascopeError(*first_faults(faults), where=script.where, hint=script.hint)
    return arguments


def _is_beyond_floats(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS
