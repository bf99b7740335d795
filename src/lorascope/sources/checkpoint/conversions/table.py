"""Conversion rules of a model, from transformers' table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.packaged import load_json


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One step of a conversion: transformers' class and its arguments."""

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True, slots=True)
class ConversionRule:
    r"""One of transformers' weight transforms.

    Attributes:
        kind: `rename`; `group`, whose later patterns hold once the first was seen; `offset`, which also shifts the
            number it captures; `pair`, which makes one layer of each two; or `convert`, which changes shapes.
        sources: Regular expressions, as transformers has processed them.
        targets: What each match becomes, `\1` for what was captured.
        operations: What is done to the tensors of a `convert`, in order.
        offset: What an `offset` adds.
        words: What a `pair` calls some words; the others get the first target in even layers, the second in odd ones.
        scope: The sub-model that the rule is for, without the base model's prefix; None at the root.
        base_model_prefix: The attribute that holds the base model of a model with a head.
    """

    kind: Literal["rename", "group", "offset", "pair", "convert"]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: tuple[Operation, ...] = ()
    offset: int = 0
    words: tuple[tuple[str, str], ...] = ()
    scope: str | None = None
    base_model_prefix: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class SubModel:
    """One of transformers' models within a model, or the whole."""

    path: str
    class_name: str
    model_type: str


def version() -> str:
    """The release of transformers that the rules are from."""
    return str(_table()["transformers"])


def rules_for(submodels: Sequence[SubModel], base_model_prefix: str) -> tuple[ConversionRule, ...]:
    """The rules of a model, in transformers' order.

    As its `get_model_conversion_mapping`.

    Args:
        submodels: Every `PreTrainedModel` within the model, in the order of `named_modules()`.
        base_model_prefix: The model class's own.
    """
    collected: list[ConversionRule] = []
    claimed: defaultdict[str, list[str]] = defaultdict(list)

    def covered(identifier: str, path: str) -> bool:
        return any(seen == "" or path.startswith(seen + ".") for seen in claimed[identifier])

    for model in submodels:
        if covered(model.class_name, model.path):
            continue
        identifier = model.class_name
        rules = _rules(identifier)
        if rules is None:
            identifier = model.model_type
            if not identifier or covered(identifier, model.path):
                continue
            rules = _rules(identifier)
        if rules is None:
            continue
        if model.path:
            scope = model.path.removeprefix(base_model_prefix).removeprefix(".")
            rules = tuple(dataclasses.replace(rule, scope=scope, base_model_prefix=base_model_prefix) for rule in rules)
        collected += rules
        claimed[model.class_name].append(model.path)
        if identifier == model.model_type:
            claimed[identifier].append(model.path)
    return (*collected, *(_rules("legacy") or ()))


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = load_json("conversions.json")
    return table


@cache
def _rules(identifier: str) -> tuple[ConversionRule, ...] | None:
    """The rules of a class name or model type, or None."""
    table = _table()
    rows = table["rules"].get(table["aliases"].get(identifier, identifier))
    return None if rows is None else tuple(map(_rule, rows))


def _rule(row: Mapping[str, Any]) -> ConversionRule:
    return ConversionRule(
        kind=row.get("kind", "rename"),
        sources=tuple(row["from"]),
        targets=tuple(row["to"]),
        operations=tuple(Operation(name, arguments) for name, arguments in row.get("by", ())),
        offset=row.get("offset", 0),
        words=tuple(row.get("words", {}).items()),
    )
