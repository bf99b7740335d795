"""torchtune's files: what is written, what users write, and what each adapts."""

from __future__ import annotations

import itertools

import pytest
import yaml

from lorascope import plan
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.trainers.exports import export, nearest_plan
from lorascope.trainers.protocol import Job
from lorascope.trainers.torchtune.builders import BUILDERS, PLAIN, builders_for, sizes_of
from lorascope.trainers.torchtune.trainer import TORCHTUNE
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import messages

BUILT = ("llama", "mistral", "gemma", "gemma2", "phi3")
RULES = (
    ("attention=8",),
    ("attention.q,v=16",),
    ("attention.o",),
    ("attention,ffn=4",),
    ("attention,ffn,head=4",),
    ("ffn",),
    ("attention.q[0,1]",),
    ("attention.q=8", "attention.v=4"),
    ("attention,ffn.up",),
    ("embedding,attention",),
)
OPTIONS = ({"dropout": 0.05}, {"dora": True, "dropout": 0.0}, {"rslora": True}, {"bias": "all"}, {"alpha": 24.5})


def model_file(component: str, **arguments: object) -> str:
    return yaml.safe_dump({"model": {"_component_": f"torchtune.models.{component}", **arguments}})


def test_what_can_be_said_is_said_and_the_rest_is_told() -> None:
    exported = refused = nearby = 0
    for name, rules, options in itertools.product(BUILT, RULES, OPTIONS):
        made = plan(sample(name, "causal-lm"), *rules, **options)
        unsupported = messages(TORCHTUNE, made)
        if not unsupported:
            text = export(made, "torchtune")
            assert len(TORCHTUNE.resolve(made.model, TORCHTUNE.read(text, "f")).resolution.adapted) == len(made.targets)
            exported += 1
            continue
        assert all(message.endswith(".") for message in unsupported)
        refused += 1
        if name == "gemma2" and options == OPTIONS[0]:
            near = nearest_plan(made, TORCHTUNE)
            if near is not None:
                export(near[1], "torchtune")
                nearby += 1
    assert (exported, refused, nearby) == (73, 177, 4)


@pytest.mark.parametrize("name", ["mixtral", "gpt2", "qwen3_moe", "qwen2", "t5", "llava", "bert"])
def test_models_that_it_does_not_build_are_refused(name: str) -> None:
    made = plan(sample(name), "attention")
    with fails("torchtune ", "can run no plan close to this one"):
        export(made, "torchtune")
    assert nearest_plan(made, TORCHTUNE) is None


def test_a_size_that_there_is_not_is_told_with_those_that_there_are() -> None:
    (message,) = messages(TORCHTUNE, plan(sample("qwen2", "causal-lm"), "attention"))
    assert "of this size (32 layers of width 4096" in message
    assert "qwen2.lora_qwen2_0_5b" in message


def test_everything_is_told_at_once() -> None:
    made = plan(sample("gemma", "causal-lm"), "attention.q[0]=8", "ffn.up=4", "head=2", bias="all")
    unsupported = messages(TORCHTUNE, made)
    assert len(unsupported) == 6
    for part in ("1 of 28 weights", "the MLP's", "an output layer", "one rank", "one scale", "biases"):
        assert sum(part in message for message in unsupported) == 1, part


def test_the_written_file() -> None:
    text = TORCHTUNE.write(plan(sample("llama"), "attention,ffn=16", dora=True), Job("folder", "data.jsonl", "out"))
    data = yaml.safe_load(text)
    assert data["model"] == {
        "_component_": "torchtune.models.llama2.lora_llama2_7b",
        "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "lora_rank": 16,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "use_dora": True,
    }
    assert data["checkpointer"]["checkpoint_dir"] == "folder"
    assert data["dataset"]["data_files"] == "data.jsonl"
    assert data["output_dir"] == "out"
    assert "torchtune 0.6.1" in text.splitlines()[0]


def test_a_model_without_a_base_says_so() -> None:
    text = TORCHTUNE.write(plan(sample("llama"), "attention"), Job())
    assert "checkpoint_dir: YOUR/MODEL" in text
    assert "The folder of your model" in text


def test_rslora_is_said_by_the_alpha() -> None:
    made = plan(sample("llama"), "attention=8", alpha=16, rslora=True)
    text = export(made, "torchtune")
    assert yaml.safe_load(text)["model"]["lora_alpha"] == pytest.approx(16 * 8**0.5, rel=1e-12)
    assert "rsLoRA" in text


def test_a_function_for_all_sizes_is_read() -> None:
    asked = TORCHTUNE.read(
        model_file(
            "llama2.lora_llama2",
            lora_attn_modules=["q_proj"],
            vocab_size=32000,
            num_layers=32,
            num_heads=32,
            num_kv_heads=32,
            embed_dim=4096,
            intermediate_dim=11008,
            max_seq_len=2048,
            lora_rank=2,
            lora_alpha=6,
        ),
        "f",
    )
    done = TORCHTUNE.resolve(sample("llama"), asked).resolution
    assert (len(done.adapted), done.adapted[0].scale, done.trainable) == (32, 3, 32 * 2 * 8192)


def test_pieces_of_a_joined_weight_are_each_adapted() -> None:
    model = sample("phi3", "causal-lm")
    asked = TORCHTUNE.read(model_file("phi3.lora_phi3_mini", lora_attn_modules=["q_proj", "k_proj", "v_proj"]), "f")
    outcome = TORCHTUNE.resolve(model, asked)
    assert outcome.resolution.trainable == 32 * 8 * (3 * 3072 + 3 * 3072)
    assert [finding.code for finding in outcome.findings] == ["trainer-filter"]
    with fails("q_proj are a part of model.layers.0.self_attn.qkv_proj"):
        TORCHTUNE.resolve(model, TORCHTUNE.read(model_file("phi3.lora_phi3_mini", lora_attn_modules=["q_proj"]), "f"))


@pytest.mark.parametrize(
    ("name", "component", "arguments", "error"),
    [
        ("mistral", "llama2.lora_llama2_7b", {}, "builds a model of type llama, and this is a mistral"),
        ("llama", "llama2.lora_llama2_13b", {}, "builds 40 layers of width 5120"),
        ("llama", "llama2.lora_llama2_7b", {"lora_attn_modules": []}, "lora_attn_modules is empty"),
        ("llama", "llama2.lora_llama2_7b", {"lora_attn_modules": ["o_proj"]}, "Nothing is adapted"),
        ("llama", "llama2.lora_llama2_7b", {"lora_layers": 3}, "has no argument lora_layers: torchtune stops"),
        ("gemma", "gemma.lora_gemma_7b", {"apply_lora_to_output": True}, "has no argument apply_lora_to_output"),
        ("mixtral", "llama2.lora_llama2_7b", {}, "this is a mixtral"),
    ],
)
def test_what_torchtune_stops_at(name: str, component: str, arguments: dict[str, object], error: str) -> None:
    asked = TORCHTUNE.read(model_file(component, **{"lora_attn_modules": ["q_proj"], **arguments}), "f")
    done = TORCHTUNE.resolve(sample(name, "causal-lm"), asked).resolution
    assert error in str(done.refusal)
    assert not done.adapted


def test_quantized_functions_adapt_the_same() -> None:
    texts = [model_file(f"llama2.{q}lora_llama2_7b", lora_attn_modules=["v_proj"]) for q in ("", "q")]
    one, other = (TORCHTUNE.resolve(sample("llama"), TORCHTUNE.read(text, "f")).resolution for text in texts)
    assert one == other
    assert len(one.adapted) == 32


def test_what_reading_notices() -> None:
    text = (
        model_file("llama2.lora_llama2_7b", lora_attn_modules=["q_proj", "o_proj"], lora_ranks=3)
        + "lora_rank: 64\nbatch_size: 2\n"
    )
    found = TORCHTUNE.read(text, "f").findings
    assert [(one.code, one.severity) for one in found] == [
        ("unknown-key", "error"),
        ("ignored-key", "error"),
        ("no-match", "error"),
    ]
    assert "lora_rank" in found[0].fix


def test_every_fault_at_once() -> None:
    text = model_file(
        "llama2.lora_llama2_7b",
        lora_attn_modules="q_proj",
        lora_rank="8",
        lora_alpha=[1],
        lora_dropout=2,
        apply_lora_to_mlp="yes",
    )
    with pytest.raises(LorascopeError) as caught:
        TORCHTUNE.read(text, "f")
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "model: 3",
        "model: {_component_: 7}",
        "model: {_component_: os.system}",
        "model: {_component_: torchtune.models.llama2.lora_llama2_7b}",
        "model: {_component_: torchtune.models.llama2.lora_llama2_7b",
        "model: {_component_: torchtune.models.llama2.lora_llama2, lora_attn_modules: [q_proj]}",
        "model: {_component_: torchtune.models.llama2.lora_llama2_7b, lora_attn_modules: [[1]]}",
        "a: " + "[" * 5000,
        "x" * 2_000_000,
    ],
)
def test_what_is_no_such_file(text: str) -> None:
    with pytest.raises(LorascopeError):
        TORCHTUNE.read(text, "f")


def test_functions_are_each_there_once_and_found_by_their_sizes() -> None:
    assert len({one.path for one in BUILDERS}) == len(BUILDERS) == 37
    assert len(PLAIN) == 9
    found = {name: [one.path for one in builders_for(sample(name, "causal-lm"))] for name in BUILT}
    assert found == {
        "llama": ["llama2.lora_llama2_7b"],
        "mistral": ["mistral.lora_mistral_7b"],
        "gemma": ["gemma.lora_gemma_7b"],
        "gemma2": ["gemma2.lora_gemma2_2b"],
        "phi3": ["phi3.lora_phi3_mini"],
    }


@pytest.mark.parametrize("name", ["mixtral", "gpt2", "mamba", "deepseek_v3"])
def test_what_is_no_plain_decoder_has_no_sizes(name: str) -> None:
    model: ModelMap = sample(name, "causal-lm")
    assert sizes_of(model) is None
