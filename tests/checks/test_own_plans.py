"""The plans that lorascope compiles itself raise no finding that matters: over all built-in models."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Sequence

import pytest

from lorascope.checks import config_findings
from lorascope.checks.config_findings import configuration_findings
from lorascope.checks.context import CheckContext
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.plans.recipes import RECIPES
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.shallow_models import shallow_map

PAIRS = [(model_type, head) for model_type, heads in builtin_models().items() for head in heads]
# Rules beyond the recipes, that name all of a kind and so leave no doubt of what is meant.
ODD = (
    ("attention[0]",),
    ("attention.q[:1]=4", "ffn[-1:]=2/8"),
    ("attention.o",),
    ("ffn.down=64",),
    ("mixer",),
    ("router",),
    ("vision",),
    ("connector",),
    ("ffn.expert",),
)
# Rules whose configuration is the one that others write by mistake, and what is said of it then. The configuration alone
# does not tell them apart.
DOUBTFUL = {
    ("head",): {"tied"},
    ("embedding.token",): {"tied"},
    ("ffn.shared",): {"left-out"},
    ("attention.self",): {"left-out"},
    ("attention.cross",): {"left-out"},
    ("attention.q,v", "vision.attention"): {"outside"},
}

# A plan that fits the default configuration, and makes PEFT raise on released models: it says so itself.
OF_DEFAULTS = {("released-parts", "gemma4")}


@pytest.fixture(autouse=True)
def _of_this_release_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other releases make of a plan is a note at most, and takes most of the time."""
    monkeypatch.setattr(config_findings, "RELEASES", ())


def checked(model: ModelMap, rules: Sequence[str]) -> list[Finding] | None:
    """The findings on a plan of rules or of a recipe; None if the model has no such weights."""
    try:
        made = plan(model, *rules)
    except LorascopeError:
        return None
    return list(configuration_findings(CheckContext(model, made.config, made.resolution)))


def grave(findings: list[Finding]) -> list[Finding]:
    """Those that matter."""
    return [finding for finding in findings if finding.severity != "note"]


def run(models: Iterable[ModelMap], many: Sequence[Sequence[str]]) -> collections.Counter[str]:
    """Asserts that no plan of any rules on any map has a finding that matters; counts plans, and notes by code."""
    counts: collections.Counter[str] = collections.Counter()
    for model in models:
        for rules in many:
            found = checked(model, rules)
            if found is None:
                continue
            wrong = [one for one in grave(found) if (one.code, model.model_type) not in OF_DEFAULTS]
            assert wrong == [], (model.model, model.head, rules, wrong)
            counts["plans"] += 1
            counts.update({finding.code for finding in found})
    return counts


def test_recipes_on_a_sample() -> None:
    counts = run(itertools.starmap(load_builtin, PAIRS[::25]), [(recipe,) for recipe in RECIPES])
    assert counts["plans"] >= 125


def test_odd_rules_on_a_sample() -> None:
    counts = run(itertools.starmap(load_builtin, PAIRS[::40]), ODD)
    assert counts["plans"] >= 60


def shallow(pair: tuple[str, str]) -> ModelMap:
    """A built-in map with every kind of its layers, and few of a kind."""
    return shallow_map(load_builtin(*pair))


@pytest.mark.slow
def test_recipes_on_every_architecture() -> None:
    assert len(PAIRS) == 507
    counts = run(map(shallow, PAIRS), [(recipe,) for recipe in RECIPES])
    assert counts["plans"] == 3487
    assert counts["scale"] > 100  # notes are there


@pytest.mark.slow
def test_odd_rules_on_every_architecture() -> None:
    counts = run(map(shallow, PAIRS), ODD)
    assert counts["plans"] >= 2000


@pytest.mark.parametrize("rules", DOUBTFUL, ids=" ".join)
def test_what_cannot_be_told_from_a_mistake_is_told_as_one(rules: tuple[str, ...]) -> None:
    codes: set[str] = set()
    for model_type in (
        "llama",
        "gpt2",
        "gemma2",
        "bart",
        "qwen2_moe",
        "llama4_text",
        "qwen3_next",
        "evolla",
        "llava",
        "internvl",
    ):
        model = load_builtin(model_type)
        for finding in grave(checked(model, rules) or []):
            codes.add(finding.code)
    assert codes == DOUBTFUL[rules]
