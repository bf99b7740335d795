"""Modules that released models have, and the default configuration lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import joined
from lorascope.checks.released_targets import released_targets
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import pattern_of
from lorascope.findings import Finding
from lorascope.names import NUMBER, listed

RELEASED_PARTS = FindingRule(
    "released-parts",
    "note",
    "released models of this type have other modules than the built-in one",
    "A built-in model is transformers' default configuration; what is said of it may not hold for yours.",
)

_MOST_NAMED = 4
_YOUR_OWN = "To know what it does on your own model, check it there: lorascope check FOLDER ADAPTER"


@finds(RELEASED_PARTS)
def find_released_parts(context: CheckContext) -> Iterator[Finding]:
    """Targets that do something else on released models."""
    adapted = {NUMBER.sub("*", name) for name in context.sizes}
    refused: dict[str, None] = {}
    raising: list[str] = []
    for parts, matched in released_targets(context):
        unfit = [name for name in matched if parts.extra[name] == "other"]
        others = [name for name in matched if parts.extra[name] != "other"]
        gone = [name for name in parts.lacking if name in adapted]
        if unfit:
            raising.append(parts.release)
            refused.update(dict.fromkeys(unfit))
        elif others or gone:
            told = [f"these targets also adapt {listed(others, _MOST_NAMED)} there"] if others else []
            told += [f"it has no {listed(gone, _MOST_NAMED)}"] if gone else []
            message = f"{parts.release} differs from the built-in {context.model.model}: {' and '.join(told)}."
            yield RELEASED_PARTS.finding(context.syntax.name("target_modules"), message, _YOUR_OWN)
    if refused:
        message = (
            f"PEFT raises on {joined(raising)}: these targets also match {listed(refused, _MOST_NAMED)}, of classes that it "
            f"cannot adapt. The built-in {context.model.model} has none of them."
        )
        fix = f"Set {context.setting('exclude_modules', _excluding(context, refused))}."
        yield RELEASED_PARTS.finding(context.syntax.name("target_modules"), message, fix, "warning")


def _excluding(context: CheckContext, templates: Iterable[str]) -> str:
    """An expression for what is excluded already, and for all that lies in the same parts of the model."""
    given = context.config.exclude_modules
    own = [given] if isinstance(given, str) else [pattern_of(given)] if given else []
    owners = dict.fromkeys(".".join(name.split(".")[:2]) for name in templates)
    return "|".join([*own, *(f"{owner.replace('.', '[.]')}[.].*" for owner in owners)])
