"""LLaMA-Factory's own parser and `init_adapter` beside what is said of them: run by a Python that has it, by its tests.

With a file of questions it prints one JSON object: what became of each file on each architecture, and its tables. With a
YAML file it trains.
"""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

# What users write, beside model_name_or_path.
WRITTEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "all": {"lora_target": "all", "lora_rank": 4, "lora_alpha": 12},
    "names": {"lora_target": "q_proj,v_proj, qkv,query_key_value,c_attn", "use_rslora": True},
    "a list": {"lora_target": ["k_proj", "o_proj"], "lora_alpha": 7.5},
    "a part of names": {"lora_target": "attn.q_proj,gate"},
    "a comma too many": {"lora_target": "q_proj,"},
    "all and more": {"lora_target": "all,v_proj"},
    "towers": {"lora_target": "all", "freeze_vision_tower": False},
    "towers and projector": {
        "lora_target": "all",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
    },
    "projector by name": {
        "lora_target": "linear_1,linear_2,linear_fc1,mm_input_projection_weight,lm_head",
        "freeze_multi_modal_projector": False,
    },
    "towers alone": {
        "lora_target": "q_proj,qkv,proj,fc1",
        "freeze_language_model": True,
        "freeze_vision_tower": False,
    },
    "every third layer": {"lora_target": "all", "use_llama_pro": True, "freeze_trainable_layers": 1},
    "every layer": {"lora_target": "q_proj", "use_llama_pro": True, "freeze_trainable_layers": 3},
    "saved": {"lora_target": "q_proj,v_proj", "additional_target": "embed_tokens, lm_head", "use_dora": True},
    "vocabulary": {"lora_target": "v_proj", "resize_vocab": True, "lora_alpha": 0},
}
PLANS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "qv": (("qv",), {}),
    "attention": (("attention",), {"rank": 4, "alpha": 6, "dropout": 0.1}),
    "dense": (("attention", "ffn"), {"rslora": True}),
    "layers": (("attention.q,o[-1:]",), {"dora": True}),
    "towers": (("vision.attention", "attention.v"), {}),
}


def main() -> None:
    """Takes a JSON file with `entries` (head, model type) and `files` (text); or a YAML file and overrides, and trains."""
    warnings.simplefilter("ignore")
    architectures.mend_torchvision()
    _without_torchaudio()
    if not sys.argv[1].endswith(".json"):
        from llamafactory.train.tuner import run_exp

        run_exp()
        return
    questions, answers = map(Path, sys.argv[1:3])
    asked = json.loads(questions.read_text(encoding="utf-8"))
    import peft
    import transformers
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS

    transformers.logging.set_verbosity_error()
    found = {
        "versions": {"peft": peft.__version__, "transformers": transformers.__version__},
        "models": {f"{head}/{model_type}": of_model(head, model_type) for head, model_type in asked["entries"]},
        "files": [parsed(text) for text in asked["files"]],
        "parts": {
            name: [
                sorted(words)
                for words in (c.projector_keys, c.vision_model_keys, c.language_model_keys, c.lora_conflict_keys)
            ]
            for name, c in COMPOSITE_MODELS.items()
        },
    }
    answers.write_text(json.dumps(found), encoding="utf-8")


def _without_torchaudio() -> None:
    """Its data rooms import torchaudio, which is a gigabyte beside another torch, and use it for sounds alone."""
    module = types.ModuleType("torchaudio")
    module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module


def arguments(text: str) -> tuple[Any, ...]:
    """What its own parser makes of a file."""
    from llamafactory.hparams import parser

    file = Path("asked.yaml")
    file.write_text(text, encoding="utf-8")
    sys.argv = ["train", str(file), "bf16=false", "use_cpu=true"]
    parts: tuple[Any, ...] = parser.get_train_args(parser.read_args())
    return parts


def parsed(text: str) -> dict[str, Any]:
    try:
        model, _, _, tuning, _ = arguments(text)
    except Exception as error:  # whatever it stops with
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    keys = ("lora_target", "lora_rank", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "freeze_vision_tower")
    return {"error": "", "base": model.model_name_or_path, **{key: getattr(tuning, key) for key in keys}}


def of_model(head: str, model_type: str) -> dict[str, Any]:
    """For each file: what it adapts, and what is said here that it does."""
    import yaml

    from lorascope.inspecting import inspect
    from tests.helpers.few_layers import few_layers
    from tests.helpers.trainer_cases import exported_plans, said_of

    model = few_layers(head, model_type)
    mapped = inspect(model)
    texts: dict[str, str] = {}
    base = {"model_name_or_path": "folder", "stage": "sft", "do_train": True, "dataset": "d", "output_dir": "out"}
    for name, settings in WRITTEN.items():
        texts[name] = yaml.safe_dump({**base, **settings})
    plans, refused = exported_plans(mapped, PLANS, "llamafactory")
    texts |= plans
    cases = {
        name: {"said": said_of(mapped, "llamafactory", text), "done": done(model, text)} for name, text in texts.items()
    }
    return {"cases": cases, "refused": refused}


def done(model: Any, text: str) -> dict[str, Any]:
    import torch
    from llamafactory.model.adapter import init_adapter

    from tests.helpers.oracle import adapted_weights, restored

    model_args, _, _, tuning, _ = arguments(text)
    with restored(model), torch.device("meta"):
        # Freezes nothing itself: that is PEFT's doing.
        model.requires_grad_(True)
        try:
            wrapped = init_adapter(model.config, model, model_args, tuning, True)
        except Exception as error:  # whatever it or PEFT stops with
            return {"error": f"{type(error).__name__}: {error}"[:300], "adapted": {}, "trainable": 0}
        trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        return {"error": "", "adapted": adapted_weights(wrapped), "trainable": trainable}


if __name__ == "__main__":
    main()
