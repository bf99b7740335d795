"""Configurations: where they are read, what must hold of one before anything is built from it, and transformers' view of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.sources.gallery import gallery

# A configuration is a few kilobytes; a saved map of the largest model some hundred.
MOST_BYTES = 64 * 2**20
_LONGEST_TEXT = 400
# Seconds to wait for the Hub to answer at all.
_PATIENCE = 5
# The deepest models have some hundred layers, a thousand at most; the broadest some hundred experts in each.
_MOST_LAYERS = 2_000
_MOST_OTHERS = 1_000_000
_LAYERS = re.compile(
    r"(num|n|encoder|decoder|enc|dec)_(\w+_)?(layers?|blocks?|stages|groups)|\w+_(encoder|decoder)_layers|depths?|layers"
    r"|layer_types|layers_block_type|attention_types|inner_group_num"
)
_OTHER_COUNTS = re.compile(r"(num|n|moe_num)_(\w+_)?(experts|labels|heads|codebooks)")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MODEL_TYPE = re.compile(r"[\w.-]+")


def configuration(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The `PretrainedConfig` of a folder, a `config.json`, a Hub id, or a model type (its default configuration).

    A model type is meant unless a folder of that name has a `config.json`.

    Raises:
        LorascopeError: There is none, it is broken, or it needs code that is not trusted.
    """
    path = Path(source)
    if means_gallery(source):
        transformers = transformers_library()
        try:
            return transformers.AutoConfig.for_model(source)
        except Exception as error:  # some defaults do not pass the checks of their own class
            raise LorascopeError(
                f"transformers' default configuration cannot be made: {error_text(error)}",
                where=source,
                hint="Give a released model of this type: its folder, its config.json or its Hub id.",
            ) from error
    if path.is_dir() or (path.name == "config.json" and path.is_file()):
        return _folder_config(path if path.is_dir() else path.parent, trust_remote_code)
    if HUB_ID.fullmatch(source) and not path.exists():
        return _hub_config(source, revision, trust_remote_code)
    raise LorascopeError(
        "has no configuration to build a model from", where=source, hint="Give a folder, a config.json or a Hub id."
    )


def means_gallery(source: str) -> bool:
    """A model type, unless a folder of that name holds a model."""
    return bool(MODEL_TYPE.fullmatch(source)) and source in gallery() and not Path(source, "config.json").exists()


def read_json(path: Path) -> object:
    """The value of a JSON file, whatever is wrong with which is told.

    Raises:
        LorascopeError: It is too large, cannot be read, or is not JSON.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise LorascopeError(
                f"{size} bytes are more than the {MOST_BYTES} that are read",
                where=str(path),
                hint="Is this a model's configuration, or its weights?",
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LorascopeError(
            f"cannot be read: {error}", where=str(path), hint="Give a config.json, or a file that lorascope saved."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError of its own
        raise LorascopeError(
            f"is not JSON: {error}", where=str(path), hint="Give a config.json, or a file that lorascope saved."
        ) from error


def _folder_config(folder: Path, trust_remote_code: bool) -> Any:
    file = folder / "config.json"
    if not file.is_file():
        try:
            found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        except OSError as error:
            found = f"no listing: {error.strerror}"
        raise LorascopeError(
            f"the folder has no config.json; it has {found}",
            where=str(folder),
            hint="Give the folder of a model, or a model type such as mistral.",
        )
    _check_config(file, trust_remote_code)
    return _read_config(str(folder), str(file), "Correct it there, or upgrade transformers.", trust_remote_code)


def _hub_config(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    transformers_library()
    import huggingface_hub

    endpoint = huggingface_hub.constants.ENDPOINT
    offline = ""
    try:
        # Without this the Hub's client tries again and again for half a minute before it looks into its cache.
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            offline = "HF_HUB_OFFLINE is set, and it is not in the cache"
        else:
            offline = "" if _answers(endpoint) else f"{endpoint} cannot be reached, and it is not in the cache"
        file = huggingface_hub.hf_hub_download(name, "config.json", revision=revision, local_files_only=bool(offline))
    except Exception as error:  # the Hub's errors have no common base
        raise LorascopeError(
            f"the configuration cannot be read: {offline or error_text(error)}",
            where=name,
            hint="Check the name and the network (and `hf auth login` for a private or gated model).",
        ) from error
    _check_config(Path(file), trust_remote_code)
    hint = "Upgrade transformers, or download the configuration and correct it."
    if trust_remote_code:
        return _read_config(name, name, hint, trust_remote_code, revision=revision)
    return _read_config(str(Path(file).parent), name, hint, trust_remote_code)


def _answers(endpoint: str) -> bool:
    """Something listens where the Hub should be. Behind a proxy only the proxy can know."""
    import socket  # with urllib a third of the start-up time of everything that needs no network
    import urllib.parse
    import urllib.request

    address = urllib.parse.urlsplit(endpoint)
    if urllib.request.getproxies() or not address.hostname:
        return True
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        with socket.create_connection((address.hostname, port), timeout=_PATIENCE):
            return True
    except OSError:
        return False


def _check_config(file: Path, trust_remote_code: bool) -> None:
    """What must hold before transformers sees the configuration, which builds whatever it is told to."""
    config = checked_config(read_json(file), str(file))
    if not trust_remote_code:
        _check_known(config, str(file))


def checked_config(data: object, where: str, *, typed: bool = True) -> Mapping[str, Any]:
    """A configuration of which the model type, the class names and the counts are plausible; whose type is not asked.

    Args:
        data: The value of a `config.json`.
        where: What messages call it.
        typed: It must have a model type, which some configurations of models with code of their own leave out.

    Raises:
        LorascopeError: With everything that is not.
    """
    if not isinstance(data, dict):
        raise LorascopeError(
            f"holds a {type(data).__name__}, not an object", where=where, hint="Is this a model's config.json?"
        )
    model_type = data.get("model_type")
    if not isinstance(model_type, str) and (typed or model_type is not None):
        raise LorascopeError(
            f"model_type is {model_type!r}, not a text", where=where, hint="Is this a model's config.json?"
        )
    faults = list(dict.fromkeys(_count_faults(data)))
    architectures = data.get("architectures")
    if not (
        architectures is None or (isinstance(architectures, list) and all(isinstance(a, str) for a in architectures))
    ):
        faults.append(f"architectures is {architectures!r}, not a list of class names")
    if faults:
        raise LorascopeError(*faults, where=where, hint="Check it against the configuration of a released model.")
    return data


def _check_known(config: Mapping[str, Any], where: str) -> None:
    """The installed transformers has code of its own for the model type."""
    model_type = config["model_type"]
    if config.get("auto_map") and model_type not in gallery():  # else transformers' own code is used instead
        raise LorascopeError(
            f'model_type "{model_type}" needs code that comes with the model (auto_map), which is not run',
            where=where,
            hint="Read that code; if you trust it, pass --trust-remote-code.",
        )
    transformers = transformers_library()
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if model_type not in known:
        raise LorascopeError(
            f'model_type "{model_type}" is none that transformers {transformers.__version__} knows',
            where=where,
            hint=" ".join(
                word for word in (did_you_mean(model_type, known), "A newer transformers may know it.") if word
            ),
        )


def _count_faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Counts by which a configuration would make transformers build for hours, or nothing at all."""
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


def _read_config(name: str, where: str, hint: str, trust_remote_code: bool, **arguments: Any) -> Any:
    try:
        return transformers_library().AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **arguments)
    except Exception as error:  # what a cache and a configuration class can raise has no common base
        raise LorascopeError(
            f"the configuration cannot be read: {error_text(error)}", where=where, hint=hint
        ) from error


def error_text(error: Exception) -> str:
    """An error's type and its first two lines, of which transformers' first may only announce the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join([f"{type(error).__name__}:", *lines[:2]])
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def transformers_library() -> Any:
    """The installed transformers, silenced.

    Raises:
        LorascopeError: It, or torch, is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise LorascopeError(
            f"{error.name} is not installed, and a configuration is read through its code",
            hint="Install it with: pip install 'lorascope[torch]' (the gallery needs none of it: lorascope inspect llama)",
        ) from error
    transformers.logging.set_verbosity_error()
    return transformers
