"""Writes `src/lorascope/data/mlx_names.json`: what mlx-lm calls the weights that transformers' models have.

PYTHONPATH=src .venv-mlx/bin/python tools/build_mlx_names.py            needs mlx[cpu], mlx-lm, torch and transformers
PYTHONPATH=src .venv-mlx/bin/python tools/build_mlx_names.py --check    exit with 1 if the table is another

No name is compared with a name. A small model of each type is made by transformers, each of its weights is filled with a
number of its own, the checkpoint is saved and loaded by mlx-lm's own `load_model`, and the number says which weight a module
of mlx-lm holds. What mlx-lm can adapt is what its own `linear_to_lora_layers` takes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import math
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMES = ROOT / "src" / "lorascope" / "data" / "mlx_names.json"
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT))

from architectures import Entry, entries, mend_torchvision  # noqa: E402

_PATIENCE = 20
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")

# Keys of released config.json files that transformers no longer writes, and that mlx-lm asks for. They decide numbers, not
# names: what they are matters only for a model that is to compute something.
_ONCE_WRITTEN: dict[str, Any] = {
    "rope_scaling": None,
    "attention_method": "MLA",
    "moe_layer_freq": 1,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
    "post_norm": True,
    "qk_norm": True,
    "mlp_bias": False,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "rope_local_base_freq": 10000.0,
    "partial_rotary_factor": 0.5,
    "zero_expert_type": "identity",
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "rotary_dim": 8,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
    "shared_intermediate_size": 0,
    "first_k_dense_replace": 0,
    "sliding_window_pattern": "LLLG",
}
_YARN = {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0}


# Released checkpoints of these have weights that transformers' models have not, and that mlx-lm wants: the keys and values of
# layers that share those of others.
_WITH_MORE = frozenset({"gemma3n"})


class _TooLongError(Exception):
    """A model took more than its time."""


def fill_with_numbers(module: Any, weights: list[Any]) -> dict[int, Any]:
    """Gives each weight a number of its own, counted from 1; of weights that share a tensor, the first one gets it."""
    import torch

    state = dict(module.named_parameters(remove_duplicate=False))
    filled: set[int] = set()
    numbers = {}
    for number, weight in enumerate(weights, 1):
        for name in (weight.name, f"{weight.name}.weight", f"{weight.name}.in_proj_weight"):
            if name in state:
                if id(state[name]) not in filled:
                    with torch.no_grad():
                        state[name].fill_(float(number))
                    numbers[number] = weight
                filled.add(id(state[name]))
                break
    return numbers


def loaded_by_mlx(folder: Path) -> Any:
    """A saved model as mlx-lm has it, with the keys in its configuration that released models have."""
    from mlx_lm import utils

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    extra = _as_released(config)
    for _ in range(4):
        try:
            return utils.load_model(folder, lazy=True, strict=False, model_config=json.loads(json.dumps(extra)))[0]
        except TypeError as error:
            missing = re.findall(r"'(\w+)'", str(error)) if "missing" in str(error) else []
            new = {key: _ONCE_WRITTEN[key] for key in missing if key in _ONCE_WRITTEN}
            if not new or new.keys() <= extra.keys():
                raise
            extra.update(new)
            extra.get("text_config", extra).update(new)
    raise TypeError("its configuration lacks too much")


def held_numbers(model: Any) -> Iterator[tuple[str, bool, tuple[int, ...], set[float]]]:
    """Each module that has a matrix: its name, whether mlx-lm can adapt it, the shape, and the numbers in it."""
    import mlx.core as mx
    import numpy as np
    from mlx import nn
    from mlx_lm.models.switch_layers import SwitchLinear

    for name, module in model.named_modules():
        for key, value in module.items():
            if isinstance(value, mx.array) and value.ndim >= 2:
                adaptable = key == "weight" and (
                    hasattr(module, "to_lora") or isinstance(module, nn.Linear | SwitchLinear | nn.Embedding)
                )
                numbers = set(np.unique(np.array(value.astype(mx.float32))).tolist())
                yield (name if key == "weight" else f"{name}.{key}"), adaptable, tuple(value.shape), numbers


def blocks_of(model: Any) -> str:
    """The name of the list that `model.layers` is."""
    first = model.layers[0]
    return next(name for name, module in model.named_modules() if module is first).rpartition(".")[0]


def _as_released(config: dict[str, Any]) -> dict[str, Any]:
    extra = _parts_as_released(config)
    text = config.get("text_config")
    if isinstance(text, dict):
        extra["text_config"] = {
            "tie_word_embeddings": config.get("tie_word_embeddings", False),
            **text,
            **_parts_as_released(text),
        }
        extra.setdefault("vocab_size", text.get("vocab_size"))
    return extra


def _parts_as_released(config: dict[str, Any]) -> dict[str, Any]:
    new: dict[str, Any] = {}
    rope = config.get("rope_parameters")
    if isinstance(rope, dict):
        inner = rope if "rope_theta" in rope else next((one for one in rope.values() if isinstance(one, dict)), {})
        new |= {key: inner[key] for key in ("rope_theta", "partial_rotary_factor") if key in inner}
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    kinds = config.get("layer_types") or []
    experts = config.get("num_local_experts")
    rules: dict[str, Callable[[], Any]] = {
        "rope_theta": lambda: 10000.0,
        "head_dim": lambda: hidden // heads if hidden and heads else None,
        "n_ctx": lambda: config.get("n_positions"),
        "num_experts": lambda: experts,
        "n_inner": lambda: 4 * config["n_embd"] if "n_embd" in config else None,
        "is_moe_layer": lambda: [kind == "sparse" for kind in config.get("mlp_layer_types") or []] or None,
        "full_attention_interval": lambda: kinds.index("full_attention") + 1 if "full_attention" in kinds else None,
        "block_dim": lambda: hidden,
        "block_multiple_of": lambda: 1,
        "block_ffn_dim_multiplier": lambda: 1.0,
        "block_auto_adjust_ff_dim": lambda: False,
        "moe_intermediate_size": lambda: config.get("intermediate_size"),
    }
    for key, rule in rules.items():
        if config.get(key) is None and key not in new and (value := rule()) is not None:
            new[key] = value
    if "linear_attention" in kinds and config.get("model_type") == "granitemoehybrid":
        new["layer_types"] = ["mamba" if kind == "linear_attention" else "attention" for kind in kinds]
    if config.get("model_type") == "mamba2":
        new["intermediate_size"] = config["expand"] * hidden
    if config.get("model_type") in ("deepseek_v2", "minicpm3"):
        new["rope_scaling"] = _YARN
    if isinstance(config.get("sliding_window_pattern"), int):
        new["sliding_window_pattern"] = "L" * (config["sliding_window_pattern"] - 1) + "G"
    if config.get("model_type") == "solar_open":
        new["intermediate_size"] = config["moe_intermediate_size"]
    return new


def as_uploaded(folder: Path, model_type: str) -> None:
    """Gives a saved checkpoint the tensors of the released ones, where transformers saves others."""
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    if model_type == "gpt2":
        save_file({name.removeprefix("transformer."): value for name, value in load_file(file).items()}, file)
    elif model_type == "gpt_oss":
        # The released experts are in MXFP4, rows first, under names with an ending.
        experts = ("experts.gate_up_proj", "experts.down_proj")
        save_file(
            {
                f"{name}.weight" if name.endswith(experts) else name: value.transpose(1, 2).contiguous()
                if name.endswith(experts)
                else value
                for name, value in load_file(file).items()
            },
            file,
        )
    elif model_type == "qwen3_5_moe":
        # The released experts are one tensor, gates before ups; mlx-lm's `sanitize` reads no other form.
        tensors = load_file(file)
        single = re.compile(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
        parts = {name: match for name in tensors if (match := single.fullmatch(name))}
        for stack in {match.group(1) for match in parts.values()}:
            count = 1 + max(int(match.group(2)) for match in parts.values() if match.group(1) == stack)
            gate, up, down = (
                torch.stack([tensors.pop(f"{stack}.{at}.{part}_proj.weight") for at in range(count)])
                for part in ("gate", "up", "down")
            )
            tensors |= {f"{stack}.gate_up_proj": torch.cat([gate, up], dim=1), f"{stack}.down_proj": down}
        save_file(tensors, file)


def names_of(entry: Entry) -> tuple[str, dict[str, Any]]:
    """The model type and what the table says of it: where its blocks are, and the names."""
    from lorascope import inspect
    from tests.helpers.small_configs import small_model

    module = small_model(entry).float()
    model = inspect(module)
    weights = fill_with_numbers(module, list(model.weights))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contextlib.redirect_stderr(io.StringIO()):
            module.save_pretrained(folder)
        as_uploaded(folder, model.model_type)
        mlx = loaded_by_mlx(folder)
        mlx.freeze()  # as its training begins, which not all its models can do
        held = [(name, *rest) for name, *rest in held_numbers(mlx)]
    found: dict[str, list[str] | None] = {}
    for number, weight in weights.items():
        pieces = [(name, adaptable, shape) for name, adaptable, shape, numbers in held if float(number) in numbers]
        if not pieces:
            continue
        pattern, own = _NUMBER.sub("#", weight.name), _NUMBER.findall(weight.name)
        names = [name for name, adaptable, _ in pieces if adaptable]
        whole = sum(math.prod(shape) for _, _, shape in pieces) == weight.size
        same = all(_NUMBER.findall(name) == own for name in names)
        value = (
            sorted({_NUMBER.sub("#", name) for name in names}) if len(names) == len(pieces) and whole and same else []
        )
        if found.setdefault(pattern, value) != value:
            found[pattern] = None
    blocks = blocks_of(mlx)
    told = {pattern: value for pattern, value in found.items() if value is not None}
    known = {name for names in told.values() for name in names}
    if not any(name.startswith(f"{blocks}.") for name in known):
        raise ValueError("nothing in its blocks was found again")
    numbers = set(map(float, weights))
    able = [(_NUMBER.sub("#", name), inside) for name, can, _, inside in held if can]
    strange = {one for one, inside in able if one.startswith(f"{blocks}.") and inside.isdisjoint(numbers)}
    if strange and model.model_type not in _WITH_MORE:
        made = ", ".join(sorted(strange))
        raise ValueError(f"mlx-lm has layers that the checkpoint has not, as of another model: {made}")
    # Not known: experts of a shape of their own. Not filled: the keys and values of layers that share those of others.
    others = {one for one, inside in able if one not in known or not inside <= numbers}
    return model.model_type, {"blocks": blocks, "names": told, "others": sorted(others)}


def table() -> dict[str, Any]:
    """The whole table; what it has no answer for goes to stderr."""
    from mlx_lm.utils import MODEL_REMAPPING

    def late(*_: object) -> None:
        raise _TooLongError

    mend_torchvision()
    signal.signal(signal.SIGALRM, late)
    types: dict[str, dict[str, Any]] = {}
    for entry in entries("causal-lm", "image-text-to-text"):
        try:
            importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(entry.model_type, entry.model_type)}")
        except (ImportError, SystemExit):
            continue
        signal.alarm(_PATIENCE)
        try:
            model_type, told = names_of(entry)
        except Exception as error:
            print(f"{entry.head} {entry.label}: {type(error).__name__}: {str(error)[:160]}", file=sys.stderr)
            continue
        finally:
            signal.alarm(0)
        known = types.setdefault(model_type, told)
        if known["blocks"] != told["blocks"]:
            raise AssertionError(f"{model_type} has its blocks in {known['blocks']} and in {told['blocks']}")
        known["names"] = {**known["names"], **told["names"]}
        known["others"] = sorted({*known["others"], *told["others"]})
    releases = {name: importlib.metadata.version(name) for name in ("mlx-lm", "transformers")}
    return {"releases": releases, "types": dict(sorted(types.items()))}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    made = table()
    lines = [f'"{name}": {json.dumps(told)}' for name, told in made["types"].items()]
    text = f'{{"releases": {json.dumps(made["releases"])}, "types": {{\n' + ",\n".join(lines) + "\n}}\n"
    if options.check:
        return int(NAMES.read_text(encoding="utf-8") != text)
    NAMES.write_text(text, encoding="utf-8")
    print(f"{len(lines)} model types")
    return 0


if __name__ == "__main__":
    sys.exit(main())
