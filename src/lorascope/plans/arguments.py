"""Checks of the arguments of public functions."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plans.types import Plan
from lorascope.sources.modules.python_objects import is_a, kind_text


def require_map(value: object, verb: str) -> None:
    """Refuse what is not a map.

    Raises:
        LorascopeError: It is none.
    """
    _require(value, ModelMap, verb, "the map of a model", f"Make one with inspect: {verb}(inspect(SOURCE), …).")


def require_plan(value: object, verb: str) -> None:
    """Refuse what is not a plan.

    Raises:
        LorascopeError: It is none.
    """
    _require(value, Plan, verb, "a plan", f"Make one with plan: {verb}(plan(inspect(SOURCE), RULES), …).")


def _require(value: object, kind: type, verb: str, wanted: str, hint: str) -> None:
    if not is_a(value, kind):
        raise LorascopeError(f"{verb} takes {wanted}, not {kind_text(value)}", hint=hint)


def require_kinds(verb: str, **given: tuple[object, tuple[type, ...], str]) -> None:
    """Refuse arguments of other kinds than a function takes, all at once.

    Args:
        verb: The function.
        given: By each argument's name its value, the classes that it may have, and what these are called.

    Raises:
        LorascopeError: With each that is of none of them.
    """
    wrong = [
        f"{name} must be {wanted}, not {kind_text(value)}"
        for name, (value, classes, wanted) in given.items()
        if not is_a(value, *classes)
    ]
    if wrong:
        raise LorascopeError(*wrong, where=verb, hint=f"See help(lorascope.{verb}).")


def require_texts(verb: str, name: str, value: object) -> None:
    """Refuse what is neither a text nor a sequence of texts.

    Raises:
        LorascopeError: It is neither.
    """
    several = isinstance(value, Sequence | AbstractSet) and not is_a(value, bytes, bytearray)
    if is_a(value, str) or (several and all(is_a(item, str) for item in value)):  # type: ignore[attr-defined]
        return
    raise LorascopeError(
        f"{name} must be a text or a list of texts, not {kind_text(value)}",
        where=verb,
        hint=f"See help(lorascope.{verb}).",
    )
