"""Whatever says what an adapter is, as an adapter configuration."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import peft
import pytest

from lorascope.peft_rules.lora_config import to_peft
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plan_api import plan
from lorascope.plans.files import save_plan
from lorascope.plans.verify import adapter_config, verify
from tests.helpers.samples import fails, sample

RULES = ("attention.q,v=8", "ffn.down[0]=4/2")


def test_every_form_of_a_configuration_says_the_same(tmp_path: Path) -> None:
    model = sample("llama")
    made = plan(model, *RULES)
    file, _ = save_plan(made, tmp_path)
    lora = made.to_peft()
    lora.save_pretrained(tmp_path / "peft")
    forms: list[Any] = [
        made,
        made.config,
        json.loads(file.read_text(encoding="utf-8")),
        lora,
        lora.to_dict(),
        peft.PeftConfig.from_pretrained(str(tmp_path)),
        json.loads((tmp_path / "peft" / "adapter_config.json").read_text(encoding="utf-8")),
    ]
    resolutions = [verify(model, form) for form in forms]
    assert all(resolution == made.resolution for resolution in resolutions)
    assert len(made.resolution.adapted) == 65


@pytest.mark.parametrize("rules", [RULES, ("all",), ("vision.attention=3",), ("ffn=4", "attention.o[1]=2/3")], ids=str)
@pytest.mark.parametrize("name", ["llava", "mllama"])
def test_to_peft_and_back(name: str, rules: tuple[str, ...]) -> None:
    config = plan(sample(name), *rules, bias="all", rslora=True).config
    again = adapter_config(to_peft(config))
    for field in dataclasses.fields(AdapterConfig):
        ours, theirs = getattr(config, field.name), getattr(again, field.name)
        if isinstance(ours, tuple) and theirs is not None:
            ours, theirs = sorted(ours), sorted(theirs)
        assert ours == theirs, field.name


def test_defaults_are_pefts() -> None:
    resolution = verify(sample("llama"), {})
    assert {one.name.rpartition(".")[2] for one in resolution.adapted} == {"q_proj", "v_proj"}
    assert "target_modules is missing" in str(resolution.warnings[0])
    assert adapter_config({}) == adapter_config(peft.LoraConfig())


def test_what_peft_refuses_is_no_error_of_ours() -> None:
    assert "match nothing" in str(verify(sample("llama"), {"target_modules": ["nowhere"]}).refusal)


def test_older_rules() -> None:
    with fails("The rules of PEFT 0.17.1 are not known: they start at 0.18", "pip install -U peft"):
        verify(sample("llama"), {}, peft="0.17.1")
    with fails('"new" is not a version of PEFT'):
        verify(sample("llama"), {}, peft="new")


@pytest.mark.parametrize(
    "config", [None, 5, "my-adapter", ["q_proj"], object()], ids=lambda value: type(value).__name__
)
def test_what_is_no_configuration(config: Any) -> None:
    with fails(f"cannot read a {type(config).__name__} as an adapter configuration", "Give a plan, a peft.LoraConfig"):
        verify(sample("llama"), config)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"target_modules": 5}, "target_modules is 5, not a text or a list of texts"),
        ({"target_modules": ["q", 1]}, "target_modules is ('q', 1), not a text or a list of texts"),
        ({"target_modules": {"q": 1}}, "target_modules is {'q': 1}, not"),
        ({"exclude_modules": False}, "exclude_modules is False, not"),
        ({"target_parameters": "experts.down_proj"}, "target_parameters is 'experts.down_proj', not a list of texts"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head', not a list of texts"),
        ({"layers_to_transform": "0"}, "layers_to_transform is '0', not a number or a list of numbers"),
        ({"layers_to_transform": [0, True]}, "layers_to_transform is (0, True), not"),
        ({"layers_pattern": 1}, "layers_pattern is 1, not"),
        ({"r": "8"}, "r is '8', not a whole number"),
        ({"r": 8.0}, "r is 8.0, not a whole number"),
        ({"r": True}, "r is True, not a whole number"),
        ({"r": None}, "r is None, not a whole number"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a number"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"rank_pattern": {"q_proj": 10**400}}, "not an object of whole numbers"),
        ({"lora_dropout": None}, "lora_dropout is None, not a number"),
        ({"rank_pattern": {"q": 2.5}}, "rank_pattern is {'q': 2.5}, not an object of whole numbers"),
        ({"rank_pattern": ["q"]}, "rank_pattern is ('q',), not an object"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern is {'q': 'x'}, not an object of numbers"),
        ({"bias": 1}, "bias is 1, not a text"),
        ({"task_type": []}, "task_type is (), not a text"),
        ({"use_rslora": "false"}, "use_rslora is 'false', not true or false"),
        ({"use_dora": 1}, "use_dora is 1, not true or false"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', not LORA"),
        ({"layer_replication": [0, 4]}, "layer_replication is (0, 4), not a list of pairs of whole numbers"),
        (
            {"target_module": ["q_proj"]},
            "target_module is not an argument of peft.LoraConfig; it is called target_modules",
        ),
        ({"rank": 8}, "rank is not an argument of peft.LoraConfig; it is called r"),
        ({"alpha": 8}, "it is called lora_alpha"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, dict) else None,
)
def test_wrong_fields(values: dict[str, Any], fault: str) -> None:
    with fails("adapter configuration: ", fault, "Names and types are those of peft.LoraConfig."):
        verify(sample("llama"), values)


def test_wrong_fields_are_named_all_at_once() -> None:
    wrong = {"r": "8", "lora_alpha": None, "bias": 5, "rank": 3, "peft_type": "X", "use_dora": 0, "target_modules": 1}
    with fails("7 faults", *(f"\n  - {name} is " for name in wrong)):
        verify(sample("llama"), wrong)


def test_a_long_value_is_cut() -> None:
    with fails("…, not a list of texts") as caught:
        verify(sample("llama"), {"modules_to_save": "x" * 100_000})
    assert len(str(caught.value)) < 300


def test_other_fields_of_the_file_do_not_matter() -> None:
    others = {
        "auto_mapping": None,
        "peft_version": "0.21.2",
        "inference_mode": True,
        "revision": None,
        "corda_config": None,
    }
    assert adapter_config({**others, "r": 4}) == AdapterConfig(r=4)


@pytest.mark.parametrize("alpha", [math.inf, math.nan, -1.0, 0.0])
def test_odd_alphas_are_pefts_business(alpha: float) -> None:
    resolution = verify(sample("llama"), {"target_modules": ["q_proj"], "lora_alpha": alpha})
    assert repr(resolution.adapted[0].alpha) == repr(alpha)
