"""Module trees, walked without running their code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_printable, quoted
from lorascope.sources.modules.python_objects import (
    children_of,
    is_of_peft,
    is_scripted,
    is_sharded,
    kinds_of,
    name_of_class,
    parameters_of,
)

if TYPE_CHECKING:
    import torch

# The largest models have some hundred thousand modules, thirty levels deep.
MOST_MODULES = 1_000_000
MOST_NAMES = 300_000  # of modules that have several
MOST_CHARACTERS = 256 * 2**20
LONGEST_NAME = 2_000
# torch's own walks recurse, and end at Python's limit of a thousand calls.
DEEPEST = 900
_MOST_SHOWN = 5
_TENSOR = "torch.Tensor"
_LAZY = "torch.nn.parameter.UninitializedTensorMixin"
_MODULE = "torch.nn.modules.module.Module"

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ModuleTree:
    """A module with everything in it.

    Attributes:
        modules: Dotted name to module, in the order of `named_modules()`: each module once, the root as "".
        shapes: By the same name: the module's own parameters with their shapes.
        ties: Names of each parameter that has several.
        size: Number of scalars in all parameters, shared ones counted once.
        notes: Sentences on what is unusual.
    """

    modules: dict[str, torch.nn.Module]
    shapes: dict[str, tuple[tuple[str, Shape], ...]]
    ties: tuple[tuple[str, ...], ...]
    size: int
    notes: tuple[str, ...] = ()


def module_tree(root: torch.nn.Module) -> ModuleTree:
    """The tree of a module.

    Raises:
        LorascopeError: It is too large, holds what is no module or no parameter, layers of PEFT, or parameters that
            have no shape yet. All faults at once, the first of each kind.
    """
    faults = _Faults()
    modules, shared = _walk(root, faults)
    faults.end(root)
    shapes: dict[str, tuple[tuple[str, Shape], ...]] = {}
    sizes: dict[int, int] = {}
    for path, module in modules.items():
        shapes[path] = tuple(_own_shapes(path, module, faults, sizes))
    faults.end(root)
    names = _names(root) if shared else ((path, module) for path, module in modules.items())
    ties: dict[int, list[str]] = {}
    for path, module in names:
        for name, parameter in parameters_of(module).items():
            if parameter is not None:
                ties.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    return ModuleTree(
        modules,
        shapes,
        tuple(tuple(group) for group in ties.values() if len(group) > 1),
        sum(sizes.values()),
        tuple(_notes(modules)),
    )


def modules_in(root: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Dotted name to module, in the order of `named_modules()`.

    Raises:
        LorascopeError: As `module_tree`, of modules.
    """
    faults = _Faults()
    modules, _ = _walk(root, faults)
    faults.end(root)
    return modules


def named_parameters(root: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters as `named_parameters()` lists them."""
    seen = set()
    for path, module in modules_in(root).items():
        for name, parameter in parameters_of(module).items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{path}.{name}" if path else name), parameter


class _Faults:
    """Faults of a tree, grouped by kind."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._hints: dict[str, None] = {}

    def add(self, kind: str, name: str, hint: str) -> None:
        self._found.setdefault(kind, []).append(name)
        self._hints[hint] = None

    def end(self, root: object) -> None:
        if self._found:
            raise LorascopeError(
                *(f"{kind}: {_listed(names)}" for kind, names in self._found.items()),
                where=name_of_class(type(root)),
                hint=" ".join(self._hints),
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(_short(name) for name in names[:_MOST_SHOWN])
    return shown if len(names) <= _MOST_SHOWN else f"{shown} and {len(names) - _MOST_SHOWN} more"


def _short(name: str) -> str:
    return name if len(name) <= 160 else f"{name[:80]}…{name[-79:]}"


def _walk(root: torch.nn.Module, faults: _Faults) -> tuple[dict[str, torch.nn.Module], bool]:
    """The modules by name, each once, and whether any has several names."""
    modules: dict[str, torch.nn.Module] = {}
    seen = {id(root)}
    shared = False
    characters = 0
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        path, module, depth = waiting.pop()
        if path and id(module) in seen:
            shared = True
            continue
        seen.add(id(module))
        modules[path] = module
        characters += len(path)
        if len(modules) > MOST_MODULES or characters > MOST_CHARACTERS:
            raise _too_large(
                root, f"more than {MOST_MODULES} modules, or names of more than {MOST_CHARACTERS} characters"
            )
        if depth > DEEPEST:
            raise _too_large(root, f"modules nested more than {DEEPEST} deep")
        kinds = kinds_of(type(module))
        if is_of_peft(kinds):
            faults.add(
                "the model has layers of PEFT already",
                path or name_of_class(type(module)),
                "Inspect the model before an adapter is added, or give what unload() of the PeftModel returns.",
            )
            continue
        if is_sharded(kinds):
            faults.add(
                "parts are wrapped by FullyShardedDataParallel, which flattens parameters",
                path,
                "Give the model before it is wrapped, or its configuration.",
            )
            continue
        inner = []
        for name, child in children_of(module).items():
            where = f"{path}.{name}" if path and isinstance(name, str) else name
            if not _is_name(name):
                faults.add(
                    "names of modules that no attribute has",
                    quoted(where),
                    "Register them by attributes or add_module().",
                )
            elif child is not None and _MODULE not in kinds_of(type(child)):
                what = f"{_short(where)} (a {name_of_class(type(child))})"
                faults.add("these are registered as modules, and are none", what, "Register modules only.")
            elif child is not None:
                inner.append((where, child, depth + 1))
        waiting += reversed(inner)
    return modules, shared


def _is_name(name: object) -> bool:
    return is_printable(name) and isinstance(name, str) and "." not in name and len(name) <= LONGEST_NAME


def _too_large(root: object, what: str) -> LorascopeError:
    return LorascopeError(
        f"too large a module tree: {what}", where=name_of_class(type(root)), hint="Give the part that is to be adapted."
    )


def _names(root: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Every name of every module, cycles left out.

    Raises:
        LorascopeError: There are too many: each doubling of a shared module doubles them.
    """
    count = 0
    waiting: list[tuple[str, Any, frozenset[int]]] = [("", root, frozenset())]
    while waiting:
        path, module, above = waiting.pop()
        count += 1
        if count > MOST_NAMES:
            raise _too_large(root, f"shared modules under more than {MOST_NAMES} names")
        yield path, module
        above = above | {id(module)}
        inner = [
            (f"{path}.{name}" if path else name, child, above)
            for name, child in children_of(module).items()
            if child is not None and id(child) not in above
        ]
        waiting += reversed(inner)


def _own_shapes(path: str, module: Any, faults: _Faults, sizes: dict[int, int]) -> Iterator[tuple[str, Shape]]:
    """Shapes of a module's own parameters; their sizes go into `sizes`."""
    # Of the attribute, not of named_parameters(): a parameter shared with an earlier module must not vanish here.
    for name, parameter in parameters_of(module).items():
        if parameter is None:
            continue
        where = f"{path}.{name}" if path and isinstance(name, str) else name
        if not _is_name(name):
            faults.add("names of parameters that no attribute has", quoted(where), "Register them by attributes.")
            continue
        kinds = kinds_of(type(parameter))
        if _TENSOR not in kinds:
            what = f"{_short(where)} (a {name_of_class(type(parameter))})"
            faults.add("these are registered as parameters, and are no tensors", what, "Register tensors only.")
            continue
        if _LAZY in kinds:
            faults.add(
                "lazy modules whose parameters have no shape yet",
                where,
                "Call the model once with an example, which gives them their shapes.",
            )
            continue
        shape = shape_of(parameter)
        if shape is None:
            faults.add("parameters that have no fixed shape", where, "Give the model with plain tensors.")
            continue
        size = 1
        for length in shape:
            size *= length
        sizes[id(parameter)] = size
        yield name, shape


def shape_of(tensor: torch.Tensor) -> Shape | None:
    """A tensor's shape, without running a subclass's code, or None."""
    import torch

    try:
        with torch._C.DisableTorchFunctionSubclass():
            shape = tuple(torch.Tensor.size(tensor))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # of nested tensors, say
        return None
    return shape if all(type(size) is int for size in shape) else None


def _notes(modules: dict[str, torch.nn.Module]) -> Iterator[str]:
    kinds = [kinds_of(type(module)) for module in modules.values()]
    packed = sum(
        any(kind.startswith(("torch.ao.nn.quantized.", "torch.nn.quantized.")) for kind in names) for names in kinds
    )
    if packed:
        yield f"Quantized by torch.ao: {packed} modules, whose weights are packed. PEFT cannot adapt those."
    scripted = sum(map(is_scripted, kinds))
    if scripted:
        yield f"Compiled by TorchScript: {scripted} modules. PEFT cannot adapt what is in them."
