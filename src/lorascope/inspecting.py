"""Maps any source: model type, folder, file, Hub id, configuration, module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted, shell_word
from lorascope.gc_paused import no_collection
from lorascope.model.json import FORMAT, map_from_json
from lorascope.model.types import Head, ModelMap
from lorascope.sources.builtin import PREFERRED, load_builtin
from lorascope.sources.files.plain import require_reachable
from lorascope.sources.modules.python_objects import (
    attribute,
    is_a,
    is_config,
    is_diffusers_config,
    is_module,
    name_of_class,
    object_faults,
    path_text,
    unwrapped,
)
from lorascope.sources.source_kinds import MODEL_TYPE, is_hub_id, names_builtin_model

if TYPE_CHECKING:
    import inspect as introspection

    import torch

    from lorascope.sources.diffusers.meta_model import DiffusersConfig
    from lorascope.sources.files.folder import Folder
    from lorascope.sources.files.hub import Repository

PLAN_FORMAT = "lorascope.plan/3"

# Read from a folder or repository: the configuration, through transformers' code; the headers of its weights; or the
# headers where there are any.
Read = Literal["auto", "headers", "config"]


def inspect(
    source: Any,
    *,
    head: str = "",
    revision: str | None = None,
    trust_remote_code: bool = False,
    read: Read = "auto",
    strict: bool = False,
    trace: bool = False,
    inputs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelMap:
    """Map a model's weights by role, without loading weights.

    Args:
        source: A built-in model (`llama`), a folder of a model or of a pipeline of diffusers, its `config.json`, a GGUF
            file, a map or plan that lorascope saved, a Hub id (`mistralai/Mistral-7B-v0.3`), a `PretrainedConfig` or an
            `nn.Module`.
        head: Which head to look at, where a model can have several: `causal-lm`, `seq2seq-lm`, `masked-lm`,
            `image-text-to-text` or `sequence-classification`.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Run modeling code that comes with the configuration. Never on by default.
        read: What of a folder or Hub id is read: `headers` of its safetensors files (no torch is needed), `config`
            (transformers builds the model on the meta device), or `auto`: the headers where it has weights, unless
            another head than theirs or trusted code is asked for. `ModelMap.source` says which it was.
        strict: Refuse a map whose weights rest on names alone.
        trace: Call the model without weights and tell by the dataflow what each weight does, beside its name
            (`ModelMap.traces`). Needs torch and transformers; of a folder or Hub id the configuration is read, and of a
            model type transformers' default configuration is built.
        inputs: With `trace`: the keyword arguments of one forward call. Without them the calls are made up from the
            configuration, which a module that is none of transformers' does not have.
        progress: Called with what is done and how much there is in all: files while a Hub repository is read, calls while
            a model is traced.

    Raises:
        LorascopeError: There is no such model, its files or its configuration are broken, it needs code that is not
            trusted, or there is no code to trace.
    """
    text = path_text(source)
    if text is not None:
        source = text
        for path in (text, os.path.join(text, "config.json")):
            require_reachable(path)
    faults = list(_faults(source, head, trust_remote_code, read))
    if trace:
        faults += _trace_faults(source, read, inputs)
    elif inputs is not None:
        faults.append(("inputs have no effect without tracing", "Pass trace=True too."))
    if faults:
        raise LorascopeError(*(fault for fault, _ in faults), hint=" ".join(dict.fromkeys(hint for _, hint in faults)))
    if trace:
        model = _traced(*_built(source, head, revision, trust_remote_code), inputs, progress)
    else:
        model = _inspected(source, head, revision, trust_remote_code, read, progress)
    if strict and model.basis == "names":
        raise LorascopeError(
            f'every weight of model type "{model.model_type}" rests on names alone, which --strict refuses',
            where=model.model,
            hint="Without --strict they are listed as guesses. With --source config --trust-remote-code the model's "
            "own code is run, if you trust it.",
        )
    return model


def _faults(source: Any, head: str, trust_remote_code: bool, read: Read) -> Iterator[tuple[str, str]]:
    """Faults of the arguments, each with its hint."""
    if not is_a(source, str, ModelMap):
        yield from object_faults(source)
    if head and head not in PREFERRED:
        yield f"unknown head {quoted(head)}", f"The heads are {', '.join(PREFERRED)}."
    if read not in get_args(Read):
        yield f"invalid `read`: {quoted(read)}", f"Choose one of {', '.join(get_args(Read))}."
    if read == "headers" and trust_remote_code:
        yield 'trust_remote_code has no effect with read="headers"', 'Use read="config".'


def _trace_faults(source: Any, read: Read, inputs: object) -> Iterator[tuple[str, str]]:
    """Why a source cannot be traced, each with its hint."""
    if read == "headers":
        yield "headers have no code to trace", "Leave --source out, or say --source config."
    name = os.fspath(source) if is_a(source, str) else ""
    file = _may_exist(name) and os.path.isfile(name) and os.path.basename(name) != "config.json"
    if is_a(source, ModelMap) or (file and not name.endswith(".safetensors")):
        kind = "a GGUF file" if name.endswith(".gguf") else "a saved map or plan"
        yield (
            f"{kind} has no code to trace",
            "Trace what it was made from: lorascope inspect SOURCE --trace, where SOURCE is the model's folder, "
            "config.json, Hub id or type; -o FILE saves the traced map.",
        )
    if is_module(source) and not any(object_faults(source)):
        yield from _call_faults(unwrapped(source)[0], inputs)


def _call_faults(module: torch.nn.Module, inputs: object) -> Iterator[tuple[str, str]]:
    """Why forward cannot be called with these keyword arguments."""
    import inspect as introspection

    name = name_of_class(type(module))
    try:
        signature = introspection.signature(attribute(module, "forward"))
        words = [_word(parameter) for parameter in signature.parameters.values()]
    except KeyboardInterrupt:
        raise
    except BaseException:  # not callable, or without a signature
        yield f"{name}.forward cannot be called", "Give a module whose forward is a method that names its arguments."
        return
    needed = [
        f"{word!r}: …"
        for word, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and word in words
    ]
    hint = (
        f"Give the keyword arguments of one call of forward({', '.join(words)}): inputs={{{', '.join(needed) or '…'}}}."
    )
    if inputs is None:
        if not is_config(config := attribute(module, "config")) and not is_diffusers_config(config):
            yield f"{name} has no configuration to make up inputs from", hint
        return
    if not _is_named(inputs):
        yield f"inputs must map argument names to values, not be a {name_of_class(type(inputs))}", hint
        return
    try:
        signature.bind(**cast(Mapping[str, Any], inputs))
    except TypeError as error:
        yield f"{name}.forward cannot be called with the inputs: {error}", hint


def _is_named(inputs: object) -> bool:
    """A readable mapping with texts as keys."""
    try:
        return isinstance(inputs, Mapping) and all(isinstance(key, str) for key in dict(inputs))
    except Exception:  # foreign mappings can raise anything
        return False


def _word(parameter: introspection.Parameter) -> str:
    """A parameter as its function names it, without annotation."""
    bare = parameter.replace(annotation=parameter.empty)
    default = bare.default
    if default is bare.empty or default is None or type(default) in (bool, int, float, str):
        return str(bare)
    return f"{bare.replace(default=bare.empty)}=…"


def _traced(
    module: torch.nn.Module,
    named: ModelMap,
    inputs: Mapping[str, Any] | None,
    progress: Callable[[int, int], None] | None,
) -> ModelMap:
    from lorascope.tracing.traced_map import trace_roles

    for fault, hint in _call_faults(module, inputs):
        raise LorascopeError(fault, where=named.model, hint=hint)
    return trace_roles(module, named, inputs=inputs, progress=progress)


def _inspected(
    source: Any,
    head: str,
    revision: str | None,
    trust_remote_code: bool,
    read: Read,
    progress: Callable[[int, int], None] | None,
) -> ModelMap:
    if is_a(source, ModelMap):
        saved: ModelMap = source
        return saved
    if is_a(source, str):
        text = os.fspath(source)
        model = _of_text(text, head)
        if model is None and (read == "headers" or (read == "auto" and not trust_remote_code)):
            model = _of_weights(text, head, revision, read, progress)
        if model is not None:
            return model
    return _built(source, head, revision, trust_remote_code)[1]


def _built(source: Any, head: str, revision: str | None, trust_remote_code: bool) -> tuple[torch.nn.Module, ModelMap]:
    """The model of a source that has code, and its map."""
    if is_a(source, str):
        text = os.fspath(source)
        recorded = _of_text(text, head)
        if recorded is not None:
            return _default(text, recorded)
        from lorascope.sources.diffusers.meta_model import diffusers_config
        from lorascope.sources.transformers.config import config_files, configuration

        files = config_files(text, revision)
        if files is not None and (diffusers := diffusers_config(files, text)) is not None:
            return _of_diffusers(diffusers, text, head)
        return _of_config(
            configuration(text, trust_remote_code=trust_remote_code, files=files), text, head, trust_remote_code
        )
    if is_module(source):
        return _of_module(source, head)
    return _of_config(source, "", head, trust_remote_code)


def _of_diffusers(config: DiffusersConfig, name: str, head: str) -> tuple[torch.nn.Module, ModelMap]:
    from lorascope.sources.diffusers.meta_model import build_diffusers, with_diffusers
    from lorascope.sources.transformers.meta_model import map_module

    if head:
        raise LorascopeError(f"a model of diffusers has no head {head}", where="--head", hint="Leave --head out.")
    module = build_diffusers(config)
    return module, with_diffusers(map_module(module, model=name, source="config"), config)


def _of_module(module: torch.nn.Module, head: str) -> tuple[torch.nn.Module, ModelMap]:
    from lorascope.sources.transformers.meta_model import map_module

    inner, path = unwrapped(module)
    model = map_module(inner, head=_head(head))
    if path:
        note = (
            f"A {name_of_class(type(module))} wraps the model. This is the map of what it wraps: "
            f"give PEFT that, as model.{'.'.join(path)}."
        )
        model = dataclasses.replace(model, notes=(note, *model.notes))
    return inner, model


def _default(model_type: str, recorded: ModelMap) -> tuple[torch.nn.Module, ModelMap]:
    """The model of a built-in type's default configuration."""
    from lorascope.sources.transformers.config import configuration, transformers_library
    from lorascope.sources.transformers.meta_model import build_for_head, map_module

    transformers_library()
    try:
        module, head = build_for_head(configuration(model_type), recorded.head)
    except LorascopeError as error:
        raise LorascopeError(
            *error.faults,
            where=f"transformers' default configuration of {model_type}",
            hint="Give a released model of this type: its folder, its config.json or its Hub id.",
        ) from error
    return module, map_module(module, model=model_type, head=head, source="default config")


def _may_exist(path: str) -> bool:
    """The system can look for a file of this name."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except (OSError, ValueError) as error:
        return isinstance(error, NotADirectoryError | PermissionError)
    return True


def _of_text(source: str, head: str) -> ModelMap | None:
    """The map of a name or file; None for a checkpoint."""
    if not source.strip() or not _may_exist(source):
        raise LorascopeError(
            f"cannot inspect {source[:60]!r}",
            hint="Give a model type such as mistral, a folder, a config.json or a Hub id.",
        )
    if os.path.isfile(source) and os.path.basename(source) != "config.json":
        return _of_file(source, head)
    if names_builtin_model(source):
        return load_builtin(source, head)
    if not os.path.exists(source):
        if MODEL_TYPE.fullmatch(source):
            return load_builtin(source, head)
        if not is_hub_id(source):
            raise LorascopeError(
                "no model type, file, folder or Hub id of this name",
                where=repr(source),
                hint="Model types are listed by: lorascope inspect --list",
            )
    return None


def _of_file(source: str, head: str) -> ModelMap:
    """The map of a GGUF file, saved map or saved plan."""
    from pathlib import Path

    path = Path(source)
    if path.suffix == ".gguf":
        from lorascope.sources.gguf.to_model_map import map_gguf

        return map_gguf(path, head=head)
    if path.suffix == ".safetensors":
        raise LorascopeError(
            "a single weights file cannot be read without its config.json",
            where=source,
            hint=f"Give the folder: lorascope inspect {shell_word(str(path.parent))}",
        )
    from lorascope.sources.files.json_files import read_json

    data = read_json(path)
    form = data.get("format") if isinstance(data, dict) else None
    if form == FORMAT:
        return map_from_json(data)
    if isinstance(data, dict) and form == PLAN_FORMAT:
        return map_from_json(data.get("map"))
    raise LorascopeError(
        "not a config.json, saved map or saved plan",
        where=source,
        hint="Save one with: lorascope inspect … -o FILE. A configuration must be called config.json.",
    )


@no_collection()
def _of_weights(
    source: str, head: str, revision: str | None, read: Read, progress: Callable[[int, int], None] | None
) -> ModelMap | None:
    """The map of a checkpoint's headers; None where it has none."""
    from pathlib import Path

    from lorascope.sources.checkpoint.safetensors import has_weights
    from lorascope.sources.diffusers.pipeline import denoiser, is_pipeline
    from lorascope.sources.files.folder import open_folder

    path = Path(source)
    notes: tuple[str, ...] = ()
    files: Folder | Repository
    if path.is_dir():
        files = open_folder(path)
    elif path.exists():  # config.json by itself is what is meant
        if read == "headers":
            raise LorascopeError(
                "a configuration has no weights",
                where=source,
                hint=f"Give the folder: lorascope inspect {shell_word(str(path.parent))}",
            )
        return None
    else:
        from lorascope.sources.files.hub import open_repository

        files = open_repository(source, revision, progress=progress)
        notes = files.notes
    if is_pipeline(files):
        files, part = denoiser(files, source)
        notes += part
    if read == "auto" and not has_weights(files):
        return None
    from lorascope.sources.checkpoint.root_class import has_head
    from lorascope.sources.checkpoint.safetensors import open_checkpoint
    from lorascope.sources.checkpoint.to_model_map import map_headers
    from lorascope.sources.transformers.config import checked_config

    checkpoint = open_checkpoint(files)
    config = checked_config(checkpoint.config, f"{files.where}: config.json", typed=False)
    if read == "auto" and head and not has_head(config, head):
        return None
    versions = {"commit": files.commit} if files.commit else {}
    return map_headers(checkpoint, config, model=source, head=head, versions=versions, notes=notes)


def _of_config(config: Any, name: str, head: str, trust_remote_code: bool) -> tuple[torch.nn.Module, ModelMap]:
    from lorascope.sources.transformers.meta_model import build_for_head, map_module

    module, built = build_for_head(config, _head(head), trust_remote_code=trust_remote_code)
    return module, map_module(module, model=name, head=built, source="config")


def _head(head: str) -> Head | None:
    return next((known for known in PREFERRED if known == head), None)
