"""What names and dataflow make of the models of others: prints JSON. Run in the environment that has their libraries."""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

architectures.mend_torchvision()

import torch  # noqa: E402

from lorascope.model.types import Role  # noqa: E402
from lorascope.sources.transformers.meta_model import map_module  # noqa: E402
from lorascope.tracing.traced_map import trace_roles  # noqa: E402
from tests.others.models import MODELS  # noqa: E402
from tests.others.truths import facts_of, truth  # noqa: E402

VERDICTS = ("right", "open", "coarse", "none", "wrong")


def compare(text: str, role: Role | None) -> str:
    """What a role is worth beside the truth: `other` says nothing, unless it is the truth."""
    if role is None:
        return "none"
    if " + " in text:
        return "wrong"
    return min((_compare(facts_of(one), role) for one in text.split(" | ")), key=VERDICTS.index)


def _compare(facts: tuple[str, str, str], role: Role) -> str:
    block, variant, part = facts
    if role.block == "other" != block:
        return "none"
    if variant == "linear" and role.block == "mixer":
        return "coarse"
    pairs = ((block, role.block), (variant, role.variant), (part, role.part))
    if any(true and said and true != said for true, said in pairs):
        return "wrong"
    return "open" if any(true and not said for true, said in pairs) else "right"


def core_role(text: str) -> str:
    """The row of a table that a truth belongs to."""
    first = text.split(" | ", maxsplit=1)[0]
    if " + " in text:
        return "attention and ffn in one matrix"
    block, variant, part = facts_of(first)
    if variant == "linear":
        return "attention.linear"
    return f"{block}.{part}" if block in ("attention", "ffn", "embedding") and part else block


def measure(names: list[str]) -> dict[str, Any]:
    """Model to notes and, for names and for dataflow, role to verdict to number of weights."""
    found: dict[str, Any] = {}
    for name in names:
        torch.manual_seed(0)
        module, inputs = MODELS[name]()
        named = map_module(module.eval())
        row: dict[str, Any] = {"weights": len(named.weights), "names": {}, "dataflow": {}, "details": []}
        for weight in named.weights:
            _count(row["names"], truth(name, weight.name), None if weight.guess else weight.role)
        try:
            traced = trace_roles(module, named, inputs=inputs)
        except Exception as error:  # a crash is what is measured, too
            row["failure"] = f"{type(error).__name__}: {error}".partition("\n")[0]
            for weight in named.weights:
                _count(row["dataflow"], truth(name, weight.name), None)
        else:
            row["notes"] = list(traced.notes[len(named.notes) :])
            for trace in traced.traces:
                verdict = _count(row["dataflow"], truth(name, trace.weight), trace.flow)
                if verdict not in ("right", "open"):
                    evidence = (trace.weight, truth(name, trace.weight), verdict, str(trace.flow), trace.evidence)
                    row["details"].append(evidence)
        found[name] = row
    return found


def _count(counts: dict[str, Counter[str]], text: str, role: Role | None) -> str:
    verdict = compare(text, role)
    counts.setdefault(core_role(text), Counter())[verdict] += 1
    return verdict


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    json.dump(measure(sys.argv[1:] or [*MODELS]), sys.stdout)
