"""Checks on quantized bases: what PEFT refuses there, and what transformers' Trainer does."""

from __future__ import annotations

import dataclasses
import importlib
import json

import pytest

import lorascope as ls
from lorascope.model.types import ModelMap
from lorascope.peft_rules.quantization import untrainable
from tests.helpers.paths import DATA
from tests.helpers.samples import sample

# What PEFT 0.21.2 did on real layers of GPTQModel (`record_quantized.py`).
RECORDED = json.loads((DATA / "quantized_peft.json").read_text("utf-8"))


def stored(model: ModelMap, quantization: str, part: str = "_proj") -> ModelMap:
    """The map as if the modules with a part in their names were stored like this."""
    modules = tuple(
        dataclasses.replace(module, quantization=quantization) if part in module.name else module
        for module in model.modules
    )
    weights = tuple(
        dataclasses.replace(weight, quantization=quantization) if part in weight.name else weight
        for weight in model.weights
    )
    return dataclasses.replace(model, modules=modules, weights=weights)


@pytest.mark.parametrize("quantization", ["gptq 4 bit", "awq 4 bit gemm"])
def test_all_linear_and_dora_are_refused_where_peft_refuses_them(quantization: str) -> None:
    model = stored(sample("llama"), quantization)
    assert "No `target_modules` passed" in RECORDED[quantization]["by all-linear"]
    all_linear = ls.check(model, "all-linear")
    assert all_linear.resolution.refusal is not None and all_linear.resolution.trainable == 0
    assert "GPTQModel's" in str(all_linear.resolution.refusal)
    assert "does not support DoRA" in RECORDED[quantization]["with DoRA"]
    dora = ls.check(model, {"peft_type": "LORA", "target_modules": ["q_proj"], "use_dora": True})
    assert [finding.code for finding in dora.findings if finding.severity == "error"] == ["refused", "dora"]
    # The advice works: the modules by name, without DoRA.
    named = ls.check(model, "q_proj", "v_proj")
    assert named.resolution.refusal is None and not named.matters


def test_all_linear_takes_what_gptq_leaves_plain() -> None:
    check = ls.check(stored(sample("llama"), "gptq 4 bit", "mlp."), "all-linear")
    assert {one.name.rpartition(".")[2] for one in check.resolution.adapted} == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize("quantization", ["bnb nf4", "bnb int8", "fp8 block 128×128", "compressed-tensors int4"])
def test_what_stays_a_linear_layer_is_matched(quantization: str) -> None:
    check = ls.check(stored(sample("llama"), quantization), "all-linear")
    assert len(check.resolution.adapted) == 32 * 7


# transformers' quantizer of each scheme, and what of it decides.
QUANTIZERS = {
    "mxfp4": ("quantizer_mxfp4", "Mxfp4HfQuantizer", False),
    "fbgemm fp8 channel": ("quantizer_fbgemm_fp8", "FbgemmFp8HfQuantizer", False),
    "auto-round gptq 4 bit": ("quantizer_auto_round", "AutoRoundQuantizer", False),
    "bnb nf4": ("quantizer_bnb_4bit", "Bnb4BitHfQuantizer", True),
    "bnb int8": ("quantizer_bnb_8bit", "Bnb8BitHfQuantizer", True),
    "gptq 4 bit": ("quantizer_gptq", "GptqHfQuantizer", True),
    "fp8 block 128×128": ("quantizer_finegrained_fp8", "FineGrainedFP8HfQuantizer", True),
}


@pytest.mark.parametrize("quantization", QUANTIZERS)
def test_transformers_trainer_refuses_what_the_rules_say(quantization: str) -> None:
    module, name, trainable = QUANTIZERS[quantization]
    quantizer = getattr(importlib.import_module(f"transformers.quantizers.{module}"), name)
    said = quantizer.is_trainable
    # A property, and one method that is used as one.
    assert (said.fget(object.__new__(quantizer)) if isinstance(said, property) else True) is trainable
    assert (untrainable(quantization) == "") is trainable


def test_a_packed_gpt_oss_is_warned_of_whatever_is_adapted() -> None:
    model = stored(sample("gpt_oss"), "mxfp4", ".experts")
    check = ls.check(model, "q_proj", "v_proj")
    (finding,) = [finding for finding in check.findings if finding.code == "quantization-untrainable"]
    assert finding.severity == "warning"
    assert finding.fix == "Load it with quantization_config=Mxfp4Config(dequantize=True)."
    assert "Mxfp4Config(dequantize=True)" in str(ls.plan(model, "qv"))
    assert not ls.check(sample("gpt_oss"), "q_proj", "v_proj").matters
