"""What the installed PEFT saves and loads: the oracle for names and shapes of an adapter's tensors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from lorascope.peft_rules.types import AdapterConfig
from tests.helpers import peft_models
from tests.helpers.oracle import peft_kwargs, restored

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, torch.Tensor]

# One name or another of these is in every model.
_SOME = ("q_proj", "query", "c_attn", "q", "query_key_value", "in_proj", "x_proj")
# What people write, and every option that changes what is saved; PEFT refuses some of them on some models.
CONFIGS: dict[str, AdapterConfig] = {
    "all-linear": AdapterConfig(target_modules="all-linear"),
    "bias all": AdapterConfig(target_modules="all-linear", bias="all", r=4),
    "bias lora_only, DoRA": AdapterConfig(target_modules="all-linear", bias="lora_only", use_dora=True),
    "lora_bias": AdapterConfig(target_modules="all-linear", lora_bias=True),
    "classifier": AdapterConfig(target_modules="all-linear", task_type="SEQ_CLS", bias="all"),
    "vocabulary by list": AdapterConfig(
        target_modules=(
            "q_proj",
            "v_proj",
            "c_attn",
            "query",
            "q",
            "query_key_value",
            "in_proj",
            "embed_tokens",
            "lm_head",
        )
    ),
    "embeddings, DoRA": AdapterConfig(
        target_modules=("embed_tokens", "wte", "word_embeddings", "shared", "embeddings"),
        use_dora=True,
        modules_to_save=("norm",),
    ),
    "vocabulary by regex": AdapterConfig(
        target_modules=r".*(embed_tokens|lm_head|q_proj|c_attn|query|patch_embedding|out_head)"
    ),
    "parameters": AdapterConfig(
        target_modules=(),
        target_parameters=(
            "gate_up_proj",
            "down_proj",
            "weight_in",
            "weight_out",
            "q_proj.weight",
            "input_linear.weight",
        ),
    ),
    "patterns": AdapterConfig(
        target_modules=("q_proj", "c_fc", "dense", "k", "fc1"),
        rank_pattern={"q_proj": 3, "0.*dense": 5},
        modules_to_save=("lm_head", "head"),
    ),
    "convolutions, lora_bias": AdapterConfig(
        target_modules=("self_attn", "conv", "volume", "proj", "patch_embedding"), lora_bias=True
    ),
    "convolutions, DoRA": AdapterConfig(
        target_modules=("conv", "volume", "proj", "patch_embedding", "conv1d"), use_dora=True
    ),
    "attention, bias all": AdapterConfig(target_modules=("self_attn", "grouped"), bias="all"),
    "attention, bias lora_only": AdapterConfig(target_modules=("self_attn", "grouped"), bias="lora_only"),
    "defaults": AdapterConfig(),
    "saved blocks": AdapterConfig(
        target_modules=("k_proj", "value"), task_type="TOKEN_CLS", modules_to_save=("mlp", "attn")
    ),
    "some": AdapterConfig(target_modules=_SOME, task_type="FEATURE_EXTRACTION"),
    "some, bias all": AdapterConfig(target_modules=_SOME, bias="all", r=3),
    "some, bias lora_only": AdapterConfig(target_modules=_SOME, bias="lora_only", rank_pattern={".*0.*": 2}),
    "some, DoRA": AdapterConfig(
        target_modules=_SOME, use_dora=True, modules_to_save=("norm", "LayerNorm", "ln_f", "norm_f")
    ),
    "some, lora_bias": AdapterConfig(target_modules=_SOME, lora_bias=True, bias="all"),
    "layers": AdapterConfig(
        target_modules=("q_proj", "query", "c_attn"), layers_to_transform=(0,), layers_pattern="layers"
    ),
}


def real(name: str) -> nn.Module:
    """A model of `peft_models` with numbers."""
    torch.manual_seed(0)
    if name == "plain":
        return peft_models.Plain()
    architecture, config = peft_models._CONFIGS[name]
    model: nn.Module = getattr(transformers, architecture)._from_config(config())
    return model


def state_shapes(model: nn.Module, config: AdapterConfig) -> Shapes:
    """Names and shapes of the tensors that PEFT would save, on a model without numbers, which is left as it was.

    Raises:
        Exception: Whatever PEFT raises.
    """
    import peft

    with restored(model), warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**peft_kwargs(config)))
        return {name: tuple(tensor.shape) for name, tensor in peft.get_peft_model_state_dict(wrapped).items()}


def buffers(model: nn.Module) -> set[str]:
    """The names of a model's buffers, which a map does not know."""
    return {name for name, _ in model.named_buffers()}


def save(model: nn.Module, folder: Path, **arguments: Any) -> None:
    """An adapter with random numbers, saved by PEFT."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**arguments))
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter)
        wrapped.save_pretrained(str(folder))


def resave(
    folder: Path,
    target: Path,
    change: Callable[[Tensors], Tensors] = dict,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """The adapter of a folder in another, with other tensors or settings."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True, exist_ok=True)
    tensors = change(load_file(folder / "adapter_model.safetensors"))
    save_file({name: one.contiguous().clone() for name, one in tensors.items()}, target / "adapter_model.safetensors")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps({**settings, **(config or {})}))
    return target


def loaded(model: nn.Module, folder: Path, adapter: str = "default") -> tuple[nn.Module | None, str]:
    """The model with an adapter, and what PEFT raised or warned about its tensors."""
    import peft

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            wrapped = peft.PeftModel.from_pretrained(model, str(folder), adapter_name=adapter)
        except (RuntimeError, KeyError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"
    return wrapped, " ".join(str(one.message) for one in said if "missing adapter keys" in str(one.message))


def dead(wrapped: nn.Module) -> int:
    """How many B are zero, as PEFT initializes them."""
    return sum(1 for name, one in wrapped.named_parameters() if ".lora_B." in name and not one.any())
