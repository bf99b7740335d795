"""Effect of each ATen operation on the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import EXTREMES, Flag, Piece
from lorascope.tracing.record import meta_execution
from lorascope.tracing.record.graph_builder import GraphBuilder
from lorascope.tracing.record.provenance import NOTHING, Labels, Provenance, controls, flagged, nodes_of, of_node, union

_words = str.split  # a row of names is read more easily as one text

_ACTIVATIONS = frozenset(
    _words(
        "relu relu_ gelu gelu_ silu silu_ sigmoid sigmoid_ tanh tanh_ exp exp_ exp2 elu elu_ celu selu softplus leaky_relu "
        "leaky_relu_ hardtanh hardtanh_ hardsigmoid hardswish mish log_sigmoid_forward threshold prelu _prelu_kernel "
        "rrelu_with_noise erf expm1 relu6 hardshrink softshrink clamp_min atan sin cos"
    )
)
_SOFTMAXES = frozenset({"_softmax", "_safe_softmax", "_log_softmax", "softmax", "log_softmax"})
_REDUCTIONS = frozenset(
    _words(
        "mean sum var var_mean std amax amin norm linalg_vector_norm logsumexp native_layer_norm native_group_norm rsqrt "
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _fused_rms_norm prod max min "
        "rms_norm layer_norm cudnn_batch_norm"
    )
)
_SCANS = frozenset(_words("cumsum cumsum_ cumprod logcumsumexp _cumsum cummax"))
_FLAGS: dict[str, Flag] = {
    **dict.fromkeys(_ACTIVATIONS, Flag.ACTIVATION),
    **dict.fromkeys(_SOFTMAXES, Flag.SOFTMAX),
    **dict.fromkeys(_REDUCTIONS, Flag.REDUCED),
    **dict.fromkeys(_SCANS, Flag.SCAN),
}
_MIXES: dict[str, Flag] = {
    **dict.fromkeys(_words("mul mul_ div div_ addcmul addcmul_ true_divide"), Flag.PRODUCT),
    **dict.fromkeys(_words("cat stack hstack vstack concat column_stack"), Flag.JOINED),
}
_POOLS = frozenset(_words("scatter_reduce scatter_reduce_ index_reduce index_reduce_ segment_reduce"))
# What a softmax is, or is made of, with the dimension that it runs over as the second argument.
_OVER_A_DIMENSION = _SOFTMAXES | {"sum", "amax", "logsumexp"}
# The operands of a matrix product come after what is added to it.
_WITH_ADDEND = frozenset(_words("addmm addmm_ baddbmm baddbmm_ addbmm"))
# Writing rows back to where they came from: what chose the rows has no more say in what they are.
_WRITES_BACK = frozenset(_words("index_add index_add_ index_put index_put_ _index_put_impl_ scatter_add scatter_add_"))
# What leaves integers as they are, so that a table that is read with them is read with the argument itself.
_KEEPS_INTEGERS = frozenset(
    _words(
        "_to_copy clone view reshape _unsafe_view expand slice select unsqueeze squeeze clamp clamp_min clamp_max "
        "contiguous alias detach where masked_fill copy_ lift_fresh cat permute transpose t index"
    )
)
_COPIES_PIECES = frozenset(_words("unsafe_split unsafe_chunk unsafe_split_with_sizes split_with_sizes_copy split_copy"))


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One operation that ran.

    Attributes:
        func: The overload.
        name: Its name without the namespace and overload.
        args: Its positional arguments.
        tensors: All tensors among its arguments.
        provenances: Of each of them.
        results: The tensors that it gave.
    """

    func: Any
    name: str
    args: Sequence[Any]
    tensors: Sequence[torch.Tensor]
    provenances: Sequence[Provenance]
    results: Sequence[torch.Tensor]


def label_results(builder: GraphBuilder, operation: Operation) -> list[Provenance]:
    """Provenance of each result.

    Args:
        builder: The graph so far; uses, products, sums and choices are added to it.
        operation: What ran.
    """
    name, results = operation.name, operation.results
    provenance = _handler(name)(builder, operation)
    if name in meta_execution.CHOICES and provenance.labels and meta_execution.is_exact(results[-1]):
        return _chosen(builder, name, provenance, results)
    if name in meta_execution.CHOICES:
        provenance = dataclasses.replace(provenance, labels=flagged(provenance.labels, Flag.REDUCED), as_given=False)
    narrows = name in _COPIES_PIECES or meta_execution.is_view(operation.func)
    labelled = []
    for place, tensor in enumerate(results):
        own = provenance
        if meta_execution.is_exact(tensor) and provenance.labels:
            own = Provenance({}, control=provenance.control, ids=provenance.ids)
        elif provenance.labels and narrows and tensor.numel() < operation.tensors[0].numel():
            offset = place if name in _COPIES_PIECES else tensor.storage_offset()
            own = builder.piece(provenance, (offset, tuple(tensor.shape), tuple(tensor.stride())))
        labelled.append(own)
    return labelled


def _handler(name: str) -> Callable[[GraphBuilder, Operation], Provenance]:
    if name in _HANDLERS:
        return _HANDLERS[name]
    if name.startswith("_scaled_dot_product"):
        return _attention
    if name.startswith("new_") or name.endswith("_like"):
        return _of_a_shape
    return _elementwise


def _of_a_shape(builder: GraphBuilder, operation: Operation) -> Provenance:
    """A new tensor that shares only a shape."""
    return NOTHING


def _chosen(
    builder: GraphBuilder, name: str, provenance: Provenance, results: Sequence[torch.Tensor]
) -> list[Provenance]:
    choice = builder.node("choice", name, [provenance.labels])
    # The largest of a row is as often taken for a stable softmax as to choose by.
    flag = Flag.REDUCED if name in EXTREMES else Flag.CHOSEN
    integers = Provenance({}, control=provenance.control | {choice})
    picked = Provenance(flagged(provenance.labels, flag), control=provenance.control)
    return [integers if meta_execution.is_exact(tensor) else picked for tensor in results]


def _data_of(builder: GraphBuilder, provenance: Provenance) -> Labels:
    """Labels of an operand used as data, parameters included."""
    return provenance.labels or (builder.as_data(provenance.parameters) if provenance.parameters else {})


def _matrix_product(builder: GraphBuilder, operation: Operation) -> Provenance:
    start = 1 if operation.name in _WITH_ADDEND else 0
    left, right = operation.provenances[start], operation.provenances[start + 1]
    first, second = operation.tensors[start], operation.tensors[start + 1]
    if operation.name == "linear" and second.dim() > 1:
        second = second.transpose(-1, -2)
    # Parameters as data: what chose their rows does not matter.
    operands = [
        operand
        for operand in operation.provenances[start:]
        if operand.labels or operand is not left or not right.parameters
    ]
    control = controls(operands)
    ids = frozenset[str]().union(*(operand.ids for operand in operands))
    if builder.is_matrix(right):
        rows, columns = second.shape[-1], second.shape[-2] if second.dim() > 1 else 1
        product = builder.use(right, _data_of(builder, left), rows=rows, columns=columns, control=control, ids=ids)
    elif builder.is_matrix(left) and right.labels:
        rows, columns = first.shape[-2], first.shape[-1]
        product = builder.use(left, right.labels, rows=rows, columns=columns, control=control, ids=ids)
    elif left.labels and right.labels:
        product = builder.multiply(left, right, control, rows=first.shape[-2], columns=second.shape[-1])
    else:  # a constant matrix: a sum, a shift or a mask
        product = union([left, right], Flag.REDUCED)
    addend = operation.provenances[0] if start else NOTHING
    return builder.combine([addend, product]) if addend.labels or addend.parameters else product


def _attention(builder: GraphBuilder, operation: Operation) -> Provenance:
    """An attention in one operation: scores, softmax and weighted sum."""
    query, key, value, *biases = operation.provenances
    queries, keys = (tensor.shape[-2] for tensor in operation.tensors[:2])
    scores = builder.node("contraction", operands=[query.labels, key.labels], rows=queries, columns=keys)
    builder.score(scores, keys, innermost=True)
    weights: Labels = {(scores, None): (int(Flag.SOFTMAX), int(Flag.SOFTMAX))}
    for bias in biases:
        weights |= flagged(bias.labels, Flag.SOFTMAX)
    width = operation.tensors[2].shape[-1]
    return of_node(builder.node("contraction", operands=[weights, value.labels], rows=queries, columns=width))


def _gated(builder: GraphBuilder, operation: Operation) -> Provenance:
    """A gated linear unit in one operation."""
    provenance = operation.provenances[0]
    half, gate = int(Flag.PRODUCT), int(Flag.PRODUCT | Flag.ACTIVATION)
    first: Piece = (0, (), ())
    second: Piece = (1, (), ())
    labels: Labels = {}
    for (node, _), (some, every) in provenance.labels.items():
        labels[node, first] = (some | half, every | half)
        labels[node, second] = (some | gate, every | gate)
    return Provenance(labels, control=provenance.control)


def _convolution(builder: GraphBuilder, operation: Operation) -> Provenance:
    data, weight = operation.provenances[:2]
    shape = operation.tensors[1].shape
    # The last of its arguments that is a plain number: (…, transposed, output_padding, groups).
    numbers = [number for number in operation.args if isinstance(number, int) and not isinstance(number, bool)]
    groups = numbers[-1] if numbers else 1
    if not weight.parameters:
        return builder.combine([data, weight], Flag.CONVOLUTION)
    labels = _data_of(builder, data)
    rows, columns = shape[0], shape[1] * groups
    if set(shape[2:]) == {1}:
        control = data.control if data.labels else frozenset[int]()
        return builder.use(weight, labels, rows=rows, columns=columns, control=control)
    if not labels:
        return NOTHING
    name = builder.largest(weight.parameters)
    builder.note_factors(weight.parameters, name)
    if groups > 1 and shape[1] == 1:
        builder.elementwise.add(name)
        return dataclasses.replace(data, labels=flagged(labels, Flag.CONVOLUTION), parameters=())
    return of_node(builder.node("convolution", name, [labels], rows=rows, columns=columns))


def _lookup(builder: GraphBuilder, operation: Operation) -> Provenance:
    source, *indices = operation.provenances
    control = controls(operation.provenances)
    ids = frozenset[str]().union(*(provenance.ids for provenance in indices))
    if source.parameters:
        is_table = ids or operation.name in ("embedding", "embedding_bag")
        if control or builder.is_stack(source) or not is_table:
            return dataclasses.replace(source, control=control, ids=ids)
        given = all(provenance.as_given for provenance in indices if provenance.ids)
        shape = operation.tensors[0].shape
        names = tuple(sorted(ids)) if given else ()
        table = builder.largest(source.parameters)
        return of_node(builder.node("table", table, rows=shape[0], columns=shape[-1], ids=names))
    if source.labels:
        chosen = controls(indices)
        labels = flagged(source.labels, Flag.CHOSEN) if chosen else source.labels
        sources = nodes_of(source.labels)
        if any(edge.source in sources for choice in chosen for edge in builder.nodes[choice].operands[0]):
            control = source.control  # the scores of what was chosen: they decide how much, not which
        return Provenance(labels, control=control, ids=ids)
    return Provenance({}, control=control, ids=ids | source.ids, as_given=source.as_given)


def _elementwise(builder: GraphBuilder, operation: Operation) -> Provenance:
    name, provenances = operation.name, list(operation.provenances)
    flag = _FLAGS.get(name, Flag.NONE)
    mixed = _MIXES.get(name, Flag.NONE)
    if name in _OVER_A_DIMENSION and provenances[0].labels and len(operation.args) > 1:
        _note_scored(builder, operation.tensors[0], provenances[0], operation.args[1])
    if flag is Flag.REDUCED:
        provenances = provenances[:1]  # a norm's own weight and bias are vectors
    if name in ("masked_fill", "masked_fill_"):
        provenances = [provenances[0], *(Provenance({}, control=provenance.control) for provenance in provenances[1:])]
    if mixed is Flag.PRODUCT and len(provenances) == 2:
        provenances = _without_scale(operation.tensors, provenances)
    if name in _POOLS or (flag is Flag.REDUCED and _loses_positions(operation)):
        flag |= Flag.POOLED
    provenance = builder.combine(provenances, flag, mixed)
    if name in _WRITES_BACK:
        provenance = dataclasses.replace(provenance, control=frozenset())
    if provenance.ids and (name not in _KEEPS_INTEGERS or not provenance.as_given):
        provenance = dataclasses.replace(provenance, as_given=False)
    return provenance


def _loses_positions(operation: Operation) -> bool:
    """A reduction over positions that keeps the features."""
    before, after = operation.tensors[0], operation.results[0]
    same = bool(after.shape[-1:] == before.shape[-1:] != (1,))
    return same and before.dim() > 1 and after.numel() < before.numel()


def _without_scale(tensors: Sequence[torch.Tensor], provenances: list[Provenance]) -> list[Provenance]:
    """Factors of a product, without a norm's number per row."""
    for place, other in ((0, 1), (1, 0)):
        labels, others = provenances[place].labels, provenances[other].labels
        reduced = bool(labels) and all(every & int(Flag.REDUCED) for _, every in labels.values())
        single = tensors[place].dim() and tensors[place].shape[-1] == 1 and tensors[other].shape[-1:] != (1,)
        if reduced and single and others and nodes_of(others) != nodes_of(labels):
            return [provenances[other]]
    return provenances


def _note_scored(builder: GraphBuilder, tensor: torch.Tensor, provenance: Provenance, dims: Any) -> None:
    """Note which operand's positions a softmax runs over: the second's are innermost."""
    dim = dims[0] if isinstance(dims, list | tuple) and len(dims) == 1 else dims
    if not isinstance(dim, int) or not tensor.dim():
        return
    strides = [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    for node in nodes_of(provenance.labels):
        builder.score(node, tensor.shape[dim], innermost=tensor.stride(dim) == min(strides, default=0))


_HANDLERS: dict[str, Callable[[GraphBuilder, Operation], Provenance]] = {
    **dict.fromkeys(_words("mm addmm addmm_ bmm baddbmm baddbmm_ matmul linear _grouped_mm addbmm"), _matrix_product),
    **dict.fromkeys(_words("convolution _convolution convolution_overrideable"), _convolution),
    **dict.fromkeys(
        _words("index _unsafe_index index_select gather take_along_dim take embedding embedding_bag"), _lookup
    ),
    "glu": _gated,
}
