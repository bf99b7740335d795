"""The tables of `tests/data/expectations`, read: what every weight of every architecture does, decided by reading its code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cache

from lorascope.model.classify import classify
from lorascope.model.types import Weight
from lorascope.names import template, unfold
from lorascope.sources.builtin import load_builtin
from tests.helpers.paths import DATA

TABLES = ("text_roles", "multimodal_roles")


def rows(table: str) -> list[list[str]]:
    """The rows of a table without its head."""
    text = (DATA / "expectations" / f"{table}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


@cache
def roles(table: str) -> dict[str, dict[str, str]]:
    """Label to template to role, as the table has it."""
    found: dict[str, dict[str, str]] = {}
    for label, pattern, role, *_ in rows(table):
        found.setdefault(label, {})[pattern] = role
    return found


@cache
def prefixes() -> dict[str, dict[str, str]]:
    """Label to module prefix to component (and stack)."""
    found: dict[str, dict[str, str]] = {}
    for label, prefix, component in rows("components"):
        found.setdefault(label, {})[prefix] = component
    return found


@cache
def weights(label: str) -> tuple[Weight, ...]:
    """Every weight of an entry with its role by name; `label` is the head, `/`, and the entry's own label."""
    head, name = label.split("/")
    if "+" not in name:
        model = load_builtin(name, head)
    else:  # a released layout, which the built-in models does not record
        import architectures

        from lorascope.sources.transformers.meta_model import map_module

        entry = next(entry for entry in architectures.layouts() if (entry.head, entry.label) == (head, name))
        model = map_module(entry.build(), model=name, head=entry.head, source="config")
    return classify(model.modules, model_type=model.model_type)


def matches(table: str, label: str) -> Iterator[tuple[Weight, str | None]]:
    """Every weight of an entry with the row that speaks of it."""
    found = weights(label)
    yield from zip(found, rows_of((weight.name for weight in found), roles(table)[label]), strict=True)


def rows_of(names: Iterable[str], patterns: Collection[str]) -> Iterator[str | None]:
    """The pattern that speaks of each name, or None; one without `#` goes before one with."""
    exact = {name: pattern for pattern in patterns if "#" not in pattern for name in unfold(pattern)}
    for name in names:
        folded = template(name)
        yield exact.get(name, folded if folded in patterns else None)
