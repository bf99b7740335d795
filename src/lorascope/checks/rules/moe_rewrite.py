"""PEFT's silent rewrite for fused experts, weight by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lorascope.checks.context import CheckContext
from lorascope.checks.entries import Entry
from lorascope.checks.name_meanings import place_of_weights
from lorascope.checks.phrases import joined, places, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import MOST_SPELLED, planning_command
from lorascope.findings import Finding
from lorascope.model.types import Weight
from lorascope.names import listed
from lorascope.peft_rules.addresses import as_parameter, weight_of
from lorascope.peft_rules.types import Resolution

MOE_REWRITE = FindingRule(
    "moe-rewrite",
    "warning",
    "PEFT rewrites target names for fused experts",
    "Since 0.19 it turns names of single experts into the fused parameter, and may drop or add other weights.",
)

_SETTING = "target_modules"
# From this share of the trainable parameters on, experts that the names do not speak of are the adapter.
_MOSTLY = 0.9


@finds(MOE_REWRITE)
def find_rewritten(context: CheckContext) -> Iterator[Finding]:
    """What the rewrite took away from the targets and added to them."""
    if context.refused_as("moe-rewrite"):
        yield _halves(context)
        return
    entries = [entry for entry in context.entries.modules if entry.rewritten]
    done = context.warnings_of("moe-rewrite")
    if not context.model.moe_conversion or context.release < (0, 19) or not (done or entries):
        return
    if not done:  # PEFT refuses the whole for another reason.
        message = f"On {context.model.model_type}, PEFT turns {_turned(entries[:MOST_SPELLED])}, for its fused experts."
        yield MOE_REWRITE.finding(_SETTING, message, "Nothing to do if the experts are meant.", "note")
        return
    plain = context.without_rewrite
    adapted = {weight.name: weight for weight in context.adapted_weights}
    named = _weights(context, plain) if not plain.refusal else dict(_named_by_entries(context, adapted))
    lost = [weight for name, weight in named.items() if name not in adapted]
    gained = [weight for name, weight in adapted.items() if name not in named]
    experts = [weight for weight in gained if weight.role.variant == "expert"]
    others = [weight for weight in gained if weight.role.variant != "expert"]
    share = _share(context, experts)
    mostly = _MOSTLY <= share < 1  # names of experts alone mean them
    matters = bool(lost or others or mostly or (context.entries.form == "string" and experts))
    if not matters and not experts and not plain.refusal:
        return  # It changed nothing.
    parts = [_amount(context, experts)] if mostly else []
    parts.append(f"PEFT rewrites the targets for the fused experts of {context.model.model_type}.")
    if entries:
        parts.append(f"It turns {_turned(entries)}.")
    elif context.entries.form in ("string", "all-linear"):
        parts.append("It keeps only the last words of the names that the string matches.")
    if lost:
        parts.append(f"Named but not adapted: {plural(len(lost), 'weight')} ({places(lost)}).")
    if experts:
        stacks = plural(len(experts), "stack")
        parts.append(f"Adapted instead: {stacks} of experts{_ranks(context, experts)} ({places(experts)}).")
    if others:
        parts.append(f"Adapted but not named: {plural(len(others), 'weight')} ({places(others)}).")
    fix = (
        _fix(context, lost, others)
        if lost or others or (not mostly and matters)
        else f"Nothing to do if {'the experts are' if experts else 'that is'} meant; otherwise leave these names out."
    )
    yield MOE_REWRITE.finding(_SETTING, " ".join(parts), fix, "warning" if matters else "note")


def _named_by_entries(context: CheckContext, adapted: Mapping[str, Weight]) -> Iterator[tuple[str, Weight]]:
    """The adapted weights whose modules the entries name, where PEFT would refuse them without its rewrite."""
    named = {module.name for entry in context.entries.modules for module in entry.modules}
    return ((name, weight) for name, weight in adapted.items() if weight.module in named)


def _share(context: CheckContext, experts: Sequence[Weight]) -> float:
    return context.trainable_of(experts) / context.resolution.trainable if context.resolution.trainable else 0.0


def _amount(context: CheckContext, experts: Sequence[Weight]) -> str:
    own, every = context.trainable_of(experts), context.resolution.trainable
    return f"{own:,} of {every:,} trainable parameters are in the experts."


def _turned(entries: Sequence[Entry]) -> str:
    """What becomes of entries: `w1 and w3 into gate_up_proj, w2 into down_proj`."""
    texts: dict[str, list[str]] = {}
    for entry in entries:
        texts.setdefault(entry.rewritten, []).append(entry.text)
    return ", ".join(f"{joined(names)} into {stack}" for stack, names in texts.items())


def rewritten_away(context: CheckContext) -> frozenset[str]:
    """The named weights that PEFT's rewrite takes away."""
    if not context.warnings_of("moe-rewrite"):
        return frozenset()
    adapted = {weight.name for weight in context.adapted_weights}
    return frozenset(_weights(context, context.without_rewrite).keys() - adapted)


def _halves(context: CheckContext) -> Finding:
    """One half of a fused matrix, which PEFT refuses."""
    stacks = [w for w in context.model.weights if w.role.variant == "expert" and w.kind == "parameter"]
    entries = place_of_weights(context, stacks).parameters if stacks else ()
    fix = "Name both halves, or neither."
    if entries:
        fix += f" For the experts alone: {context.parameters_setting(entries)}."
    return MOE_REWRITE.finding(_SETTING, context.refusal, fix, "error")


def _weights(context: CheckContext, resolution: Resolution) -> dict[str, Weight]:
    weights = (weight_of(context.model, adapted.name) for adapted in resolution.adapted)
    return {weight.name: weight for weight in weights if weight is not None}


def _ranks(context: CheckContext, experts: list[Weight]) -> str:
    """The rank of the stacks where it is not the configured one."""
    names = {weight.name for weight in experts}
    ranks = sorted({rank for name, (rank, _) in context.sizes.items() if name in names} - {context.config.r})
    return f" at rank {' and '.join(map(str, ranks))} per expert, not {context.config.r}" if ranks else ""


def _fix(context: CheckContext, lost: list[Weight], others: list[Weight]) -> str:
    ways = []
    place = place_of_weights(context, lost)
    if place.parameters and any(as_parameter(context.model, weight) for weight in lost):
        ways.append(f"To adapt them, set {context.parameters_setting(place.parameters)}.")
    if others:
        routers = all(weight.role.block == "router" for weight in others)
        what = "the router" if routers else listed((weight.name for weight in others), 1)
        ways.append(f"To leave {what} out, use a list of the names you mean.")
    return " ".join([*ways, f"Or generate it: {planning_command(context.model, 'all')}"])
