"""From whatever the user has to a model map: a model type, a folder, a config, a Hub id, a saved map or plan, a module."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.records import Head, ModelMap
from lorascope.serializing import FORMAT, map_from_json
from lorascope.sources.gallery import PREFERRED, from_gallery, gallery

PLAN_FORMAT = "lorascope.plan/1"
# A configuration is a few kilobytes; a saved map of the largest model some hundred.
MOST_BYTES = 64 * 2**20
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MODEL_TYPE = re.compile(r"[\w.-]+")


def inspect(
    source: Any, *, head: str = "", revision: str | None = None, trust_remote_code: bool = False
) -> ModelMap:
    """The map of a model's weights by role; no weights are loaded.

    Args:
        source: A model type of the gallery (`llama`), a folder with a `config.json`, such a file, a map or plan that
            lorascope saved, a Hub id (`mistralai/Mistral-7B-v0.3`), a `PretrainedConfig` or an `nn.Module`.
        head: Which head to look at, where a model can have several: `causal-lm`, `seq2seq-lm`, `masked-lm`,
            `image-text-to-text` or `sequence-classification`.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Run modeling code that comes with the configuration. Never on by default.

    Raises:
        LorascopeError: There is no such model, or its configuration is broken or needs code that is not trusted.
    """
    if head and head not in PREFERRED:
        raise LorascopeError(f"{head!r} is no head", hint=f"The heads are {', '.join(PREFERRED)}.")
    if isinstance(source, ModelMap):
        return source
    if isinstance(source, str | os.PathLike):
        return _of_text(os.fspath(source), head, revision, trust_remote_code)
    if hasattr(source, "named_modules"):
        from lorascope.sources.skeleton import map_module

        return map_module(source, head=_head(head))
    if hasattr(source, "model_type"):
        return _of_config(source, "", head, trust_remote_code)
    raise LorascopeError(
        f"a {type(source).__name__} is no source", hint="Give a name, a path, a configuration or a module."
    )


def configuration(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The `PretrainedConfig` of a folder, a `config.json`, a Hub id, or a model type (its default configuration).

    Raises:
        LorascopeError: There is none, it is broken, or it needs code that is not trusted.
    """
    path = Path(source)
    if path.is_dir() or path.name == "config.json":
        return _folder_config(path if path.is_dir() else path.parent, trust_remote_code)
    if _MODEL_TYPE.fullmatch(source) and source in gallery():
        return _transformers().AutoConfig.for_model(source)
    if _HUB_ID.fullmatch(source) and not path.exists():
        return _transformers_config(source, where=source, trust_remote_code=trust_remote_code, revision=revision)
    raise LorascopeError("has no configuration to build a model from", where=source)


def _of_text(source: str, head: str, revision: str | None, trust_remote_code: bool) -> ModelMap:
    path = Path(source)
    if path.is_file() and path.name != "config.json":
        data = read_json(path)
        found = data.get("format") if isinstance(data, dict) else None
        if found == FORMAT:
            return map_from_json(data)
        if isinstance(data, dict) and found == PLAN_FORMAT:
            return map_from_json(data.get("map"))
        raise LorascopeError(
            "neither a model map nor a plan that lorascope saved, and not named config.json", where=source
        )
    if not path.exists():
        if _MODEL_TYPE.fullmatch(source):
            return from_gallery(source, head)
        if not _HUB_ID.fullmatch(source):
            raise LorascopeError(
                "neither a model type, a file, a folder nor a Hub id",
                where=repr(source),
                hint="Model types are listed by: lorascope inspect --gallery",
            )
    config = configuration(source, revision=revision, trust_remote_code=trust_remote_code)
    return _of_config(config, source, head, trust_remote_code)


def read_json(path: Path) -> object:
    """The value of a JSON file, whatever is wrong with which is told.

    Raises:
        LorascopeError: It is too large, cannot be read, or is not JSON.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise LorascopeError(f"{size} bytes are more than the {MOST_BYTES} that are read", where=str(path))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LorascopeError(f"cannot be read: {error}", where=str(path)) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise LorascopeError(f"is not JSON: {error}", where=str(path)) from error


def _folder_config(folder: Path, trust_remote_code: bool) -> Any:
    file = folder / "config.json"
    if not file.is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise LorascopeError(
            f"the folder has no config.json; it has {found}", where=str(folder), hint="Give the folder of a model."
        )
    data = read_json(file)
    if not isinstance(data, dict):
        raise LorascopeError(f"holds a {type(data).__name__}, not an object", where=str(file))
    if not isinstance(data.get("model_type"), str):
        raise LorascopeError(
            f"model_type is {data.get('model_type')!r}, not a text", where=str(file), hint="Is this a model's config.json?"
        )
    _refuse_remote_code(data, str(file), trust_remote_code)
    return _transformers_config(str(folder), where=str(file), trust_remote_code=trust_remote_code)


def _refuse_remote_code(data: dict[str, Any], where: str, trust_remote_code: bool) -> None:
    if not data.get("auto_map") or trust_remote_code:
        return
    if data.get("model_type") in gallery():
        return  # transformers has code of its own, which is used instead
    raise LorascopeError(
        f'model_type "{data.get("model_type")}" needs code that comes with the model (auto_map), which is not run',
        where=where,
        hint="Read that code; if you trust it, pass --trust-remote-code.",
    )


def _transformers_config(name: str, *, where: str, trust_remote_code: bool, **arguments: Any) -> Any:
    transformers = _transformers()
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **arguments)
    except Exception as error:  # what a Hub, a cache and a configuration class can raise has no common base
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise LorascopeError(
            f"the configuration cannot be read: {type(error).__name__}: {first}",
            where=where,
            hint="Check the name (and `hf auth login` for a private or gated model), or upgrade transformers.",
        ) from error


def _of_config(config: Any, name: str, head: str, trust_remote_code: bool) -> ModelMap:
    from lorascope.sources.skeleton import build_for_head, map_module

    module, built = build_for_head(config, _head(head), trust_remote_code=trust_remote_code)
    return map_module(module, model=name, head=built, source="config")


def _head(head: str) -> Head | None:
    return head if head in PREFERRED else None  # type: ignore[return-value]


def _transformers() -> Any:
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


