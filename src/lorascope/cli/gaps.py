"""What every command does where its map has gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorascope.cli.output import remark

if TYPE_CHECKING:
    from lorascope.model.types import ModelMap


def report_gaps(model: ModelMap, *, shown: bool) -> int:
    """The exit code: 1 if the map does not show the whole model, else 0.

    Args:
        model: The map that the command answers from.
        shown: The text on stdout begins with the gaps. Otherwise they go to stderr, before the answer.
    """
    if not (model.unexplained or model.missing):  # loads nothing
        return 0
    from lorascope.plans.map_gaps import map_gaps

    gaps = list(map_gaps(model))
    for gap in gaps if not shown else ():
        remark(f"{gap.severity} ({gap.code}): {gap.message} → {gap.fix}")
    return 1 if gaps else 0
