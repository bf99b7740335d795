"""Weights that share a tensor, and adapters that cannot be merged."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.exclusions import excluding_fix
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.names import listed

TIED = FindingRule(
    "tied",
    "warning",
    "an adapted or copied weight shares its tensor with another",
    "Merging changes both or unties them, and a copy is trained alone.",
)
UNMERGEABLE = FindingRule(
    "unmergeable", "note", "an adapter cannot be merged", "It has to stay a separate adapter when the model is served."
)

_UNTIE = "untie the model before training (tie_word_embeddings=False)"


@finds(TIED)
def find_tied_adapters(context: CheckContext) -> Iterator[Finding]:
    """Adapted modules whose tensor is another module's too."""
    names = {name for warning in context.warnings_of("tied") for name in warning.names}
    alone: dict[str, str] = {}
    together: dict[str, None] = {}
    for owners in _owners(context) if names else ():
        hits = [owner for owner in owners if owner in names]
        others = [owner for owner in owners if owner not in names]
        if others:
            alone.update(dict.fromkeys(hits, others[0]))
        else:
            together.update(dict.fromkeys(hits))
    if alone:
        pair = f"{listed(alone, 2)} shares its tensor with {listed(alone.values(), 2)}"
        message = f"{pair}. Only the named module is adapted, and merging changes both or unties them."
        fix = f"{excluding_fix(context, [*alone], [*alone])} To keep them, do not merge the adapter, or {_UNTIE}."
        yield TIED.finding(listed(alone, 3), message, fix)
    if together:
        message = f"{len(together)} modules share tensors and get an adapter each; merging adds all to the one tensor."
        # Two stacks that share all their layers are adapted together; an embedding and its head seldom are.
        by_name = context.model.weight_by_name
        blocks = {weight.role.block for name in together if (weight := by_name.get(name)) is not None}
        inner = blocks.isdisjoint(("head", "embedding"))
        fix = "Do not merge the adapter."
        yield TIED.finding(listed(together, 3), message, fix, "note" if inner else "warning")


@finds(TIED)
def find_tied_copies(context: CheckContext) -> Iterator[Finding]:
    """Copies of `modules_to_save` that share their tensor no longer."""
    saved = set(context.resolution.saved)
    for owners in _owners(context) if saved else ():
        hits = [owner for owner in owners if owner in saved]
        others = [owner for owner in owners if owner not in saved]
        if not hits:
            continue
        message = f"modules_to_save copies {listed(hits, 2)}, which shares its tensor"
        if others:
            message += f" with {listed(others, 2)}: only the copy is trained."
        else:
            message += ": the copies are trained as separate tensors."
        yield TIED.finding(listed(hits, 2), message, f"Take it out of modules_to_save, or {_UNTIE}.")


def _owners(context: CheckContext) -> Iterator[list[str]]:
    """The modules of each group of tied tensors."""
    for group in context.model.ties:
        yield list(dict.fromkeys(name.rpartition(".")[0] for name in group))


@finds(UNMERGEABLE)
def find_unmergeable(context: CheckContext) -> Iterator[Finding]:
    """Adapters that PEFT cannot merge."""
    for warning in context.warnings_of("unmergeable"):
        fix = "Do not merge the adapter, or leave these layers out."
        yield UNMERGEABLE.finding(listed(warning.names, 2), warning, fix)
