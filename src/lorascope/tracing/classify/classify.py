"""Classifies every use of a parameter by the graph, without names.

The most certain classifiers run first. A modulation scales a stream that it does not read. An attention is a softmax between two products of values; routers and indexers
feed a choice; a feed-forward block has a non-linearity between two weights; a product of values without a softmax is a
mixer. What remains is a head, the projection of an embedding, or unknown.
"""

from __future__ import annotations

from lorascope.tracing.classify.annotations import Annotation, Annotations
from lorascope.tracing.classify.attention import annotate_attentions
from lorascope.tracing.classify.embeddings_heads import annotate_embeddings_heads
from lorascope.tracing.classify.feed_forward import annotate_feed_forward
from lorascope.tracing.classify.mixers import annotate_mixers, annotate_recurrences
from lorascope.tracing.classify.modulation import annotate_modulations
from lorascope.tracing.classify.routers import annotate_routers
from lorascope.tracing.graph import Graph
from lorascope.tracing.graph_queries import GraphQueries


def classify_uses(graph: Graph, *, features: bool = False) -> tuple[Annotation, ...]:
    """Annotations of all uses that imply a role.

    Args:
        graph: Of one call.
        features: The call returns features for another part of the model, not predictions.
    """
    annotations = Annotations(GraphQueries(graph), features=features)
    annotate_recurrences(annotations)
    annotate_modulations(annotations)
    annotate_attentions(annotations)
    annotate_routers(annotations)
    annotate_feed_forward(annotations)
    annotate_mixers(annotations)
    annotate_embeddings_heads(annotations)
    return tuple(annotation for index in annotations.annotated() for annotation in annotations.of(index))
