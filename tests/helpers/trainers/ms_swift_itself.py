"""ms-swift's own parser and `prepare_adapter` beside what is said of them: run by a Python that has it, by its tests.

With a file of questions it writes one JSON object: what became of each command on each architecture, and what its parser
makes of single ones. With options it trains.
"""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

# What users write, after `swift sft --model folder --dataset d`.
WRITTEN: dict[str, str] = {
    "nothing": "",
    "all-linear": "--target_modules all-linear --lora_rank 4 --lora_alpha 12 --lora_dropout 0",
    "all-linear and embeddings": "--target_modules all-linear all-embedding",
    "all-linear and a name": "--target_modules all-linear wte c_attn embed_tokens",
    "names": "--target_modules q_proj v_proj qkv query_key_value c_attn in_proj out_proj --use_rslora true",
    "a regex": r"--target_regex '.*\.(q_proj|c_attn|query_key_value|qkv_proj)' --lora_bias all",
    "towers": "--freeze_vit false",
    "towers and aligner": "--freeze_vit false --no_freeze_aligner",
    "aligner alone": "--freeze_llm true --freeze_aligner false --use_dora true",
    "all but the language model": "--freeze_llm --freeze_vit false --freeze_aligner false",
    "nothing at all": "--freeze_llm true",
    "experts": r"--target_regex '(?!)' --target_parameters mlp.experts.gate_up_proj mlp.experts.down_proj --lora_dropout 0",
    "experts with dropout": "--target_modules q_proj --target_parameters mlp.experts.down_proj",
    "saved": "--target_modules q_proj query_key_value --modules_to_save all-embedding lm_head",
    "norms": "--target_modules v_proj query_key_value --modules_to_save all-norm",
    "classes": "--target_modules q_proj query_key_value --task_type seq_cls --num_labels 3",
    "a vector": "--task_type embedding",
    "abbreviated": "--target_m q_proj c_attn --lora_r 2 --lora_al 3",
}
PLANS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "qv": (("qv",), {}),
    "attention": (("attention",), {"rank": 4, "alpha": 6, "dropout": 0.1}),
    "dense": (("attention", "ffn"), {"rslora": True, "bias": "all"}),
    "everything": (("all=4/8",), {}),
    "layers": (("attention.q,o[-1:]",), {"dora": True}),
    "towers": (("vision.attention", "attention.v"), {}),
}


def main() -> None:
    """Takes a JSON file with `entries` (head, model type) and `commands` (text), and where to answer; or options to train."""
    warnings.simplefilter("ignore")
    architectures.mend_torchvision()
    if sys.argv[1].startswith("--"):
        from swift.pipelines import sft_main

        sft_main()
        return
    questions, answers = map(Path, sys.argv[1:3])
    asked = json.loads(questions.read_text(encoding="utf-8"))
    import peft
    import transformers

    transformers.logging.set_verbosity_error()
    found = {
        "versions": {"peft": peft.__version__, "transformers": transformers.__version__},
        "models": {f"{head}/{model_type}": of_model(head, model_type) for head, model_type in asked["entries"]},
        "commands": [parsed(text) for text in asked["commands"]],
        "stops": stops(),
    }
    answers.write_text(json.dumps(found), encoding="utf-8")


def arguments(text: str) -> Any:
    """What its own argument parser makes of a command, without the checks that need the model."""
    import shlex

    from swift.arguments import SftArguments
    from swift.utils.utils import _patch_get_type_hints
    from transformers import HfArgumentParser

    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = shlex.split("\n".join(lines).replace("\\\n", " "))
    assert words[:2] == ["swift", "sft"], words
    # The dataclasses look for the model as soon as they are made; the parser's own values come before that.
    with _patch_get_type_hints():
        parser = HfArgumentParser([SftArguments])
    namespace, remaining = parser.parse_known_args(words[2:])
    if remaining:
        raise ValueError(f"remaining_argv: {remaining}")  # pipelines/base.py
    if namespace.target_regex:
        namespace.target_modules = namespace.target_regex  # TunerArguments.__post_init__
    namespace.init_weights = True
    return namespace


def parsed(text: str) -> dict[str, Any]:
    try:
        found = arguments(text)
    except (Exception, SystemExit) as error:  # argparse exits
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    keys = ("model", "target_modules", "target_parameters", "lora_rank", "lora_alpha", "lora_dropout", "lora_bias")
    more = ("use_rslora", "use_dora", "freeze_vit", "freeze_llm", "freeze_aligner", "task_type", "num_labels")
    return {"error": "", **{key: getattr(found, key) for key in (*keys, *more)}}


def stops() -> dict[str, bool]:
    """Whether it stops at each architecture's configuration if none of its model types is for the class."""
    from swift.utils import HfConfigFactory
    from transformers import AutoModelForCausalLM

    found = {}
    for entry in architectures.entries("causal-lm", "image-text-to-text"):
        try:
            config = entry.config()
        except Exception:  # a default that this transformers cannot make
            continue
        # get_model_info_meta, then the class that ModelLoader takes.
        loaded = type(config) in AutoModelForCausalLM._model_mapping
        found[f"{entry.head}/{entry.model_type}"] = HfConfigFactory.is_multimodal(config) or not loaded
    return found


def of_model(head: str, model_type: str) -> dict[str, Any]:
    """For each command: what it adapts, and what is said here that it does."""
    from swift.model.model_meta import MODEL_MAPPING, ModelMeta, get_matched_model_types

    from lorascope.inspecting import inspect
    from tests.helpers.few_layers import few_layers
    from tests.helpers.trainer_cases import exported_plans, said_of

    model = few_layers(head, model_type)
    mapped = inspect(model)
    kinds = get_matched_model_types([type(model).__name__])
    # As get_model_info_meta does where no type is for the class; where several are, the user names one.
    model.model_meta = MODEL_MAPPING[kinds[0]] if kinds else ModelMeta(None, [], template="dummy", model_arch=None)
    named = f" --model_type {kinds[0]}" if len(kinds) > 1 else ""
    texts = {name: f"swift sft --model folder --dataset d{named} {words}" for name, words in WRITTEN.items()}
    plans, refused = exported_plans(mapped, PLANS, "ms-swift")
    texts |= plans
    cases = {
        name: {"said": said_of(mapped, "ms-swift", text), "done": done(model, text)} for name, text in texts.items()
    }
    return {"cases": cases, "refused": refused, "kinds": kinds}


def done(model: Any, text: str) -> dict[str, Any]:
    import torch
    from swift.pipelines.train.tuner import prepare_adapter
    from swift.utils import HfConfigFactory

    from tests.helpers.oracle import adapted_weights, restored

    found = arguments(text)
    if model.model_meta.model_type is None and HfConfigFactory.is_multimodal(model.config):
        return {"error": "get_model_info_meta stops", "adapted": {}, "trainable": 0}
    found.model_meta, found.training_args = model.model_meta, types.SimpleNamespace()
    with restored(model), torch.device("meta"):
        model.requires_grad_(False)  # TunerMixin.prepare_model
        try:
            wrapped = prepare_adapter(found, model, task_type=found.task_type or "causal_lm")
        except Exception as error:  # whatever it or PEFT stops with
            return {"error": f"{type(error).__name__}: {error}"[:300], "adapted": {}, "trainable": 0}
        trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        return {"error": "", "adapted": adapted_weights(wrapped), "trainable": trainable}


if __name__ == "__main__":
    main()
