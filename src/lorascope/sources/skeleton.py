"""A model map from transformers' own modeling code on the meta device: names and shapes, no weights.

Needs torch and transformers; both are imported inside the functions.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from lorascope.errors import LorascopeError
from lorascope.records import Head, ModelMap, Module
from lorascope.roles.classifying import classify
from lorascope.sources.figures import read_figures

if TYPE_CHECKING:
    import torch

# transformers' mapping of each head. A class that several list has the first of them.
HEAD_MAPPINGS: dict[Head, str] = {
    "image-text-to-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}


def build(config: Any, *, architecture: str = "") -> torch.nn.Module:
    """The model of a configuration on the meta device; nothing is allocated.

    Args:
        config: A `PretrainedConfig`.
        architecture: The transformers class to build. Without it `config.architectures` decides.

    Raises:
        LorascopeError: transformers has no such class, needs another package for it, or its modeling code
            refuses the configuration.
    """
    import torch
    import transformers

    name = architecture or next(iter(getattr(config, "architectures", None) or ()), "")
    try:
        cls = getattr(transformers, name, None) if isinstance(name, str) and name else None
    except (ImportError, RuntimeError) as error:  # of a package beside it that is broken
        raise LorascopeError(
            f"transformers {transformers.__version__} cannot load {name}: {_first_line(_origin(error))}",
            hint="Repair or remove the package that it names; torchvision must be of the same release as torch.",
        ) from error
    if cls is None or not hasattr(cls, "_from_config") or cls is transformers.PreTrainedModel:
        raise LorascopeError(
            f'transformers {transformers.__version__} has no model class "{name}"',
            where="architectures",
            hint="Choose a head with --head, or upgrade transformers.",
        )
    try:
        if cls.config_class is not None and cls.config_class is config.sub_configs.get("text_config"):
            config = config.get_text_config()  # as the Auto classes do for the text model of a composite
        with torch.device("meta"):
            return cls._from_config(config)
    except ImportError as error:
        raise LorascopeError(
            f"{name} cannot be built: {_first_line(error)}", hint="Install the package that it names, and try again."
        ) from error
    except Exception as error:  # modeling code raises whatever it likes on a configuration that it cannot use
        raise LorascopeError(
            f"transformers cannot build {name} from this configuration: {type(error).__name__}: {_first_line(error)}",
            hint="Check the configuration against one that the model was released with.",
        ) from error


def build_for_head(config: Any, head: Head | None, *, trust_remote_code: bool = False) -> tuple[torch.nn.Module, Head]:
    """The model of a configuration with a head, on the meta device, and which head it got.

    Args:
        config: A `PretrainedConfig`.
        head: The head; without it the class that `config.architectures` names, or else the preferred head that
            transformers has for the model type.
        trust_remote_code: Build it from code that comes with the configuration, through the Auto classes.

    Raises:
        LorascopeError: As `build`; or the model type has no such head.
    """
    from transformers.models.auto import modeling_auto

    listed: dict[Head, str] = {}
    for candidate, mapping in HEAD_MAPPINGS.items():
        names = getattr(modeling_auto, mapping).get(config.model_type)
        if names:
            listed[candidate] = names[0] if isinstance(names, list | tuple) else names
    if trust_remote_code and getattr(config, "auto_map", None) and not listed:
        return _build_remote(config), head or "unknown"
    named = next(iter(getattr(config, "architectures", None) or ()), "")
    if head is None and named:
        known = next((candidate for candidate, architecture in listed.items() if architecture == named), None)
        return build(config, architecture=named), known or head_of(named)
    chosen = head or next(iter(listed), None)
    if chosen is None or chosen not in listed:
        has = ", ".join(listed) or "none that lorascope knows"
        raise LorascopeError(
            f'model type "{config.model_type}" has no head {chosen or ""}; its heads are: {has}',
            hint="Choose one of them with --head.",
        )
    return build(config, architecture=listed[chosen]), chosen


def _build_remote(config: Any) -> torch.nn.Module:
    import torch
    import transformers

    for auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM", "AutoModel"):
        if auto in config.auto_map:
            try:
                with torch.device("meta"):
                    return getattr(transformers, auto).from_config(config, trust_remote_code=True)
            except Exception as error:  # foreign code raises whatever it likes
                raise LorascopeError(
                    f"the model's own code cannot build it: {type(error).__name__}: {_first_line(error)}",
                    where=str(config.auto_map[auto]),
                ) from error
    raise LorascopeError(f"auto_map has no model class, only {', '.join(config.auto_map)}")


def _origin(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def map_module(
    module: torch.nn.Module, *, model: str = "", head: Head | None = None, source: str = "module"
) -> ModelMap:
    """The model map of a module tree, whatever device it is on; no tensor's data is read.

    Args:
        module: Any `nn.Module`; transformers' models bring their configuration along.
        model: What to call it; the class name if empty.
        head: Which head the model has; found from transformers' mappings where not given.
        source: What to write into `ModelMap.source`.
    """
    config: Any = getattr(module, "config", None)
    architecture = type(module).__name__
    model_type = str(getattr(config, "model_type", "") or "")
    modules = tuple(_modules(module))
    weights = classify(modules, model_type=model_type)
    embeddings = embedding_names(module)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return ModelMap(
        model=model or model_type or architecture,
        model_type=model_type,
        architecture=architecture,
        head=head or head_of(architecture),
        source=source,
        versions=_versions(),
        figures=read_figures(
            lambda name: _attribute(text, name), weights, sum(parameter.numel() for parameter in module.parameters())
        ),
        modules=modules,
        weights=weights,
        root_parameters=tuple(_own_parameters(module)),
        ties=tuple(_ties(module)),
        moe_conversion=moe_conversion(model_type),
        input_embeddings=embeddings.input,
        output_embeddings=embeddings.output,
        prepares_generation=hasattr(module, "prepare_inputs_for_generation"),
        refusal=embeddings.refusal,
    )


def head_of(architecture: str) -> Head:
    """The head that transformers' mappings list a model class under, or `unknown`."""
    from transformers.models.auto import modeling_auto

    for head, mapping in HEAD_MAPPINGS.items():
        for names in getattr(modeling_auto, mapping).values():
            if architecture == names or (isinstance(names, list | tuple) and architecture in names):
                return head
    return "unknown"


def _modules(root: torch.nn.Module) -> Iterator[Module]:
    for name, module in root.named_modules():
        if name:
            yield Module(
                name=name,
                class_name=type(module).__name__,
                kind=module_kind(module),
                parameters=tuple(_own_parameters(module)),
                groups=int(getattr(module, "groups", 1)) if module_kind(module) == "conv" else 1,
                transposed=bool(getattr(module, "is_transposed", False)),
            )


def module_kind(module: torch.nn.Module) -> str:
    """What PEFT would see in a module by `isinstance`: see `Module.kind`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "conv"
    if isinstance(module, nn.MultiheadAttention):
        return "multihead_attention"
    return "conv1d" if isinstance(module, Conv1D) else "other"


def _own_parameters(module: torch.nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    # Of the attribute, not of named_parameters(): a parameter shared with an earlier module must not vanish here.
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, tuple(parameter.shape)


def _ties(root: torch.nn.Module) -> Iterator[tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for name, parameter in root.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    yield from (tuple(group) for group in names.values() if len(group) > 1)


class EmbeddingNames(NamedTuple):
    """What `get_input_embeddings()` and `get_output_embeddings()` return, by name, and why PEFT, which asks, would fail."""

    input: str
    output: str
    refusal: str


def embedding_names(module: torch.nn.Module) -> EmbeddingNames:
    """The names of a model's input and output embeddings; empty where it has none."""
    found = {"input": "", "output": ""}
    refusal = ""
    for side in found:
        get = getattr(module, f"get_{side}_embeddings", None)
        try:
            found[side] = _name_of(module, get()) if get is not None else ""
        except NotImplementedError:
            if side == "input":
                refusal = (
                    f"{type(module).__name__}.get_input_embeddings() is not implemented, "
                    "and PEFT calls it for any adapter"
                )
        except AttributeError:
            pass
    return EmbeddingNames(**found, refusal=refusal)


def _name_of(root: torch.nn.Module, wanted: object) -> str:
    return next((name for name, module in root.named_modules() if module is wanted), "")


def moe_conversion(model_type: str) -> str:
    """The pattern by which PEFT rewrites a configuration for this model type (its own table where it is installed)."""
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


def _attribute(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # a configuration whose layers differ refuses to give one number for all of them
        return None
