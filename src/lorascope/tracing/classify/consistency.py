"""Checks that what was decided hangs together: a role that they find fault with is told as ambiguous, never as a fact.

Dataflow is rarely unsure where it is wrong. What gives it away is that the whole makes no sense: an attention without
values, a matrix that narrows to more than it is widened from, one layer of forty that differs from all the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lorascope.tracing.classify.aggregate import Settled
from lorascope.tracing.classify.annotations import Claim
from lorascope.tracing.classify.attention import Attention, find_attentions
from lorascope.tracing.graph import Flag, Graph
from lorascope.tracing.graph_queries import STARTS, Reading

# Of equal weights of equal layers, so many must agree before the others are the ones in doubt.
_MAJORITY = 2 / 3


def doubts(graph: Graph, claims: Sequence[Claim]) -> dict[int, str]:
    """The uses whose claims cannot be trusted, and why.

    Args:
        graph: Of one call.
        claims: What was decided of it.

    Returns:
        Index of a use to the reason.
    """
    reading = Reading(graph)
    attentions = tuple(find_attentions(reading))
    by_node: dict[int, list[Claim]] = {}
    for claim in claims:
        by_node.setdefault(claim.node, []).append(claim)
    return {
        **_incomplete(reading, attentions, by_node),
        **_not_narrower(reading, by_node),
        **_mixed_up(reading, attentions),
    }


def _incomplete(
    reading: Reading, attentions: Sequence[Attention], claims: Mapping[int, Sequence[Claim]]
) -> dict[int, str]:
    """An attention that runs has queries, keys, values and an output."""
    found: dict[int, str] = {}
    for attention in attentions:
        sides = [reading.origins(edges) for score in attention.scores for edges in reading.nodes[score].operands]
        values = reading.origins(attention.values)
        outputs = [
            reader.node for reader in reading.read_by(attention.mixed) if reading.nodes[reader.node].kind == "weight"
        ]
        mine = {
            edge.source for edges in (*sides, values) for edge in edges if reading.nodes[edge.source].kind == "weight"
        }
        missing = []
        # A learned query, or one of what the model was given, needs no weight.
        if not any(reading.nodes[edge.source].kind in ("weight", *STARTS) for edges in sides for edge in edges):
            missing.append("queries or keys")
        if not any(reading.nodes[edge.source].kind in ("weight", "convolution", *STARTS) for edge in values):
            missing.append("values")
        if not outputs and not reading.is_output[attention.mixed]:
            missing.append("output")
        if missing:
            for node in {*mine, *outputs}:
                if any(claim.block == "attention" for claim in claims.get(node, ())):
                    found[node] = f"the attention that it would belong to has no {' and no '.join(missing)}"
    return found


def _not_narrower(reading: Reading, claims: Mapping[int, Sequence[Claim]]) -> dict[int, str]:
    """The first half of a low-rank pair is narrower than what the second makes of it."""
    found: dict[int, str] = {}
    for index, mine in claims.items():
        if not any(claim.part.endswith("_b") and claim.part != "o_b" for claim in mine):
            continue  # an output of low rank narrows in groups, whose results stand side by side
        node = reading.nodes[index]
        for edge in reading.of_kind(node.operands[0], "weight"):
            if any(claim.part.endswith("_a") for claim in claims.get(edge.source, ())):
                first = reading.nodes[edge.source]
                if node.columns >= node.rows or first.rows >= node.rows:
                    reason = f"a pair of low rank would narrow to {node.columns} and widen to {node.rows}"
                    found[index] = found[edge.source] = reason
    return found


def _mixed_up(reading: Reading, attentions: Sequence[Attention]) -> dict[int, str]:
    """Two weights that are joined before they become queries and keys: which gives which does not show."""
    found: dict[int, str] = {}
    for attention in attentions:
        for score in attention.scores:
            joined = [
                {edge.source for edge in reading.of_kind(edges, "weight") if Flag.JOINED in edge.some}
                for edges in reading.nodes[score].operands
            ]
            both = joined[0] & joined[1]
            if len(both) > 1:
                reason = "its output is joined with that of another weight before both become queries and keys"
                found |= dict.fromkeys(both, reason)
    return found


def unlike_their_layers(settled: Mapping[str, Settled], groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """The weights that are alike in all but the layer and got another role than most, and why that is in doubt.

    Args:
        settled: Weight name to its role.
        groups: Names of weights of the same place, class and shape in different layers.
    """
    found: dict[str, str] = {}
    for group in groups:
        roles = {name: (settled[name].block, settled[name].part) for name in group if name in settled}
        counted = Counter(role for role in roles.values() if role[0])
        if len(counted) < 2:
            continue
        (most, times), *_ = counted.most_common(1)
        clear = times >= _MAJORITY * sum(counted.values())
        for name, role in roles.items():
            if role[0] and (role != most or not clear):
                others = ".".join(word for word in (most if clear else role) if word)
                found[name] = (
                    f"{times} of {len(roles)} weights like it in other layers show {others}"
                    if clear
                    else f"{len(roles)} weights like it in other layers show different roles"
                )
    return found
