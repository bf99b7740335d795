"""Weights left out although their like is adapted, such as experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lorascope.checks.context import CheckContext
from lorascope.checks.exclusions import excluded_by
from lorascope.checks.name_meanings import fix_for_place, place_of_weights
from lorascope.checks.phrases import places, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.rules.moe_rewrite import rewritten_away
from lorascope.checks.suggestions import planning_command
from lorascope.findings import Finding, Severity
from lorascope.model.types import Weight
from lorascope.names import template
from lorascope.number_text import share_text
from lorascope.peft_rules.adaptability import why_not_adaptable
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.name_patterns import BadPatternError
from lorascope.plans.rules import CONTENTS

LEFT_OUT = FindingRule(
    "left-out",
    "warning",
    "weights are not adapted although others that do the same are",
    "q_proj and up_proj often miss fused experts or linear attention, which can be most of the block.",
)

_MAIN_BLOCKS = ("attention", "ffn", "mixer")
_KINDS = {
    "expert": "the routed experts",
    "shared": "the shared experts",
    "dense": "the dense FFN layers",
    "linear": "the linear attention",
    "cross": "the cross-attention",
    "self": "the self-attention",
}


@finds(LEFT_OUT)
def find_left_out(context: CheckContext) -> Iterator[Finding]:
    """Weights of adapted kinds that get no adapter."""
    groups: dict[tuple[str, str], list[Weight]] = {}
    for weight in _missed(context) if context.adapted_weights else ():
        groups.setdefault((weight.role.block, weight.role.variant), []).append(weight)
    for (block, variant), weights in groups.items():
        main = [w for w in context.model.weights if w.role.component in context.main_components]
        whole = sum(weight.size for weight in main if weight.role.block == block)
        share = sum(weight.size for weight in weights) / whole if whole else 0.0
        kind = _KINDS.get(variant, f"the {block}")
        parts = ", ".join(sorted({weight.role.part for weight in weights} - {""}))
        title = {"ffn": "FFN"}.get(block, block)
        message = (
            f"Not adapted: {share_text(share)} of the {title}, though others that do the same are: "
            f"{plural(len(weights), 'weight')} of {kind} ({parts})."
        )
        selector = ".".join(word for word in (block, variant) if word)
        command = planning_command(context.model, selector)
        fix = fix_for_place(context, place_of_weights(context, weights), command, "To adapt them")
        fix = f"Nothing to do if they are meant to stay out. {fix}"
        severity: Severity = "warning" if _likely_unmeant(context, weights) else "note"
        yield LEFT_OUT.finding(places(weights), message, fix, severity)


def _missed(context: CheckContext) -> list[Weight]:
    """Unadapted weights of adapted roles, unless the configuration excludes them."""
    names = {weight.name for weight in context.adapted_weights}
    adapted = [weight for weight in context.adapted_weights if _is_main(context, weight)]
    rewritten = rewritten_away(context)  # `moe-rewrite` says so.
    templates = {template(name) for name in names}
    layers: dict[str, set[int | None]] = {}
    for weight in adapted:
        layers.setdefault(weight.role.block, set()).add(weight.layer)
    everywhere = context.config.layers_to_transform is None
    everything = _asks_for_everything(context)
    parts = _parts(adapted)
    candidates = [
        weight
        for weight in context.model.weights
        if weight.name not in names
        and weight.name not in rewritten
        and _is_main(context, weight)
        # Some layers of many: whoever names them means them.
        and template(weight.name) not in templates
        and (everywhere or weight.layer in layers.get(weight.role.block, ()))
        and (everything or _shares(weight, parts))
    ]
    try:
        excluded = set(excluded_by(context.config.exclude_modules or (), [weight.name for weight in candidates]))
    except BadPatternError:
        return []
    return [
        weight for weight in candidates if weight.name not in excluded and not why_not_adaptable(context.model, weight)
    ]


def _is_main(context: CheckContext, weight: Weight) -> bool:
    """It belongs to the attention, FFN or mixers of the model itself."""
    return weight.role.component in context.main_components and weight.role.block in _MAIN_BLOCKS


def _asks_for_everything(context: CheckContext) -> bool:
    """The targets are all linear layers, by `all-linear` or by an expression."""
    if context.entries.form != "string":
        return context.entries.form == "all-linear"
    names = {weight.name for weight in context.adapted_weights}
    return all(
        weight.name in names
        for weight in context.model.weights
        if weight.kind in ("linear", "conv1d") and _is_main(context, weight)
    )


def _parts(weights: Iterable[Weight]) -> dict[str, set[str]]:
    """The targeted parts of each block; fused ones only without plain ones."""
    plain: dict[str, set[str]] = {}
    fused: dict[str, set[str]] = {}
    for weight in weights:
        part = weight.role.part
        if part in CONTENTS:
            fused.setdefault(weight.role.block, set()).update(CONTENTS[part])
        else:
            plain.setdefault(weight.role.block, set()).add(part)
    return {**fused, **plain}


def _pieces(weight: Weight) -> set[str]:
    """The part of a weight, and what is fused in it."""
    return {weight.role.part, *CONTENTS.get(weight.role.part, ())}


def _shares(weight: Weight, parts: dict[str, set[str]]) -> bool:
    return bool(_pieces(weight) & parts.get(weight.role.block, set()))


def _likely_unmeant(context: CheckContext, weights: Sequence[Weight]) -> bool:
    """Short names that people paste adapt their like, not longer ones."""
    entries = context.entries
    if entries.form in ("all-linear", "string"):
        return entries.form == "all-linear"
    blocks = {weight.role.block for weight in weights}
    mains = [weight for weight in context.adapted_weights if _is_main(context, weight)]
    if all(weight.role.variant == "self" for weight in mains) and all(w.role.variant == "linear" for w in weights):
        return False  # The softmax attention of a hybrid and nothing else, by its own names.
    pieces = {piece for weight in weights for piece in _pieces(weight)}
    like = {
        peft_name(context.model, weight)
        for weight in context.adapted_weights
        if weight.role.block in blocks and weight.role.part not in CONTENTS and weight.role.part in pieces
    }
    if any(name in like for entry in entries.parameters for name in entry.parameters):
        return False  # Who writes target_parameters knows that there are such.
    return any(
        "." not in entry.text and any(module.name in like for module in entry.targeted) for entry in entries.modules
    )
