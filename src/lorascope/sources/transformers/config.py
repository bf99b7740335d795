"""Configurations: reading, checking, and transformers' own class."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.errors import LorascopeError, did_you_mean, error_text
from lorascope.foreign_text import is_class_name, is_model_type, quoted
from lorascope.sandbox.hub_library import hub_part
from lorascope.sources.checkpoint.types import Files
from lorascope.sources.files.folder import Folder, open_folder
from lorascope.sources.files.json_files import read_object
from lorascope.sources.files.json_text import first_faults
from lorascope.sources.source_kinds import is_hub_id, names_builtin_model
from lorascope.sources.transformers.broken_package import import_failure, is_broken_package
from lorascope.sources.transformers.foreign_config import MOST_CONFIG_BYTES, MOST_VALUES, build_faults, buildable
from lorascope.sources.transformers.model_classes import configuration_type

if TYPE_CHECKING:
    from lorascope.sources.files.hub import Repository

# The deepest models have some hundred layers, a thousand at most; the broadest some hundred experts in each.
_MOST_LAYERS = 2_000
_MOST_OTHERS = 1_000_000
_HINT = "Is this a model's config.json?"
_LAYERS = re.compile(
    r"(num|n|encoder|decoder|enc|dec)_(\w+_)?(layers?|blocks?|stages|groups)|\w+_(encoder|decoder)_layers|depths?|layers"
    r"|layer_types|layers_block_type|attention_types|inner_group_num"
)
_OTHER_COUNTS = re.compile(r"(num|n|moe_num)_(\w+_)?(experts|labels|heads|codebooks)")


def config_files(source: str, revision: str | None = None) -> Folder | Repository | None:
    """The files beside a `config.json`: those of a folder or Hub id; None for anything else.

    Raises:
        LorascopeError: One that will be read is no plain file there, or the Hub cannot be read.
    """
    path = Path(source)
    if path.is_dir() or (path.name == "config.json" and path.is_file()):
        return open_folder(path if path.is_dir() else path.parent, needed=("config.json", "model_index.json"))
    if is_hub_id(source) and not path.exists():
        from lorascope.sources.files.hub import open_repository

        return open_repository(source, revision)
    return None


def configuration(
    source: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    files: Folder | Repository | None = None,
) -> Any:
    """The `PretrainedConfig` of a folder, file, Hub id or model type.

    A model type is meant unless a folder of that name has a `config.json`.

    Args:
        source: What the user calls it.
        revision: Of a Hub id that is not opened yet.
        trust_remote_code: Run the code that comes with it.
        files: Its files (`config_files`), if they are opened already.

    Raises:
        LorascopeError: There is none, it is broken, or it needs code that is not trusted.
    """
    if names_builtin_model(source):
        return _default_config(source)
    files = files or config_files(source, revision)
    if isinstance(files, Folder):
        return _folder_config(files, trust_remote_code)
    if files is not None:
        return _hub_config(files, source, trust_remote_code)
    raise LorascopeError(
        "has no configuration to build a model from", where=source, hint="Give a folder, a config.json or a Hub id."
    )


def _default_config(model_type: str) -> Any:
    from lorascope.sandbox.seal import sealed

    transformers = transformers_library()
    try:
        with sealed():
            return transformers.AutoConfig.for_model(model_type)
    except Exception as error:  # some defaults do not pass the checks of their own class
        raise LorascopeError(
            f"transformers' default configuration cannot be made: {error_text(error)}",
            where=model_type,
            hint="Give a released model of this type: its folder, its config.json or its Hub id.",
        ) from error


def _folder_config(files: Folder, trust_remote_code: bool) -> Any:
    folder = Path(files.where)
    where = str(folder / "config.json")
    if "config.json" not in files.names:
        names = sorted([*files.names, *files.refused])
        raise LorascopeError(
            f"the folder has no config.json; it has {', '.join(names[:5]) or 'nothing'}",
            where=str(folder),
            hint="Give the folder of a model, or a model type such as mistral.",
        )
    data = _config_data(files, where)
    hint = "Correct it there, or upgrade transformers."
    if trust_remote_code:
        return _trusted_config(str(folder), where, hint)
    return _native_config(data, where, hint)


def _hub_config(repository: Repository, name: str, trust_remote_code: bool) -> Any:
    transformers_library()
    where = f"{name}: config.json"
    data = _config_data(repository, where)
    hint = "Upgrade transformers, or download the configuration and correct it."
    if trust_remote_code:
        return _trusted_config(name, where, hint, revision=repository.commit)
    return _native_config(data, where, hint)


def _config_data(files: Files, where: str) -> Mapping[str, Any]:
    """The checked configuration of a folder or repository."""
    data = read_object(files, "config.json", MOST_CONFIG_BYTES, _HINT, where=where, most_values=MOST_VALUES)
    return checked_config(data, where, typed=not data.get("architectures"))


def checked_config(data: object, where: str, *, typed: bool = True) -> Mapping[str, Any]:
    """A configuration with plausible model type, class names and counts.

    Args:
        data: The value of a `config.json`.
        where: What messages call it.
        typed: It must have a model type, which some configurations of models with code of their own leave out.

    Raises:
        LorascopeError: With everything that is not.
    """
    if not isinstance(data, dict):
        raise LorascopeError(f"is {quoted(data)}, not an object", where=where, hint=_HINT)
    faults = []
    model_type = data.get("model_type")
    bad_type = (typed or model_type is not None) and not is_model_type(model_type)
    if bad_type:
        faults.append(f"model_type is {quoted(model_type)}, not a text such as llama")
    faults += _count_faults(data)
    architectures = data.get("architectures")
    if not (architectures is None or (isinstance(architectures, list) and all(map(is_class_name, architectures)))):
        faults.append(f"architectures is {quoted(architectures)}, not a list of class names")
    if faults:
        hint = _HINT if bad_type else "Check it against the configuration of a released model."
        raise LorascopeError(*first_faults(dict.fromkeys(faults)), where=where, hint=hint)
    return data


def _native_config(config: Mapping[str, Any], where: str, hint: str) -> Any:
    """The `PretrainedConfig` of a checked dictionary.

    Nothing else is read: not the folder or repository again, and nothing that the dictionary names.
    """
    from lorascope.sandbox.build_limits import limited_build
    from lorascope.sandbox.seal import sealed

    faults = first_faults(dict.fromkeys(build_faults(config)))
    if faults:
        raise LorascopeError(
            *faults,
            where=where,
            hint="Check it against the configuration of a released model; weights are not at fault.",
        )
    transformers = transformers_library()
    model_type = _native_type(config, where)
    data = buildable(config) | {"model_type": model_type}
    try:
        with sealed(), limited_build("a configuration"):
            kind = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]
            return kind.from_dict(data)
    except LorascopeError as error:
        raise LorascopeError(*error.faults, where=where, hint=error.hint) from error
    except Exception as error:  # what a configuration class can raise has no common base
        if is_broken_package(error):
            raise import_failure(error, "a configuration class") from error
        raise LorascopeError(
            f"the configuration cannot be read: {error_text(error)}",
            where=where,
            hint=_offline_hint(error) or _code_hint(config) or hint,
        ) from error


def _code_hint(config: Mapping[str, Any]) -> str:
    """The hint for a configuration that transformers' own class may not be meant to read."""
    if not config.get("auto_map"):
        return ""
    return "It comes with code of its own (auto_map). Read that; if you trust it, pass --trust-remote-code."


def _native_type(config: Mapping[str, Any], where: str) -> str:
    """The model type, if the installed transformers knows it; without one, that of the class it names.

    Raises:
        LorascopeError: It knows neither.
    """
    transformers = transformers_library()
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    model_type = str(config.get("model_type") or "")
    if model_type in known:
        # As AutoConfig.from_pretrained does: its Mistral has no layers of different kinds.
        ministral = model_type == "mistral" and "layer_types" in config and "ministral" in known
        return "ministral" if ministral else model_type
    named = next(iter(config.get("architectures") or ()), "")
    own_type = configuration_type(named)
    if not model_type and own_type in known:
        return own_type
    what = f'model_type "{model_type}"' if model_type else f"{named or 'a model'} without a model_type"
    if config.get("auto_map"):
        raise LorascopeError(
            f"{what} needs code that comes with the model (auto_map), which is not run",
            where=where,
            hint="Read that code; if you trust it, pass --trust-remote-code.",
        )
    fault = f"{what} is none that transformers {transformers.__version__} knows"
    hints = [did_you_mean(model_type, known) if model_type else "", "A newer transformers may know it."]
    if own_type in known:
        hints = [f'Its class {named} has model_type "{own_type}" in transformers: if it is one of these, write that.']
    raise LorascopeError(fault, where=where, hint=" ".join(filter(None, hints)))


def _count_faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Counts that would make transformers build for hours, or nothing."""
    largest = {"layers": 1, "experts": 1}
    waiting: list[tuple[str, Any]] = list(data.items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((str(name), inner) for name, inner in value.items())
        elif isinstance(value, list):
            if _LAYERS.fullmatch(key) and len(value) > _MOST_LAYERS:
                yield f"{key} has {len(value)} entries, more than {_MOST_LAYERS}"
            waiting.extend((key, inner) for inner in value[:_MOST_LAYERS])
        elif type(value) is int and _LAYERS.fullmatch(key):
            if not 0 <= value <= _MOST_LAYERS:
                yield f"{key} is {value}, not a number from 0 to {_MOST_LAYERS}"
            largest["layers"] = max(largest["layers"], value)
        elif type(value) is int and _OTHER_COUNTS.fullmatch(key):
            if value > _MOST_OTHERS:
                yield f"{key} is {value}, more than {_MOST_OTHERS}"
            largest["experts"] = max(largest["experts"], value if "expert" in key else 1)
    if largest["layers"] <= _MOST_LAYERS and largest["experts"] <= _MOST_OTHERS < math.prod(largest.values()):
        yield f"{largest['layers']} layers of {largest['experts']} experts are more than {_MOST_OTHERS} experts in all"


def _trusted_config(name: str, where: str, hint: str, **arguments: Any) -> Any:
    try:
        return transformers_library().AutoConfig.from_pretrained(name, trust_remote_code=True, **arguments)
    except Exception as error:  # what a cache and a configuration class can raise has no common base
        if is_broken_package(error):
            raise import_failure(error, "a configuration class") from error
        raise LorascopeError(
            f"the configuration cannot be read: {error_text(error)}", where=where, hint=hint
        ) from error


def _offline_hint(error: Exception) -> str:
    """The hint for a configuration that names another repository."""
    if "OfflineModeIsEnabled" in {kind.__name__ for kind in type(error).__mro__}:
        return "It names another repository (backbone), which is not read. Put backbone_config in its place."
    return ""


def transformers_library() -> Any:
    """The installed transformers, silenced.

    Raises:
        LorascopeError: It, or torch, is not installed.
    """
    try:
        import torch  # noqa: F401

        hub_part("constants")  # which transformers loads
        import transformers
    except ImportError as error:
        raise LorascopeError(
            f"Building a model from its configuration needs torch and transformers; {error.name} is not installed",
            hint="Install them with: pip install 'lorascope[torch]'. Built-in models need neither: lorascope inspect llama",
        ) from error
    transformers.logging.set_verbosity_error()
    return transformers
