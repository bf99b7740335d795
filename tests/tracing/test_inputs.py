"""Calls that run every part of a model: run on small real models, with transformers' own code as the judge."""

from __future__ import annotations

import collections
from typing import Any

import architectures
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorascope.names import template
from lorascope.tracing.calls.inputs import Call, model_calls
from tests.helpers.runnable_models import runnable

ENTRIES = {f"{entry.head}/{entry.label}": entry for entry in (*architectures.entries(), *architectures.layouts())}


class _Touched(TorchDispatchMode):
    """Which parameters any operation was given, as storages."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                self.storages.add(value.untyped_storage()._cdata)
        return func(*args, **(kwargs or {}))


def _run(model: Any, planned: tuple[Call, ...]) -> tuple[dict[str, str], dict[str, int]]:
    """What failed, by method, and how many parameters of two or more dimensions no call touched, by template."""
    touched = _Touched()
    failed = {}
    for call in planned:
        function = model
        for part in call.method.split("."):
            function = getattr(function, part)
        try:
            with torch.no_grad(), touched:
                function(**call.arguments)
        except Exception as error:
            failed[call.method] = f"{type(error).__name__}: {error}"
    missed = collections.Counter(
        template(name)
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and parameter.untyped_storage()._cdata not in touched.storages
    )
    return failed, dict(missed)


# A model for every kind of call, with the parameters that nothing can touch.
SAMPLE: dict[str, dict[str, int]] = {
    "causal-lm/llama": {},
    "causal-lm/gpt2+cross": {},
    "causal-lm/mamba": {},
    "causal-lm/blt": {},
    "causal-lm/fuyu": {},
    "causal-lm/gemma4_unified_assistant": {},
    "causal-lm/git": {},
    "causal-lm/mllama": {},
    "causal-lm/musicgen": {},
    "causal-lm/phi4_multimodal": {},
    "causal-lm/whisper": {},
    "causal-lm/xlnet": {"transformer.mask_emb": 1},  # of the second stream, that predicts permuted words
    "causal-lm/xmod": {},
    "seq2seq-lm/bart": {},
    "seq2seq-lm/granite_speech": {},
    "seq2seq-lm/musicflamingo": {},
    "seq2seq-lm/qwen2_audio": {},
    "seq2seq-lm/vibevoice_asr": {},
    "seq2seq-lm/voxtral_realtime": {},
    "masked-lm/bert": {},
    "masked-lm/esm": {"esm.contact_head.regression.weight": 1},  # of protein contacts, which are asked for apart
    "masked-lm/longformer": {},
    "masked-lm/luke": {},
    "masked-lm/neomme": {},
    "image-text-to-text/blip": {},
    "image-text-to-text/blip-2": {},
    "image-text-to-text/ernie4_5_vl_moe": {},
    "image-text-to-text/idefics": {},
    "image-text-to-text/idefics2": {},
    "image-text-to-text/inkling2": {},
    "image-text-to-text/kosmos-2": {},
    "image-text-to-text/lfm2_vl": {},
    "image-text-to-text/llava": {},
    "image-text-to-text/llava_next": {},
    "image-text-to-text/mistral3": {},
    "image-text-to-text/pi0": {"model.dit.embed_tokens.weight": 1},  # it gets vectors
    "image-text-to-text/pix2struct": {},
    "image-text-to-text/qwen3_5": {},
    "image-text-to-text/vision-encoder-decoder": {},
}


@pytest.mark.parametrize("label", SAMPLE)
def test_calls_run_every_parameter(label: str) -> None:
    model = runnable(ENTRIES[label])
    failed, missed = _run(model, model_calls(model))
    assert failed == {}
    assert missed == SAMPLE[label]


# Of all architectures, the parameters that no call touches, and why.
UNTOUCHED: dict[str, tuple[set[str], str]] = {
    "causal-lm/deepseek_v4": ({"model.layers.#.self_attn.compressor.position_bias"}, "compresses 128 tokens to one"),
    "causal-lm/inkling2_loop_text": ({"model.message_input.query"}, "of messages between loops, and one is made"),
    "causal-lm/xlnet": ({"transformer.mask_emb"}, "of the second stream, that predicts permuted words"),
    "image-text-to-text/apertus1p5": (
        {
            f"model.audio_tokenizer.encoder.layers.#.{name}"
            for name in (
                *(
                    f"{place}conv.parametrizations.weight.original{n}"
                    for place in ("", "block.#.", "shortcut.")
                    for n in (0, 1)
                ),
                *(f"lstm.weight_{kind}_l{n}" for kind in ("ih", "hh") for n in (0, 1)),
            )
        },
        "sound is not given to it",
    ),
    "image-text-to-text/inkling2_loop": (
        {"model.language_model.message_input.query"},
        "of messages between loops, and one is made",
    ),
    "image-text-to-text/chameleon": ({"model.vqmodel.post_quant_conv.weight"}, "of a decoder that is not there"),
    "image-text-to-text/pi0": ({"model.dit.embed_tokens.weight"}, "it gets vectors"),
    "image-text-to-text/qwen2_5_omni_thinker": (
        {"model.audio_tower.audio_bos_eos_token.weight"},
        "the forward pass does not use it",
    ),
    "image-text-to-text/udop": (
        {"decoder.embed_patches.proj.weight", "decoder.relative_bias.biases.#.relative_attention_bias.weight"},
        "built for every stack, used by the encoder's",
    ),
    "masked-lm/esm": ({"esm.contact_head.regression.weight"}, "contacts of proteins are asked for apart"),
    "sequence-classification/esm": ({"esm.contact_head.regression.weight"}, "contacts of proteins are asked for apart"),
    "sequence-classification/markuplm": (
        {"markuplm.embeddings.xpath_embeddings.xpath_unitseq2_embeddings.weight"},
        "the forward pass does not use it",
    ),
    "sequence-classification/xlnet": ({"transformer.mask_emb"}, "of the second stream, that predicts permuted words"),
}
# Calls that transformers 5.24 itself cannot do: it asks the text model's output for images.
FAILING = {"image-text-to-text/llama4": {"forward"}}
# Lists of experts, of which the router's numbers choose some.
# A tower whose sound no call makes yet, which the map then says.
UNHEARD = ("seq2seq-lm/omniasr",)
CHOSEN = ("seq2seq-lm/nllb-moe", "seq2seq-lm/switch_transformers")


@pytest.mark.slow
def test_calls_run_every_parameter_of_every_architecture() -> None:
    classifiers = {f"{entry.head}/{entry.label}": entry for entry in architectures.entries("sequence-classification")}
    del classifiers["sequence-classification/layoutlmv2"]  # needs detectron2
    tried = collections.Counter[str]()
    untouched = {}
    for label, entry in (ENTRIES | classifiers).items():
        model = runnable(entry)
        planned = model_calls(model)
        failed, missed = _run(model, planned)
        assert failed.keys() == FAILING.get(label, set()), (label, failed)
        tried["models"] += 1
        tried["calls"] += len(planned)
        tried.update(call.component or "text" for call in planned)
        if label in CHOSEN:
            assert all(".experts." in name for name in missed), label
        elif label in UNHEARD:
            assert all(name.startswith(("model.audio_tower.", "model.multi_modal_projector.")) for name in missed), (
                missed
            )
        elif missed:
            untouched[label] = set(missed)
    assert untouched == {label: names for label, (names, _) in UNTOUCHED.items()}
    assert tried == {
        "models": 523,
        "calls": 704,
        "text": 524,
        "vision": 137,
        "audio": 23,
        "connector": 16,
        "codec": 4,
    }


def test_a_longer_text_runs_what_compresses_it() -> None:
    model = runnable(ENTRIES["causal-lm/deepseek_v4"])
    failed, missed = _run(model, model_calls(model, length=160))
    assert (failed, missed) == ({}, {})


def test_the_first_call_is_the_model_with_so_many_ordinary_tokens() -> None:
    entry = ENTRIES["image-text-to-text/qwen3_5"]
    model = entry.build()
    config = model.config.to_dict()
    for length in (11, 160):
        first, *others = model_calls(model, length=length)
        assert (first.method, first.component, first.about) == ("forward", "", f"{length} tokens")
        ids = first.arguments["input_ids"]
        assert ids.shape == (1, length)
        assert ids.device.type == "cpu"
        marks = [config[key] for key in config if key.endswith("_token_id")]
        assert len(marks) > 3
        assert not {*marks} & {*ids[0].tolist()}
        assert [call.component for call in others] == ["vision", "vision"]
    assert len(set(model_calls(model)[0].arguments["input_ids"][0].tolist())) == 11


def test_sentences_for_a_classifier_end_as_its_configuration_says() -> None:
    (entry,) = (entry for entry in architectures.entries("sequence-classification") if entry.model_type == "bart")
    (call,) = model_calls(entry.build())
    assert call.arguments["input_ids"][0, -1] == entry.config().eos_token_id
    # Its decoder's states are read at the places of the encoder's tokens; what generates has lengths of its own.
    assert call.arguments["decoder_input_ids"].shape == (1, 11)
    assert model_calls(ENTRIES["seq2seq-lm/bart"].build())[0].arguments["decoder_input_ids"].shape == (1, 7)


class _Words(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 8)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.table(input_ids)


class _Vectors(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs)


def test_a_model_of_nobody_is_called_by_its_signature() -> None:
    model = _Words()
    (call,) = model_calls(model)
    assert {*call.arguments} == {"input_ids"}
    model(**call.arguments)
    assert model_calls(_Vectors()) == ()


def test_a_model_that_only_shares_a_name_is_called_as_any_other() -> None:
    for name in ("blip-2", "idefics2", "mllama", "phi4_multimodal", "xmod", "gemma4_assistant", "qwen2_audio"):
        model = _Words()
        model.config = transformers.PretrainedConfig()
        model.config.model_type = name
        (call,) = model_calls(model)
        assert {*call.arguments} == {"input_ids"}
        model(**call.arguments)
