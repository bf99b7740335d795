"""Class names that transformers does not have, or not for this configuration, read as the Auto classes read them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.sources.checkpoint.layout_table import class_name
from lorascope.sources.checkpoint.root_class import root_class
from lorascope.sources.transformers.model_classes import HEAD_MAPPINGS, chosen_class, class_note

COUNTS = {
    "image-text-to-text": 116,
    "seq2seq-lm": 40,
    "masked-lm": 51,
    "causal-lm": 219,
    "sequence-classification": 132,
}


def listed(head: str) -> dict[str, list[str]]:
    found = getattr(modeling_auto, HEAD_MAPPINGS[head]).items()  # type: ignore[index]
    return {model_type: [names] if isinstance(names, str) else list(names) for model_type, names in found}


@pytest.mark.parametrize("head", HEAD_MAPPINGS)
def test_another_spelling_is_the_class_itself(head: str) -> None:
    """`MPTForCausalLM` and `KimiK25ForConditionalGeneration` for `MptForCausalLM` and `Kimi_K25For…`."""
    other = 0
    for model_type, names in listed(head).items():
        spellings = {names[0].upper(), names[0].replace("_", ""), names[0].replace("Moe", "MoE")} - {names[0]}
        for spelling in spellings:
            config = SimpleNamespace(model_type=model_type, architectures=[spelling])
            assert chosen_class(config, None)[0] == names[0]
            other += 1
    assert other == COUNTS[head]


def test_another_name_for_the_same_purpose() -> None:
    """`StableLMEpochForCausalLM` of a type that transformers has; the preferred class is not taken for what it is not."""
    cases = {
        ("stablelm", "StableLMEpochForCausalLM"): "StableLmForCausalLM",
        ("phimoe", "PhiMoEForCausalLM"): "PhimoeForCausalLM",
        ("wav2vec2", "Model"): "Wav2Vec2Model",
        ("bert", "MyForSequenceClassification"): "BertForSequenceClassification",
        ("bert", "MyForTokenClassification"): "BertForTokenClassification",
        ("gpt2", "OtherLMHeadModel"): "GPT2LMHeadModel",
    }
    for (model_type, named), architecture in cases.items():
        config = SimpleNamespace(model_type=model_type, architectures=[named])
        assert chosen_class(config, None)[0] == architecture
        note = class_note(config, architecture)
        assert note == (
            f'the configuration names the class "{named}", which transformers does not have: read as {architecture}'
        )


@pytest.mark.parametrize(
    ("model_type", "named"),
    [("llava", "LlavaLlamaForCausalLM"), ("llama", "FooBar"), ("llama", "AutoModel"), ("step3p7", "FlashForCausalLM")],
)
def test_a_class_for_something_else_is_refused(model_type: str, named: str) -> None:
    """Of the original LLaVA's flat configuration, transformers' own class would take nothing but defaults."""
    with pytest.raises(LorascopeError, match=f'has no model class "{named}"; for model type "{model_type}" it has'):
        chosen_class(SimpleNamespace(model_type=model_type, architectures=[named]), None)


def test_a_text_configuration_under_the_class_of_the_whole() -> None:
    """Read as the type's own class, as AutoModelForCausalLM does."""
    counted = 0
    for model_type, names in listed("image-text-to-text").items():
        whole = getattr(transformers, CONFIG_MAPPING_NAMES[model_type])
        text: Any = (whole.sub_configs or {}).get("text_config")
        own = listed("causal-lm").get(getattr(text, "model_type", ""))
        if own is None or model_type == text.model_type:
            continue
        try:
            config = text(architectures=[names[0]])
        except Exception:  # some have no defaults
            continue
        architecture, head = chosen_class(config, None)
        assert (architecture, head) == (own[0], "causal-lm")
        assert f"has more parts than a {text.model_type} configuration: read as {own[0]}" in class_note(
            config, architecture
        )
        counted += 1
    assert counted == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "architecture", "head"),
    [
        ({"model_type": "siglip_vision_model", "num_hidden_layers": 2}, "SiglipVisionModel", "unknown"),
        ({"model_type": "vit", "num_hidden_layers": 2}, "ViTModel", "unknown"),
        ({"architectures": ["BertModel"], "num_hidden_layers": 2}, "BertModel", "unknown"),
        ({"model_type": "mpt", "architectures": ["MPTForCausalLM"], "n_layers": 2}, "MptForCausalLM", "causal-lm"),
    ],
)
def test_configurations_that_headers_read_too(
    tmp_path: Path, config: dict[str, Any], architecture: str, head: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = ls.inspect(tmp_path, read="config")
    assert (model.architecture, model.head) == (architecture, head)
    assert model.weights


@pytest.mark.parametrize(
    ("config", "fault", "hint"),
    [
        (
            {"architectures": ["CogVLMForCausalLM"], "auto_map": {"AutoModel": "modeling_cogvlm.CogVLMForCausalLM"}},
            "CogVLMForCausalLM without a model_type needs code that comes with the model (auto_map), which is not run",
            "--trust-remote-code",
        ),
        (
            {"architectures": ["MineForCausalLM"]},
            "MineForCausalLM without a model_type is none that transformers",
            "newer transformers",
        ),
        (
            {"model_type": "deepseek_ref", "architectures": ["DeepseekV4ForCausalLM"]},
            'model_type "deepseek_ref" is none that transformers',
            'Its class DeepseekV4ForCausalLM has model_type "deepseek_v4" in transformers',
        ),
        (
            {
                "model_type": "florence2",
                "auto_map": {"AutoModel": "modeling_florence2.Florence2ForConditionalGeneration"},
                "text_config": {"model_type": "florence2_language"},
            },
            "the configuration cannot be read",
            "It comes with code of its own (auto_map)",
        ),
    ],
)
def test_what_no_code_is_at_hand_for(tmp_path: Path, config: dict[str, Any], fault: str, hint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(LorascopeError) as caught:
        ls.inspect(tmp_path, read="config")
    assert fault in str(caught.value)
    assert hint in caught.value.hint


def test_headers_and_code_take_the_same_class_where_none_is_named() -> None:
    """Of every model type of transformers; the table lacks the few classes that their default configuration cannot build."""
    lacking = []
    for model_type in CONFIG_MAPPING_NAMES:
        by_headers = class_name(root_class({"model_type": model_type}, ""))
        try:
            by_code, _ = chosen_class(SimpleNamespace(model_type=model_type, architectures=None), None)
        except LorascopeError:
            by_code = ""
        if by_headers != by_code:
            assert not by_headers
            lacking.append(model_type)
    assert len(CONFIG_MAPPING_NAMES) == 822
    assert len(lacking) <= 8


def test_a_class_that_cannot_be_imported_is_still_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        __version__ = transformers.__version__

        def __getattr__(self, name: str) -> Any:
            raise ModuleNotFoundError(f"Could not import module '{name}'")

    config = SimpleNamespace(model_type="llama", architectures=["LlamaForCausalLM"])
    monkeypatch.setitem(sys.modules, "transformers", Broken())  # type: ignore[arg-type]
    assert chosen_class(config, None) == ("LlamaForCausalLM", "causal-lm")
    assert class_note(config, "LlamaForCausalLM") == ""
