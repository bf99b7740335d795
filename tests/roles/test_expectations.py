"""Roles against what was decided by reading the modeling code of each architecture (`tests/expectations`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lorascope.folding import template, unfold
from lorascope.records import Weight
from lorascope.roles.classifying import classify
from lorascope.selecting import FACT_OF
from lorascope.sources.gallery import from_gallery, gallery

TABLES = ("text_roles", "multimodal_roles")


def _rows(table: str) -> list[list[str]]:
    text = (Path(__file__).parent.parent / "expectations" / f"{table}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


@cache
def _roles(table: str) -> dict[str, dict[str, str]]:
    """Label to template to role, as the table has it."""
    roles: dict[str, dict[str, str]] = {}
    for label, pattern, role, *_ in _rows(table):
        roles.setdefault(label, {})[pattern] = role
    return roles


@cache
def _prefixes() -> dict[str, dict[str, str]]:
    """Label to module prefix to component (and stack)."""
    prefixes: dict[str, dict[str, str]] = {}
    for label, prefix, component in _rows("components"):
        prefixes.setdefault(label, {})[prefix] = component
    return prefixes


@cache
def _weights(label: str) -> tuple[Weight, ...]:
    head, name = label.split("/")
    if "+" not in name:
        model = from_gallery(name, head)
    else:  # a released layout, which the gallery does not record
        import architectures

        from lorascope.sources.skeleton import map_module

        entry = next(entry for entry in architectures.layouts() if (entry.head, entry.label) == (head, name))
        model = map_module(entry.build(), model=name, head=entry.head, source="config")
    return classify(model.modules, model_type=model.model_type)


def _matches(table: str, label: str) -> Iterator[tuple[Weight, str | None]]:
    """Every weight of an entry with the row that speaks of it; a name goes before a name with `#`."""
    patterns = _roles(table)[label]
    exact = {name: pattern for pattern in patterns if "#" not in pattern for name in unfold(pattern)}
    for weight in _weights(label):
        folded = template(weight.name)
        yield weight, exact.get(weight.name, folded if folded in patterns else None)


CASES = [(table, label) for table in TABLES for label in _roles(table)]


@pytest.mark.parametrize(("table", "label"), CASES, ids=[f"{table}-{label}" for table, label in CASES])
def test_every_weight_has_the_role_that_the_forward_pass_gives_it(table: str, label: str) -> None:
    expected = _roles(table)[label]
    used = set()
    wrong, uncovered = [], []
    for weight, row in _matches(table, label):
        if row is not None:
            used.add(row)
            if str(weight.role) != expected[row]:
                wrong.append((weight.name, str(weight.role), expected[row]))
        elif table == "text_roles" or weight.role.component != "text":
            uncovered.append(weight.name)
    assert wrong == []
    assert uncovered == []
    assert set(expected) - used == set()


def test_that_is_many_weights_and_all_tables_are_read() -> None:
    compared = dict.fromkeys(TABLES, 0)
    for table, label in CASES:
        compared[table] += sum(row is not None for _, row in _matches(table, label))
    assert compared == {"text_roles": 72_810, "multimodal_roles": 21_367}
    assert {table: len(_roles(table)) for table in TABLES} == {"text_roles": 289, "multimodal_roles": 122}
    names = {(label, weight.name) for table, label in CASES for weight, row in _matches(table, label) if row}
    assert len(names) == 90_125
    labels = {label for _, label in CASES}
    assert (len(labels), sum("+" in label for label in labels)) == (388, 12)
    assert sum(len(_weights(label)) for label in _prefixes()) == 57_160
    assert len(_prefixes()) == 141


def test_the_tables_agree_and_are_sorted() -> None:
    text, multimodal = _roles("text_roles"), _roles("multimodal_roles")
    for label in text.keys() & multimodal.keys():
        for pattern in text[label].keys() & multimodal[label].keys():
            assert text[label][pattern] == multimodal[label][pattern], (label, pattern)
    for table in (*TABLES, "components"):
        keys = [tuple(row[:2]) for row in _rows(table)]
        assert len(keys) == len(set(keys))
        assert [label for label, _ in keys] == sorted(label for label, _ in keys)


@pytest.mark.parametrize("label", list(_prefixes()))
def test_components_partition_the_model(label: str) -> None:
    prefixes = _prefixes()[label]
    wrong = []
    used = set()
    for weight in _weights(label):
        owners = [prefix for prefix in prefixes if f"{weight.name}.".startswith(f"{prefix}.")]
        longest = max(owners, key=len, default="")
        used.add(longest)
        role = weight.role
        found = f"{role.component}.{role.stack}" if role.stack else role.component
        expected = prefixes.get(longest, "")
        # A head stands behind the stacks and belongs to neither.
        if found != (expected.partition(".")[0] if role.block == "head" else expected):
            wrong.append((weight.name, found, expected))
    assert wrong == []
    assert set(prefixes) - used == set()


GALLERY = [f"{head}/{name}" for name, heads in gallery().items() for head in heads]


@pytest.mark.parametrize("label", GALLERY)
def test_nothing_in_the_gallery_is_a_guess_and_the_record_is_fresh(label: str) -> None:
    head, name = label.split("/")
    weights = _weights(label)
    assert [weight.name for weight in weights if weight.guess] == []
    assert from_gallery(name, head).weights == weights


def test_the_gallery_has_all_maps() -> None:
    assert len(GALLERY) == 496


def test_every_role_is_made_of_the_vocabulary() -> None:
    for label in GALLERY:
        for role in {weight.role for weight in _weights(label)}:
            facts = {fact: getattr(role, fact) for fact in ("component", "stack", "block", "variant", "part")}
            assert all(FACT_OF[value] == fact for fact, value in facts.items() if value), (label, role)
            # What an adapter is most often put on is always said in full.
            if role.block in ("attention", "ffn"):
                assert role.variant, (label, role)
                assert role.part, (label, role)
