"""Whether an adapter was made for another model than the one that it is looked at on, or by rules of another PEFT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lorascope.checks.context import Case
from lorascope.findings import Finding
from lorascope.foreign_text import quoted, shell_word
from lorascope.model.types import Head
from lorascope.names import listed
from lorascope.peft_rules.releases import NEWEST, OLDEST, parsed_version
from lorascope.peft_rules.resolve import resolve
from lorascope.sources.checkpoint.types import Tensor
from lorascope.sources.source_kinds import HUB_ID

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
_HEAD_OF = {"SEQ_CLS": "sequence-classification", "CAUSAL_LM": "causal-lm", "SEQ_2_SEQ_LM": "seq2seq-lm"}


def base_findings(case: Case, tensors: Mapping[str, Tensor] | None = None) -> Iterator[Finding]:
    """What says that an adapter was trained on another model, another head, or by another release of PEFT.

    A name alone proves nothing, so that it is a note or a warning; tensors of other sizes are an error.

    Args:
        case: The configuration on the model, with all that `adapter_config.json` says in `given`.
        tensors: Those of the adapter's file, where they were read.
    """
    yield from _other_model(case, tensors)
    yield from _other_class(case)
    yield from _other_head(case)
    yield from _other_release(case)


def _other_model(case: Case, tensors: Mapping[str, Tensor] | None) -> Iterator[Finding]:
    named = case.given.get("base_model_name_or_path")
    model = case.model.model
    if not isinstance(named, str) or not (_is_hub_id(named) and _is_hub_id(model)) or named.lower() == model.lower():
        return
    said = f'The adapter was trained on {quoted(named)}, and it is looked at on "{model}"'
    fix = f"Look at it on its own base: lorascope check {shell_word(named)} ADAPTER"
    if tensors is not None and _other_sizes(case, tensors):
        yield Finding("other-base", "error", case.where, f"{said}, whose weights are of other sizes.", fix)
    elif _plain(named) == _plain(model):
        note = f"{said}, by its name a copy of it: of the same weights, or else the adapter does something else here."
        yield Finding("other-base", "note", case.where, note, fix)
    else:
        sizes = "" if tensors is None else " The sizes of its tensors fit, which says nothing of the weights' values."
        yield Finding(
            "other-base", "warning", case.where, f"{said}: on other weights it does something else.{sizes}", fix
        )


def _other_sizes(case: Case, tensors: Mapping[str, Tensor]) -> int:
    from lorascope.checks.rules.tensors import other_sizes  # with what reads tables of names

    return other_sizes(case, tensors)


def _is_hub_id(name: str) -> bool:
    """It can be one, and is no path; a relative path of two parts looks the same."""
    return len(name) <= _LONGEST_ID and HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _plain(name: str) -> str:
    return _COPY.sub("", name.rpartition("/")[2].lower())


def _other_class(case: Case) -> Iterator[Finding]:
    """`auto_mapping`, in which PEFT writes the model's class where the configuration has no task type."""
    mapping = case.given.get("auto_mapping")
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    here = case.model.architecture
    # Tools wrap the class (FSDPLlamaForCausalLM, PeftModel): that is no other model.
    if not isinstance(named, str) or not here or named.endswith(here) or named.startswith("Peft"):
        return
    yield Finding(
        "other-base",
        "warning",
        case.where,
        f"The adapter was trained on a {quoted(named)} and it is looked at on a {here}: the names of their modules may "
        "differ, and PEFT ignores tensors whose name it does not find.",
        "Load the class that it was trained on, or look at that: lorascope inspect has --head.",
    )


def _other_head(case: Case) -> Iterator[Finding]:
    task = case.config.task_type or ""
    if case.model.head not in _OTHER_HEADS.get(task, ()):
        return
    head = _HEAD_OF.get(task, "")
    yield Finding(
        "task-type",
        "warning",
        case.where,
        f"task_type is {task}, and {case.model.architecture or 'the model'} has the head of a {case.model.head}: the "
        "adapter was trained on another class, or PEFT wraps this one for a task that it does not do.",
        f"Look at it with its own head: --head {head}." if head else "Look at it on the class that it was trained on.",
    )


def _other_release(case: Case) -> Iterator[Finding]:
    given = case.given.get("peft_version")
    release = parsed_version(given) if isinstance(given, str) else None
    ours = parsed_version(case.peft or NEWEST)
    if release is None or ours is None:
        return
    newest = parsed_version(NEWEST) or ours
    if release[:2] > newest[:2]:
        yield Finding(
            "version-dependent",
            "note",
            case.where,
            f"The adapter was saved by PEFT {quoted(given)}, and the rules known here end with {NEWEST}.",
            "A newer lorascope may know them. An older PEFT drops keys of a configuration that it does not know.",
        )
        return
    if release[:2] == ours[:2] or release < OLDEST:
        return
    there = resolve(case.model, case.config, ".".join(map(str, release)))
    sizes = {one.name: (one.rank, one.alpha) for one in there.adapted}
    here = {one.name: (one.rank, one.alpha) for one in case.resolution.adapted}
    if there.error or case.resolution.error or sizes == here:
        return
    differing = sorted(name for name in sizes.keys() | here.keys() if sizes.get(name) != here.get(name))
    yield Finding(
        "version-dependent",
        "warning",
        listed(differing, _MOST_NAMED),
        f"The adapter was saved by PEFT {quoted(given)}, which reads its configuration differently from "
        f"{case.peft or NEWEST}: {len(differing)} weights are adapted by one of them alone, or at another rank or alpha.",
        "Load it with the PEFT that saved it, or write full names into target_modules and save it anew.",
    )
