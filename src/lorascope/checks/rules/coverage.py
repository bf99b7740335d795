"""Weights that do what adapted ones do, and are left out: experts beside a dense FFN, above all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.checks.context import Case, places
from lorascope.checks.entries import Asked, counted
from lorascope.checks.name_meanings import fix_for, place_of_weights
from lorascope.checks.rules.layers import excluded_by
from lorascope.checks.rules.moe_rewrite import taken_by_rewrite
from lorascope.checks.rules.unmatched import planning_command
from lorascope.findings import Finding, Severity
from lorascope.model.types import Weight
from lorascope.names import template
from lorascope.peft_rules.adaptability import obstacle
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.name_patterns import BadPatternError
from lorascope.plans.rules import CONTENTS

_PLANNED = ("attention", "ffn", "mixer")
_SAID = {
    "expert": "the routed experts",
    "shared": "the shared experts",
    "dense": "the dense feed-forward layers",
    "linear": "the linear attention",
    "cross": "the cross-attention",
    "self": "the self-attention",
}


def coverage_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`left-out`."""
    if not case.hit:
        return
    by_block: dict[tuple[str, str], list[Weight]] = {}
    for weight in _missed(case, asked):
        by_block.setdefault((weight.role.block, weight.role.variant), []).append(weight)
    for (block, variant), weights in by_block.items():
        whole = sum(w.size for w in case.model.weights if w.role.component in case.own and w.role.block == block)
        share = sum(weight.size for weight in weights) / whole if whole else 0.0
        who = _SAID.get(variant, f"the {block}")
        parts = ", ".join(sorted({weight.role.part for weight in weights} - {""}))
        title = {"ffn": "FFN"}.get(block, block)
        message = (
            f"Not adapted: {counted(len(weights), 'weight')} of {who} ({parts}), {share:.1%} of the {title}, though others "
            "that do the same are."
        )
        severity: Severity = "warning" if _likely_unmeant(case, asked, weights) else "note"
        selector = ".".join(word for word in (block, variant) if word)
        place = place_of_weights(case.model, weights)
        fix = (
            fix_for(case.model, place, planning_command(case, selector))
            + " Nothing to do if they are meant to stay out."
        )
        yield Finding("left-out", severity, places(weights), message, fix)


def _missed(case: Case, asked: Asked) -> list[Weight]:
    """Weights of the roles that are adapted, as far as nothing in the configuration says that they are not meant."""
    own = [weight for weight in case.hit if weight.role.component in case.own and weight.role.block in _PLANNED]
    names = {weight.name for weight in case.hit}
    taken = taken_by_rewrite(case)  # Said by the finding on the rewrite.
    templates = {template(name) for name in names}
    layers: dict[str, set[int | None]] = {}
    for weight in own:
        layers.setdefault(weight.role.block, set()).add(weight.layer)
    everywhere = case.config.layers_to_transform is None
    everything = _asks_for_everything(case, asked)
    parts = _parts(own)
    candidates = [
        weight
        for weight in case.model.weights
        if weight.name not in names
        and weight.name not in taken
        and weight.role.component in case.own
        and weight.role.block in _PLANNED
        # Some layers of many: whoever names them means them.
        and template(weight.name) not in templates
        and (everywhere or weight.layer in layers.get(weight.role.block, ()))
        and (everything or _shares(weight, parts))
    ]
    excluded: set[str] = set()
    if case.config.exclude_modules:
        try:
            excluded = set(excluded_by(case.config.exclude_modules, [weight.name for weight in candidates]))
        except BadPatternError:
            return []
    return [weight for weight in candidates if weight.name not in excluded and not obstacle(case.model, weight)]


def _asks_for_everything(case: Case, asked: Asked) -> bool:
    """All linear layers are asked for, by `all-linear` or by an expression that takes every one of the model's own."""
    if asked.form == "all-linear":
        return True
    if asked.form != "string":
        return False
    hit = {weight.name for weight in case.hit}
    return all(
        weight.name in hit
        for weight in case.model.weights
        if weight.kind in ("linear", "conv1d") and weight.role.component in case.own and weight.role.block in _PLANNED
    )


def _parts(weights: Iterable[Weight]) -> dict[str, set[str]]:
    """The parts of each block that are asked for: those that stand alone where there are any, else what is in fused."""
    plain: dict[str, set[str]] = {}
    fused: dict[str, set[str]] = {}
    for weight in weights:
        part = weight.role.part
        if part in CONTENTS:
            fused.setdefault(weight.role.block, set()).update(CONTENTS[part])
        else:
            plain.setdefault(weight.role.block, set()).add(part)
    return {**fused, **plain}


def _shares(weight: Weight, parts: dict[str, set[str]]) -> bool:
    own = {weight.role.part, *CONTENTS.get(weight.role.part, ())}
    return bool(own & parts.get(weight.role.block, set()))


def _likely_unmeant(case: Case, asked: Asked, weights: Iterable[Weight]) -> bool:
    """The entries that adapt their like are the short names that people paste, not names that tell one from another."""
    if asked.form == "all-linear":
        return True
    if asked.form == "string":
        return False
    blocks = {weight.role.block for weight in weights}
    pieces = {piece for w in weights for piece in (w.role.part, *CONTENTS.get(w.role.part, ()))}
    like = {
        peft_name(case.model, w): w
        for w in case.hit
        if w.role.block in blocks and w.role.part not in CONTENTS and w.role.part in pieces
    }
    if any(name in like for entry in asked.parameters for name in entry.parameters):
        return False  # Who writes target_parameters knows that there are such.
    return any(
        "." not in entry.text and any(module.name in like for module in entry.targeted) for entry in asked.modules
    )
