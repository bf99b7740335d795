"""How a role by dataflow compares with the truth."""

from __future__ import annotations

from typing import Literal

from lorascope.model.role_names import parse_role
from lorascope.model.types import Role, Trace

# right: all that the truth says. open: less than that, and nothing else. coarse: what dataflow cannot tell apart and says
# so by a wider word: a linear attention from other mixers, a table of positions from other data. wrong: a contradiction.
Verdict = Literal["right", "open", "coarse", "wrong", "ambiguous", "unexecuted"]
_BEST_FIRST: tuple[Verdict, ...] = ("right", "open", "coarse", "wrong")


def verdict(truth: str, trace: Trace) -> Verdict:
    """What a trace is worth.

    Args:
        truth: The text of a role, with or without its component, or several as `zoo.specimens.Specimen` has them.
        trace: The trace of the weight.
    """
    if trace.status != "executed" or trace.flow is None:
        return "unexecuted" if trace.status == "unexecuted" else "ambiguous"
    if " + " in truth:
        return "wrong"  # it names one of two
    found = [_compared(parse_role(one), trace.flow) for one in truth.split(" | ")]
    return min(found, key=_BEST_FIRST.index)


def _compared(truth: Role, flow: Role) -> Verdict:
    if (truth.variant, flow.block) == ("linear", "mixer"):
        return "coarse"
    # A parameter that is added or joined is data, whatever it stands for.
    if truth.block == "embedding" and truth.part in ("position", "query") and flow.block == "other":
        return "coarse"
    pairs = [(getattr(truth, fact), getattr(flow, fact)) for fact in ("block", "variant", "part")]
    if any(one and two and one != two for one, two in pairs):
        return "wrong"
    return "open" if any(one and not two for one, two in pairs) else "right"
