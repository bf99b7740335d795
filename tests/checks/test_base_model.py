"""Findings on the base of an adapter: its name, its class, its head, and the PEFT that saved it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lorascope.checks.context import CheckContext
from lorascope.findings import Finding
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.state_dict import saved_tensors
from lorascope.peft_rules.types import AdapterConfig
from lorascope.sources.checkpoint.types import Span, Tensor
from tests.helpers.findings import base_findings
from tests.helpers.samples import sample

CONFIG = AdapterConfig(target_modules=("q_proj",), r=4)
HERE = "meta-llama/Llama-2-7b-hf"


def context_of(
    model: str = HERE, config: AdapterConfig = CONFIG, peft: str = "", head: str = "", **given: Any
) -> CheckContext:
    mapped = dataclasses.replace(sample("llama", head), model=model)
    return CheckContext(mapped, config, resolve(mapped, config), peft=peft, given=given)


def found(context: CheckContext, tensors: dict[str, Tensor] | None = None) -> list[Finding]:
    return base_findings(context, tensors)


def tensors_of(context: CheckContext, width: int = 1) -> dict[str, Tensor]:
    """The adapter's tensors, of a model that is as many times as wide."""
    wanted = saved_tensors(context.model, context.config, context.resolution).tensors
    return {
        name: Tensor(
            name,
            "F32",
            tuple(side if at == one.rank_side else side * width for at, side in enumerate(one.shape)),
            Span("", 0, 0),
        )
        for name, one in wanted.items()
    }


# The name.


@pytest.mark.parametrize("named", [HERE, HERE.lower(), None, "", "/data/llama", "llama", 7, ["x"], "../other/model"])
def test_the_same_name_or_none_that_can_be_compared(named: object) -> None:
    assert found(context_of(base_model_name_or_path=named)) == []


@pytest.mark.parametrize("model", ["llama", "/data/models/llama", ""])
def test_a_model_without_a_name_on_the_hub(model: str) -> None:
    assert found(context_of(model, base_model_name_or_path="org/other")) == []


@pytest.mark.parametrize(
    "named", ["unsloth/llama-2-7b-bnb-4bit", "NousResearch/Llama-2-7b-hf", "TheBloke/Llama-2-7B-GPTQ"]
)
def test_a_copy_is_a_note(named: str) -> None:
    (finding,) = found(context_of(base_model_name_or_path=named))
    assert (finding.code, finding.severity) == ("other-base", "note")


def test_another_model_is_as_certain_as_its_sizes() -> None:
    context = context_of(base_model_name_or_path="meta-llama/Llama-2-13b-hf")
    (unknown,) = found(context)
    assert (unknown.code, unknown.severity) == ("other-base", "warning")
    assert "sizes" not in unknown.message
    (fitting,) = found(context, tensors_of(context))
    assert fitting.severity == "warning"
    assert "The sizes of its tensors fit" in fitting.message
    (larger,) = found(context, tensors_of(context, width=2))
    assert larger.severity == "error"
    assert "lorascope check meta-llama/Llama-2-13b-hf" in larger.fix


def test_other_sizes_alone_are_no_finding_here() -> None:
    """They are one of `tensors`."""
    context = context_of(base_model_name_or_path=HERE)
    assert found(context, tensors_of(context, width=2)) == []


def test_a_foreign_name_drives_no_terminal() -> None:
    context = context_of(base_model_name_or_path="x/y", auto_mapping={"base_model_class": "\x1b[2J" + "A" * 5000})
    assert all("\x1b" not in one.message + one.fix and len(one.message) < 600 for one in found(context))
    assert len(found(context)) == 2


# The class.


@pytest.mark.parametrize(
    "mapping",
    [None, {}, "LlamaModel", {"base_model_class": None}, {"base_model_class": "LlamaForCausalLM"},
     {"base_model_class": "FSDPLlamaForCausalLM"}, {"base_model_class": "PeftModelForCausalLM"}],
)  # fmt: skip
def test_the_same_class_or_none(mapping: object) -> None:
    assert found(context_of(auto_mapping=mapping)) == []


def test_another_class() -> None:
    (finding,) = found(context_of(auto_mapping={"base_model_class": "LlamaModel"}))
    assert (finding.code, finding.severity) == ("other-base", "warning")
    assert "'LlamaModel'" in finding.message
    assert "LlamaForCausalLM" in finding.message


# The head.


@pytest.mark.parametrize(
    ("task", "head", "count"),
    [
        (None, "", 0),
        ("CAUSAL_LM", "", 0),
        ("FEATURE_EXTRACTION", "", 0),
        ("SEQ_CLS", "", 1),
        ("TOKEN_CLS", "", 1),
        ("SEQ_2_SEQ_LM", "", 1),
        ("SEQ_CLS", "sequence-classification", 0),
        ("CAUSAL_LM", "sequence-classification", 1),
    ],
)
def test_the_head(task: str | None, head: str, count: int) -> None:
    findings = found(context_of(config=AdapterConfig(target_modules=("q_proj",), task_type=task), head=head))
    assert [(one.code, one.severity) for one in findings] == [("task-type", "warning")] * count


# The release.


@pytest.mark.parametrize("version", [None, 7, "", "no version", "0.21.0", "0.20.0", "0.18.1", "0.3.0", "0.21.3.dev0@x"])
def test_releases_that_do_the_same(version: object) -> None:
    assert found(context_of(peft_version=version)) == []


def test_a_newer_release() -> None:
    (finding,) = found(context_of(peft_version="0.25.0"))
    assert (finding.code, finding.severity) == ("version-dependent", "note")


def test_a_release_that_reads_it_otherwise() -> None:
    """Up to 0.18 nothing is rewritten for fused experts, so that a list with their old names hits attention alone."""
    mapped = sample("mixtral")
    config = AdapterConfig(target_modules=("q_proj", "w1", "w2", "w3"))
    context = CheckContext(mapped, config, resolve(mapped, config), given={"peft_version": "0.18.1"})
    (finding,) = found(context)
    assert (finding.code, finding.severity) == ("version-dependent", "warning")
    assert "experts" in finding.where
    assert found(dataclasses.replace(context, given={"peft_version": "0.19.1"})) == []
