"""The table of layouts gives back the module tree of every recorded map from nothing but its parameters."""

from __future__ import annotations

import dataclasses
import json

import pytest
from build_layouts import LAYOUTS

from lorascope.model.types import ModelMap, Module
from lorascope.sources.builtin import builtin_models
from lorascope.sources.checkpoint.layout import ModelLayout
from lorascope.sources.checkpoint.layout_table import class_for, layout, layouts_version, setting, text_config
from tests.helpers.samples import sample

MAPS = [(model_type, head) for model_type, heads in builtin_models().items() for head in heads]
# Modules without parameters of which neither names nor shapes tell whether they are there, by model type.
UNTOLD = {"llama4": ".self_attn.qk_norm", "llama4_text": ".self_attn.qk_norm"}
# And modules without parameters that are there, of which nothing tells.
UNSEEN = dict.fromkeys(
    ("inkling2", "inkling2_text", "inkling2_loop", "inkling2_loop_text"), (".norm.l2_clip", ".norm.log_scale")
)
# How many modules have a class, groups or a computed weight that are in neither names nor shapes: convolutions of timm's
# towers, clips with and without a scale; and routers that differ in a buffer, which checkpoints hold and maps do not.
UNTOLD_CLASSES = {"deepseek_v4": 40, "fast_vlm": 48, "gemma3n": 114, "ovis2": 1, "apertus1p5": 1}
UNTOLD_CLASSES |= {"inkling2": 16, "inkling2_text": 16, "inkling2_loop": 8, "inkling2_loop_text": 8}
# What the recorded maps' configurations have beside their type, where the default could not be built.
COMPLETED = {"aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}}}


def shapes_of(model: ModelMap) -> dict[str, tuple[int, ...]]:
    return {
        **dict(model.root_parameters),
        **{f"{module.name}.{name}": shape for module in model.modules for name, shape in module.parameters},
    }


def comparable(modules: tuple[Module, ...]) -> dict[str, Module]:
    """By name, without the classes of modules that have no parameters: which activation it is, the names do not say."""
    return {m.name: m if m.parameters else dataclasses.replace(m, class_name="") for m in modules}


def test_every_recorded_map_is_here() -> None:
    assert len(MAPS) == 507


@pytest.mark.parametrize(("model_type", "head"), MAPS, ids=lambda value: value)
def test_a_tree_is_read_from_its_parameters(model_type: str, head: str) -> None:
    model = sample(model_type, head)
    whole = ModelLayout(model.architecture, {"model_type": model.model_type} | COMPLETED.get(model_type, {}))
    shapes = shapes_of(model)
    assert [name for name in shapes if not whole.knows(name)] == []
    tree = whole.tree(shapes)
    assert (tree.missing, tree.unexplained, tree.buffers) == ((), (), ())
    assert tree.parameters == model.root_parameters
    ours, theirs = comparable(tree.modules), comparable(model.modules)
    odd = {name for name in ours if name.endswith(UNTOLD.get(model_type, "."))} - theirs.keys()
    assert bool(odd) == (model_type in UNTOLD)
    unseen = {name for name in theirs if name.endswith(UNSEEN.get(model_type, ("..",)))} - ours.keys()
    assert bool(unseen) == (model_type in UNSEEN)
    assert [name for name in ours if name not in odd] == [name for name in theirs if name not in unseen]
    different = [name for name in theirs if name not in unseen and ours[name] != theirs[name]]
    assert len(different) == UNTOLD_CLASSES.get(model_type, 0)
    for name in different:
        same = {field: getattr(theirs[name], field) for field in ("class_name", "groups", "computed", "traits")}
        assert dataclasses.replace(ours[name], **same) == theirs[name]


def test_a_name_that_the_model_does_not_have() -> None:
    whole = ModelLayout("LlamaForCausalLM", {"model_type": "llama", "num_hidden_layers": 4})
    known = "model.layers.3.mlp.up_proj.weight"
    assert whole.knows(known)
    for name in ("model.layers.4.mlp.up_proj.weight", "layers.3.mlp.up_proj.weight", f"{known}.weight", "model", ""):
        assert not whole.knows(name)


def test_what_is_missing_and_what_is_too_much() -> None:
    model = sample("llama")
    whole = ModelLayout("LlamaForCausalLM", {"model_type": "llama"})
    shapes = shapes_of(model)
    del shapes["model.layers.7.mlp.up_proj.weight"]
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("model.layers.9.")}
    shapes["model.layers.3.self_attn.sinks"] = (32,)
    tree = whole.tree(shapes)
    assert sorted(tree.missing) == ["model.layers.7.mlp.up_proj.*", "model.layers.9.*"]
    assert tree.unexplained == ("model.layers.3.self_attn.sinks",)


def test_one_layout_reads_any_number_of_trees() -> None:
    model = sample("zamba")
    whole = ModelLayout(model.architecture, {"model_type": "zamba"})
    shapes = shapes_of(model)
    without = {name: shape for name, shape in shapes.items() if ".shared_transf." not in name}
    for _ in range(20):  # what one leaves behind must not show in the next
        assert len(whole.tree(without).missing) == 13
        tree = whole.tree(shapes)
        assert (tree.missing, tree.unexplained) == ((), ())
        assert len(tree.modules) == len(model.modules)


def test_a_count_that_no_machine_could_list_is_not_listed() -> None:
    whole = ModelLayout("LlamaForCausalLM", {"model_type": "llama", "num_hidden_layers": 10**9})
    tree = whole.tree(
        {"model.layers.0.mlp.up_proj.weight": (4, 4), "model.layers.999999999.mlp.up_proj.weight": (4, 4)}
    )
    assert "model.layers.* (1000000000 of them)" in tree.missing
    assert len(tree.missing) < 100


def test_the_configuration_chooses_the_parts_of_a_composed_model() -> None:
    config = {
        "model_type": "llava",
        "text_config": {"model_type": "qwen2", "num_hidden_layers": 2},
        "vision_config": {"model_type": "siglip_vision_model"},
    }
    parts = {part.path: layout(part.key) for part in ModelLayout("LlavaForConditionalGeneration", config).parts}
    names = {path: row.name for path, row in parts.items() if row is not None}
    assert names["model.language_model"] == "Qwen2Model"
    assert names["model.vision_tower"] == "SiglipVisionModel"


def test_settings_by_any_of_their_names_and_by_default() -> None:
    assert setting({"model_type": "gpt2", "n_embd": 8}, "hidden_size") == 8
    assert setting({"model_type": "gpt2"}, "n_embd") == 768
    assert setting({"model_type": "nobody"}, "hidden_size") is None
    assert setting({"model_type": "longcat_flash", "num_layers": 3}, "num_hidden_layers") == 6
    assert text_config({"model_type": "llava"})["model_type"] == "llama"
    assert text_config({"model_type": "llama", "hidden_size": 3}) == {"model_type": "llama", "hidden_size": 3}


def test_no_setting_follows_itself() -> None:
    rows = [
        line.split("\t") for line in LAYOUTS.read_text(encoding="utf-8").splitlines() if line.startswith("configs\t")
    ]
    computed = [(key, name) for _, key, text in rows for name in json.loads(text).get("computed", {})]
    assert len(rows) > 500
    assert len(computed) > 60
    assert all(type(setting({"model_type": key}, name)) in (int, type(None)) for key, name in computed)


@pytest.mark.parametrize("key", ["", "nobody", "Llama\tModel", "LlamaModel\t{}\nclasses\tLlamaModel", "\x1b[2J"])
def test_no_text_breaks_the_table(key: str) -> None:
    assert layout(key) is None
    assert class_for(key, "causal-lm") == class_for("llama", key) == ""
    assert setting({"model_type": key}, "hidden_size") is None


def test_the_table_is_of_the_release_that_the_tests_run_with() -> None:
    import transformers

    assert layouts_version() == transformers.__version__, "stale: run python tools/build_layouts.py"


def test_every_class_has_a_layout_also_those_built_alike() -> None:
    rows = [
        line.split("\t") for line in LAYOUTS.read_text(encoding="utf-8").splitlines() if line.startswith("classes\t")
    ]
    shared = [key for _, key, row in rows if row.startswith('"')]
    assert (len(rows), len(shared)) == (6766, 2290)
    assert all(layout(key) is not None for _, key, _ in rows)
    for key in shared[:200]:
        own = layout(key)
        assert own is not None
        assert own.name == key.partition("~")[0]
