"""Kinds of Python objects, told by their classes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import one_line

_BASES = type.__dict__["__mro__"].__get__
_NAME = type.__dict__["__name__"].__get__
_QUALIFIED = type.__dict__["__qualname__"].__get__
_ATTRIBUTES = type.__dict__["__dict__"].__get__
_LONGEST_CLASS_NAME = 200
_MOST_WRAPPERS = 16
# Of every class that was asked for, by its id: itself, so that it lives, and its answer.
_KINDS: dict[int, tuple[type, tuple[str, ...]]] = {}
_MOST_KINDS = 1_000

MODULE = "torch.nn.modules.module.Module"
_CONFIGS = ("transformers.configuration_utils.PreTrainedConfig", "transformers.configuration_utils.PretrainedConfig")
# Wrappers of a whole model, and under which name each has it.
_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    "deepspeed.runtime.engine.DeepSpeedEngine": "module",
}
_PEFT_MODELS = ("peft.peft_model.PeftModel", "peft.mixed_model.PeftMixedModel")
_SCRIPTED = "torch.jit._script.ScriptModule"
_SHARDED = "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"
_FIRST = "Inspect the model before get_peft_model"
_GIVE_MODEL = "Give the model itself, or its folder, Hub id or configuration."
# Objects that are often given instead of a model, with a hint each.
_OTHERS = {
    "transformers.pipelines.base.Pipeline": ("a pipeline", "Give its model: inspect(pipeline.model)."),
    "diffusers.pipelines.pipeline_utils.DiffusionPipeline": (
        "a pipeline of several models",
        "Give one of them: inspect(pipeline.transformer), or inspect(pipeline.unet).",
    ),
    "transformers.tokenization_utils_base.PreTrainedTokenizerBase": ("a tokenizer, which has no weights", _GIVE_MODEL),
    "transformers.processing_utils.ProcessorMixin": ("a processor, which has no weights", _GIVE_MODEL),
    "transformers.trainer.Trainer": ("a trainer", "Give its model as it was before get_peft_model."),
    "peft.config.PeftConfigMixin": (
        "a configuration of an adapter, not of a model",
        "Give the model, and the adapter to verify: verify(inspect(MODEL), CONFIG).",
    ),
    "torch.export.exported_program.ExportedProgram": (
        "an exported program, whose layers PEFT cannot replace",
        "Give the module that it was exported from.",
    ),
    "torch.Tensor": ("a tensor, not a model", _GIVE_MODEL),
    "lorascope.plans.types.Plan": ("a plan", "Give its map: plan.model."),
}


def name_of_class(cls: type) -> str:
    """A class's name, one line of at most 200 characters."""
    return one_line(_NAME(cls)[:_LONGEST_CLASS_NAME])


def kinds_of(cls: type) -> tuple[str, ...]:
    """Full names of a class and its bases."""
    known = _KINDS.get(id(cls))
    if known is None or known[0] is not cls:
        if len(_KINDS) >= _MOST_KINDS:
            _KINDS.clear()
        known = _KINDS[id(cls)] = (cls, tuple(f"{_home(base)}.{_QUALIFIED(base)}" for base in _BASES(cls)))
    return known[1]


def is_a(value: object, *classes: type) -> bool:
    """`isinstance` without foreign code: by the class alone."""
    return any(base is wanted for base in _BASES(type(value)) for wanted in classes)


def _home(cls: type) -> str:
    home = _ATTRIBUTES(cls).get("__module__")
    return home if isinstance(home, str) else ""


def is_module(value: object) -> bool:
    """An instance of `torch.nn.Module`."""
    return MODULE in kinds_of(type(value))


def is_config(value: object) -> bool:
    """An instance of transformers' `PreTrainedConfig`."""
    return not set(_CONFIGS).isdisjoint(kinds_of(type(value)))


def is_diffusers_config(value: object) -> bool:
    """The configuration of a model of diffusers, a dictionary of its own class."""
    return "diffusers.configuration_utils.FrozenDict" in kinds_of(type(value))


def path_text(value: object) -> str | None:
    """A text, or a path as text; None for anything else.

    Raises:
        LorascopeError: A path cannot say what it is.
    """
    kinds = kinds_of(type(value))
    if is_a(value, type) or "unittest.mock.NonCallableMock" in kinds:
        return None
    if is_a(value, str):
        return str.__str__(value)
    if not any("__fspath__" in _ATTRIBUTES(base) for base in _BASES(type(value))):
        return None
    try:
        return os.fsdecode(value)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LorascopeError(
            f"a {name_of_class(type(value))} gives no path: {name_of_class(type(error))}", hint="Give the path as text."
        ) from None


def is_of_peft(kinds: tuple[str, ...]) -> bool:
    """A class of PEFT, or a subclass."""
    return any(kind.startswith("peft.") for kind in kinds)


def is_scripted(kinds: tuple[str, ...]) -> bool:
    """A module compiled by TorchScript."""
    return _SCRIPTED in kinds


def is_sharded(kinds: tuple[str, ...]) -> bool:
    """A module wrapped by the first FSDP, which flattens parameters."""
    return _SHARDED in kinds


def object_faults(source: Any) -> Iterator[tuple[str, str]]:
    """Why an object cannot be inspected, each with its hint."""
    cls = type(source)
    name, kinds = name_of_class(cls), kinds_of(cls)
    if is_a(source, type):
        yield _class_fault(source)
    elif (peft := next((kind for kind in _PEFT_MODELS if kind in kinds), "")) and MODULE in kinds:
        what = peft.rpartition(".")[2]
        yield (
            f"the model is a {name}{'' if name == what else f', which is a {what}'}: PEFT has wrapped it already",
            f"{_FIRST}, or give what model.unload() returns (without layers of an adapter: model.get_base_model()). "
            "For what its adapter does: lorascope check SOURCE ADAPTER.",
        )
    elif MODULE in kinds and is_scripted(kinds):
        yield (
            "the model is compiled by TorchScript, and PEFT cannot replace its layers",
            "Give the module that it was compiled from.",
        )
    elif MODULE in kinds and is_sharded(kinds):
        yield (
            "the model is wrapped by FullyShardedDataParallel, which flattens and splits its parameters",
            "Give the model before it is wrapped, or its configuration: inspect(model.config).",
        )
    elif MODULE in kinds or is_config(source):
        return
    elif "unittest.mock.NonCallableMock" in kinds:
        yield (
            f"cannot inspect {_with_article(name)}: it stands for anything",
            "Give a small model or configuration instead.",
        )
    elif (known := next((_OTHERS[kind] for kind in kinds if kind in _OTHERS), None)) is not None:
        yield f"a {name} is {known[0]}", known[1]
    elif is_a(source, bytes, bytearray):
        yield f"cannot inspect {_with_article(name)}", "Give text or a path: os.fsdecode(SOURCE)."
    elif is_a(source, dict):
        yield _dict_fault(source, name)
    else:
        yield f"cannot inspect {_with_article(name)}", "Give a name, a path, a configuration or a module."


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in tuple("aeiouAEIOU") else f"a {noun}"


def _class_fault(cls: type) -> tuple[str, str]:
    name, kinds = name_of_class(cls), kinds_of(cls)
    if MODULE in kinds:
        return f"{name} is a class, not a model", f"Give an instance, or its configuration: inspect({name}(…))."
    if not set(_CONFIGS).isdisjoint(kinds):
        return f"{name} is a class, not a configuration", f"Give an instance: inspect({name}())."
    return f"{name} is a class, and no source", "Give a name, a path, a configuration or a module."


def _dict_fault(source: dict[Any, Any], name: str) -> tuple[str, str]:
    tensors = sum("torch.Tensor" in kinds_of(type(value)) for value in list(dict.values(source))[:100])
    if tensors:
        return (
            f"cannot inspect {_with_article(name)} of tensors: it has no modules",
            "Give the model that it is loaded into, or the folder with its config.json and safetensors.",
        )
    return (
        f"cannot inspect {_with_article(name)}",
        "Make a configuration of it: transformers.AutoConfig.for_model(**DICT), or save it as config.json.",
    )


def unwrapped(module: Any) -> tuple[Any, tuple[str, ...]]:
    """The model inside wrappers, and the path to it.

    Raises:
        LorascopeError: A wrapper holds no model, or itself.
    """
    path: list[str] = []
    while True:
        kinds = kinds_of(type(module))
        key = next((_WRAPPERS[kind] for kind in kinds if kind in _WRAPPERS), None) if MODULE in kinds else None
        if key is None:
            return module, tuple(path)
        inner = children_of(module).get(key)
        path.append(key)
        if not is_module(inner) or len(path) > _MOST_WRAPPERS:
            raise LorascopeError(
                f"a {name_of_class(type(module))} holds no model as {key}", hint="Give the model that it wraps."
            )
        module = inner


def children_of(module: object) -> Mapping[str, Any]:
    """Registered children of a module, by attribute name.

    Raises:
        LorascopeError: What it keeps them in is not a dictionary.
    """
    return _registered(module, "_modules")


def parameters_of(module: object) -> Mapping[str, Any]:
    """Registered parameters of a module itself, by attribute name.

    Raises:
        LorascopeError: As `children_of`.
    """
    return _registered(module, "_parameters")


def buffers_of(module: object) -> dict[str, Any]:
    """The dictionary of a module's own buffers.

    Raises:
        LorascopeError: As `children_of`.
    """
    return _registered(module, "_buffers")


def _registered(module: object, name: str) -> dict[str, Any]:
    if is_scripted(kinds_of(type(module))):
        return {}
    entries = namespace(module).get(name)
    if type(entries) is dict or "collections.OrderedDict" in kinds_of(type(entries)):
        return entries  # type: ignore[return-value]
    cls = name_of_class(type(module))
    if entries is None:
        raise LorascopeError(
            f"a {cls} has no {name}: its __init__ does not call torch.nn.Module.__init__",
            hint="Call super().__init__() first there.",
        )
    raise LorascopeError(
        f"{name} of a {cls} is a {name_of_class(type(entries))}, not a dictionary",
        hint="Register children as attributes.",
    )


def namespace(value: object) -> dict[str, Any]:
    """Attributes that an object holds itself, no code run."""
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return attributes if type(attributes) is dict else {}


def attribute(value: object, name: str, default: Any = None) -> Any:
    """A foreign object's attribute; the default where asking raises."""
    try:
        return getattr(value, name, default)
    except KeyboardInterrupt:
        raise
    except BaseException:  # foreign properties and __getattr__ can raise anything
        return default


def kind_text(value: Any) -> str:
    """A value's kind in words: `the class X`, or `a X`."""
    return f"the class {name_of_class(value)}" if is_a(value, type) else f"a {name_of_class(type(value))}"
