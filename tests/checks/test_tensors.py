"""Findings on tensors: each kind and cause on files that differ in one way from what PEFT saves, and none on those."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from lorascope.checks.context import CheckContext
from lorascope.findings import Finding
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.state_dict import PREFIX, saved_tensors
from lorascope.peft_rules.types import AdapterConfig
from lorascope.sources.checkpoint.types import Span, Tensor
from tests.helpers import peft_models
from tests.helpers.findings import tensor_findings
from tests.helpers.saved_adapters import CONFIGS, state_shapes

Shapes = dict[str, tuple[int, ...]]
QV = AdapterConfig(target_modules=("q_proj", "v_proj"))


def context_of(name: str, config: AdapterConfig, **given: object) -> CheckContext:
    model = peft_models.mapped(name)
    return CheckContext(model, config, resolve(model, config), given=given)


def file_of(shapes: Shapes) -> dict[str, Tensor]:
    """A header's tensors, all data aside."""
    return {name: Tensor(name, "F32", shape, Span("adapter_model.safetensors", 0, 0)) for name, shape in shapes.items()}


def saved(context: CheckContext) -> Shapes:
    return {
        name: one.shape
        for name, one in saved_tensors(context.model, context.config, context.resolution).tensors.items()
    }


def found(context: CheckContext, shapes: Shapes) -> list[Finding]:
    return tensor_findings(context, file_of(shapes))


def count_other_sizes(context: CheckContext, shapes: Shapes) -> int:
    comparison = dataclasses.replace(context, tensors=file_of(shapes)).comparison
    assert comparison is not None
    return len(comparison.other_sizes)


def one(context: CheckContext, shapes: Shapes) -> Finding:
    findings = found(context, shapes)
    assert len(findings) == 1, findings
    return findings[0]


def renamed(change: Callable[[str], str], name: str = "llama", config: AdapterConfig = QV) -> Finding:
    """The one finding on a file whose tensors all have other names."""
    context = context_of(name, config)
    assert found(context, saved(context)) == []
    return one(context, {change(key): shape for key, shape in saved(context).items()})


@pytest.mark.parametrize("name", ["llama-tied", "mixtral", "bart", "llava", "plain"])
def test_nothing_is_found_in_what_peft_saves(name: str) -> None:
    model = peft_models.build(name)
    tried = 0
    for config in CONFIGS.values():
        context = context_of(name, config)
        if context.resolution.refusal is None:
            assert found(context, state_shapes(model, config)) == [], config
            tried += 1
    assert tried >= 14


def test_nothing_is_said_where_peft_refuses() -> None:
    context = context_of("llama", AdapterConfig(target_modules=("nope",)))
    assert found(context, {"x": (1,)}) == []
    assert dataclasses.replace(context, tensors=file_of({"x": (1,)})).comparison is None


# Names.


def test_no_prefix() -> None:
    finding = renamed(lambda key: key.removeprefix(PREFIX))
    assert (finding.code, finding.severity) == ("tensor-unexpected", "error")
    assert finding.message.startswith('12 of 12 tensors lack the prefix "base_model.model."')
    assert finding.where == "model.layers.{0-2}.self_attn.q_proj, model.layers.{0-2}.self_attn.v_proj"


def test_doubled_prefix() -> None:
    assert "2 times" in renamed(lambda key: PREFIX + key).message


def test_the_name_of_the_adapter_left_in() -> None:
    default = renamed(lambda key: key.replace(".weight", ".default.weight"))
    assert (default.code, default.severity) == ("tensor-unexpected", "warning")
    other = renamed(lambda key: key.replace(".weight", ".sales.weight"))
    assert (other.code, other.severity) == ("tensor-unexpected", "error")
    assert "'sales'" in other.message


def test_the_same_layers_in_another_class() -> None:
    finding = renamed(lambda key: key.replace("model.model.layers", "model.layers"))
    assert (
        'begin with "base_model.model." where those of this model begin with "base_model.model.model."'
        in finding.message
    )
    finding = renamed(lambda key: key.replace("model.layers", "language_model.model.layers"))
    assert '"base_model.model.language_model.model." where' in finding.message


@pytest.mark.parametrize(
    ("change", "program"),
    [
        (
            lambda key: key.removeprefix(PREFIX).replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b"),
            "mlx-lm",
        ),
        (
            lambda key: key.removeprefix(f"{PREFIX}model.").replace("lora_A", "lora_a").replace("lora_B", "lora_b"),
            "torchtune",
        ),
        (lambda key: key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"), "kohya"),
    ],
)
def test_names_of_other_programs(change: Callable[[str], str], program: str) -> None:
    finding = renamed(change)
    assert finding.code == "tensor-unexpected"
    assert program in finding.message


def test_modules_that_are_not_targeted_or_not_there() -> None:
    context = context_of("llama", QV)
    more = saved(context_of("llama", AdapterConfig(target_modules=("q_proj", "v_proj", "up_proj"))))
    finding = one(context, more)
    assert "6 of 18 tensors belong to modules that the configuration does not target" in finding.message
    assert finding.where == "base_model.model.model.layers.{0-2}.mlp.up_proj"
    finding = one(context, {**saved(context), f"{PREFIX}model.layers.0.self_attn.qkv.lora_A.weight": (8, 16)})
    assert "that LlamaForCausalLM does not have" in finding.message


def test_options_that_the_configuration_does_not_have() -> None:
    context = context_of("llama", QV)
    dora = saved(context_of("llama", AdapterConfig(target_modules=("q_proj", "v_proj"), use_dora=True)))
    assert "use_dora=false" in one(context, dora).message
    biased = saved(context_of("llama", AdapterConfig(target_modules=("q_proj", "v_proj"), lora_bias=True)))
    assert "lora_bias=false" in one(context, biased).message


def test_magnitudes_under_their_other_name() -> None:
    context = context_of("llama", AdapterConfig(target_modules=("q_proj",), use_dora=True))
    shapes = {f"{key}.weight" if key.endswith("vector") else key: shape for key, shape in saved(context).items()}
    assert any(key.endswith("vector.weight") for key in shapes)
    assert found(context, shapes) == []


def test_tensors_of_the_base_model() -> None:
    context = context_of("llama", QV)
    norm = f"{PREFIX}model.norm.weight"
    finding = one(context, {**saved(context), norm: (16,)})
    assert (finding.code, finding.severity) == ("tensor-unexpected", "warning")
    assert "overwrites" in finding.message
    assert "no part of a LoRA adapter" in one(context, {**saved(context), "step": (1,)}).message


def test_embeddings_saved_beside() -> None:
    """`save_embedding_layers=True`, with the vocabulary as it was and resized."""
    context = context_of("llama", QV)
    names = (f"{PREFIX}model.embed_tokens.weight", f"{PREFIX}lm_head.weight")
    assert found(context, saved(context) | dict.fromkeys(names, (64, 16))) == []
    finding = one(context, saved(context) | dict.fromkeys(names, (70, 16)))
    assert (finding.code, finding.where) == ("tensor-shape", "model.embed_tokens, lm_head")
    assert "resize_token_embeddings(70)" in finding.fix
    context = context_of("llama", AdapterConfig(target_modules=("q_proj", "embed_tokens", "lm_head")))
    resized = {key: tuple(70 if side == 64 else side for side in shape) for key, shape in saved(context).items()}
    assert "vocabulary of 70 tokens" in one(context, resized).message


def test_buffers_of_copied_modules_are_no_finding() -> None:
    context = context_of("llama", AdapterConfig(target_modules=("q_proj",), modules_to_save=("norm",)))
    assert found(context, {**saved(context), f"{PREFIX}model.norm.running_mean": (16,)}) == []


# Missing.


def test_missing_factors() -> None:
    context = context_of("llama", QV)
    without = {key: shape for key, shape in saved(context).items() if ".layers.0." not in key}
    finding = one(context, without)
    assert (finding.code, finding.severity) == ("tensor-missing", "error")
    assert finding.where == "model.layers.0.self_attn.q_proj, model.layers.0.self_attn.v_proj"
    assert finding.message.startswith("2 of 6 adapted weights have no B")
    no_a = {key: shape for key, shape in saved(context).items() if "lora_A" not in key}
    assert "draws A at random" in one(context, no_a).message
    nothing = one(context, {})
    assert nothing.message.startswith("6 of 6")


def test_missing_magnitudes_copies_and_biases() -> None:
    context = context_of("llama", AdapterConfig(target_modules=("q_proj",), use_dora=True))
    assert "magnitudes" in one(context, saved(context_of("llama", AdapterConfig(target_modules=("q_proj",))))).message
    context = context_of("llama-classifier", AdapterConfig(target_modules=("q_proj",), task_type="SEQ_CLS"))
    finding = one(context, {key: shape for key, shape in saved(context).items() if "score" not in key})
    assert (finding.where, finding.severity) == ("score", "error")
    assert "KeyError" in finding.message
    context = context_of("bert", AdapterConfig(target_modules=("query",), bias="lora_only"))
    finding = one(context, {key: shape for key, shape in saved(context).items() if not key.endswith("bias")})
    assert finding.severity == "warning"
    assert "before 0.21" in finding.message


# Shapes.


def test_another_rank() -> None:
    context = context_of("llama", QV)
    sixteen = saved(context_of("llama", AdapterConfig(target_modules=("q_proj", "v_proj"), r=16)))
    finding = one(context, sixteen)
    assert (finding.code, finding.severity) == ("tensor-rank", "error")
    assert finding.message.startswith("6 weights have rank 16 in the file and 8 in the configuration")
    assert finding.fix.startswith('Set "r": 16 in')
    some = {key: sixteen[key] if "v_proj" in key else shape for key, shape in saved(context).items()}
    assert 'Set rank_pattern in adapter_config.json: "v_proj": 16' in one(context, some).fix


def test_another_rank_of_experts() -> None:
    config = AdapterConfig(target_modules=(), target_parameters=("gate_up_proj",), r=4)
    context = context_of("gpt_oss", config)
    finding = one(
        context,
        saved(context_of("gpt_oss", AdapterConfig(target_modules=(), target_parameters=("gate_up_proj",), r=2))),
    )
    assert "rank 2 in the file and 4" in finding.message


def test_another_size() -> None:
    context = context_of("llama", QV, base_model_name_or_path="org/larger")
    larger = {
        key: (shape[0], 32) if "lora_A" in key else (2 * shape[0], shape[1]) for key, shape in saved(context).items()
    }
    finding = one(context, larger)
    assert (finding.code, finding.severity) == ("tensor-shape", "error")
    assert "q_proj.lora_A.weight [8, 32] where this model has [8, 16]" in finding.message
    assert "org/larger" in finding.fix
    assert [count_other_sizes(context, shapes) for shapes in (larger, saved(context))] == [12, 0]


def test_shards_that_were_not_gathered() -> None:
    context = context_of("llama", QV)
    finding = one(context, dict.fromkeys(saved(context), (0,)))
    assert "ZeRO-3" in finding.message


# Names of earlier releases.


def per_expert(shapes: Shapes, names: tuple[str, str, str], experts: int = 4) -> Shapes:
    """The factors of fused experts as PEFT had them while each expert was a module of its own."""
    result: Shapes = {}
    for key, (first, second) in shapes.items():
        stem, _, rest = key.partition(".experts.")
        if not rest:
            result[key] = (first, second)
            continue
        fused = rest.startswith("base_layer.")
        leaves, halves = (names[:2], 2) if fused else (names[2:], 1)
        factor = rest.removeprefix("base_layer.")
        shape = (
            (first // experts // halves, second)
            if "lora_A" in factor
            else (first // halves, second // experts // halves)
        )
        result |= {f"{stem}.experts.{expert}.{leaf}.{factor}": shape for expert in range(experts) for leaf in leaves}
    return result


@pytest.mark.parametrize(
    ("name", "leaves"), [("mixtral", ("w1", "w3", "w2")), ("qwen3_moe", ("gate_proj", "up_proj", "down_proj"))]
)
def test_single_experts_are_put_together(name: str, leaves: tuple[str, str, str]) -> None:
    context = context_of(name, AdapterConfig(target_modules=("q_proj", *leaves)))
    shapes = per_expert(saved(context), leaves)
    assert sum(".experts." in key for key in shapes) == 48
    finding = one(context, shapes)
    assert (finding.code, finding.severity) == ("tensor-unexpected", "note")
    old = {key.replace(".mlp.", ".block_sparse_moe."): shape for key, shape in shapes.items()}
    if name == "mixtral":
        assert [finding.severity for finding in found(context, old)] == ["note"]
    lacking = {key: shape for key, shape in shapes.items() if f".experts.2.{leaves[0]}." not in key}
    codes = [(finding.code, finding.severity) for finding in found(context, lacking)]
    assert ("tensor-missing", "error") in codes


def test_single_experts_without_a_down_projection_are_lost() -> None:
    """PEFT takes the gate and up projections for the inner of two wrappers, and here there is one."""
    context = context_of("mixtral", AdapterConfig(target_modules=("q_proj", "w1", "w3")))
    shapes = saved(context)
    inner = {key.replace(".experts.lora", ".experts.base_layer.lora"): shape for key, shape in shapes.items()}
    codes = {finding.code for finding in found(context, per_expert(inner, ("w1", "w3", "w2")))}
    assert codes >= {"tensor-missing", "tensor-unexpected"}


def test_names_of_a_vision_language_model_before_transformers_5() -> None:
    finding = renamed(
        lambda key: key.replace("model.model.language_model.", "model.language_model.model."),
        "llava",
        AdapterConfig(target_modules=r".*language_model.*q_proj"),
    )
    assert finding.severity == "note"
    # Of these PEFT knows no names: the model's class has a row in transformers' mapping, and its type has none.
    finding = renamed(
        lambda key: key.replace("model.model.language_model.", "model.model."),
        "qwen2_vl",
        AdapterConfig(target_modules=("q_proj",)),
    )
    assert finding.severity == "error"


def test_the_number_of_findings_does_not_grow_with_the_file() -> None:
    context = context_of("llama", QV)
    shapes = {f"{PREFIX}other.{number}.lora_A.weight": (8, 16) for number in range(3000)}
    assert len(found(context, shapes)) <= 3
    shapes = {f"{PREFIX}m{number}x.layers.0.self_attn.q_proj.lora_A.weight": (8, 16) for number in range(3000)}
    findings = found(context, shapes)
    assert len(findings) <= 10
    assert "2,992 of 3,000 tensors" in " ".join(finding.message for finding in findings)
