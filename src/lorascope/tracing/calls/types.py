"""One call of a model, and the facts that shape its arguments."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.sources.modules.module_tree import modules_in
from lorascope.sources.modules.python_objects import attribute

if TYPE_CHECKING:
    import torch

# Values of one made-up input. Numbers take no memory, as one stands for all; integers do.
_MOST_NUMBERS = 1 << 31
_MOST_INTEGERS = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One call that runs a part of a model.

    Attributes:
        method: The attribute of the model to call, dotted where it is one of a part: `forward`,
            `model.get_image_features`, `model.vision_tower`.
        arguments: Keyword arguments. Tensors are on the CPU; integers and masks mean something, floats are ones.
        component: The part that it runs: "" for the model itself, or `vision`, `audio`, `codec`, `connector`.
        about: A few words for the reader: "11 tokens", "an image of 224 × 224".
    """

    method: str
    arguments: Mapping[str, Any]
    component: str
    about: str


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A module inside a model that is called on its own.

    Attributes:
        path: Its name in the model; empty for the model.
        module: The module.
        names: The parameters of the method in question.
        needed: Those of them that have no default.
    """

    path: str
    module: Any
    names: frozenset[str]
    needed: frozenset[str]

    @property
    def config(self) -> Any:
        """Its configuration, or None."""
        return getattr(self.module, "config", None)

    def method(self, name: str) -> str:
        """Dotted name of one of its attributes, as seen from the model."""
        return f"{self.path}.{name}" if self.path else name


def find_site(model: torch.nn.Module, method: str, configured: Callable[[Any], bool]) -> Site | None:
    """The innermost module that has a method and names most parameters.

    Wrappers only pass on what they get, and often under no name.

    Args:
        model: The model to search.
        method: The name of the method.
        configured: Whether a configuration says something about what the method takes; others are no candidates.
    """
    candidates = [
        Site(path, part, parameters(getattr(part, method)), required(getattr(part, method)))
        for path, part in modules_in(model).items()
        if callable(attribute(part, method)) and configured(_config(part))
    ]
    return max(
        candidates,
        key=lambda candidate: (
            len(candidate.names - {"args", "kwargs"}),
            len(candidate.path.split(".")) if candidate.path else 0,
        ),
        default=None,
    )


def _config(part: Any) -> Any:
    try:
        return getattr(part, "config", None)
    except Exception:  # foreign properties can raise anything
        return None


def parameters(method: Any) -> frozenset[str]:
    """Names of a method's parameters, without `self`."""
    return frozenset(_parameters(method)) - {"self"}


def required(method: Any) -> frozenset[str]:
    """Names of parameters without a default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    signature = _parameters(method).items()
    return frozenset(
        name for name, parameter in signature if parameter.default is parameter.empty and parameter.kind not in kinds
    ) - {"self"}


def _parameters(method: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(method).parameters
    except (TypeError, ValueError):  # of what is no function of Python's
        return {}


def too_large(what: str) -> LorascopeError:
    """The error for arguments that are too large to be made."""
    return LorascopeError(
        f"tracing was stopped: {what}, which is more than a call is made with",
        hint="Correct the sizes in the configuration, or give one small call in Python: "
        "inspect(module, trace=True, inputs={…}).",
    )


def ones(*shape: int) -> torch.Tensor:
    """Ones of a shape, in the memory of a single one.

    Raises:
        LorascopeError: They are too many.
    """
    import torch

    return torch.ones(()).expand(_checked(shape, _MOST_NUMBERS))


def integers(*shape: int, value: int = 1, dtype: torch.dtype | None = None) -> torch.Tensor:
    """One integer or truth value, repeated over a shape.

    Raises:
        LorascopeError: They are too many.
    """
    import torch

    return torch.full(_checked(shape, _MOST_INTEGERS), value, dtype=dtype or torch.long)


def count_up(size: int, start: int = 0) -> torch.Tensor:
    """Consecutive integers from `start` on.

    Raises:
        LorascopeError: They are too many.
    """
    import torch

    return torch.arange(start, start + math.prod(_checked((size,), _MOST_INTEGERS)))


def _checked(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    if math.prod(shape) > most:
        raise too_large(f"an input of {' × '.join(map(str, shape))} values")
    return shape


def language_config(config: Any) -> Any:
    """The configuration of the language model or its decoder."""
    try:
        return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    except Exception:  # several text configurations, or a foreign class
        return config


def number(config: Any, *keys: str, default: int) -> int:
    """First configuration key that holds a positive integer."""
    for key in keys:
        try:
            value = getattr(config, key, None)
        except Exception:  # a configuration whose layers differ refuses to give one number for all of them
            continue
        if isinstance(value, list | tuple) and value:
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return default


def width(config: Any) -> int:
    """Hidden size by the configuration."""
    return number(config, "hidden_size", "d_model", "n_embd", "embed_dim", "dim", default=1)


def token_ids(model: torch.nn.Module, length: int, *, size: int = 0) -> torch.Tensor:
    """Distinct token ids of ordinary text.

    Args:
        model: The model that they are for.
        length: How many.
        size: The size of the vocabulary, where it is not that of the input embeddings.

    Returns:
        Integers of the shape (1, length).
    """
    import torch

    config = getattr(model, "config", None)
    size = size or _vocabulary(model, config)
    special = frozenset(_special(config))
    plain = [token for token in range(min(size, 4096)) if token > 2 and token not in special] or [0]
    step = 7 if len(plain) % 7 else 5
    _checked((length,), _MOST_INTEGERS)
    ids = [plain[(17 + step * place) % len(plain)] for place in range(length)]
    end = getattr(language_config(config), "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < size:  # sentence classifiers of encoder-decoders look for it
        ids[-1] = end
    return torch.tensor([ids])


def _vocabulary(model: Any, config: Any) -> int:
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except Exception:  # it has none, or says so in its own way
        sizes = [attribute(part, "num_embeddings") for part in modules_in(model).values()]
        tables = [size for size in sizes if type(size) is int]
        return number(language_config(config), "vocab_size", default=max(tables, default=100))


def _special(config: Any) -> Iterator[int]:
    pending = [config.to_dict() if hasattr(config, "to_dict") else {}]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif str(key).endswith(("_token_id", "_token_index", "_patch_id")):
                yield from (value,) if isinstance(value, int) else value if isinstance(value, list) else ()
