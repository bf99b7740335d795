"""What a model's code asks of its machine, answered without weights and without an accelerator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from lorascope.tracing.record import meta_execution

# Layers in one operation, which compares the devices of its operands before anybody sees it.
_RECURRENT = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
)
# What a sound model's numbers are not, and are.
_CHECKS = {"isnan": False, "isinf": False, "isposinf": False, "isneginf": False, "isfinite": True}
_HERE = frozenset({"cpu", "meta"})


class Machine(TorchFunctionMode):  # type: ignore[misc]  # torch does not say what it is
    """Runs functions of torch on the devices that a recorded call has: the CPU for known numbers, meta for others."""

    def __init__(
        self, stand_in: Callable[[torch.Tensor], torch.Tensor], recurrent: Callable[[Sequence[Any]], None]
    ) -> None:
        """Start.

        Args:
            stand_in: The tensor that takes a parameter's or buffer's place.
            recurrent: Called with the arguments of every recurrent layer of torch.
        """
        super().__init__()
        self._stand_in = stand_in
        self._recurrent = recurrent

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            kwargs["device"] = meta_execution.CPU  # numbers that code writes down stay known
        elif kwargs.get("device") is not None:
            kwargs["device"] = _available(kwargs["device"])
        if name in _CHECKS and args and args[0].is_meta and args[0].numel() <= meta_execution.LARGEST_KNOWN:
            return torch.full(args[0].shape, _CHECKS[name])
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], str | torch.device):
            args = (args[0], _available(args[1]), *args[2:])
        if name in _RECURRENT and any(tensor.is_meta for tensor in meta_execution.tensors_in(args)):
            self._recurrent(args)
            args = meta_execution.with_tensors(args, self._without_numbers)
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            alike = _of_one_type([*args, *kwargs.values()])
            if alike is None or name.endswith("_"):
                raise
        return func(*alike[: len(args)], **dict(zip(kwargs, alike[len(args) :], strict=True)))

    def _without_numbers(self, tensor: torch.Tensor) -> torch.Tensor:
        with _disable_current_modes():  # whose factories make small tensors with numbers
            return meta_execution.to_meta(self._stand_in(tensor))


def _of_one_type(values: Sequence[Any]) -> list[Any] | None:
    """Arguments with all floating-point numbers of the widest type; None where they are of one type already."""
    types = {tensor.dtype for tensor in meta_execution.tensors_in(values) if tensor.dtype.is_floating_point}
    if len(types) < 2:
        return None
    widest = functools.reduce(torch.promote_types, types)
    return meta_execution.with_tensors(
        values, lambda tensor: tensor.to(widest) if tensor.dtype.is_floating_point else tensor
    )


def _available(device: Any) -> Any:
    """The device, or meta where it is one of an accelerator."""
    try:
        kind = "" if isinstance(device, int) else meta_execution.device_type(device)
    except RuntimeError:  # no device at all: torch says so
        return device
    return device if kind in _HERE else meta_execution.META


class Answers:
    """Functions of torch that know nothing of the meta device, and what they answer during a recorded call."""

    def __init__(self) -> None:
        """Look what they are now."""
        self._answers: list[tuple[Any, str, Any]] = [
            (torch.amp.autocast_mode.autocast, "__init__", _autocast),
            (torch, "is_autocast_enabled", _is_autocast_enabled),
            (torch, "get_autocast_dtype", _autocast_dtype),
            (transformer, "_detect_is_causal_mask", _is_called_causal),
        ]
        if not torch.cuda.is_available():
            self._answers.append((torch.cuda, "current_device", _first_device))
        self._before = [(owner, name, _original(getattr(owner, name))) for owner, name, _ in self._answers]
        self._fuses = torch._C._jit_can_fuse_on_cpu()
        self._optimizes = torch._C._get_graph_executor_optimize()

    def give(self) -> None:
        """Answer from now on."""
        for owner, name, answer in self._answers:
            setattr(owner, name, answer)
        # Scripted functions run operation by operation; fused, they would need numbers.
        torch._C._jit_override_can_fuse_on_cpu(False)
        torch._C._set_graph_executor_optimize(False)

    def restore(self) -> None:
        """Put everything back; calling it twice is harmless."""
        for owner, name, before in self._before:
            setattr(owner, name, before)
        torch._C._jit_override_can_fuse_on_cpu(self._fuses)
        torch._C._set_graph_executor_optimize(self._optimizes)


def _original(function: Any) -> Any:
    """The function itself, where another recorded call has replaced it."""
    return _ORIGINALS.get(function, function)


_init_autocast = torch.amp.autocast_mode.autocast.__init__
_autocast_is_enabled = torch.is_autocast_enabled
_dtype_of_autocast = torch.get_autocast_dtype
_detect_is_causal_mask = transformer._detect_is_causal_mask
_current_device = torch.cuda.current_device


def _autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
    """Without numbers there is nothing to cast."""
    if device_type == "meta":
        _init_autocast(self, "cpu", enabled=False)
    else:
        _init_autocast(self, device_type, *args, **kwargs)


def _is_autocast_enabled(*device_type: Any) -> bool:
    return device_type != ("meta",) and _autocast_is_enabled(*device_type)


def _autocast_dtype(device_type: str) -> torch.dtype:
    return torch.bfloat16 if device_type == "meta" else _dtype_of_autocast(device_type)


def _is_called_causal(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Whether a mask is causal, without a look at its numbers: it only chooses a faster kernel."""
    return bool(is_causal)


def _first_device() -> int:
    return 0


_ORIGINALS: dict[Any, Any] = {
    _autocast: _init_autocast,
    _is_autocast_enabled: _autocast_is_enabled,
    _autocast_dtype: _dtype_of_autocast,
    _is_called_causal: _detect_is_causal_mask,
    _first_device: _current_device,
}
