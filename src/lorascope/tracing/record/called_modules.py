"""Notes which layers a call runs as modules, not by their weight alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lorascope.sources.modules.module_tree import modules_in
from lorascope.sources.modules.python_objects import namespace

if TYPE_CHECKING:
    import torch


class CalledModules:
    """While it is entered, `names` grows by each of the modules that is called.

    It watches each module's `forward`, which runs for `layer(x)` and `layer.forward(x)` alike, as PEFT's wrapper does. Afterwards each module is as before.

    Args:
        module: The model.
        watched: Names of the modules in question.
    """

    def __init__(self, module: torch.nn.Module, watched: Iterable[str]) -> None:
        parts = modules_in(module)
        self.names: set[str] = set()
        self._parts = {name: parts[name] for name in watched if name in parts}
        self._before: dict[str, Any] = {}

    def __enter__(self) -> None:
        for name, part in self._parts.items():
            own = namespace(part)
            if "forward" in own:
                self._before[name] = own["forward"]
            own["forward"] = self._noting(name, part.forward)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, part in self._parts.items():
            own = namespace(part)
            if name in self._before:
                own["forward"] = self._before[name]
            else:
                own.pop("forward", None)

    def _noting(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*inputs: Any, **named: Any) -> Any:
            self.names.add(name)
            return forward(*inputs, **named)

        return noted
