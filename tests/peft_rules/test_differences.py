"""Where releases of PEFT read one configuration differently: each of the real causes, and what the sentence says.

What each release does is compared with the release itself in `test_parity`; here are the differences between them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lorascope.errors import LorascopeError
from lorascope.model.types import Dimensions, ModelMap, Module
from lorascope.names import unfold
from lorascope.peft_rules.differences import COMPARED, read_differently
from lorascope.peft_rules.releases import OLDEST, release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from tests.helpers import peft_models

BEFORE_21 = ("0.18.1", "0.19.1", "0.20.0")
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def told(model: str | ModelMap, peft: str = "0.21.2", **config: Any) -> dict[tuple[str, ...], str]:
    """Releases to sentence."""
    one = peft_models.mapped(model) if isinstance(model, str) else model
    return {found.releases: str(found) for found in read_differently(one, AdapterConfig(**config), peft)}


@pytest.mark.parametrize("peft", COMPARED)
@pytest.mark.parametrize("model", ["llama", "gpt2", "bert", "gpt_oss", "llava", "t5"])
def test_usual_lists_are_read_alike(model: str, peft: str) -> None:
    for targets in ("all-linear", SEVEN, ("q", "v", "c_attn", "query")):
        assert told(model, peft, target_modules=targets) == {}


def test_a_layers_pattern_on_a_bare_backbone() -> None:
    config = {"target_modules": ("q_proj",), "layers_to_transform": (1,), "layers_pattern": "layers"}
    assert told("llama", **config) == {}
    (sentence,) = told("llama-bare", **config).values()
    assert sentence == (
        "PEFT 0.18.1 to 0.20.0 refuse it: Nothing is adapted: target_modules=['q_proj'] match nothing that is not "
        "excluded. PEFT before 0.21 does not find a layers_pattern at the very start of a name."
    )
    assert told("llama-bare", "0.20.0", **config) == {
        ("0.21.2",): "PEFT 0.21.2 takes it and adapts 1 weight: layers.1.self_attn.q_proj."
    }


def test_layer_0_alone_with_a_pattern() -> None:
    config = {"target_modules": ("q_proj",), "layers_to_transform": 0, "layers_pattern": "layers"}
    assert told("llama", **config) == {
        BEFORE_21: "PEFT 0.18.1 to 0.20.0 refuse it: layers_pattern needs layers_to_transform."
    }
    assert told("llama", **{**config, "layers_to_transform": 1}) == {}


def test_a_group_in_a_layers_pattern() -> None:
    found = told("llama", target_modules=("q_proj",), layers_to_transform=(1,), layers_pattern="(layers|h)")
    assert list(found) == [BEFORE_21]
    assert "yields 'layers', no layer" in found[BEFORE_21]


def test_a_string_on_rewritten_experts() -> None:
    found = told("qwen3_moe", target_modules="all-linear")
    assert list(found) == [("0.18.1",), ("0.19.1",)]
    assert found["0.18.1",] == (
        "PEFT 0.18.1 adapts 15 weights, not 18: model.layers.{1-2}.mlp.experts.down_proj, "
        "model.layers.{1-2}.mlp.experts.gate_up_proj, model.layers.{1-2}.mlp.gate.weight are not adapted; "
        "model.layers.0.mlp.down_proj, model.layers.0.mlp.gate_proj, model.layers.0.mlp.up_proj are adapted as well."
    )
    assert found["0.19.1",].startswith("PEFT 0.19.1 refuses it: ")
    assert told("qwen3_moe", "0.19.1", target_modules="all-linear").keys() == {("0.18.1",), ("0.20.0", "0.21.2")}


def test_a_string_that_loses_its_layers() -> None:
    found = told("qwen3_moe", "0.18.1", target_modules=r".*layers\.1\.self_attn\.q_proj")
    assert list(found) == [("0.19.1",), ("0.20.0", "0.21.2")]
    assert found["0.20.0", "0.21.2"] == (
        "PEFT 0.20.0 and 0.21.2 adapt 3 weights, not 1: model.layers.{0,2}.self_attn.q_proj are adapted as well."
    )


def test_old_names_of_fused_experts() -> None:
    found = told("mixtral", target_modules=("w1", "w3"))
    assert list(found) == [("0.18.1",)]
    assert found["0.18.1",].startswith("PEFT 0.18.1 refuses it: Nothing is adapted: target_modules=['w1', 'w3']")


def test_names_alone_when_it_is_all_or_none() -> None:
    """The weights that differ come with the sentence, unfolded."""
    config = AdapterConfig(target_modules=r".*layers\.1\.self_attn\.q_proj")
    model = peft_models.mapped("qwen3_moe")
    (refusing, widened) = read_differently(model, config, "0.18.1")
    assert refusing.names == ()
    assert list(widened.names) == unfold("model.layers.{0,2}.self_attn.q_proj")
    with pytest.raises(dataclasses.FrozenInstanceError):
        widened.message = ""  # type: ignore[misc]


def test_a_rank_that_the_rewrite_doubles() -> None:
    """Both releases adapt the parameter, at other sizes: named as such in 0.18, by the rewrite later."""
    config = AdapterConfig(target_modules=("w1", "w3", "w2", "q_proj"), target_parameters=("gate_up_proj",), r=4)
    sizes, factors = read_differently(peft_models.mapped("mixtral"), config, "0.21.2")
    assert "swaps the shapes" in str(factors)
    assert str(sizes) == (
        "PEFT 0.18.1 adapts 4 weights, not 6: model.layers.{0-1}.mlp.experts.down_proj are not adapted; "
        "model.layers.{0-1}.mlp.experts.gate_up_proj have rank 4, not 8 and alpha 8, not 16."
    )


def test_factors_of_fused_experts() -> None:
    """What 0.18.1 saves for Mixtral's experts does not load in 0.21.2, nor the other way round: sizes mismatch."""
    config = {"target_modules": ("q_proj",), "target_parameters": ("experts.down_proj",)}
    names = "model.layers.{0-1}.mlp.experts.down_proj"
    (found,) = read_differently(peft_models.mapped("mixtral"), AdapterConfig(**config), "0.21.2")
    assert str(found) == (
        f"PEFT 0.18.1 swaps the shapes of the two factors of {names}: an adapter saved by the one does not fit the other."
    )
    assert list(found.names) == unfold(names)
    assert told("mixtral", "0.18.0", **config) == {
        ("0.19.1", "0.20.0", "0.21.2"): str(found).replace("0.18.1 swaps", "0.19.1 to 0.21.2 swap")
    }
    assert told("gpt_oss", **config) == {}  # which stores (experts, in, out)
    assert told("mixtral", target_modules=("q_proj",), target_parameters=("mlp.gate.weight",)) == {}


def test_the_default_of_gemma4_and_of_nemotron_h() -> None:
    names = ("model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.0.mixer.o_proj")
    modules = tuple(Module(name, "Linear", "linear", (("weight", (4, 4)),)) for name in names)
    for model_type, releases in (("gemma4", ("0.18.1",)), ("nemotron_h", ("0.18.1", "0.19.1"))):
        model = ModelMap(model_type, model_type, "Model", "causal-lm", "test", {}, Dimensions(), modules, ())
        found = told(model)
        assert list(found) == [releases]
        assert f'no default for model type "{model_type}"' in found[releases]
    assert found["0.18.1", "0.19.1"].startswith("PEFT 0.18.1 and 0.19.1 refuse it: ")


def test_the_last_number_of_unfused_experts() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.w1" for layer in range(2) for expert in range(3)]
    modules = tuple(Module(name, "Linear", "linear", (("weight", (4, 4)),)) for name in names)
    model = ModelMap("unfused", "unfused", "Model", "causal-lm", "test", {}, Dimensions(), modules, ())
    found = told(model, target_modules=("w1",), layers_to_transform=(1,))
    assert found == {
        ("0.18.1", "0.19.1"): "PEFT 0.18.1 and 0.19.1 adapt 2 weights, not 3: "
        "model.layers.1.mlp.experts.{0,2}.w1 are not adapted; model.layers.0.mlp.experts.1.w1 is adapted as well."
    }


def test_biases_beside_the_same_weights() -> None:
    found = told("gpt_oss", target_modules=("q_proj",), bias="all")
    assert list(found) == [BEFORE_21]
    trained = [resolve(peft_models.mapped("gpt_oss"), AdapterConfig(target_modules=("q_proj",), bias="all"), peft).trainable
               for peft in ("0.20.0", "0.21.2")]  # fmt: skip
    assert found[BEFORE_21] == (
        f"PEFT 0.18.1 to 0.20.0 train {trained[0]:,} parameters, not {trained[1]:,}, for the same adapted weights."
    )
    assert trained[0] > trained[1] > 0


def test_a_task_type_without_a_wrapper_is_told_elsewhere() -> None:
    config = AdapterConfig(target_modules=("q",), task_type="SEQ_2_SEQ_LM")
    assert resolve(peft_models.mapped("t5"), config, "0.20.0").refused_as("task-type")
    for peft in COMPARED:
        assert told("t5", peft, target_modules=("q",), task_type="SEQ_2_SEQ_LM") == {}
        # What else differs is said.
        layers = {"layers_to_transform": 0, "layers_pattern": "block"}
        assert len(told("t5", peft, target_modules=("q",), task_type="SEQ_2_SEQ_LM", **layers)) == 1


def test_different_reasons_to_refuse_are_no_difference() -> None:
    assert resolve(peft_models.mapped("qwen3_moe"), AdapterConfig(), "0.18.1").refusal is not None
    assert resolve(peft_models.mapped("qwen3_moe"), AdapterConfig(), "0.21.2").refusal is not None
    assert told("qwen3_moe") == {}


def test_another_release_of_the_same_minor_version() -> None:
    config = {"target_modules": ("q_proj",), "layers_to_transform": 0, "layers_pattern": "layers"}
    assert told("llama", "0.18.0", **config) == {
        ("0.21.2",): "PEFT 0.21.2 takes it and adapts 1 weight: model.layers.0.self_attn.q_proj."
    }
    assert told("llama", "0.21.0", **config).keys() == {BEFORE_21}


def test_braces_in_a_name_are_left_alone() -> None:
    layers = {"layers_to_transform": (1,), "layers_pattern": "layers"}
    (found,) = told("llama-bare", target_modules=("q_proj", "{take}"), **layers).values()
    assert "target_modules=['q_proj', '{take}']" in found


def test_the_name_that_stands_for_nothing() -> None:
    found = told("qwen3_moe", "0.19.1", target_modules="dummy-target-modules")
    assert found == {("0.18.1", "0.20.0", "0.21.2"): "PEFT 0.18.1, 0.20.0 and 0.21.2 take it and adapt nothing."}


def test_an_unknown_release() -> None:
    with pytest.raises(LorascopeError, match=r"start at 0\.18"):
        read_differently(peft_models.mapped("llama"), AdapterConfig(), "0.17.0")


def test_every_minor_version_is_compared() -> None:
    assert [release_of(release)[:2] for release in COMPARED] == [(0, minor) for minor in range(18, 22)]
    assert release_of(COMPARED[0])[:2] == OLDEST
