"""Roles by dataflow where names say nothing: models written for it, and transformers' own under words without meaning.

`pytest -m "" -rP tests/tracing/test_held_out.py` prints what became of every role.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from families import FAMILIES, entry_of, expected
from renaming import renamed
from verdicts import Verdict, verdict
from zoo import ZOO, Specimen

from lorascope.sources.skeleton import map_module
from lorascope.tracing.tracer import trace_roles

HONEST = [specimen for specimen in ZOO.values() if not specimen.hostile]
HOSTILE = [specimen for specimen in ZOO.values() if specimen.hostile]

# Errors that are known, and how many weights have them. Whoever mends one takes it out.
WRONG = {
    "Packed": 1,  # a long skip, joined again before the head
    "ShiftedWindows": 1,  # half the resolution, twice as wide: called a head
}
SILENT = {
    "OneMatrix": 6,  # the matrices are of attention and feed-forward both
    "Diffusion": 1,
    "TalkingHeads": 4,  # the matrices that mix heads
    "DeepFeed": 2,  # a third matrix inside a feed-forward
    "TwoTowers": 2,  # two ends that are multiplied with each other
    "Recurrent": 5,  # torch's recurrent layers mix devices
    "Parallel": 3,  # one matrix makes queries, keys, values and the inside of the feed-forward
    "Retrieval": 2,  # two ends that are multiplied with each other
    "Denoiser": 1,  # the first matrix of two that make a vector from the time
}
SILENT_RENAMED = {
    "causal-lm/dbrx": 145,  # the default configuration runs nowhere
    "causal-lm/zamba2": 189,  # adapters and the feed-forward of its shared block
    "image-text-to-text/gemma3": 1,  # the projector, a bare parameter
}


@pytest.fixture(scope="module")
def roles_found() -> Iterator[dict[str, Counter[Verdict]]]:
    """Role to how often it was found and how, over all tests of this module."""
    found: dict[str, Counter[Verdict]] = {}
    yield found
    for role, counts in sorted(found.items()):
        print(f"{role:40}", *(f"{verdict} {count}" for verdict, count in counts.most_common()))


def by_name(specimens: list[Specimen]) -> Any:
    return pytest.mark.parametrize("specimen", specimens, ids=[specimen.name for specimen in specimens])


@by_name(HONEST)
def test_of_a_model_of_the_zoo_nothing_is_wrong_that_is_not_known(
    specimen: Specimen, roles_found: dict[str, Counter[Verdict]]
) -> None:
    module = specimen.build()
    traced = trace_roles(module, map_module(module), inputs=specimen.inputs())
    counts: Counter[Verdict] = Counter()
    for trace in traced.traces:
        if specimen.rows[trace.weight] in specimen.unreached:
            assert trace.status == "unexecuted"
            continue
        truth = specimen.roles[trace.weight]
        found = verdict(" | ".join(f"text.{one}" for one in truth.split(" | ")), trace)
        counts[found] += 1
        roles_found.setdefault(truth, Counter())[found] += 1
    assert len(traced.traces) == len(specimen.rows)
    assert counts["wrong"] <= WRONG.get(specimen.name, 0)
    assert counts["ambiguous"] + counts["unexecuted"] <= SILENT.get(specimen.name, 0)


@by_name(HOSTILE)
def test_of_a_hostile_model_what_was_seen_is_right_and_the_rest_says_why(specimen: Specimen) -> None:
    module = specimen.build()
    traced = trace_roles(module, map_module(module), inputs=specimen.inputs())
    assert len(traced.traces) == len(specimen.rows) == 10
    seen = [trace for trace in traced.traces if trace.status == "executed"]
    assert len(seen) >= 5
    assert {verdict(f"text.{specimen.roles[trace.weight]}", trace) for trace in seen} == {"right"}
    unseen = [trace for trace in traced.traces if trace.status != "executed"]
    assert unseen and all("hostile.py, line" in trace.evidence for trace in unseen)


LABELS = [
    pytest.param(label, marks=[pytest.mark.slow] if place else [])
    for labels in FAMILIES.values()
    for place, label in enumerate(labels)
]


@pytest.mark.parametrize("label", LABELS)
def test_of_a_renamed_model_nothing_is_wrong(label: str, roles_found: dict[str, Counter[Verdict]]) -> None:
    truth = expected(label)
    module, names = renamed(entry_of(label).build(), 5)
    traced = trace_roles(module, map_module(module))
    counts: Counter[Verdict] = Counter()
    for trace in traced.traces:
        found = verdict(truth[names[trace.weight]], trace)
        counts[found] += 1
        roles_found.setdefault(truth[names[trace.weight]], Counter())[found] += 1
    assert counts.total() == len(truth)
    assert counts["wrong"] == 0
    assert counts["ambiguous"] + counts["unexecuted"] <= SILENT_RENAMED.get(label, 0)


def test_those_are_many_weights() -> None:
    assert (len(HONEST), len(HOSTILE), len(LABELS)) == (77, 3, 47)
    rows: Counter[str] = Counter()
    for specimen in HONEST:
        batch = specimen.cls.__module__.partition("_")[0]
        rows[batch if batch in ("zoo.later", "zoo.last", "zoo.final") else "zoo"] += len(specimen.rows)
    assert rows == {"zoo": 566, "zoo.later": 263, "zoo.last": 204, "zoo.final": 333}
