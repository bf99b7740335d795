"""Dataflow graph of a forward pass, without roles.

Only what stops a value's identity is a node: a weight that multiplies it, a product of two values, a table that it is
read from, a sum that carries it on. Everything between two nodes (views, norms, activations, rotary embeddings) is
told by the flags of the edge, so a layer of a language model is about a dozen nodes.
"""

from __future__ import annotations

import enum
from typing import Literal

from lorascope import light_dataclasses as dataclasses

NodeKind = Literal["input", "table", "parameter", "weight", "convolution", "contraction", "sum", "choice"]


class Flag(enum.IntFlag):
    """Operations on a value's path between two nodes."""

    NONE = 0
    ACTIVATION = 1  # an elementwise non-linear function
    SOFTMAX = 2
    PRODUCT = 4  # multiplied elementwise by a value of another origin
    REDUCED = 8  # summed, averaged or normalized over a dimension
    CONVOLUTION = 16  # a depthwise convolution
    SCAN = 32  # a cumulative sum or product
    CHOSEN = 64  # picked by the result of a choice
    JOINED = 128  # concatenated with a value of another origin
    POOLED = 256  # one value for several positions


# Choices whose value is as often taken, for a softmax that does not overflow, as their place.
EXTREMES = frozenset({"max", "min", "median", "mode"})

# Which part of a node's output an edge reads: (offset, sizes, strides) of the first narrowing view, or None for all.
Piece = tuple[int, tuple[int, ...], tuple[int, ...]] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Edge:
    """A path by which a value reaches an operand.

    Attributes:
        source: Index of the node that it comes from.
        piece: The part of that node's output.
        some: What happened to it on at least one way.
        every: What happened to it on every way.
    """

    source: int
    piece: Piece = None
    some: Flag = Flag.NONE
    every: Flag = Flag.NONE

    def then(self, later: Edge) -> Edge:
        """The same origin, followed by a later edge."""
        return dataclasses.replace(self, some=self.some | later.some, every=self.every | later.every)


Edges = tuple[Edge, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A point of the graph where a value gets a new identity.

    Attributes:
        kind: `input` is an argument of the call. `table` is a look-up of rows by integers. `parameter` is a parameter
            that is added, joined or multiplied as data. `weight` multiplies one operand by a matrix. `convolution` is
            one over several positions and channels. `contraction` is a matrix product of two values. `sum` carries its
            first operand on, with the second added (or joined, or multiplied) that was computed from it: a residual
            connection. `choice` turns values into integers (top-k, sort, argmax).
        name: The parameter's name, the input's, or the operation that chooses.
        operands: The edges into each operand: one of a weight, two of a contraction (first and second factor) and of
            a sum (what is carried, what is written), one of a choice.
        rows: Of a weight or convolution: output features. Of a table: its rows. Of a contraction: those of its result.
        columns: Of a weight or convolution: input features. Of a table: its width. Of a contraction: those of its
            result.
        scored: Of a contraction: which of its operands the following softmax runs over, or None where none follows.
        ids: Of a table: the integer arguments that its rows are chosen by; empty for positions and constants. Of a
            stack of matrices: the integer arguments that choose among them.
        how: Of a sum: NONE where the second operand was added, PRODUCT where it multiplied, JOINED where it was
            concatenated.
        control: The choices that decided which rows of an operand, or which weight, take part.
    """

    kind: NodeKind
    name: str = ""
    operands: tuple[Edges, ...] = ()
    rows: int = 0
    columns: int = 0
    scored: int | None = None
    ids: tuple[str, ...] = ()
    how: Flag = Flag.NONE
    control: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """Nodes of one call; every edge comes from an earlier node.

    Attributes:
        nodes: The nodes.
        outputs: The edges into what the call returned.
        elementwise: Names of parameters with two or more dimensions that were only ever multiplied or added
            elementwise: they are no matrices.
        failure: Why the call ended early, or empty.
        operations: How many tensor operations were recorded.
        recurrent: Names of parameters of recurrent layers.
    """

    nodes: tuple[Node, ...]
    outputs: Edges = ()
    elementwise: frozenset[str] = frozenset()
    failure: str = ""
    operations: int = 0
    recurrent: frozenset[str] = frozenset()
