"""How many weights of models that nobody has named get which verdict, role by role.

Used by the tests and by the tool that writes `docs/held-out.md`, so that both say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lorascope.model.role_names import parse_role
from lorascope.model.types import ModelMap, Trace
from lorascope.sources.transformers.meta_model import map_module
from lorascope.tracing.traced_map import trace_roles
from tests.conformance.traces import runnable
from tests.helpers.families import FAMILIES, entry_of, expected
from tests.helpers.renamed_models import renamed
from tests.helpers.trace_verdicts import Verdict, verdict
from tests.zoo import ZOO, Specimen

LABELS = [label for labels in FAMILIES.values() for label in labels]
HONEST = [specimen for specimen in ZOO.values() if not specimen.hostile]
SEED = 5  # of the words that transformers' models are renamed to

Counts = dict[str, dict[str, int]]


def traced_specimen(specimen: Specimen) -> ModelMap:
    """The traced map of a model of the zoo."""
    module = specimen.build()
    return trace_roles(module, map_module(module), inputs=specimen.inputs())


def verdicts_of_specimen(specimen: Specimen) -> Iterator[tuple[str, Verdict, Trace]]:
    """The truth of every weight that the forward pass reaches, and what dataflow makes of it."""
    for trace in traced_specimen(specimen).traces:
        if specimen.rows[trace.weight] not in specimen.unreached:
            truth = specimen.roles[trace.weight]
            yield truth, verdict(" | ".join(f"text.{one}" for one in truth.split(" | ")), trace), trace


def verdicts_of_renamed(label: str) -> Iterator[tuple[str, Verdict, Trace]]:
    """The same for one of transformers' own models under names without meaning."""
    truth = expected(label)
    module, names = renamed(runnable(entry_of(label)), SEED)
    for trace in trace_roles(module, map_module(module)).traces:
        yield truth[names[trace.weight]], verdict(truth[names[trace.weight]], trace), trace


def core_role(truth: str) -> str:
    """The role as the tables have it: softmax attention and feed-forward by part, all else by block."""
    if " + " in truth:
        return "attention and ffn in one matrix"
    if " | " in truth:
        return "either of several"
    role = parse_role(truth)
    if role.block == "attention" and role.variant == "linear":
        return "attention.linear"
    return f"{role.block}.{role.part}" if role.block in ("attention", "ffn") else role.block


def measure_held_out() -> dict[str, Counts]:
    """Role to verdict to number of weights, of the models written for it and of the renamed ones."""
    found: dict[str, dict[str, Counter[str]]] = {"written": {}, "renamed": {}}
    for specimen in HONEST:
        for truth, mine, _ in verdicts_of_specimen(specimen):
            found["written"].setdefault(core_role(truth), Counter())[mine] += 1
    for label in LABELS:
        for truth, mine, _ in verdicts_of_renamed(label):
            found["renamed"].setdefault(core_role(truth), Counter())[mine] += 1
    return {
        kind: {role: dict(sorted(counts.items())) for role, counts in sorted(roles.items())}
        for kind, roles in found.items()
    }
