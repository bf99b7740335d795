"""Maps transformers' own models on the meta device.

Needs torch and transformers; both are imported inside the functions.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_model_type
from lorascope.model.classify import classify
from lorascope.model.shapes import separate_misshapen, shape_notes
from lorascope.model.types import Dimensions, Head, ModelMap, Module, Weight
from lorascope.sources.dimensions import TensorEvidence, language_part, read_dimensions
from lorascope.sources.modules.computed_weights import computed_shapes, traits_of
from lorascope.sources.modules.module_tree import ModuleTree, module_tree, modules_in
from lorascope.sources.modules.python_objects import attribute, is_config, name_of_class, namespace
from lorascope.sources.transformers.broken_package import import_failure
from lorascope.sources.transformers.model_classes import chosen_class, class_note, head_of, listed_heads

if TYPE_CHECKING:
    import torch

_ABSENT = object()

# Of what modeling code says of a configuration, which may repeat all of it.
_LONGEST_LINE = 400


def build(config: Any, *, architecture: str = "", trust_remote_code: bool = False) -> torch.nn.Module:
    """Build the model of a configuration on the meta device.

    Building is limited in time, tensors and memory (`build_limits`). Unless code is trusted, no request leaves, and
    nothing is asked on the terminal (`seal`).

    Args:
        config: A `PretrainedConfig`.
        architecture: The transformers class to build. Without it `config.architectures` decides.
        trust_remote_code: Parts of it may be built from code that comes with the configuration.

    Raises:
        LorascopeError: transformers has no such class, needs another package for it, its modeling code refuses the
            configuration, or building takes too much.
    """
    import torch
    import transformers

    from lorascope.sandbox.build_limits import limited_build
    from lorascope.sandbox.seal import sealed
    from lorascope.sandbox.torch_modes import TorchModes

    modes = TorchModes()
    name = architecture or next(iter(getattr(config, "architectures", None) or ()), "")
    try:
        cls = getattr(transformers, name, None) if isinstance(name, str) and name else None
    except (ImportError, RuntimeError) as error:  # from a broken dependency
        raise import_failure(error, name) from error
    if cls is None or not hasattr(cls, "_from_config") or cls is transformers.PreTrainedModel:
        raise LorascopeError(
            f'transformers {transformers.__version__} has no model class "{name}"',
            where="architectures",
            hint="Choose a head with --head, or upgrade transformers.",
        )
    try:
        with contextlib.nullcontext() if trust_remote_code else sealed(), limited_build(name), torch.device("meta"):
            if cls.config_class is not None and cls.config_class is config.sub_configs.get("text_config"):
                config = config.get_text_config()  # as the Auto classes do for the text model of a composite
            return cls._from_config(config)
    except LorascopeError:
        raise
    except ImportError as error:
        raise LorascopeError(
            f"{name} cannot be built: {_first_line(error)}", hint="Install the package that it names, and try again."
        ) from error
    except Exception as error:  # modeling code can raise anything
        raise LorascopeError(
            f"transformers cannot build {name} from this configuration: {type(error).__name__}: {_first_line(error)}",
            hint="Check the configuration against one that the model was released with.",
        ) from error
    finally:
        modes.restore()


def build_for_head(config: Any, head: Head | None, *, trust_remote_code: bool = False) -> tuple[torch.nn.Module, Head]:
    """Build the model with a head, and say which.

    Args:
        config: A `PretrainedConfig`.
        head: The head; without it the class that `config.architectures` names or stands for (`chosen_class`), or else the
            preferred head that transformers has for the model type, or its model without a head.
        trust_remote_code: Build it from code that comes with the configuration, through the Auto classes.

    Raises:
        LorascopeError: As `build`; or the model type has no such head.
    """
    if trust_remote_code and getattr(config, "auto_map", None) and not listed_heads(config.model_type):
        return _build_remote(config), head or "unknown"
    architecture, found = chosen_class(config, head)
    return build(config, architecture=architecture, trust_remote_code=trust_remote_code), found


def _build_remote(config: Any) -> torch.nn.Module:
    import torch
    import transformers

    for auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM", "AutoModel"):
        if auto in config.auto_map:
            try:
                with torch.device("meta"):
                    return getattr(transformers, auto).from_config(config, trust_remote_code=True)
            except Exception as error:  # foreign code can raise anything
                raise LorascopeError(
                    f"the model's own code cannot build it: {type(error).__name__}: {_first_line(error)}",
                    where=str(config.auto_map[auto]),
                ) from error
    raise LorascopeError(f"auto_map has no model class, only {', '.join(config.auto_map)}")


def _first_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def map_module(
    module: torch.nn.Module, *, model: str = "", head: Head | None = None, source: str = "module"
) -> ModelMap:
    """The map of a module tree, on any device.

    Args:
        module: Any `nn.Module`; transformers' models bring their configuration along.
        model: What to call it; the class name if empty.
        head: Which head the model has; found from transformers' mappings where not given.
        source: What to write into `ModelMap.source`.

    Raises:
        LorascopeError: The tree is none that PEFT could adapt: see `module_tree`.
    """
    config = attribute(module, "config")
    architecture = name_of_class(type(module))
    stated = attribute(config, "model_type")
    model_type = str(stated) if is_model_type(stated) else ""
    tree = module_tree(module)
    modules, odd = separate_misshapen(_modules(tree))
    weights = classify(modules, model_type=model_type)
    embeddings = embedding_names(module)
    note = class_note(config, architecture) if source == "config" else ""
    return ModelMap(
        model=model or model_type or architecture,
        model_type=model_type,
        architecture=architecture,
        head=head or head_of(architecture),
        source=source,
        versions=_versions(),
        dimensions=_dimensions(_text_config(config), weights, modules, tree.size),
        modules=modules,
        weights=weights,
        root_parameters=tree.shapes[""],
        ties=tree.ties,
        moe_conversion=moe_conversion(model_type),
        input_embeddings=embeddings.input,
        output_embeddings=embeddings.output,
        prepares_generation=attribute(module, "prepare_inputs_for_generation", _ABSENT) is not _ABSENT,
        refusal=embeddings.refusal,
        notes=(*filter(None, (note,)), *tree.notes, *shape_notes(odd, modules)),
    )


def _dimensions(config: Any, weights: Sequence[Weight], modules: Sequence[Module], size: int) -> Dimensions:
    """The dimensions of a (text) configuration, or of the language model's part of one that has none."""
    get: Callable[[str], Any] = functools.partial(_figure, config)
    part = language_part(get, _fields(config), TensorEvidence(weights, modules, complete=True))
    return read_dimensions(get if part is None else part.get, weights, size)


def _fields(config: Any, depth: int = 2) -> dict[str, Any]:
    """A configuration's own fields, those of the configurations in it as dictionaries."""
    if not is_config(config):
        return {}
    return {
        name: _fields(value, depth - 1) if depth and is_config(value) else value
        for name, value in namespace(config).items()
    }


def _figure(config: Any, name: str) -> Any:
    """A configuration's value; the one that it was given, where layers may differ from it."""
    value = attribute(config, name)
    return namespace(config).get(name) if value is None else value


def _text_config(config: Any) -> Any:
    """The text model's configuration, if any; else the given one."""
    if not is_config(config):
        return config
    try:
        return config.get_text_config()
    except Exception:  # several text configurations, or a foreign class
        return config


def _modules(tree: ModuleTree) -> Iterator[Module]:
    for name, module in tree.modules.items():
        if name:
            kind = module_kind(module)
            groups = attribute(module, "groups", 1) if kind == "conv" else 1
            yield Module(
                name=name,
                class_name=name_of_class(type(module)),
                kind=kind,
                parameters=tree.shapes[name],
                groups=groups if type(groups) is int and groups > 0 else 1,
                transposed=attribute(module, "is_transposed", False) is True,
                computed=tuple(computed_shapes(module, kind, dict(tree.shapes[name]))),
                traits=tuple(traits_of(module)),
            )


def module_kind(module: torch.nn.Module) -> str:
    """What PEFT would see in a module by `isinstance`: see `Module.kind`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    cls = type(module)  # what `__class__` says is left out: it may be code
    if issubclass(cls, nn.Linear):
        return "linear"
    if issubclass(cls, nn.Embedding):
        return "embedding"
    if issubclass(cls, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "conv"
    if issubclass(cls, nn.MultiheadAttention):
        return "multihead_attention"
    return "conv1d" if issubclass(cls, Conv1D) else "other"


class EmbeddingNames(NamedTuple):
    """Names of the embeddings, and why PEFT would fail to find them."""

    input: str
    output: str
    refusal: str


def embedding_names(module: torch.nn.Module) -> EmbeddingNames:
    """Names of a model's input and output embeddings."""
    names = {"input": "", "output": ""}
    fault = ""
    for side in names:
        get = attribute(module, f"get_{side}_embeddings")
        try:
            embeddings = get() if callable(get) else None
            names[side] = _name_of(module, embeddings)
            if side == "input" and embeddings is None:
                fault = "gives none"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign classes can raise anything
            if side == "input":
                fault = "is not implemented" if isinstance(error, NotImplementedError) else "raises an error"
    refusal = ""
    if fault and _asked_for_embeddings(module):
        refusal = f"{name_of_class(type(module))}.get_input_embeddings() {fault}, and PEFT calls it for any adapter"
    return EmbeddingNames(**names, refusal=refusal)


def _asked_for_embeddings(module: torch.nn.Module) -> bool:
    """PEFT calls `get_input_embeddings()` of this model for any adapter.

    It does so where the model says by a dictionary which weights are tied, unless the configuration unties them
    (`_get_module_names_tied_with_embedding`), and where a class that does not say whether it uses gradient checkpointing
    has no method of its own for that (`_prepare_model_for_gradient_checkpointing`).
    """
    if isinstance(attribute(module, "_tied_weights_keys"), dict):
        config = attribute(module, "config")
        if config is None or attribute(config, "tie_word_embeddings") is not False:
            return True
    return (
        bool(attribute(module, "is_gradient_checkpointing", True))
        and attribute(module, "enable_input_require_grads", _ABSENT) is _ABSENT
        and attribute(module, "get_input_embeddings", _ABSENT) is not _ABSENT
    )


def _name_of(root: torch.nn.Module, wanted: object) -> str:
    return next((name for name, module in modules_in(root).items() if module is wanted), "")


def moe_conversion(model_type: str) -> str:
    """The pattern by which PEFT rewrites configurations of this type."""
    try:
        from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN
    except ImportError:
        return ""
    # PEFT adds mixtral itself: peft/utils/transformers_weight_conversion.py.
    pattern = {**_MODEL_TO_CONVERSION_PATTERN, "mixtral": "mixtral"}.get(model_type, "")
    return pattern if pattern in ("mixtral", "qwen2_moe") else ""


def _versions() -> dict[str, str]:
    # Without the label of the build (`+cpu`), which decides nothing here.
    return {name: importlib.metadata.version(name).partition("+")[0] for name in ("transformers", "torch")}
