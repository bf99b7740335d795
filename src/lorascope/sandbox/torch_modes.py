"""Torch's own modes, as they are before foreign code runs: an interrupt while one is entered leaves it on."""

from __future__ import annotations

import torch


class TorchModes:
    """The modes when this is made."""

    def __init__(self) -> None:
        self._functions = torch._C._len_torch_function_stack()
        self._dispatchers = torch._C._len_torch_dispatch_stack()
        self._gradients = torch.is_grad_enabled()
        self._dtype = torch.get_default_dtype()

    def restore(self) -> None:
        """Leave those that were entered since; it does no harm to do so twice."""
        while torch._C._len_torch_function_stack() > self._functions:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > self._dispatchers:
            torch._C._pop_torch_dispatch_stack(None)
        torch.set_grad_enabled(self._gradients)
        if torch.get_default_dtype() != self._dtype:
            torch.set_default_dtype(self._dtype)
