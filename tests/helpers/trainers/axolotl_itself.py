"""axolotl's own schema and `load_lora` beside what is said of them here: run by a Python that has axolotl, by its tests.

Prints one JSON object: what became of each file of each architecture, and what the schema made of single values.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

FILE: dict[str, Any] = {
    "base_model": "folder",
    "datasets": [{"path": "data", "type": "alpaca"}],
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_epochs": 1,
    "learning_rate": 0.0001,
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
}
# What users write, over FILE.
WRITTEN: dict[str, dict[str, Any]] = {
    "linear": {"lora_target_linear": True},
    "linear and names": {"lora_target_linear": True, "lora_target_modules": ["embed_tokens", "wte"]},
    "linear and a text": {"lora_target_linear": True, "lora_target_modules": "q_proj"},
    "all-linear": {"lora_target_modules": "all-linear"},
    "seven names": {
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "lora_dropout": 0.05,
    },
    "within towers": {"lora_target_modules": r".*tower.*\.q_proj"},
    "names and what they wrap": {"lora_target_modules": ["q_proj", "o_proj", "k_proj.linear", "q_proj.linear"]},
    "excluded": {"lora_target_modules": ["q_proj", "c_attn"], "lora_exclude_modules": ["layers.0"]},
    "layers": {"lora_target_modules": ["q_proj", "v_proj"], "peft_layers_to_transform": [0, 2]},
    "experts": {"lora_target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    "sizes": {
        "lora_target_modules": r".*\.(q_proj|c_attn|query_key_value)",
        "lora_rank_pattern": {r"layers\.1\..*": 4},
        "lora_alpha_pattern": {r"layers\.1\..*": 32},
        "peft_use_rslora": True,
    },
    "frozen towers": {"lora_target_linear": True, "freeze_mm_modules": True},
    "saved": {"lora_target_modules": ["q_proj", "c_attn"], "lora_modules_to_save": ["lm_head"]},
    "a parameter as text": {"lora_target_parameters": "mlp.experts.down_proj"},
    "no rank": {"lora_target_modules": ["q_proj", "c_attn"], "lora_r": None},
    "no alpha": {"lora_target_modules": ["q_proj", "c_attn"], "lora_alpha": None},
    "another adapter": {"adapter": "boft", "lora_target_modules": ["q_proj", "c_attn"]},
    "nothing": {},
}
RULES = {
    "qv": ("qv",),
    "attention": ("attention",),
    "attention and ffn": ("attention", "ffn"),
    "everything": ("all",),
    "last layers": ("attention.q[-2:]=4/32", "attention.o[0]=2"),
}


def main() -> None:
    """Takes a JSON file with `entries` (head, model type), `values` (key, value) and `texts`."""
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    warnings.simplefilter("ignore")
    architectures.mend_torchvision()
    import peft
    import transformers

    transformers.logging.set_verbosity_error()
    found = {
        "versions": {"peft": peft.__version__, "transformers": transformers.__version__},
        "models": {f"{head}/{model_type}": of_model(head, model_type) for head, model_type in asked["entries"]},
        "values": [of_value(key, value) for key, value in asked["values"]],
        "texts": [of_text(text) for text in asked["texts"]],
    }
    print(json.dumps(found))


def validated(settings: dict[str, Any]) -> Any:
    """The configuration after axolotl's schema, with the checks of what the machine can do."""
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    machine = {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 1, "compute_capability": "sm_90"}
    return validate_config(DictDefault(settings), capabilities=machine, env_capabilities={"torch_version": "2.13.0"})


def of_value(key: str, value: Any) -> Any:
    """What the schema makes of a value; a list with the error's type if it refuses it."""
    try:
        return {"is": validated({**FILE, key: value}).get(key)}
    except Exception as error:
        return {"refused": type(error).__name__}


def of_text(text: str) -> Any:
    """The settings of adapters after the schema."""
    import yaml

    try:
        settings = validated(yaml.safe_load(text))
    except Exception as error:
        return {"refused": str(error)}
    return {key: value for key, value in settings.items() if key.startswith(("lora_", "peft_", "adapter"))}


def of_model(head: str, model_type: str) -> dict[str, str]:
    """Each file of an architecture: `same`, `both refuse`, or how the two differ."""
    from lorascope.errors import LorascopeError
    from lorascope.plan_api import plan
    from lorascope.trainers.exports import export
    from tests.conformance.verdicts import built

    try:
        if model_type == "gemma4 with towers":
            module, model = gemma4_with_towers()
        else:
            entry = next(e for e in architectures.entries(head) if e.model_type == model_type)  # type: ignore[arg-type]
            module, model = built(entry)
    except Exception as error:  # newer than this transformers, or it cannot build its own default
        return {"unbuilt": str(error)[:200]}
    texts = {name: json.dumps({**FILE, **written}) for name, written in WRITTEN.items()}
    outcomes: dict[str, str] = {}
    for name, rules in RULES.items():
        try:
            texts[f"plan: {name}"] = export(plan(model, *rules), "axolotl")
        except LorascopeError as error:
            outcomes[f"plan: {name}"] = f"no file: {error.faults[0]}"
    return {**outcomes, **{name: compared(module, model, text) for name, text in texts.items()}}


def gemma4_with_towers() -> tuple[Any, Any]:
    """Its default configuration has none, and in them are the modules that axolotl changes PEFT for."""
    import transformers

    from lorascope.sources.transformers.meta_model import build, map_module

    parts = {f"{part}_config": {"num_hidden_layers": 3} for part in ("text", "vision", "audio")}
    config = transformers.AutoConfig.for_model("gemma4", **parts)
    module = build(config, architecture="Gemma4ForConditionalGeneration")
    return module, map_module(module, model="gemma4", head="image-text-to-text")


def compared(module: Any, model: Any, text: str) -> str:
    """axolotl's adapters on a model beside those told here."""
    import yaml

    from lorascope.errors import LorascopeError
    from lorascope.trainers.axolotl.targets import linear_names
    from lorascope.trainers.axolotl.trainer import AXOLOTL
    from tests.helpers.oracle import restored

    trainer = AXOLOTL
    try:
        outcome = trainer.resolve(model, trainer.read(text, "file"))
        told = {one.name: (one.rank, one.alpha, one.scale) for one in outcome.resolution.adapted}
        refusal, trainable = str(outcome.resolution.refusal or ""), outcome.resolution.trainable
    except LorascopeError as error:
        told, refusal, trainable = {}, str(error), 0
    with restored(module):
        try:
            real, real_trainable, names = itself(module, yaml.safe_load(text))
        except Exception as error:
            return "both refuse" if refusal else f"axolotl refuses: {type(error).__name__} {error}"[:400]
        if names is not None and set(names) != set(linear_names(model)):
            return f"linear layers: {sorted(names)} and not {linear_names(model)}"
    if refusal:
        return f"told as refused: {refusal}"[:400]
    if real.keys() != told.keys():
        return f"more: {sorted(real.keys() - told.keys())[:4]}, fewer: {sorted(told.keys() - real.keys())[:4]}"
    for name, (rank, alpha, scale) in real.items():
        one = told[name]
        if (rank, alpha) != one[:2] or abs(scale - one[2]) > 1e-9:
            return f"{name}: {(rank, alpha, scale)} and not {one}"
    return "same" if real_trainable == trainable else f"trainable: {real_trainable} and not {trainable}"


def itself(module: Any, settings: dict[str, Any]) -> tuple[dict[str, tuple[int, float, float]], int, list[str] | None]:
    """What axolotl's own code adapts, the trainable parameters, and what its search for linear layers finds."""
    import torch
    from axolotl.loaders import adapter
    from axolotl.loaders.patch_manager import PatchManager
    from axolotl.utils.freeze import freeze_mm_modules

    from tests.helpers.oracle import adapted_weights

    cfg = validated(settings)
    PatchManager(cfg, module.config)._apply_moe_expert_quantization_patch()
    names = adapter.find_all_linear_names(module) if cfg.lora_target_linear else None
    with torch.device("meta"):
        wrapped, _ = adapter.load_lora(module, cfg)
    if cfg.freeze_mm_modules:  # as its train.py does
        freeze_mm_modules(wrapped)
    trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    return adapted_weights(wrapped), trainable, names


if __name__ == "__main__":
    main()
