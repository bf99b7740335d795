"""mlx-lm's YAML: written from plans, read back, and what its keys adapt under its own names of the layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.mlx_lm.names import as_mlx, mlx_types
from lorascope.trainers.mlx_lm.trainer import MLX_LM
from lorascope.trainers.protocol import Job, Outcome
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import MODELS, messages, walked


def asked(model: ModelMap, text: str) -> Outcome:
    """The outcome of a file, with the findings of its reading."""
    config = MLX_LM.read(text, "file.yaml")
    outcome = MLX_LM.resolve(model, config)
    return dataclasses.replace(outcome, findings=(*config.findings, *outcome.findings))


def keyed(*keys: str, layers: int = -1, **more: Any) -> str:
    """A file with such keys."""
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": list(keys)}
    return yaml.safe_dump({"num_layers": layers, "lora_parameters": parameters, **more})


def adapted(outcome: Outcome) -> list[str]:
    assert outcome.resolution.refusal is None, str(outcome.resolution.refusal)
    return [one.name for one in outcome.resolution.adapted]


def of_its_keys(text: str) -> None:
    data = yaml.safe_load(text)
    inner = {f"lora_parameters.{key}" for key in data["lora_parameters"]}
    assert data.keys() | inner <= known_keys("mlx_lm"), text


def test_plans_of_one_model_are_written_or_refused() -> None:
    assert walked(MLX_LM, MODELS[:1], of_its_keys) == (6, 2, 2)


@pytest.mark.slow
def test_plans_are_written_exactly_or_refused() -> None:
    assert walked(MLX_LM, MODELS, of_its_keys) == (65, 67, 23)


def test_a_written_file_says_what_it_is() -> None:
    made = plan(sample("llama"), "qv", dropout=0.0)
    text = MLX_LM.write(made, Job())
    data = yaml.safe_load(text)
    assert (data["model"], data["data"]) == ("YOUR/MODEL", "mlx-community/WikiSQL")
    assert (data["train"], data["fine_tune_type"], data["num_layers"]) == (True, "lora", -1)
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    assert data["lora_parameters"] == {"rank": 8, "scale": 2.0, "dropout": 0.0, "keys": keys}
    for said in ("mlx-lm 0.32.2: mlx_lm.lora --config", "4,194,304 trainable", "5.24.0", "Your model", "Your data"):
        assert said in text
    named = yaml.safe_load(MLX_LM.write(made, Job("org/model", "folder", "there")))
    assert (named["model"], named["data"], named["adapter_path"]) == ("org/model", "folder", "there")


def test_layers_are_counted_from_the_end_or_named() -> None:
    def written(*rules: str) -> tuple[int, list[str]]:
        data = yaml.safe_load(export(plan(sample("llama"), *rules), "mlx-lm"))
        return data["num_layers"], data["lora_parameters"]["keys"]

    assert written("attention.q[-2:]") == (2, ["self_attn.q_proj"])
    assert written("attention.q[0,5]") == (-1, ["model.layers.0.self_attn.q_proj", "model.layers.5.self_attn.q_proj"])
    # Keys beside the blocks count whatever num_layers is.
    assert written("attention.q[-2:]", "head") == (2, ["self_attn.q_proj", "lm_head"])
    both = written("attention.q[-1:]", "attention.v[0]")[1]
    assert both == ["model.layers.0.self_attn.v_proj", "model.layers.31.self_attn.q_proj"]


def test_names_are_those_of_mlx_lm() -> None:
    def keys(model: ModelMap, *rules: str) -> list[str]:
        data: dict[str, Any] = yaml.safe_load(export(plan(model, *rules, dropout=0.0), "mlx-lm"))
        return list(data["lora_parameters"]["keys"])

    assert keys(sample("gpt2"), "attention") == ["attn.c_attn", "attn.c_proj"]
    assert keys(sample("mixtral"), "ffn.down") == ["block_sparse_moe.switch_mlp.down_proj"]
    assert keys(sample("mamba2"), "mixer") == ["mixer.in_proj"]  # PEFT refuses the other
    # The language model of a VLM has its blocks elsewhere; the name within a block is the same.
    llava = sample("llava", "image-text-to-text")
    assert keys(llava, "attention.q") == ["self_attn.q_proj"]
    assert keys(llava, "attention.q[0]") == ["language_model.model.layers.0.self_attn.q_proj"]


def test_everything_unsupported_is_said_at_once() -> None:
    unsupported = messages(MLX_LM, plan(sample("qwen3_moe"), "attention.q=4/16", "ffn.expert=8", bias="all"))
    assert len(unsupported) == 4
    for part in ("into gate_proj and up_proj", "one rank; this plan has 4, 8", "this plan has 2, 4", 'bias="all"'):
        assert any(part in message for message in unsupported), unsupported
    dora = messages(MLX_LM, plan(sample("llama"), "embedding", "attention", dora=True))
    assert len(dora) == 1 and dora[0].startswith("mlx-lm's DoRA of an embedding")
    towers = messages(MLX_LM, plan(sample("llava", "image-text-to-text"), "vision.attention"))
    assert len(towers) == 1 and "each is in no module of mlx-lm's model" in towers[0]
    tied = messages(MLX_LM, plan(sample("gemma2"), "embedding"))
    assert len(tied) == 1 and "is mlx-lm's output layer too" in tied[0]
    (kind,) = messages(MLX_LM, plan(sample("llama", "sequence-classification"), "qv"))
    assert "mlx-lm does not train models with the head sequence-classification" in kind
    (unknown,) = messages(MLX_LM, plan(sample("bert"), "attention"))
    assert unknown == "mlx-lm 0.32.2 has no bert models, or its names for their modules are not known."


def test_a_type_that_is_not_known_is_refused_with_those_that_are() -> None:
    assert len(mlx_types()) == 85
    for wrong in (
        lambda: MLX_LM.write(plan(sample("t5"), "attention"), Job()),
        lambda: asked(sample("t5"), keyed("q")),
    ):
        with fails("mlx-lm 0.32.2 has no t5 models", "Known are 85 types: afmoe"):
            wrong()
    # mlx-lm has models under these names that are not transformers'.
    assert as_mlx(sample("minimax")) is None and as_mlx(dataclasses.replace(sample("llama"), model_type="x")) is None


def test_without_keys_everything_in_the_last_blocks_is_adapted() -> None:
    outcome = asked(sample("llama"), "train: true\n")
    assert len(adapted(outcome)) == 7 * 16 and outcome.resolution.adapted[0].rank == 8
    assert {one.scale for one in outcome.resolution.adapted} == {20.0}
    (finding,) = outcome.findings
    assert (finding.code, finding.severity) == ("default-targets", "note")
    assert "the last 16 of 32 blocks" in finding.message and "its default is 16" in finding.message
    every = asked(sample("qwen3_moe"), "num_layers: -1\n")
    assert any(name.endswith("mlp.gate.weight") for name in adapted(every))
    assert "all 24 blocks" in every.findings[0].message and "num_layers is not given" not in every.findings[0].message
    # Dense layers that come first have names of which the last blocks have none: nobody asked for those.
    assert not any(finding.code == "no-match" for finding in asked(sample("deepseek_v3"), "num_layers: 2\n").findings)
    assert adapted(asked(sample("llama"), "num_layers: 0\n")) == adapted(asked(sample("llama"), "num_layers: -1\n"))


def test_keys_are_exact_names_within_blocks_or_the_model() -> None:
    llama = sample("llama")
    assert len(adapted(asked(llama, keyed("self_attn.q_proj", layers=3)))) == 3
    assert adapted(asked(llama, keyed("model.layers.0.self_attn.q_proj", layers=1))) == [
        "model.layers.0.self_attn.q_proj"
    ]
    assert adapted(asked(llama, keyed("lm_head", layers=1))) == ["lm_head"]
    outcome = asked(llama, keyed("q_proj"))
    assert str(outcome.resolution.refusal) == "Nothing is adapted: no layer has the name 'q_proj'."
    assert outcome.resolution.refused_as("no-match")
    assert str(asked(llama, keyed()).resolution.refusal) == "Nothing is adapted: keys is empty."


def test_keys_that_match_nothing_are_findings() -> None:
    outcome = asked(sample("qwen3_moe"), keyed("self_attn.q_proj", "mlp.down_proj", "mlp.up_proj"))
    assert len(adapted(outcome)) == 24
    (finding,) = outcome.findings
    assert (finding.code, finding.severity, finding.where) == ("no-match", "error", "lora_parameters.keys")
    assert "under these keys: mlp.down_proj, mlp.up_proj." in finding.message and "switch_mlp" in finding.fix
    assert outcome.resolution.warnings[0].names == ("mlp.down_proj", "mlp.up_proj")
    # A name of the first blocks alone, with num_layers that leaves them out.
    late = asked(sample("deepseek_v3"), keyed("self_attn.o_proj", "mlp.gate_proj", layers=4))
    assert [one.code for one in late.findings] == ["no-match"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("self_attn",), "'self_attn' holds layers and is none itself"),
        (("model.layers.3.mlp", "lm_head"), "'model.layers.3.mlp' holds layers"),
        (("", "lm_head"), "'' holds layers"),
        (("self_attn.q_proj", "model.layers.3.self_attn.q_proj"), "q_proj is named twice, as self_attn.q_proj too"),
    ],
)
def test_where_mlx_lm_stops(keys: tuple[str, ...], said: str) -> None:
    outcome = asked(sample("llama"), keyed(*keys))
    assert said in str(outcome.resolution.refusal) and outcome.resolution.refused_as("refused")
    assert asked(sample("llama"), keyed("lm_head", "model.layers")).resolution.refusal is None  # a list is no module


def test_more_layers_than_there_are_stop_it() -> None:
    outcome = asked(sample("llama"), keyed("self_attn.q_proj", layers=33))
    assert str(outcome.resolution.refusal).startswith("num_layers is 33, and the model has 32 blocks")
    assert outcome.resolution.refused_as("layers-absent")


def test_experts_are_split_and_have_no_dora() -> None:
    gate, up = "mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj"
    outcome = asked(sample("qwen3_moe"), keyed(gate, up))
    assert len(adapted(outcome)) == 24 and outcome.findings[0].severity == "note"
    assert "gives each its own adapter (and 23 like it)" in outcome.findings[0].message
    one = outcome.resolution.adapted[0]
    weight = sample("qwen3_moe").weight_by_name[one.name]
    outer, inner = weight.shape[-2:]
    assert one.trainable == weight.experts * 4 * (2 * inner + outer)
    with fails("is one part of model.layers.0.mlp.experts.gate_up_proj", "Name all of them, or none"):
        asked(sample("qwen3_moe"), keyed(gate))
    stopped = asked(sample("qwen3_moe"), keyed(gate, up, fine_tune_type="dora")).resolution
    assert stopped.refused_as("dora") and "mlx-lm stops" in str(stopped.refusal)


def test_a_tied_embedding_is_adapted_beside_what_is_counted() -> None:
    tied = sample("gemma2")
    outcome = asked(tied, keyed("self_attn.q_proj", "model.embed_tokens"))
    assert "model.embed_tokens" not in adapted(outcome)
    assert [(one.code, one.severity) for one in outcome.findings] == [("tied", "warning")]
    assert "mlx-lm adapts model.embed_tokens" in outcome.findings[0].message
    with fails("its adapter would act there as well", "Nothing else is adapted"):
        asked(tied, keyed("model.embed_tokens"))
    # There is no module of the head's own: the name is passed over.
    assert [one.code for one in asked(tied, keyed("self_attn.q_proj", "lm_head")).findings] == ["no-match"]


def test_layers_of_mlx_lm_without_a_weight_of_the_map_are_said() -> None:
    dbrx = sample("dbrx")
    outcome = asked(dbrx, "num_layers: 2\n")
    assert any("and are not counted here: transformer.blocks.#.ffn.experts" in one.message for one in outcome.findings)
    with fails("not counted here", "Nothing else is adapted"):
        asked(dbrx, keyed("ffn.experts.0.w1"))


def test_what_trains_no_adapters_is_refused() -> None:
    full = asked(sample("llama"), "fine_tune_type: full\nlora_parameters: nothing\n").resolution
    assert full.refused_as("no-adapter")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("num_layer: 4", "unknown-key", "num_layer is an unknown key: mlx-lm ignores it silently"),
        (
            "lora_parameters: {rank: 8, scale: 2, dropout: 0, alpha: 16}",
            "unknown-key",
            "lora_parameters.alpha is an unknown key",
        ),
        ("trust_remote_code: true", "ignored-key", "does not read trust_remote_code from a file"),
        ("clear_cache_threshold: 3", "ignored-key", "does not read clear_cache_threshold"),
    ],
)
def test_findings_of_reading(text: str, code: str, said: str) -> None:
    (finding,) = MLX_LM.read(f"{text}\n", "file.yaml").findings
    assert (finding.code, finding.severity, finding.where) == (code, "warning", "file.yaml")
    assert said in finding.message


def test_numbers_with_an_exponent_are_numbers() -> None:
    """mlx-lm's own loader reads 1e1, which YAML 1.1 has for a text."""
    outcome = asked(sample("llama"), "num_layers: 1\nlora_parameters: {rank: 2, scale: 1e1, dropout: 1e-1}\n")
    assert outcome.resolution.adapted[0].scale == 10.0


def test_every_fault_is_said() -> None:
    text = "fine_tune_type: qlora\nnum_layers: '4'\nlora_parameters: {rank: 0, scale: x, dropout: 1, keys: [1]}\n"
    with fails(
        "fine_tune_type is 'qlora', not one of lora, dora, full",
        "num_layers is '4', not a whole number",
        "rank is 0, not a whole number above 0",
        "scale is 'x', not a number",
        "dropout is 1, not a number from 0 to below 1",
        "keys is [1], not a list of strings",
        "6 faults",
    ):
        MLX_LM.read(text, "file.yaml")
    with fails("has no rank and no dropout and no scale", "its scale is alpha / rank"):
        MLX_LM.read("lora_parameters: {alpha: 16}\n", "file.yaml")
    with fails("scale is None, not a number", "keys is 'self_attn.q_proj', not a list of strings"):
        MLX_LM.read("lora_parameters: {rank: 8, scale: null, dropout: 0, keys: self_attn.q_proj}\n", "file.yaml")
    with fails("lora_parameters is [], not keys with values"):
        MLX_LM.read("lora_parameters: []\n", "file.yaml")


@pytest.mark.parametrize(
    "text",
    ["", "- q", "rank: [", "\x00", "a: &a [*a]", "x: " + "[" * 5000, "iters: 4\niters: 8", "9" * 2_000_000],
    ids=["nothing", "a list", "cut", "no text", "a circle", "deep", "twice", "large"],
)
def test_hostile_files_are_faults(text: str) -> None:
    with pytest.raises(LorascopeError):
        MLX_LM.read(text, "file.yaml")


@pytest.mark.parametrize("key", ["rank", "scale", "dropout", "keys", "num_layers", "fine_tune_type", "lora_parameters"])
@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "9" * 400, ".inf", ".nan", "[[[]]]", "[]", "{a: {b: c}}", "2020-01-01", "!!binary aGk=", "1e999"],
)
def test_no_value_is_more_than_a_fault(key: str, value: str) -> None:
    inner = {"rank": "8", "scale": "2.0", "dropout": "0.0"}
    rest = "".join(f"  {name}: {inner[name]}\n" for name in inner if name != key)
    inside = key in (*inner, "keys")
    text = f"lora_parameters:\n{rest}  {key}: {value}\n" if inside else f"{key}: {value}\n"
    try:
        asked(sample("llama"), text)
    except LorascopeError as error:
        assert len(str(error)) < 1000
