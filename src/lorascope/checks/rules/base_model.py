"""Adapters trained on another base model, head or PEFT release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lorascope.checks.context import CheckContext, adapted_sizes
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.rules.releases import VERSION_DEPENDENT
from lorascope.checks.rules.task_types import TASK_TYPE
from lorascope.findings import Finding
from lorascope.foreign_text import quoted, shell_word
from lorascope.model.types import Head
from lorascope.names import listed
from lorascope.peft_rules.releases import NEWEST, OLDEST, parse_release
from lorascope.peft_rules.resolve import resolve
from lorascope.sources.builtin import builtin_models
from lorascope.sources.source_kinds import HUB_ID

OTHER_BASE = FindingRule(
    "other-base",
    "warning",
    "the adapter was trained on another model",
    "A name alone proves nothing: tensors of other sizes are an error, a copy of the same weights is a note.",
)

LABELS = FindingRule(
    "labels",
    "note",
    "the saved head has another number of labels than the base model",
    "PEFT raises on loading unless the base model is loaded with that number.",
)

_MOST_NAMED = 6
# An owner and a name of at most 96 characters, as huggingface_hub has it.
_LONGEST_ID = 200
# What people append to the name of a copy with the same weights, quantized or converted.
_COPY = re.compile(r"(-(unsloth|bnb|nf4|4bit|8bit|gptq|awq|int4|int8|w4a16|fp8|bf16|fp16|hf|dynamic|quantized|mlx))+$")
# Task types whose models have a head of their own, and the heads with which that cannot be.
_OTHER_HEADS: Mapping[str, tuple[Head, ...]] = {
    "SEQ_CLS": ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm"),
    "TOKEN_CLS": ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "sequence-classification"),
    "QUESTION_ANS": ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "sequence-classification"),
    "CAUSAL_LM": ("seq2seq-lm", "sequence-classification"),
    "SEQ_2_SEQ_LM": ("causal-lm", "masked-lm", "sequence-classification"),
}
# Released models whose type is not of the family that their names begin with: their configurations say so.
_TYPES: Mapping[str, tuple[str, ...]] = {"smollm": ("llama",), "falcon": ("llama",), "ministral": ("mistral",)}
_HEAD_OF = {"SEQ_CLS": "sequence-classification", "CAUSAL_LM": "causal-lm", "SEQ_2_SEQ_LM": "seq2seq-lm"}


@finds(OTHER_BASE)
def find_other_model(context: CheckContext) -> Iterator[Finding]:
    """Another base model by its name, and by the sizes of the tensors."""
    base, model = context.given.get("base_model_name_or_path"), context.model.model
    if not isinstance(base, str) or not (_is_hub_id(base) and _is_hub_id(model)) or base.lower() == model.lower():
        return
    message = f'The adapter was trained on {quoted(base)}, and this model is "{model}"'
    fix = f"Check it on its own base: lorascope check {shell_word(base)} ADAPTER"
    if context.comparison is not None and context.comparison.other_sizes:
        yield OTHER_BASE.finding(context.where, f"{message}, whose weights have other sizes.", fix, "error")
    elif _plain(base) == _plain(model):
        message += ", by its name a copy. If its weights are the same, the adapter does the same."
        yield OTHER_BASE.finding(context.where, message, fix, "note")
    else:
        message += ". On other weights it does something else."
        if context.tensors is not None:
            message += " The sizes of its tensors fit, which says nothing about the values of the weights."
        yield OTHER_BASE.finding(context.where, message, fix)


@finds(OTHER_BASE)
def find_other_family(context: CheckContext) -> Iterator[Finding]:
    """A base model whose name begins with another family than the model's type."""
    base, model = context.given.get("base_model_name_or_path"), context.model
    if not isinstance(base, str) or not _is_hub_id(base) or _is_hub_id(model.model) or not model.model_type:
        return
    named = _root(base.rpartition("/")[2])
    own = _root(model.model_type)
    families = {_root(name) for name in builtin_models()}
    if (
        named
        and named in families
        and named != own
        and own not in base.lower()
        and model.model_type not in _TYPES.get(named, ())
    ):
        message = (
            f"The adapter names the base model {quoted(base)}, by its name a {named}. This one is a {model.model_type}."
        )
        fix = f"Check it on its own base: lorascope check {shell_word(base)} ADAPTER"
        yield OTHER_BASE.finding(context.where, message, fix, "note")


def _root(name: str) -> str:
    """The family in a name: `llama` of `Llama-3.1-8B` and of `llama4`."""
    match = re.match("[a-z]{3,}", name.lower())
    return match[0] if match else ""


def _is_hub_id(name: str) -> bool:
    """It can be a Hub id, and is no path that exists."""
    return len(name) <= _LONGEST_ID and HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _plain(name: str) -> str:
    return _COPY.sub("", name.rpartition("/")[2].lower())


@finds(LABELS)
def find_other_labels(context: CheckContext) -> Iterator[Finding]:
    """A saved head with another number of labels."""
    if (labels := context.labels) is not None:
        message = f"The saved head has {labels.saved} labels, the base model {labels.base}. The figures are for {labels.saved}."
        fix = f"Load the base model with num_labels={labels.saved}."
        yield LABELS.finding(labels.head, message, fix)


@finds(OTHER_BASE)
def find_other_class(context: CheckContext) -> Iterator[Finding]:
    """Another class in `auto_mapping`, which PEFT writes without a task type."""
    mapping = context.given.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    here = context.model.architecture
    # Tools wrap the class (FSDPLlamaForCausalLM, PeftModel): that is no other model.
    if not isinstance(named, str) or not here or named.endswith(here) or named.startswith("Peft"):
        return
    message = (
        f"The adapter was trained on a {quoted(named)}, and this model is a {here}. The names of their modules may "
        "differ, and PEFT ignores tensors whose name it does not find."
    )
    fix = "Load the class that it was trained on; lorascope inspect shows it with --head."
    yield OTHER_BASE.finding(context.where, message, fix)


@finds(TASK_TYPE)
def find_other_head(context: CheckContext) -> Iterator[Finding]:
    """A task type that a model with this head does not have."""
    task, model = context.config.task_type or "", context.model
    if model.head not in _OTHER_HEADS.get(task, ()):
        return
    message = (
        f"task_type is {task}, and {model.architecture or 'the model'} has the head of a {model.head}. Either the adapter "
        "was trained on another class, or PEFT wraps this one for a task that it does not do."
    )
    head = _HEAD_OF.get(task, "")
    fix = f"Check it with its own head: --head {head}." if head else "Check it on the class that it was trained on."
    yield TASK_TYPE.finding(context.where, message, fix)


@finds(VERSION_DEPENDENT)
def find_other_release(context: CheckContext) -> Iterator[Finding]:
    """A PEFT release that saved the adapter and reads it differently."""
    given = context.given.get("peft_version")
    release = parse_release(given) if isinstance(given, str) else None
    ours = parse_release(context.release_name)
    if release is None or ours is None:
        return
    newest = parse_release(NEWEST) or ours
    if release[:2] > newest[:2]:
        message = f"The adapter was saved by PEFT {quoted(given)}, and the newest release known here is {NEWEST}."
        fix = "Update lorascope. An older PEFT drops keys of a configuration that it does not know."
        yield VERSION_DEPENDENT.finding(context.where, message, fix)
        return
    if release[:2] == ours[:2] or release < OLDEST:
        return
    there = resolve(context.model, context.config, ".".join(map(str, release)))
    before, here = adapted_sizes(there), context.sizes
    if there.refusal or context.refusal or before == here:
        return
    differing = sorted(name for name in before.keys() | here.keys() if before.get(name) != here.get(name))
    message = (
        f"{len(differing)} weights differ between PEFT {quoted(given)}, which saved the adapter, and "
        f"{context.release_name}: only one of them adapts them, or at another rank or alpha."
    )
    fix = "Load it with the PEFT that saved it, or write full names into target_modules and save it anew."
    yield VERSION_DEPENDENT.finding(listed(differing, _MOST_NAMED), message, fix, "warning")
