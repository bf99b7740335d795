"""Records one call of a module as a graph, without weights.

A `TorchDispatchMode` sees what really runs, below autograd and every wrapper: a linear layer, an einsum, an attention
kernel and `x @ self.w` are all a few matrix products there. What is known of each tensor is kept beside it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope import light_dataclasses as dataclasses
from lorascope.sandbox.memory_bound import MemoryBound
from lorascope.sandbox.torch_modes import TorchModes
from lorascope.sandbox.watchdog import OverrunError
from lorascope.sources.modules.module_tree import modules_in, named_parameters, shape_of
from lorascope.sources.modules.python_objects import attribute, buffers_of, name_of_class, namespace
from lorascope.tracing.calls.types import too_large
from lorascope.tracing.graph import Graph
from lorascope.tracing.limits import LimitMet, Meter
from lorascope.tracing.record import meta_execution
from lorascope.tracing.record.aten_ops import Operation, label_results
from lorascope.tracing.record.graph_builder import GraphBuilder
from lorascope.tracing.record.machine import Answers, Machine
from lorascope.tracing.record.provenance import NOTHING, Labels, Provenance, of_node
from lorascope.tracing.record.tensor_tracker import TensorTracker

_LONGEST_REASON = 300
_MOST_OUTPUTS = 10_000
# Values in the lists and dictionaries of all inputs of a call, and how deep they lie.
_MOST_INPUTS = 10_000
_DEEPEST_INPUT = 50


def record(module: torch.nn.Module, method: str, arguments: Mapping[str, Any], *, meter: Meter | None = None) -> Graph:
    """The graph of one call; the module is left as it was.

    Args:
        module: The model, on any device; no parameter's numbers are read.
        method: What to call: `forward`, or the (dotted) name of a method or submodule.
        arguments: Its keyword arguments. Tensors of integers keep their numbers, others count as unknown.
        meter: Counts what the call takes.

    Returns:
        The graph. Where the call did not come to its end, it holds what had run till then, and `failure` says why.

    Raises:
        LorascopeError: An argument is too large.
        LimitMet: The call takes too much.
    """
    meter = meter or Meter()
    recorder = _Recorder(module, meter)
    given = {name: recorder.given(name, value) for name, value in arguments.items()}
    failure = ""
    outputs: Any = ()
    # Nothing stands between what is changed and the block that puts it back: an interrupt comes between any two lines.
    before = _Settings(module)
    try:
        before.quiet()
        function: Any = module
        for part in method.split("."):
            function = getattr(function, part)
        with torch.no_grad(), Machine(recorder.stand_in, recorder.note_recurrent), recorder, meter.armed():
            outputs = function(**given)
    except (KeyboardInterrupt, LimitMet, OverrunError):
        raise
    except BaseException as error:  # foreign code can raise anything, especially without numbers
        failure = _reason(error)
    finally:
        try:
            before.restore()
        except BaseException:  # an interrupt while it was on its way: once more, to the end
            before.restore()
            raise
    return recorder.graph(outputs, failure)


class _Settings:
    """Settings that a recorded call changes, as they were before.

    There is no dropout, no attention in one operation that hides it, no look at whether parameters of distributions are
    valid. Afterwards all is as before: buffers that the model's code replaced, modes of torch that an interrupt left on.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        parts = list(modules_in(module).values())
        self._training = [part for part in parts if namespace(part).get("training")]
        self._buffers = [(buffers_of(part), dict(buffers_of(part))) for part in parts]
        self._memory = MemoryBound()
        self._fast = torch.backends.mha.get_fastpath_enabled()
        self._validates = torch.distributions.Distribution._validate_args
        self._modes = TorchModes()
        self._answers = Answers()

    def quiet(self) -> None:
        """Change them for a call."""
        self._memory.start()
        for part in self._training:
            namespace(part)["training"] = False
        torch.backends.mha.set_fastpath_enabled(False)
        torch.distributions.Distribution.set_default_validate_args(False)
        self._answers.give()

    def restore(self) -> None:
        """Put everything back; calling it twice is harmless."""
        self._memory.stop()
        self._modes.restore()
        self._answers.restore()
        torch.distributions.Distribution.set_default_validate_args(self._validates)
        torch.backends.mha.set_fastpath_enabled(self._fast)
        for part in self._training:
            namespace(part)["training"] = True
        for buffers, before in self._buffers:
            if len(buffers) != len(before) or any(buffers.get(name) is not buffer for name, buffer in before.items()):
                buffers.clear()
                buffers.update(before)


def _reason(error: BaseException) -> str:
    """Why a call ended early, with the line of the model's code."""
    here = Path(__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "torch" not in Path(frame.filename).parts and Path(frame.filename).parent != here
    ]
    try:
        text = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
    except Exception:  # of a foreign class
        text = ""
    what = text if isinstance(error, meta_execution.UntraceableError) else f"{name_of_class(type(error))}: {text}"
    return f"{what} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else what


class _Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch does not say what it is
    def __init__(self, module: torch.nn.Module, meter: Meter) -> None:
        super().__init__()
        parameters = dict(named_parameters(module))
        self._meter = meter
        self._builder = GraphBuilder({name: shape_of(parameter) or () for name, parameter in parameters.items()}, meter)
        self._tracker = TensorTracker(self._builder.piece)
        self._stand_ins: dict[int, torch.Tensor] = {}
        self._shapes: meta_execution.Shapes = {}
        self._operations = 0
        self._given = 0
        for name, parameter in parameters.items():
            stand_in = _without_numbers(parameter)
            self._stand_ins[id(parameter)] = stand_in
            for tensor in (parameter, stand_in):
                self._tracker.set(tensor, Provenance({}, (name,)))
        # A model may replace a buffer while it runs; the old one must live, or its id would mean another tensor.
        self._buffers = dict(_named_buffers(module))
        for name, buffer in self._buffers.items():
            try:
                stand_in = self._stand_ins[id(buffer)] = meta_execution.stand_in_of_buffer(name, buffer)
            except Exception:  # lazy ones have no shape, foreign tensors can raise anything
                continue
            if not stand_in.is_meta:
                meter.count_bytes(stand_in.numel() * stand_in.element_size())

    def given(self, name: str, value: Any, depth: int = 0) -> Any:
        """An argument as the call receives it.

        Raises:
            LorascopeError: It is too large.
        """
        self._given += 1
        if self._given > _MOST_INPUTS or depth > _DEEPEST_INPUT:
            raise too_large(f"the input {name} holds more than {_MOST_INPUTS} values, or itself")
        if isinstance(value, torch.Tensor) and not meta_execution.is_exact(value):
            unknown = meta_execution.to_meta(
                value.detach(), dense=value.layout == torch.strided and 0 in value.stride()
            )
            self._tracker.set(unknown, of_node(self._builder.node("input", name)))
            return unknown
        if isinstance(value, torch.Tensor):
            if value.numel() > meta_execution.LARGEST_KNOWN:
                raise too_large(f"the input {name} has {value.numel()} integers")
            copy = value.detach().to("cpu", copy=True)
            if not _counts_up(copy):  # such numbers are positions
                self._tracker.set(copy, Provenance({}, ids=frozenset({name}), as_given=True))
            return copy
        if type(value) in (list, tuple):
            return type(value)(self.given(name, inner, depth + 1) for inner in value)
        if type(value) is dict:
            return {key: self.given(name, inner, depth + 1) for key, inner in value.items()}
        return value

    def note_recurrent(self, arguments: Sequence[Any]) -> None:
        """Note the parameters of a recurrent layer."""
        for tensor in meta_execution.tensors_in(arguments):
            self._builder.recurrent.update(self._tracker.initial(tensor).parameters)

    def graph(self, outputs: Any, failure: str) -> Graph:
        """What was recorded."""
        labels: Labels = {}
        for tensor in _leaves(outputs):
            labels |= self._tracker.current(tensor).labels
        return self._builder.graph(labels, failure, self._operations)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # where operations made of others arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = func._overloadpacket.__name__
        self._operations += 1
        self._meter.count_operation()
        tensors = meta_execution.tensors_in([*args, *kwargs.values()])
        is_view = meta_execution.is_view(func)
        # Writes to a view's memory are looked up later: they may not overlap it.
        provenances = [(self._tracker.initial if is_view else self._tracker.current)(tensor) for tensor in tensors]
        real_args = meta_execution.with_tensors(args, self.stand_in)
        real_kwargs = dict(zip(kwargs, meta_execution.with_tensors(kwargs.values(), self.stand_in), strict=True))
        result = meta_execution.run_operation(func, name, real_args, real_kwargs, self._shapes, self._meter)
        results = meta_execution.tensors_in(result if isinstance(result, tuple | list) else [result])
        if not results or all(provenance is NOTHING for provenance in provenances):
            return result
        new = label_results(self._builder, Operation(func, name, args, tensors, provenances, results))
        for tensor, provenance in zip(results, new, strict=True):
            if is_view:
                self._tracker.set_view(tensor, provenance, tensors[0])
            else:
                self._tracker.set(tensor, provenance, self._operations)
        if func._schema.is_mutable:
            self._tracker.write(tensors[0], new[0], self._operations)
            if not tensors[0].is_meta and any(tensor.is_meta for tensor in meta_execution.tensors_in(real_args)):
                self._stand_ins[id(tensors[0])] = meta_execution.to_meta(tensors[0])  # its numbers no longer hold
            if isinstance(result, torch.Tensor):
                return args[0]
        return result

    def stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor that takes a parameter's or buffer's place."""
        return self._stand_ins.get(id(tensor), tensor)


def _counts_up(numbers: torch.Tensor) -> bool:
    """The last dimension holds 0, 1, 2 and so on."""
    if numbers.dtype == torch.bool:
        return False
    size = numbers.shape[-1] if numbers.dim() else 0
    return size > 2 and bool((numbers == torch.arange(size, dtype=numbers.dtype)).all())


def _without_numbers(parameter: torch.Tensor) -> torch.Tensor:
    try:
        return meta_execution.to_meta(parameter.detach())
    except Exception:  # of a foreign class
        return torch.empty(shape_of(parameter) or (), device=meta_execution.META)


def _named_buffers(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for path, part in modules_in(module).items():
        for name, buffer in buffers_of(part).items():
            if isinstance(buffer, torch.Tensor):
                yield (f"{path}.{name}" if path else name), buffer


def _leaves(value: Any) -> list[torch.Tensor]:
    """Tensors of a model's output, at any depth; at most ten thousand."""
    tensors: list[torch.Tensor] = []
    seen = 0
    waiting = [value]
    while waiting and seen < _MOST_OUTPUTS:
        node = waiting.pop()
        seen += 1
        if isinstance(node, torch.Tensor):
            tensors.append(node)
        elif isinstance(node, dict):
            waiting += reversed(list(node.values()))
        elif isinstance(node, list | tuple):
            waiting += reversed(node)
        elif dataclasses.is_dataclass(node) and not isinstance(node, type):
            waiting += reversed([attribute(node, field.name) for field in dataclasses.fields(node)])
    return tensors
