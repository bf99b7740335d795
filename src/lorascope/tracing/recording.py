"""From one call of a module to the graph of its weight uses, without weights: every ATen operation is looked at once.

A `TorchDispatchMode` sees what really runs, below autograd and every wrapper: a linear layer, an einsum, an attention
kernel and `x @ self.w` are all a few matrix products there. Every value carries where it comes from (its labels); an
operation that multiplies by a weight, or two values by each other, makes a node and starts a new label.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.tracing import known
from lorascope.tracing.graph import EXTREMES, Edge, Edges, Flag, Graph, Node, NodeKind, Piece

# Where a value comes from: (node, piece of its output) to (what happened on some way, what happened on every way).
Labels = dict[tuple[int, Piece], tuple[int, int]]

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
# Those of them that a softmax is, or is made of, with the dimension that it runs over as the second argument.
_OVER_A_DIMENSION = _SOFTMAXES | {"sum", "amax", "logsumexp"}
_SCANS = frozenset(_words("cumsum cumsum_ cumprod logcumsumexp _cumsum cummax"))
_PRODUCTS = frozenset(_words("mul mul_ div div_ addcmul addcmul_ true_divide"))
_JOINS = frozenset(_words("cat stack hstack vstack concat column_stack"))
_MATRIX_PRODUCTS = frozenset(_words("mm addmm addmm_ bmm baddbmm baddbmm_ matmul linear _grouped_mm addbmm"))
_WITH_ADDEND = frozenset(_words("addmm addmm_ baddbmm baddbmm_ addbmm"))
_LOOKUPS = frozenset(_words("index _unsafe_index index_select gather take_along_dim take embedding embedding_bag"))
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


# A loop over positions reads one piece of an output per position. After so many, one more tells nothing new.
_MOST_PIECES = 12
_ONE_OF_MANY: Piece = (-1, (), ())


@dataclasses.dataclass(slots=True, eq=False)
class _Value:
    """What is known of a tensor. Never changed once made: many tensors share one.

    Attributes:
        labels: Where it comes from; empty for constants and for what was made from parameters alone.
        parameters: The parameters that it was made from, where it was made from nothing else.
        control: The choices that decided which of its elements are there.
        ids: The integer arguments that it was computed from.
        as_given: It holds those arguments' own numbers.
    """

    labels: Labels
    parameters: tuple[str, ...] = ()
    control: frozenset[int] = frozenset()
    ids: frozenset[str] = frozenset()
    as_given: bool = False


_NOTHING = _Value({})


def record(module: torch.nn.Module, method: str, arguments: Mapping[str, Any]) -> Graph:
    """The graph of one call; the module, its parameters and its device are left as they are.

    Args:
        module: The model, on any device; no parameter's numbers are read.
        method: What to call: `forward`, or the (dotted) name of a method or submodule.
        arguments: Its keyword arguments. Tensors of integers keep their numbers, others count as unknown.

    Returns:
        The graph. Where the call did not come to its end, it holds what had run till then, and `failure` says why.
    """
    recorder = _Recorder(module)
    given = {name: recorder.given(name, value) for name, value in arguments.items()}
    function: Any = module
    for part in method.split("."):
        function = getattr(function, part)
    training = [part for part in module.modules() if part.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    failure = ""
    outputs: Any = ()
    try:
        for part in training:
            part.training = False
        torch.backends.mha.set_fastpath_enabled(False)  # its one operation hides the attention
        with torch.no_grad(), _Unchecked(), _Functions(), recorder:
            outputs = function(**given)
    except Exception as error:  # foreign code raises whatever it likes, the more so without numbers
        failure = _reason(error)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part in training:
            part.training = True
    return recorder.graph(outputs, failure)


class _Unchecked:
    """Distributions do not look whether their parameters are valid: there are no numbers to look at."""

    def __enter__(self) -> None:
        self._before = torch.distributions.Distribution._validate_args
        torch.distributions.Distribution.set_default_validate_args(False)

    def __exit__(self, *_: object) -> None:
        torch.distributions.Distribution.set_default_validate_args(self._before)


class _Functions(TorchFunctionMode):  # type: ignore[misc]  # torch does not say what it is
    """Numbers that code writes down stay known: on the meta device they would be lost before any operation."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            kwargs["device"] = known.CPU
        return func(*args, **kwargs)


def _reason(error: Exception) -> str:
    """Why a call ended early, with the line of the model's own code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "torch" not in Path(frame.filename).parts and not frame.filename.endswith(("recording.py", "known.py"))
    ]
    text = str(error).strip().partition("\n")[0]
    what = text if isinstance(error, known.UntraceableError) else f"{type(error).__name__}: {text}"
    return f"{what} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else what


class _Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch does not say what it is
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._nodes: list[Node] = []
        # Per node, as bits: all nodes that it was computed from, and (of a sum) itself with all that it carries on.
        self._before: list[int] = []
        self._carried: list[int] = []
        self._values: dict[int, _Value] = {}
        self._alive: list[torch.Tensor] = []  # an id is unique as long as its object lives
        self._written: dict[int, list[tuple[int, int, int, _Value]]] = {}
        self._made_at: dict[int, int] = {}
        self._stand_ins: dict[int, torch.Tensor] = {}
        self._sizes: dict[str, int] = {}
        self._dimensions: dict[str, int] = {}
        self._as_data: dict[str, int] = {}
        self._elementwise: set[str] = set()
        self._scored: dict[int, int] = {}
        self._pieces: dict[int, set[Piece]] = {}
        self._shapes: known.Shapes = {}
        self._operations = 0
        for name, parameter in module.named_parameters():
            self._values[id(parameter)] = _Value({}, (name,))
            self._stand_ins[id(parameter)] = known.to_meta(parameter.detach())
            self._values[id(self._stand_ins[id(parameter)])] = self._values[id(parameter)]
            self._sizes[name] = parameter.numel()
            self._dimensions[name] = parameter.dim()
        for name, buffer in module.named_buffers():
            if buffer.is_meta and known.is_exact(buffer):
                self._stand_ins[id(buffer)] = known.made_up_buffer(name, buffer)

    def given(self, name: str, value: Any) -> Any:
        """An argument of the call, as the call gets it."""
        if isinstance(value, torch.Tensor) and not known.is_exact(value):
            unknown = known.to_meta(value.detach())
            self._set(unknown, _Value({(self._node("input", name), None): (0, 0)}))
            return unknown
        if isinstance(value, torch.Tensor):
            copy = value.detach().to("cpu", copy=True)
            if not _counts_up(copy):  # such numbers are positions
                self._set(copy, _Value({}, ids=frozenset({name}), as_given=True))
            return copy
        if type(value) in (list, tuple):
            return type(value)(self.given(name, one) for one in value)
        if type(value) is dict:
            return {key: self.given(name, one) for key, one in value.items()}
        return value

    def graph(self, outputs: Any, failure: str) -> Graph:
        """What was recorded."""
        for index, scored in self._scored.items():
            self._nodes[index] = dataclasses.replace(self._nodes[index], scored=scored)
        found: Labels = {}
        for tensor in _leaves(outputs):
            found |= self._value(tensor).labels
        matrices = {node.name for node in self._nodes if node.kind in ("weight", "table", "convolution", "parameter")}
        return Graph(
            tuple(self._nodes), _edges(found), frozenset(self._elementwise - matrices), failure, self._operations
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        self._operations += 1
        tensors = known.tensors_in([*args, *kwargs.values()])
        values = [self._value(tensor) for tensor in tensors]
        stand_in = self._stand_ins.get
        real_args = known.with_tensors(args, lambda tensor: stand_in(id(tensor), tensor))
        real_kwargs = dict(zip(kwargs, known.with_tensors(kwargs.values(), lambda t: stand_in(id(t), t)), strict=True))
        result = known.run(func, name, real_args, real_kwargs, self._shapes)
        if not any(value is not _NOTHING for value in values):
            return result
        results = known.tensors_in(result if isinstance(result, tuple | list) else [result])
        if results:
            self._label(func, name, args, kwargs, tensors, values, results)
        if func._schema.is_mutable and results and tensors:
            self._write(tensors[0], self._values.get(id(results[0]), _NOTHING))
            if not tensors[0].is_meta and any(tensor.is_meta for tensor in known.tensors_in([*real_args])):
                self._stand_ins[id(tensors[0])] = known.to_meta(tensors[0])  # its numbers no longer hold
            if isinstance(result, torch.Tensor):
                return args[0]
        return result

    # What a tensor is known to be

    def _value(self, tensor: torch.Tensor) -> _Value:
        value = self._values.get(id(tensor), _NOTHING)
        if self._written:
            value = self._with_writes(tensor, value)
        return value

    def _set(self, tensor: torch.Tensor, value: _Value) -> None:
        if value is not _NOTHING:
            self._values[id(tensor)] = value
            self._made_at[id(tensor)] = self._operations
            self._alive.append(tensor)

    def _write(self, target: torch.Tensor, value: _Value) -> None:
        """An operation in place: every view of the same memory that overlaps holds the new value too."""
        self._set(target, value)
        if id(target) not in self._values:
            return
        first, last = _extent(target)
        writes = self._written.setdefault(target.untyped_storage()._cdata, [])
        for place, (_, low, high, old) in enumerate(writes):  # a loop that writes row by row is one write in the end
            if value.labels.keys() <= old.labels.keys() and value.control <= old.control:
                writes[place] = (self._operations, min(low, first), max(high, last), old)
                return
        writes.append((self._operations, first, last, value))

    def _with_writes(self, tensor: torch.Tensor, value: _Value) -> _Value:
        writes = self._written.get(tensor.untyped_storage()._cdata)
        if not writes:
            return value
        made = self._made_at.get(id(tensor), -1)
        first, last = _extent(tensor)
        newer = [one for at, low, high, one in writes if at > made and low <= last and first <= high]
        if not newer:
            return value
        return self._union([value, *newer], Flag.NONE)

    # Nodes

    def _node(self, kind: NodeKind, name: str = "", operands: Sequence[Labels] = (), **facts: Any) -> int:
        index = len(self._nodes)
        self._nodes.append(Node(kind, name, tuple(_edges(labels) for labels in operands), **facts))
        before = 0
        for labels in operands:
            for source, _ in labels:
                before |= self._before[source] | 1 << source
        carried = 1 << index
        if kind == "sum":
            for source, _ in operands[0]:
                carried |= self._carried[source]
        self._before.append(before)
        self._carried.append(carried)
        return index

    def _parameter(self, names: tuple[str, ...]) -> Labels:
        """The labels of parameters that are used as data."""
        labels: Labels = {}
        for name in names:
            if self._dimensions[name] >= 2:
                if name not in self._as_data:
                    self._as_data[name] = self._node("parameter", name)
                labels[self._as_data[name], None] = (0, 0)
        return labels

    def _largest(self, names: tuple[str, ...]) -> str:
        return max(names, key=lambda name: (self._dimensions[name] >= 2, self._sizes[name]))

    # What an operation makes of its operands

    def _label(
        self,
        func: Any,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: list[torch.Tensor],
        values: list[_Value],
        results: list[torch.Tensor],
    ) -> None:
        if name in _MATRIX_PRODUCTS:
            value = self._product(name, tensors, values, results[0])
        elif name.startswith("_scaled_dot_product") and len(values) >= 3:
            value = self._attention(values)
        elif name in ("convolution", "_convolution", "convolution_overrideable"):
            value = self._convolution(args, tensors, values)
        elif name.startswith("new_") or name.endswith("_like"):
            value = _NOTHING  # of a tensor's shape, and nothing else of it
        elif name in _LOOKUPS:
            value = self._lookup(name, tensors, values)
        elif name == "glu" and values[0].labels:
            value = self._gated(values[0])
        else:
            value = self._elementwise_value(func, name, args, kwargs, tensors, values, results)
        if name in known.CHOICES and value.labels and known.is_exact(results[-1]):
            self._choose(name, value, results)
            return
        if name in known.CHOICES:
            value = dataclasses.replace(value, labels=_flagged(value.labels, Flag.REDUCED), as_given=False)
        narrows = len(value.labels) and (
            name in _COPIES_PIECES or (not func._schema.is_mutable and any(r.alias_info for r in func._schema.returns))
        )
        for place, tensor in enumerate(results):
            mine = value
            if known.is_exact(tensor) and value.labels:
                mine = _Value({}, control=value.control, ids=value.ids)
            elif narrows and tensor.numel() < tensors[0].numel():
                mine = self._piece(value, name, tensor, place)
            self._set(tensor, mine)

    def _piece(self, value: _Value, name: str, tensor: torch.Tensor, place: int) -> _Value:
        offset = place if name in _COPIES_PIECES else tensor.storage_offset()
        piece: Piece = (offset, tuple(tensor.shape), tuple(tensor.stride()))
        labels: Labels = {}
        for (node, old), flags in value.labels.items():
            if old is None:
                old = piece
                pieces = self._pieces.setdefault(node, set())
                if piece not in pieces and len(pieces) >= _MOST_PIECES:
                    old = _ONE_OF_MANY
                pieces.add(old)
            labels[node, old] = _both(labels[node, old], flags) if (node, old) in labels else flags
        return dataclasses.replace(value, labels=labels)

    def _choose(self, name: str, value: _Value, results: list[torch.Tensor]) -> None:
        choice = self._node("choice", name, [value.labels])
        control = value.control | {choice}
        for tensor in results:
            if known.is_exact(tensor):
                self._set(tensor, _Value({}, control=control))
            elif name in EXTREMES:
                self._set(tensor, _Value(_flagged(value.labels, Flag.REDUCED), control=value.control))
            else:
                self._set(tensor, _Value(_flagged(value.labels, Flag.CHOSEN), control=value.control))

    def _product(self, name: str, tensors: list[torch.Tensor], values: list[_Value], result: torch.Tensor) -> _Value:
        start = 1 if name in _WITH_ADDEND else 0
        left, right = values[start], values[start + 1]
        first, second = tensors[start], tensors[start + 1]
        if name == "linear":
            second = second.transpose(-1, -2) if second.dim() > 1 else second
        mine = [value for value in values[start:] if value.labels or value is not left or not right.parameters]
        control = frozenset[int]().union(*(value.control for value in mine))
        ids = frozenset[str]().union(*(value.ids for value in mine))
        addend = values[0] if start else _NOTHING
        if right.parameters and self._dimensions[self._largest(right.parameters)] >= 2:
            data = left.labels or (self._parameter(left.parameters) if left.parameters else {})
            made = self._use(
                right.parameters, data, control, ids, second.shape[-1], second.shape[-2] if second.dim() > 1 else 1
            )
        elif left.parameters and right.labels and self._dimensions[self._largest(left.parameters)] >= 2:
            made = self._use(left.parameters, right.labels, control, ids, first.shape[-2], first.shape[-1])
        elif left.labels and right.labels and (carried := self._mixed_streams(left, right)):
            made = carried
        elif left.labels and right.labels:
            index = self._node("contraction", operands=[left.labels, right.labels], control=tuple(sorted(control)))
            made = _Value({(index, None): (0, 0)})
        else:  # a constant matrix: a sum, a shift or a mask
            made = self._union([left, right], Flag.REDUCED)
        return self._combine([addend, made], Flag.NONE, Flag.NONE) if addend.labels or addend.parameters else made

    def _mixed_streams(self, left: _Value, right: _Value) -> _Value | None:
        """Streams mixed by a matrix that weights computed from them: they are carried on, as hyper-connections do."""
        for kept, written in ((left, right), (right, left)):
            kinds = {self._nodes[node].kind for node, _ in kept.labels}
            changed = any(some & ~int(Flag.REDUCED) for some, _ in kept.labels.values())
            if (
                not changed
                and kinds <= {"table", "input", "parameter", "sum"}
                and all(self._nodes[node].kind == "weight" for node, _ in written.labels)
                and self._carries(kept.labels, written.labels, Flag.PRODUCT)
            ):
                index = self._node("sum", operands=[kept.labels, written.labels], how=Flag.PRODUCT)
                return _Value({(index, None): (0, 0)})
        return None

    def _use(
        self,
        parameters: tuple[str, ...],
        data: Labels,
        control: Iterable[int],
        ids: Iterable[str],
        rows: int,
        columns: int,
    ) -> _Value:
        largest = self._largest(parameters)
        labels: Labels = {}
        for name in parameters:  # several are one matrix where they were joined, or one scales another
            if self._dimensions[name] < 2 or self._sizes[name] * 2 < rows + columns:
                continue
            index = self._node(
                "weight",
                name,
                [data],
                rows=rows,
                columns=columns,
                ids=tuple(sorted(ids)) if self._dimensions[largest] > 2 else (),
                control=tuple(sorted(control)),
            )
            labels[index, None] = (0, 0)
        used = {self._nodes[index].name for index, _ in labels}
        self._elementwise |= {name for name in parameters if name not in used and self._dimensions[name] >= 2}
        return _Value(labels)

    def _attention(self, values: list[_Value]) -> _Value:
        """An attention in one operation: scores, softmax and weighted sum."""
        query, key, value = values[:3]
        scores = self._node("contraction", operands=[query.labels, key.labels])
        self._scored[scores] = 1
        weights: Labels = {(scores, None): (int(Flag.SOFTMAX), int(Flag.SOFTMAX))}
        for bias in values[3:]:
            weights |= _flagged(bias.labels, Flag.SOFTMAX)
        mixed = self._node("contraction", operands=[weights, value.labels])
        return _Value({(mixed, None): (0, 0)})

    def _gated(self, value: _Value) -> _Value:
        """A gated linear unit in one operation: one half of a value times the sigmoid of the other."""
        half, gate = int(Flag.PRODUCT), int(Flag.PRODUCT | Flag.ACTIVATION)
        labels: Labels = {}
        for (node, _), (some, every) in value.labels.items():
            labels[node, (0, (), ())] = (some | half, every | half)
            labels[node, (1, (), ())] = (some | gate, every | gate)
        return _Value(labels, control=value.control)

    def _convolution(self, args: Sequence[Any], tensors: list[torch.Tensor], values: list[_Value]) -> _Value:
        data, weight = values[0], values[1]
        shape = tensors[1].shape
        groups = next((arg for arg in reversed(args) if isinstance(arg, int) and not isinstance(arg, bool)), 1)
        if not weight.parameters:
            return self._combine([data, weight], Flag.CONVOLUTION, Flag.NONE)
        labels = data.labels or (self._parameter(data.parameters) if data.parameters else {})
        if not labels:
            return _NOTHING
        if set(shape[2:]) == {1}:
            control = data.control if data.labels else ()
            return self._use(weight.parameters, labels, control, (), shape[0], shape[1] * groups)
        name = self._largest(weight.parameters)
        if groups > 1 and shape[1] == 1:
            self._elementwise.add(name)
            return dataclasses.replace(data, labels=_flagged(labels, Flag.CONVOLUTION), parameters=())
        index = self._node("convolution", name, [labels], rows=shape[0], columns=shape[1] * groups)
        return _Value({(index, None): (0, 0)})

    def _lookup(self, name: str, tensors: list[torch.Tensor], values: list[_Value]) -> _Value:
        source, *indices = values
        control = frozenset[int]().union(*(value.control for value in values))
        ids = frozenset[str]().union(*(value.ids for value in indices))
        matrices = bool(source.parameters) and self._dimensions[self._largest(source.parameters)] > 2
        if source.parameters and not control and not matrices and (ids or name in ("embedding", "embedding_bag")):
            given = all(value.as_given for value in indices if value.ids)
            table = self._largest(source.parameters)
            rows, columns = tensors[0].shape[0], tensors[0].shape[-1]
            index = self._node("table", table, rows=rows, columns=columns, ids=tuple(sorted(ids)) if given else ())
            return _Value({(index, None): (0, 0)})
        if source.parameters:
            return dataclasses.replace(source, control=control, ids=ids)
        if source.labels:
            chosen = frozenset[int]().union(*(value.control for value in indices))
            labels = _flagged(source.labels, Flag.CHOSEN) if chosen else source.labels
            mine = {node for node, _ in source.labels}
            if any(edge.source in mine for one in chosen for edge in self._nodes[one].operands[0]):
                control = source.control  # the scores of what was chosen: they decide how much, not which
            return _Value(labels, control=control, ids=ids)
        return _Value({}, control=control, ids=ids | source.ids, as_given=source.as_given and not source.parameters)

    def _elementwise_value(
        self,
        func: Any,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: list[torch.Tensor],
        values: list[_Value],
        results: list[torch.Tensor],
    ) -> _Value:
        flag = Flag.NONE
        if name in _ACTIVATIONS:
            flag = Flag.ACTIVATION
        elif name in _SOFTMAXES:
            flag = Flag.SOFTMAX
        elif name in _REDUCTIONS:
            flag = Flag.REDUCED
        elif name in _SCANS:
            flag = Flag.SCAN
        if name in _OVER_A_DIMENSION and values[0].labels and len(args) > 1:
            self._note_scored(tensors[0], values[0], args[1])
        if flag == Flag.REDUCED:
            values = values[:1]  # a norm's own weight and bias are vectors
        if name == "masked_fill" or name == "masked_fill_":
            values = [values[0], *(_Value({}, control=value.control) for value in values[1:])]
        mixed = Flag.PRODUCT if name in _PRODUCTS else Flag.JOINED if name in _JOINS else Flag.NONE
        if mixed is Flag.PRODUCT and len(values) == 2:
            values = self._without_scale(tensors, values)
        value = self._combine(values, flag, mixed)
        if name in _WRITES_BACK:
            value = dataclasses.replace(value, control=frozenset())
        if value.ids and (name not in _KEEPS_INTEGERS or not value.as_given):
            value = dataclasses.replace(value, as_given=False)
        return value

    def _without_scale(self, tensors: list[torch.Tensor], values: list[_Value]) -> list[_Value]:
        """The factors of a product without the one number per row that a norm of another value gives."""
        for place, other in ((0, 1), (1, 0)):
            mine = values[place].labels
            reduced = mine and all(every & int(Flag.REDUCED) for _, every in mine.values())
            single = tensors[place].dim() and tensors[place].shape[-1] == 1 and tensors[other].shape[-1:] != (1,)
            if reduced and single and values[other].labels and not self._same_origins(values[other].labels, mine):
                return [values[other]]
        return values

    def _same_origins(self, one: Labels, other: Labels) -> bool:
        return {node for node, _ in one} == {node for node, _ in other}

    def _note_scored(self, tensor: torch.Tensor, value: _Value, dims: Any) -> None:
        """Which operand's positions a softmax runs over: the second's are the innermost of a matrix product's result."""
        dim = dims[0] if isinstance(dims, list | tuple) and len(dims) == 1 else dims
        if not isinstance(dim, int) or not tensor.dim():
            return
        innermost = min(
            (stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1), default=0
        )
        for node, _ in value.labels:
            if self._nodes[node].kind == "contraction" and node not in self._scored:
                self._scored[node] = 1 if tensor.stride(dim) == innermost else 0

    def _combine(self, values: Sequence[_Value], flag: Flag, mixed: Flag) -> _Value:
        """One value of several: a residual sum where one of them was computed from the other, else all their labels."""
        data = [value for value in values if value.labels]
        made_of = [value for value in values if value.parameters and not value.labels]
        if not data:
            parameters = tuple(dict.fromkeys(name for value in made_of for name in value.parameters))
            control = frozenset[int]().union(*(value.control for value in values))
            ids = frozenset[str]().union(*(value.ids for value in values))
            with_ids = [value for value in values if value.ids]
            as_given = bool(with_ids) and all(value.as_given for value in with_ids)
            return _Value({}, parameters, control, ids, as_given) if parameters or control or ids else _NOTHING
        for value in made_of:
            name = self._largest(value.parameters)
            if self._dimensions[name] >= 2:
                if mixed is Flag.PRODUCT:
                    self._elementwise.add(name)
                else:  # rows of a codebook, say, whatever chose them
                    data.append(_Value(self._parameter(value.parameters)))
        constants = frozenset[int]().union(*(value.control for value in values if not value.labels))
        found = data[0]
        for value in data[1:]:
            found = self._carried_on(found, value, mixed) or self._union([found, value], mixed)
        if constants - found.control:
            found = _Value(found.labels, control=found.control | constants)
        if flag:
            found = _Value(_flagged(found.labels, flag), control=found.control)
        return found

    def _carried_on(self, one: _Value, other: _Value, mixed: Flag) -> _Value | None:
        """The residual sum of two values, or None where neither was computed from the other."""
        mine, others = {node for node, _ in one.labels}, {node for node, _ in other.labels}
        if mine & others:
            return None
        for kept, written in ((one, other), (other, one)):
            if self._carries(kept.labels, written.labels, mixed):
                index = self._node("sum", operands=[kept.labels, written.labels], how=mixed)
                return _Value({(index, None): (0, 0)})
        return None

    def _carries(self, kept: Labels, written: Labels, mixed: Flag) -> bool:
        """Every origin of the first is an ancestor of the second, or carries one on."""
        before = 0
        for node, _ in written:
            before |= self._before[node]
        for node, _ in kept:
            if not self._carried[node] & before:
                return False
            kind = self._nodes[node].kind
            # A product or a concatenation with what was computed from it is a gate or a pair, but of a stream.
            if kind in ("contraction", "choice") or (mixed and kind in ("weight", "convolution")):
                return False
        return True

    def _union(self, values: Sequence[_Value], mixed: Flag) -> _Value:
        """All labels of several values; `mixed` marks them where their origins differ."""
        data = [value for value in values if value.labels]
        control = frozenset[int]().union(*(value.control for value in values))
        if not data:
            return next((value for value in values if value is not _NOTHING), _NOTHING)
        first = data[0].labels
        if all(value.labels is first for value in data):
            return _Value(first, control=control)
        different = any(value.labels.keys() != first.keys() for value in data)
        bits = int(mixed) if different else 0
        labels = {key: (some | bits, every | bits) for key, (some, every) in first.items()} if bits else dict(first)
        for value in data[1:]:
            for key, (some, every) in value.labels.items():
                flags = (some | bits, every | bits)
                labels[key] = _both(labels[key], flags) if key in labels else flags
        return _Value(labels, control=control)


def _both(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """What happened to a value that came by two ways."""
    return one[0] | other[0], one[1] & other[1]


def _edges(labels: Labels) -> Edges:
    return tuple(Edge(node, piece, Flag(some), Flag(every)) for (node, piece), (some, every) in labels.items())


def _flagged(labels: Labels, flag: Flag) -> Labels:
    bits = int(flag)
    return {key: (some | bits, every | bits) for key, (some, every) in labels.items()}


def _counts_up(numbers: torch.Tensor) -> bool:
    """The numbers of the last dimension are 0, 1, 2 and so on."""
    if numbers.dtype == torch.bool:
        return False
    size = numbers.shape[-1] if numbers.dim() else 0
    return size > 2 and bool((numbers == torch.arange(size, dtype=numbers.dtype)).all())


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first and last element of a view within its memory."""
    first = tensor.storage_offset()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size)
    return first, first + reach


def _leaves(value: Any) -> list[torch.Tensor]:
    """The tensors of a model's output, whatever holds them."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for one in value.values() for tensor in _leaves(one)]
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in _leaves(one)]
    return []
