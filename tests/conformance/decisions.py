"""Where name and dataflow contradict each other on promised architectures, and who is right: decided by reading the code.

`tests/data/expectations/traced_roles.tsv` holds the decisions; the conformance tests and `docs/traced-roles.md` read them here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from lorascope.plans.rules import CONTENTS, FACT_OF
from tests.helpers.paths import DATA

DECIDED = DATA / "expectations" / "traced_roles.tsv"
# The parts that adapters are put on, as they are and in every fused or low-rank form.
_CORE = frozenset({"q", "k", "v", "o", "gate", "up", "down"})


class Case(NamedTuple):
    """A contradiction that was looked up in the modeling code.

    Attributes:
        model_types: The model types that have it, with a space between two.
        pattern: A regular expression that matches the whole name of its weights, numbers folded to `#`.
        named: The role by name.
        flow: The role by dataflow.
        right: `names`, `dataflow`, or `both` where the weight does both.
        reason: What the code does, as a sentence.
    """

    model_types: str
    pattern: str
    named: str
    flow: str
    right: str
    reason: str

    def speaks_of(self, model_type: str, name: str, named: str, flow: str) -> bool:
        """Whether this decides what two roles of the weights of a folded name contradict each other in."""
        if model_type not in self.model_types.split() or (named, flow) != (self.named, self.flow):
            return False
        return re.fullmatch(self.pattern, name) is not None


class Contradiction(NamedTuple):
    """One of what was measured: `number` weights of a folded name, with both of their roles."""

    label: str
    name: str
    named: str
    flow: str
    number: int

    @property
    def model_type(self) -> str:
        """Its architecture's model type: `bert` of `causal-lm/bert+cross`."""
        return self.label.partition("/")[2].partition("+")[0]


@cache
def cases() -> tuple[Case, ...]:
    """The decisions, in order."""
    return tuple(Case(*line.split("\t")) for line in DECIDED.read_text(encoding="utf-8").splitlines()[1:])


def cases_of(found: Contradiction) -> tuple[Case, ...]:
    """The decisions that speak of a contradiction: one, if all is well."""
    return tuple(case for case in cases() if case.speaks_of(found.model_type, found.name, found.named, found.flow))


def contradictions(rows: Mapping[str, Mapping[str, Any]]) -> Iterable[Contradiction]:
    """All that were measured, from the entries of `traces.json`."""
    for label, row in rows.items():
        for name, named, flow, number in row["disagree"]:
            yield Contradiction(label, name, named, flow, number)


def core(role: str) -> str:
    """Block and part of a written role, if it is what adapters are put on: q, k, v and o of a softmax attention, its gate,
    and an FFN's gate, up and down, also fused or of low rank. Empty for any other role.
    """
    facts = {FACT_OF[word]: word for word in role.split(".")}
    block, part = facts.get("block", ""), facts.get("part", "")
    if block not in ("attention", "ffn") or facts.get("variant") == "linear":
        return ""
    return f"{block}.{part}" if part and set(CONTENTS.get(part, (part,))) <= _CORE else ""
