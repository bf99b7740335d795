"""From whatever the user has to a model map: a model type, a folder, a config, a Hub id, a saved map or plan, a module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.records import Head, ModelMap
from lorascope.serializing import FORMAT, map_from_json
from lorascope.sources.configurations import HUB_ID, MODEL_TYPE, configuration, means_gallery, read_json
from lorascope.sources.gallery import PREFERRED, from_gallery

PLAN_FORMAT = "lorascope.plan/1"


def inspect(source: Any, *, head: str = "", revision: str | None = None, trust_remote_code: bool = False) -> ModelMap:
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


def _may_exist(path: Path) -> bool:
    """The system can look for it: it is not too long, and holds no byte that no name holds."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError) as error:
        return isinstance(error, NotADirectoryError | PermissionError)
    return True


def _of_text(source: str, head: str, revision: str | None, trust_remote_code: bool) -> ModelMap:
    path = Path(source)
    if not source.strip() or not _may_exist(path):
        raise LorascopeError(
            f"{source[:60]!r} is no source",
            hint="Give a model type such as mistral, a folder, a config.json or a Hub id.",
        )
    if path.is_file() and path.name != "config.json":
        data = read_json(path)
        found = data.get("format") if isinstance(data, dict) else None
        if found == FORMAT:
            return map_from_json(data)
        if isinstance(data, dict) and found == PLAN_FORMAT:
            return map_from_json(data.get("map"))
        raise LorascopeError(
            "neither a model map nor a plan that lorascope saved, and not named config.json",
            where=source,
            hint="Save one with: lorascope inspect … -o FILE. A configuration must be called config.json.",
        )
    if means_gallery(source):
        return from_gallery(source, head)
    if not path.exists():
        if MODEL_TYPE.fullmatch(source):
            return from_gallery(source, head)
        if not HUB_ID.fullmatch(source) or path.name == "config.json":
            raise LorascopeError(
                "neither a model type, a file, a folder nor a Hub id",
                where=repr(source),
                hint="Model types are listed by: lorascope inspect --gallery",
            )
    config = configuration(source, revision=revision, trust_remote_code=trust_remote_code)
    return _of_config(config, source, head, trust_remote_code)


def _of_config(config: Any, name: str, head: str, trust_remote_code: bool) -> ModelMap:
    from lorascope.sources.skeleton import build_for_head, map_module

    module, built = build_for_head(config, _head(head), trust_remote_code=trust_remote_code)
    return map_module(module, model=name, head=built, source="config")


def _head(head: str) -> Head | None:
    return next((known for known in PREFERRED if known == head), None)
