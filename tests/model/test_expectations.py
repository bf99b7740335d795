"""Roles against what was decided by reading the modeling code of each architecture (`tests/data/expectations`)."""

from __future__ import annotations

import pytest

from lorascope.plans.rules import FACT_OF
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.expectations import TABLES, matches, prefixes, roles, rows, weights

CASES = [(table, label) for table in TABLES for label in roles(table)]


@pytest.mark.parametrize(("table", "label"), CASES, ids=[f"{table}-{label}" for table, label in CASES])
def test_every_weight_has_the_role_that_the_forward_pass_gives_it(table: str, label: str) -> None:
    expected = roles(table)[label]
    used = set()
    wrong, uncovered = [], []
    for weight, row in matches(table, label):
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
        compared[table] += sum(row is not None for _, row in matches(table, label))
    assert compared == {"text_roles": 74_863, "multimodal_roles": 23_202}
    assert {table: len(roles(table)) for table in TABLES} == {"text_roles": 296, "multimodal_roles": 126}
    names = {(label, weight.name) for table, label in CASES for weight, row in matches(table, label) if row}
    assert len(names) == 94_013
    labels = {label for _, label in CASES}
    assert (len(labels), sum("+" in label for label in labels)) == (399, 12)
    assert sum(len(weights(label)) for label in prefixes()) == 59_668
    assert len(prefixes()) == 145


def test_the_tables_agree_and_are_sorted() -> None:
    text, multimodal = roles("text_roles"), roles("multimodal_roles")
    for label in text.keys() & multimodal.keys():
        for pattern in text[label].keys() & multimodal[label].keys():
            assert text[label][pattern] == multimodal[label][pattern], (label, pattern)
    for table in (*TABLES, "components"):
        keys = [tuple(row[:2]) for row in rows(table)]
        assert len(keys) == len(set(keys))
        assert [label for label, _ in keys] == sorted(label for label, _ in keys)


@pytest.mark.parametrize("label", list(prefixes()))
def test_components_partition_the_model(label: str) -> None:
    components = prefixes()[label]
    wrong = []
    used = set()
    for weight in weights(label):
        owners = [prefix for prefix in components if f"{weight.name}.".startswith(f"{prefix}.")]
        longest = max(owners, key=len, default="")
        used.add(longest)
        role = weight.role
        found = f"{role.component}.{role.stack}" if role.stack else role.component
        expected = components.get(longest, "")
        # A head stands behind the stacks and belongs to neither.
        if found != (expected.partition(".")[0] if role.block == "head" else expected):
            wrong.append((weight.name, found, expected))
    assert wrong == []
    assert set(components) - used == set()


GALLERY = [f"{head}/{name}" for name, heads in builtin_models().items() for head in heads]


@pytest.mark.parametrize("label", GALLERY)
def test_nothing_in_the_built_in_models_is_a_guess_and_the_record_is_fresh(label: str) -> None:
    head, name = label.split("/")
    found = weights(label)
    assert [weight.name for weight in found if weight.guess] == []
    assert load_builtin(name, head).weights == found


def test_the_built_in_models_has_all_maps() -> None:
    assert len(GALLERY) == 507


def test_every_role_is_made_of_the_vocabulary() -> None:
    for label in GALLERY:
        for role in {weight.role for weight in weights(label)}:
            facts = {fact: getattr(role, fact) for fact in ("component", "stack", "block", "variant", "part")}
            assert all(FACT_OF[value] == fact for fact, value in facts.items() if value), (label, role)
            # What an adapter is most often put on is always said in full.
            if role.block in ("attention", "ffn"):
                assert role.variant, (label, role)
                assert role.part, (label, role)
