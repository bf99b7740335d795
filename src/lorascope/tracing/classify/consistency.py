"""Consistency checks: a role that fails one is reported as ambiguous.

A wrong classification rarely looks uncertain by itself. It shows in the whole: an attention without values, a low-rank
pair whose first matrix widens, one layer of forty that differs from the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lorascope.tracing.classify.aggregate import Aggregate
from lorascope.tracing.classify.annotations import Annotation
from lorascope.tracing.classify.attention import Attention, find_attentions
from lorascope.tracing.graph import Flag, Graph
from lorascope.tracing.graph_queries import STARTS, GraphQueries

# The share of equal layers that must agree for the others to be the inconsistent ones.
_MAJORITY = 2 / 3


def inconsistencies(graph: Graph, annotations: Sequence[Annotation]) -> dict[int, str]:
    """Uses with inconsistent annotations.

    Args:
        graph: Of one call.
        annotations: Its annotations.

    Returns:
        Index of a use to the reason.
    """
    queries = GraphQueries(graph)
    attentions = tuple(find_attentions(queries))
    by_node: dict[int, list[Annotation]] = {}
    for annotation in annotations:
        by_node.setdefault(annotation.node, []).append(annotation)
    return {
        **_incomplete(queries, attentions, by_node),
        **_not_narrower(queries, by_node),
        **_mixed_up(queries, attentions),
    }


def _incomplete(
    queries: GraphQueries, attentions: Sequence[Attention], annotations: Mapping[int, Sequence[Annotation]]
) -> dict[int, str]:
    """Weights of attentions without queries, keys, values or an output."""
    reasons: dict[int, str] = {}
    for attention in attentions:
        sides = [queries.origins(edges) for score in attention.scores for edges in queries.nodes[score].operands]
        values = queries.origins(attention.values)
        outputs = [
            reader.node for reader in queries.read_by(attention.mixed) if queries.nodes[reader.node].kind == "weight"
        ]
        factors = {
            edge.source for edges in (*sides, values) for edge in edges if queries.nodes[edge.source].kind == "weight"
        }
        missing = []
        # A learned query, or one of what the model was given, needs no weight.
        if not any(queries.nodes[edge.source].kind in ("weight", *STARTS) for edges in sides for edge in edges):
            missing.append("queries or keys")
        if not any(queries.nodes[edge.source].kind in ("weight", "convolution", *STARTS) for edge in values):
            missing.append("values")
        if not outputs and not queries.is_output[attention.mixed]:
            missing.append("output")
        if missing:
            for node in {*factors, *outputs}:
                if any(annotation.block == "attention" for annotation in annotations.get(node, ())):
                    reasons[node] = f"the attention that it would belong to has no {' and no '.join(missing)}"
    return reasons


def _not_narrower(queries: GraphQueries, annotations: Mapping[int, Sequence[Annotation]]) -> dict[int, str]:
    """Low-rank pairs whose first matrix does not narrow."""
    reasons: dict[int, str] = {}
    for index, uses in annotations.items():
        if not any(use.part.endswith("_b") and use.part != "o_b" for use in uses):
            continue  # an output of low rank narrows in groups, whose results are concatenated
        node = queries.nodes[index]
        for edge in queries.of_kind(node.operands[0], "weight"):
            if any(annotation.part.endswith("_a") for annotation in annotations.get(edge.source, ())):
                first = queries.nodes[edge.source]
                if node.columns >= node.rows or first.rows >= node.rows:
                    reason = f"a pair of low rank would narrow to {node.columns} and widen to {node.rows}"
                    reasons[index] = reasons[edge.source] = reason
    return reasons


def _mixed_up(queries: GraphQueries, attentions: Sequence[Attention]) -> dict[int, str]:
    """Weights joined before they become queries and keys."""
    reasons: dict[int, str] = {}
    for attention in attentions:
        for score in attention.scores:
            joined = [
                {edge.source for edge in queries.of_kind(edges, "weight") if Flag.JOINED in edge.some}
                for edges in queries.nodes[score].operands
            ]
            both = joined[0] & joined[1]
            if len(both) > 1:
                reason = "its output is joined with that of another weight before both become queries and keys"
                reasons |= dict.fromkeys(both, reason)
    return reasons


def unlike_their_layers(aggregates: Mapping[str, Aggregate], groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Weights whose role differs from most other layers.

    Args:
        aggregates: Weight name to its role.
        groups: Names of weights of the same place, class and shape in different layers.

    Returns:
        Weight name to the reason.
    """
    reasons: dict[str, str] = {}
    for group in groups:
        roles = {name: (aggregates[name].block, aggregates[name].part) for name in group if name in aggregates}
        counts = Counter(role for role in roles.values() if role[0])
        if len(counts) < 2:
            continue
        (most, times), *_ = counts.most_common(1)
        clear = times >= _MAJORITY * sum(counts.values())
        for name, role in roles.items():
            if role[0] and (role != most or not clear):
                others = ".".join(word for word in (most if clear else role) if word)
                reasons[name] = (
                    f"{times} of {len(roles)} weights like it in other layers show {others}"
                    if clear
                    else f"{len(roles)} weights like it in other layers show different roles"
                )
    return reasons
