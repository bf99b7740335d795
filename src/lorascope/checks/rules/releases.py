"""Releases: what other ones of PEFT read differently, and which transformers asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import planning_command
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.peft_rules.differences import read_differently
from lorascope.peft_rules.releases import Release, release_of

VERSION_DEPENDENT = FindingRule(
    "version-dependent",
    "note",
    "other releases of PEFT read it differently",
    "An adapter loaded by another release then has other weights, ranks or shapes, or does not load.",
)
TRANSFORMERS_ASKS = FindingRule(
    "newer-peft-asked",
    "note",
    "transformers asks for a newer PEFT",
    "`model.add_adapter` and its relatives raise; `get_peft_model` works.",
)
# The first transformers that asks for a PEFT, and which (`MIN_PEFT_VERSION` in its `integrations/peft.py`), newest first.
_ASKED: tuple[tuple[Release, str], ...] = (((5, 24), "0.22.0"),)
# Sources of maps that the user's own transformers has built; tables of ours tell nothing of it.
_BUILT = frozenset({"config", "default config", "module"})


@finds(TRANSFORMERS_ASKS)
def find_unmet_demand(context: CheckContext) -> Iterator[Finding]:
    """A transformers whose own methods for adapters refuse this PEFT.

    Measured with transformers 5.24.0 and PEFT 0.21.2: `get_peft_model`, saving, loading, merging, `load_adapter` and
    `Trainer` work; `add_adapter`, `set_adapter`, `enable_adapters`, `disable_adapters`, `active_adapters`,
    `get_adapter_state_dict` and `delete_adapter` raise.
    """
    installed = context.model.versions.get("transformers", "")
    if context.model.source not in _BUILT:
        return
    with contextlib.suppress(LorascopeError):  # of a saved map, which may say anything
        release = release_of(installed)
        asked = next((peft for first, peft in _ASKED if release >= first), "")
        yield from _unmet(context, installed, asked)


def _unmet(context: CheckContext, installed: str, asked: str) -> Iterator[Finding]:
    if asked and context.release < release_of(asked):
        message = (
            f"transformers {installed} asks for PEFT {asked} in model.add_adapter, set_adapter and delete_adapter, which "
            f"raise with PEFT {context.release_name}. get_peft_model, PeftModel and Trainer work."
        )
        fix = "Use peft.get_peft_model(model, config)."
        yield TRANSFORMERS_ASKS.finding(f"transformers {installed}", message, fix)


@finds(VERSION_DEPENDENT)
def find_differing_releases(context: CheckContext) -> Iterator[Finding]:
    """What other releases refuse, adapt or train that this one does not."""
    release = context.release_name
    for difference in read_differently(context.model, context.config, release, context.own_resolution):
        if context.refusal:
            fix = f"Train with that release: pip install peft=={difference.releases[-1]}"
        else:
            fix = (
                f"Pin the release (peft=={release}), or use a configuration that all releases read alike: "
                f"{planning_command(context.model)}"
            )
        yield VERSION_DEPENDENT.finding(f"PEFT {', '.join(difference.releases)}", difference.message, fix)
