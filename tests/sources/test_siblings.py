"""Classes that stand in the same place under the same names, told apart by tensors, configuration and the whole's name."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from lorascope.sources.checkpoint import layout_table
from lorascope.sources.checkpoint.layout import ModelLayout
from tests.conformance.released import measure_config

SPEECH = {
    "model_type": "speecht5",
    "hidden_size": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
    "speech_decoder_prenet_units": 16,
    "speech_decoder_postnet_units": 16,
    "vocab_size": 50,
}


def detr(model_type: str) -> dict[str, Any]:
    """A detector of two layers on a ResNet of timm's, whose norms it freezes."""
    sizes = {
        f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in (("layers", 1), ("ffn_dim", 48))
    }
    return {"model_type": model_type, "d_model": 64, "backbone": "resnet50", "use_timm_backbone": True, **sizes}


@pytest.mark.parametrize(
    "name", ["SpeechT5ForTextToSpeech", "SpeechT5ForSpeechToText", "SpeechT5ForSpeechToSpeech", "SpeechT5Model"]
)
def test_prenets_are_those_of_the_task(name: str) -> None:
    found = measure_config({**SPEECH, "architectures": [name]})
    assert found["tensors"] > 60 or name == "SpeechT5Model"
    # The last layer of a postnet lacks the activation that the others have; neither has parameters.
    assert found["differ"] == (["modules"] if name.endswith("ToSpeech") else [])


@pytest.mark.parametrize(
    ("model_type", "name"),
    [("detr", "DetrForObjectDetection"), ("conditional_detr", "ConditionalDetrForObjectDetection")],
)
def test_frozen_norms_have_no_parameters(model_type: str, name: str) -> None:
    found = measure_config({**detr(model_type), "architectures": [name]})
    assert found["tensors"] > 130
    assert found["differ"] == []


def test_the_layers_are_those_of_the_decoder_that_is_there() -> None:
    config = transformers.PPFormulaNetConfig()
    assert config.text_config.num_hidden_layers == 12  # by the name of an encoder's
    assert config.text_config.decoder_layers == 8
    found = measure_config({**config.to_dict(), "architectures": ["PPFormulaNetForConditionalGeneration"]})
    assert found["differ"] == []


TABLE = """
transformers\t\t"0"
configs\tbird\t{"defaults":{"num_hidden_layers":2}}
classes\tBirdModel\t{"slots":{"norm":["Plain","Grouped"]},"required":[0],"deciding":{"norm":["kind","plain",\
{"plain":[0],"grouped":[1],"true":[1]}]},"model":{"model_type":"bird"}}
classes\tPlain\t{"parameters":["weight"]}
classes\tGrouped\t"Plain"
"""


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, "Plain"), ({"kind": "grouped"}, "Grouped"), ({"kind": True}, "Grouped"), ({"kind": "unknown"}, "Plain")],
)
def test_the_configuration_decides_between_classes_with_the_same_names(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(layout_table, "_text", lambda file="layouts.tsv": TABLE)
    layout_table.layout.cache_clear()
    layout_table._row.cache_clear()
    try:
        tree = ModelLayout("BirdModel", {"model_type": "bird", **config}).tree({"norm.weight": (4,)})
    finally:
        layout_table.layout.cache_clear()
        layout_table._row.cache_clear()
    assert [(module.name, module.class_name) for module in tree.modules] == [("norm", expected)]
    assert tree.unexplained == ()


def test_a_member_that_was_seen_empty_is_made_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable Cascade's second stage: `up_repeat_mappers.0` has no members in the first, and convolutions here."""
    row = '{"slots":{"mappers":"ModuleList","mappers.#":"ModuleList","mappers.#.#":"Plain","mappers.0":"ModuleList"},'
    table = TABLE.replace("classes\tPlain", f'classes\tFish\t{row}"model":{{"model_type":"fish"}}}}\nclasses\tPlain')
    monkeypatch.setattr(layout_table, "_text", lambda file="layouts.tsv": table)
    names = [f"mappers.{first}.{second}" for first in range(2) for second in range(2)]
    layout_table.layout.cache_clear()
    layout_table._row.cache_clear()
    try:
        tree = ModelLayout("Fish", {"model_type": "fish"}).tree({f"{name}.weight": (4,) for name in names})
    finally:
        layout_table.layout.cache_clear()
        layout_table._row.cache_clear()
    assert tree.unexplained == ()
    assert [module.name for module in tree.modules if module.class_name == "Plain"] == names
