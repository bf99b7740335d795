"""Restores torch's modes after foreign code was interrupted."""

from __future__ import annotations

import torch


class TorchModes:
    """Torch's modes when this is made."""

    def __init__(self) -> None:
        self._functions = torch._C._len_torch_function_stack()
        self._dispatchers = torch._C._len_torch_dispatch_stack()
        self._gradients = torch.is_grad_enabled()
        self._dtype = torch.get_default_dtype()

    def restore(self) -> None:
        """Leave the modes entered since; calling it twice is harmless."""
        while torch._C._len_torch_function_stack() > self._functions:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > self._dispatchers:
            torch._C._pop_torch_dispatch_stack(None)
        torch.set_grad_enabled(self._gradients)
        if torch.get_default_dtype() != self._dtype:
            torch.set_default_dtype(self._dtype)
