"""ms-swift's options for adapters: arguments/, 4.6.0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope.errors import did_you_mean
from lorascope.foreign_text import quoted
from lorascope.trainers.capabilities import Capabilities
from lorascope.trainers.ms_swift.models import model_types
from lorascope.trainers.options import Option, Schema
from lorascope.trainers.values import word_values as word

TITLE = "ms-swift"
RELEASE = "4.6.0"
PEFT = "0.20.0"
CAPABILITIES = Capabilities(
    title=TITLE, peft=PEFT, layers=False, excludes=False, patterns=False, biases=("none", "all")
)
LINEAR = "all-linear"
FREEZES = ("freeze_llm", "freeze_vit", "freeze_aligner")
# PEFT's task for each of its own (pipelines/train/tuner.py, prepare_adapter).
TASKS: Mapping[str, str | None] = {
    "causal_lm": "CAUSAL_LM",
    "seq_cls": "SEQ_CLS",
    "embedding": None,
    "reranker": "SEQ_CLS",
    "generative_reranker": "CAUSAL_LM",
    "decision": "CAUSAL_LM",
}

# In the order in which they are written.
SCHEMA = Schema(
    Option("task_type", word.TEXT, choices=tuple(TASKS)),
    Option("target_regex", word.TEXT),
    Option("target_modules", word.TEXTS, default=(LINEAR,)),
    Option("target_parameters", word.TEXTS, peft="target_parameters"),
    Option("lora_rank", word.WHOLE, default=8, peft="r"),
    Option("lora_alpha", word.NUMBER, default=32.0, peft="lora_alpha"),
    Option("lora_dropout", word.NUMBER, default=0.05, peft="lora_dropout"),
    Option("lora_bias", word.TEXT, default="none", peft="bias", choices=("none", "all")),
    Option("use_rslora", word.TRUTH, peft="use_rslora"),
    Option("use_dora", word.TRUTH, peft="use_dora"),
    Option("modules_to_save", word.TEXTS),
    # For ms-swift's own search and loading.
    Option("model", word.TEXT),
    Option("model_type", word.TEXT),
    Option("tuner_type", word.TEXT),
    Option("tuner_backend", word.TEXT, choices=("peft", "unsloth")),
    Option("rlhf_type", word.TEXT),
    Option("resume_from_checkpoint", word.TEXT),
    Option("adapters", word.TEXTS),
    Option("use_swift_lora", word.TRUTH),
    *(Option(name, word.TRUTH, default=name != "freeze_llm") for name in FREEZES),
    Option("ignore_args_error", word.TRUTH),
)
# Options whose `$` and backquotes may be meant: expressions, and the model, which no rule needs.
_RAW = ("model", "target_regex")


def swift_settings(options: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], list[str]]:
    """The options that bear on adapters, and all faults."""
    unexpanded = [key for key, words in options.items() if key not in _RAW and any("$" in w or "`" in w for w in words)]
    faults = [
        f"--{key} is {quoted(' '.join(options[key]))}, which the shell fills in: write the value out"
        for key in unexpanded
        if key in SCHEMA.options
    ]
    settings, wrong = SCHEMA.read_words({key: words for key, words in options.items() if key not in unexpanded})
    for name in (name for name, option in SCHEMA.options.items() if option.type.flag and f"no_{name}" in options):
        if options[f"no_{name}"]:
            faults.append(f"--no_{name} takes no value, and has {quoted(' '.join(options[f'no_{name}']))}")
        if name in options:
            faults.append(f"both --no_{name} and --{name} are given")
        settings[name] = False
    return settings, [*faults, *wrong, *_refused(settings)]


def _refused(settings: Mapping[str, Any]) -> Iterator[str]:
    name = settings.get("model_type")
    if name is not None and name not in model_types():
        hint = did_you_mean(name, model_types())
        yield f"--model_type is {quoted(name)}, which ms-swift does not know. {hint}".rstrip()
