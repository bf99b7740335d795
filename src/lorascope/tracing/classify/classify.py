"""From a graph of weight uses to what every weight does: a pure classifier that reads no name.

The order is that of certainty. Attentions are found by their softmax between two products of values; routers and
indexers by the choice that they feed; feed-forward blocks by the non-linearity between two weights; what reads a
product of values without a softmax is a mixer; what remains is a head, an embedding's projection, or unknown.
"""

from __future__ import annotations

from lorascope.tracing.classify.annotations import Board, Claim
from lorascope.tracing.classify.attention import claim_attentions
from lorascope.tracing.classify.embeddings_heads import claim_ends
from lorascope.tracing.classify.feed_forward import claim_feed_forward
from lorascope.tracing.classify.mixers import claim_mixers
from lorascope.tracing.classify.routers import claim_choices
from lorascope.tracing.graph import Graph
from lorascope.tracing.graph_queries import Reading


def decide(graph: Graph, *, features: bool = False) -> tuple[Claim, ...]:
    """What every use of a parameter shows; a use that shows nothing is not in it.

    Args:
        graph: Of one call.
        features: The call returns what another part of the model reads, not predictions.
    """
    board = Board(Reading(graph), features=features)
    claim_attentions(board)
    claim_choices(board)
    claim_feed_forward(board)
    claim_mixers(board)
    claim_ends(board)
    return tuple(claim for index in board.claimed() for claim in board.of(index))
