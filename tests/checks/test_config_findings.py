"""All findings on a configuration together: in order, none lost, none without an explanation, whatever is written."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import lorascope
from lorascope.checks.config_findings import configuration_findings, trainer_findings
from lorascope.checks.context import CheckContext
from lorascope.checks.registry import rules
from lorascope.findings import Finding
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.reasons import UNMATCHED_MODULES
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from tests.helpers import peft_models
from tests.helpers.findings import codes, configured, looked, on_tiny, told
from tests.helpers.random_configs import configurations
from tests.peft_rules import test_traps

RULES = Path(lorascope.__file__).parent / "peft_rules"
PER_MODEL = 40
# What the rules report, and the other codes under which a finding may tell it.
OTHERWISE = {
    "no-match": {"regex-in-list", "string-not-list", "bad-pattern"},
    "pattern-unmatched": {"pattern-prefix"},
    "twice": {"unsupported"},
}
# Reported of every such configuration, told only where some weight escapes what was meant.
ONLY_WHERE_IT_MATTERS = {"layers-dropped", "layers-ignored", "moe-rewrite"}


def findings(name: str, config: AdapterConfig) -> tuple[Resolution, list[Finding]]:
    resolution = resolve(peft_models.mapped(name), config)
    return resolution, list(configuration_findings(CheckContext(peft_models.mapped(name), config, resolution)))


def check_whole(resolution: Resolution, found: list[Finding]) -> None:
    """What must hold of the findings on any configuration."""
    order = [("error", "warning", "note").index(finding.severity) for finding in found]
    assert order == sorted(order)
    assert len(set(found)) == len(found), "told twice"
    assert all(f.code and f.where and f.message and f.fix for f in found)
    assert bool(told(found, "refused")) == (resolution.refusal is not None)
    if resolution.refusal is not None:
        assert found[0].code == "refused"
        explaining = set(codes(found, "error")) - {"refused"}
        assert explaining, str(resolution.refusal)
        assert all(code in found[0].fix for code in explaining)
    said = set(codes(found))
    for behavior in resolution.warnings:
        if behavior.code not in ONLY_WHERE_IT_MATTERS:
            assert said & {behavior.code, *OTHERWISE.get(behavior.code, set())}, behavior


@pytest.mark.parametrize("trap", test_traps.CASES.values(), ids=test_traps.CASES.keys())
def test_nothing_is_lost_of_what_surprises_people(trap: test_traps.Case) -> None:
    check_whole(*findings(trap.model, trap.config))


def test_enough_traps() -> None:
    assert len(test_traps.CASES) >= 90


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("llama", "mixtral", "llava", "plain") else pytest.mark.slow)
        for name in peft_models.NAMES
    ],
)
def test_nothing_is_lost_of_any_configuration(name: str) -> None:
    counts: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=PER_MODEL,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        resolution, found = findings(name, data.draw(configurations(peft_models.mapped(name))))
        check_whole(resolution, found)
        counts["refused" if resolution.refusal is not None else "adapted"] += 1

    run()
    assert sum(counts.values()) >= PER_MODEL
    assert counts["adapted"] >= PER_MODEL // 10


def test_every_code_of_peft_rules_is_declared() -> None:
    """The codes of all reasons."""
    found = {reason.code for reason in vars(reasons).values() if isinstance(reason, Reason)}
    assert len(found) >= 20
    assert found <= rules().keys()


@pytest.mark.parametrize(
    ("arguments", "explaining"),
    [
        ({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}, "no-match"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["self_attn"]}, "saved-shadows"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [9]}, "layers-absent"),
        ({"target_modules": []}, "no-match"),
        ({"target_modules": [], "target_parameters": []}, "no-match"),
        ({"target_modules": [""]}, "no-match"),
        ({"target_modules": ""}, "no-match"),
        ({"target_modules": ["q_proj"], "exclude_modules": "("}, "bad-pattern"),
    ],
)
def test_a_refusal_is_explained(arguments: dict[str, Any], explaining: str) -> None:
    found = on_tiny("llama", **arguments)
    check_whole(resolve(peft_models.mapped("llama"), configured(arguments)), found)
    assert explaining in codes(found, "error")


HOSTILE: list[dict[str, Any]] = [
    {"target_modules": ["\x00", "\n", "q_proj\n", "…", "🦙", "q_proj"]},
    {"target_modules": ["." * 50, "q_proj.", ".q_proj", "q..proj", "q_proj"]},
    {"target_modules": ["\\", "[", "(?P<n>", "**", "+", "q_proj"]},
    {"target_modules": ["x" * 10_000, "q_proj"]},
    {"target_modules": [f"no.{n}" for n in range(3_000)] + ["q_proj"]},
    {"target_modules": "(" * 200},
    {"target_modules": "q_proj", "exclude_modules": "\\"},
    {"target_modules": ["q_proj"], "rank_pattern": {"(": 1, "": 2, "*": 3, "\\": 4}},
    {"target_modules": ["q_proj"], "alpha_pattern": {".*": -1.0, "x" * 5_000: 1e300}},
    {"target_modules": ["q_proj"], "modules_to_save": ["", "(", "."]},
    {"target_modules": ["q_proj"], "modules_to_save": ["🦙" * 100]},
    {"target_modules": ["q_proj"], "layers_to_transform": [-5, 10**18, 0]},
    {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["(", "(a)(b)"]},
    {"target_modules": ["q_proj"], "r": -(10**9), "lora_alpha": float("nan")},
    {"target_modules": ["q_proj"], "lora_alpha": float("inf")},
    {"target_modules": ["q_proj"], "lora_dropout": float("nan")},
    {"target_modules": ["q_proj"], "target_parameters": ["", ".", "\\", "x" * 5_000]},
    {"target_modules": ["q_proj"], "task_type": "\n", "bias": ""},
]


@pytest.mark.parametrize("arguments", HOSTILE, ids=range(len(HOSTILE)))
def test_what_no_one_means_is_told_like_the_rest(arguments: dict[str, Any]) -> None:
    check_whole(resolve(peft_models.mapped("llama"), configured(arguments)), on_tiny("llama", **arguments))


def test_a_model_that_peft_cannot_wrap_says_why() -> None:
    import dataclasses

    model = dataclasses.replace(peft_models.mapped("llama"), refusal="It has no forward.")
    (finding,) = told(looked(model, {"target_modules": ["q_proj"]}), "refused")
    assert "no forward" in finding.message


def test_no_fix_speaks_of_a_form_that_cannot_be_copied() -> None:
    """Expressions in fixes hold no backslash, which JSON, YAML and Python read differently."""
    for model, arguments in (
        ("llava", {"target_modules": "all-linear"}),
        ("llama", {"target_modules": ["q_proj"], "exclude_modules": ["layers.0"]}),
        ("qwen2_vl", {"target_modules": "all-linear"}),
    ):
        fixes = [finding.fix for finding in on_tiny(model, **arguments)]
        assert any("exclude_modules=" in fix for fix in fixes)
        assert not any(re.search(r"exclude_modules=\S*\\", fix) for fix in fixes)


def test_a_trainer_without_peft_is_told_what_it_adapts() -> None:
    """Nothing, a tower too, experts not; no fix speaks of PEFT's keys."""
    nothing = Resolution(refusal=UNMATCHED_MODULES.about("q"))
    (finding,) = trainer_findings(CheckContext(peft_models.mapped("llama"), AdapterConfig(), nothing))
    assert (finding.code, finding.severity) == ("no-match", "error")
    done = resolve(peft_models.mapped("llava"), AdapterConfig(target_modules=("q_proj",)))
    (finding,) = trainer_findings(CheckContext(peft_models.mapped("llava"), AdapterConfig(), done))
    assert finding.code == "outside"
    assert "exclude_modules" not in finding.fix
    done = resolve(peft_models.mapped("qwen3_next"), AdapterConfig(target_modules=("q_proj", "v_proj")))
    found = list(trainer_findings(CheckContext(peft_models.mapped("qwen3_next"), AdapterConfig(), done)))
    assert codes(found) == ["left-out"]


def test_a_list_of_thousands_is_not_explained_entry_by_entry() -> None:
    many = [f"no_{number}_proj" for number in range(20_000)]
    found = on_tiny("llama", target_modules=[*many, "q_proj"], exclude_modules=many, target_parameters=many)
    assert codes(found)[0] == "no-match"
    assert len(found) < 100
    assert any("19,9" in finding.message or "1995" in finding.message for finding in told(found, "no-match"))
