"""What PEFT's silent rewrite for fused experts does to a configuration, weight by weight."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import Case, places
from lorascope.checks.entries import MOST_SPELLED, Asked, counted, in_quotes, release_in
from lorascope.checks.name_meanings import place_of_weights
from lorascope.checks.rules.unmatched import planning_command
from lorascope.findings import Finding, Severity
from lorascope.model.types import Weight
from lorascope.names import listed
from lorascope.peft_rules.addresses import as_parameter, weight_of
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import Resolution


def rewrite_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`moe-rewrite`."""
    if case.resolution.cause == "moe-rewrite":
        stacks = [w for w in case.model.weights if w.role.variant == "expert" and w.kind == "parameter"]
        ends = place_of_weights(case.model, stacks).parameters if stacks else ()
        fix = "Name both halves, or neither."
        if ends:
            fix += f" For the experts alone: target_parameters=[{in_quotes(ends)}] with lora_dropout=0."
        yield Finding("moe-rewrite", "error", "target_modules", case.resolution.error, fix)
        return
    told = [one for one in case.resolution.warnings if one.code == "moe-rewrite"]
    moved = [entry for entry in asked.modules if entry.rewritten]
    if not case.model.moe_conversion or release_in(case) < (0, 19) or not (told or moved):
        return
    if not told:  # PEFT refuses the whole for another reason.
        shown = ", ".join(f'"{entry.text}" into {entry.rewritten}' for entry in moved[:MOST_SPELLED])
        message = f"PEFT rewrites {shown} on this model type ({case.model.model_type})."
        fix = "Nothing to do if the experts are meant."
        yield Finding("moe-rewrite", "note", "target_modules", message, fix)
        return
    plain = _unrewritten(case)
    said, done = _weights(case, plain), {weight.name: weight for weight in case.hit}
    lost = [weight for name, weight in said.items() if name not in done]
    gained = [weight for name, weight in done.items() if name not in said]
    experts = [weight for weight in gained if weight.role.variant == "expert"]
    others = [weight for weight in gained if weight not in experts]
    parts = [f"PEFT rewrites the targets for the fused experts of {case.model.model_type}."]
    if moved:
        parts.append("It makes " + ", ".join(f"{entry.rewritten} of {entry.text}" for entry in moved) + ".")
    elif asked.form in ("string", "all-linear"):
        parts.append("It keeps only the last words of the names that the text matches.")
    if lost:
        parts.append(f"Not adapted, though named: {counted(len(lost), 'weight')} ({places(lost)}).")
    if experts:
        parts.append(
            f"Adapted instead: {counted(len(experts), 'stack')} of experts{_size(case, experts)} ({places(experts)})."
        )
    if others:
        parts.append(f"Adapted, though not named: {counted(len(others), 'weight')} ({places(others)}).")
    severity: Severity = "warning" if lost or others or (asked.form == "string" and experts) else "note"
    if severity == "note" and not experts and not plain.error:
        return  # It changed nothing.
    yield Finding("moe-rewrite", severity, "target_modules", " ".join(parts), _fix(case, lost, others, severity))


def taken_by_rewrite(case: Case) -> frozenset[str]:
    """The weights that the configuration names and that PEFT's rewrite takes out of it."""
    if not any(one.code == "moe-rewrite" for one in case.resolution.warnings):
        return frozenset()
    return frozenset(_weights(case, _unrewritten(case)).keys() - {weight.name for weight in case.hit})


def _unrewritten(case: Case) -> Resolution:
    """What PEFT would do without the rewrite."""
    return resolve(dataclasses.replace(case.model, moe_conversion=""), case.config, case.peft or NEWEST)


def _weights(case: Case, resolution: Resolution) -> dict[str, Weight]:
    found = (weight_of(case.model, one.name) for one in resolution.adapted)
    return {weight.name: weight for weight in found if weight is not None}


def _size(case: Case, experts: list[Weight]) -> str:
    """The rank of the stacks where it is not the one that was asked for."""
    names = {weight.name for weight in experts}
    ranks = sorted({one.rank for one in case.resolution.adapted if one.name in names} - {case.config.r})
    return f" at rank {' and '.join(map(str, ranks))} per expert, not {case.config.r}" if ranks else ""


def _fix(case: Case, lost: list[Weight], others: list[Weight], severity: str) -> str:
    ways = []
    if lost:
        place = place_of_weights(case.model, lost)
        bare = [weight for weight in lost if as_parameter(case.model, weight)]
        if bare and place.parameters:
            ways.append(f"To adapt them, give target_parameters=[{in_quotes(place.parameters)}] with lora_dropout=0.")
    if others:
        routers = all(weight.role.block == "router" for weight in others)
        what = "the router" if routers else listed((weight.name for weight in others), 1)
        ways.append(f"To leave {what} out, give a list of the names that are meant.")
    if severity == "note":
        return "Nothing to do if the experts are meant; otherwise leave these names out."
    return " ".join([*ways, f"Or let it be written: {planning_command(case, 'all')}"])
