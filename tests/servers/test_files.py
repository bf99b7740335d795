"""What servers take of an adapter's file at hand, where it is not what its configuration says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lorascope.model.types import ModelMap
from lorascope.peft_rules.state_dict import PREFIX, saved_tensors
from lorascope.plans.verify import adapter_config, verify
from lorascope.servers.check import serve
from lorascope.servers.facts import server_facts
from lorascope.servers.types import Serving
from lorascope.servers.vllm_names import is_readable
from lorascope.sources.builtin import load_builtin
from lorascope.sources.checkpoint.types import Span, Tensor

Change = Mapping[str, tuple[int, ...] | None]
_LAYER = f"{PREFIX}model.layers.0"
_Q = f"{_LAYER}.self_attn.q_proj"
NAMES = (
    f"{_Q}.lora_A.weight",
    f"{_Q}.lora_A.default.weight",
    f"{PREFIX}lm_head.weight",
    f"{PREFIX}model.embed_tokens.weight",
    f"{PREFIX}lm_head.base_layer.weight",
    f"{PREFIX}model.embed_tokens.base_layer.weight",
    f"{PREFIX}lm_head.lora_A.weight",
    f"{PREFIX}model.embed_tokens.lora_embedding_A",
    f"{_Q}.lora_magnitude_vector",
    f"{PREFIX}score.weight",
    f"{PREFIX}classifier.bias",
    f"{_Q}.bias",
    f"{_Q}.base_layer.bias",
    f"{PREFIX}model.norm.weight",
    f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta",
    f"{PREFIX}score.modules_to_save.weight",
    f"{PREFIX}wte.base_layer.weight",
)
# What `parse_fine_tuned_lora_name` and `is_base_embedding_weights` of 33 releases did with these names (y: taken), when
# they were run one by one; releases that did the same are one row.
READABLE = {
    "ynnnyyyynyynnnnnn": "0.33.0 0.32.0 0.31.0",
    "ynnnyyyynnnnnnnnn": "0.30.0 0.29.0 0.28.0 0.27.1 0.26.0 0.25.1 0.24.0 0.23.0 0.22.1 0.21.0 0.20.2 0.19.1 0.18.1 "
    "0.17.1 0.14.1 0.13.0 0.12.0",
    "ynnnnnyynnnnnnnnn": "0.11.2 0.11.1",
    "ynnnnnyynnyyynnnn": "0.11.0 0.10.2 0.10.1.1 0.10.0 0.9.2 0.9.1 0.9.0.1 0.8.5 0.8.4 0.8.3 0.8.0",
}


def test_vllm_reads_the_names_that_its_own_parser_reads() -> None:
    compared = 0
    for row, releases in READABLE.items():
        for release in releases.split():
            rules = server_facts(f"vllm=={release}").rules
            read = "".join("y" if is_readable(name, rules) else "n" for name in NAMES)
            # A trained classifier is also refused by its configuration there, which is another answer.
            differences = [name for name, mine, theirs in zip(NAMES, read, row, strict=True) if mine != theirs]
            assert not differences, release
            compared += len(NAMES)
    assert compared == 33 * 17


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, "F32", shape, Span("adapter_model.safetensors", 0, 0))


def served(server: str, change: Change) -> Serving:
    """The answer about llama's q and v at rank 8, with some tensors of its file changed, added or (None) taken out."""
    model: ModelMap = load_builtin("llama", "causal-lm")
    config = adapter_config({"target_modules": ["q_proj", "v_proj"], "r": 8})
    resolution = verify(model, config)
    tensors = {
        name: Tensor("F32", one.shape, 0, 0, 0)
        for name, one in saved_tensors(model, config, resolution).tensors.items()
    }
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = _tensor(name, shape)
    return serve(model, config, resolution, server, tensors=tensors)


_RANK_16 = {f"{_Q}.lora_A.weight": (16, 4096), f"{_Q}.lora_B.weight": (4096, 16)}
_ADAPTER_NAME: Change = {
    f"{_Q}.lora_A.weight": None,
    f"{_Q}.lora_A.default.weight": (8, 4096),
    f"{_Q}.lora_B.weight": None,
    f"{_Q}.lora_B.default.weight": (4096, 8),
}
_RESIZED = {f"{PREFIX}lm_head.weight": (32000, 4096), f"{PREFIX}model.embed_tokens.weight": (32000, 4096)}
_EXTRA = {f"{_LAYER}.mlp.extra_proj.lora_A.weight": (8, 4096), f"{_LAYER}.mlp.extra_proj.lora_B.weight": (4096, 8)}
_BASE_LAYER = {f"{PREFIX}lm_head.base_layer.weight": (32000, 4096)}
_MAGNITUDE = {f"{_Q}.lora_magnitude_vector": (4096,)}


@pytest.mark.parametrize(
    ("change", "server", "answer", "reason"),
    [
        ({}, "vllm", "yes", ""),
        ({}, "sglang", "yes", ""),
        (_RESIZED, "vllm", "no", "it raises at base_model.model.lm_head.weight"),
        (_RESIZED, "vllm==0.11.2", "no", "it raises at base_model.model.lm_head.weight"),
        (_RESIZED, "sglang", "no", "the file also has base_model.model.lm_head.weight"),
        (_ADAPTER_NAME, "vllm", "no", "lora_A.default.weight"),
        (_ADAPTER_NAME, "sglang", "yes", ""),
        (_EXTRA, "vllm", "no", "it raises at model.layers.0.mlp.extra_proj"),
        (_EXTRA, "sglang", "no", "no place for model.layers.0.mlp.extra_proj"),
        (_RANK_16, "vllm", "depends", "has rank 16, the configuration r=8"),
        (_RANK_16, "sglang", "no", "has rank 16 in the file"),
        (_BASE_LAYER, "vllm", "yes", ""),
        (_BASE_LAYER, "vllm==0.11.2", "no", "0.12.0 passes over"),
        (_BASE_LAYER, "sglang", "no", "lm_head.base_layer.weight"),
        (_MAGNITUDE, "vllm", "no", "lora_magnitude_vector"),
        (_MAGNITUDE, "sglang", "no", "lora_magnitude_vector"),
    ],
)
def test_the_file_decides(change: Change, server: str, answer: str, reason: str) -> None:
    serving = served(server, change)
    assert serving.answer == answer
    assert reason in " ".join(one.reason for one in serving.answers if one.answer != "yes")


def test_the_rank_of_the_file_is_what_the_server_is_started_with() -> None:
    assert "--max-lora-rank 16" in served("vllm", _RANK_16).flags
    assert "--max-lora-rank 8" in served("vllm", {}).flags
