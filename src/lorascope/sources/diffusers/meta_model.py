"""Builds diffusers' own models on the meta device.

Needs torch and diffusers; both are imported inside the functions.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, error_text
from lorascope.foreign_text import is_class_name, quoted
from lorascope.model.types import ModelMap
from lorascope.sources.checkpoint.layout_table import DIFFUSERS, layout, layouts_version
from lorascope.sources.checkpoint.types import Files
from lorascope.sources.diffusers.pipeline import denoiser, is_pipeline
from lorascope.sources.files.json_files import read_object
from lorascope.sources.files.json_text import first_faults
from lorascope.sources.transformers.config import checked_config
from lorascope.sources.transformers.foreign_config import MOST_CONFIG_BYTES, MOST_VALUES, build_faults, buildable

if TYPE_CHECKING:
    import torch

    from lorascope.sources.files.folder import Folder
    from lorascope.sources.files.hub import Repository

_HINT = "Check it against the configuration of a released model."


class DiffusersConfig(NamedTuple):
    """A checked `config.json` of diffusers.

    Attributes:
        values: What the file says.
        where: What messages call it.
        notes: Which part of a pipeline it is.
        commit: The commit of a Hub id, or empty.
    """

    values: Mapping[str, Any]
    where: str
    notes: tuple[str, ...]
    commit: str


def diffusers_config(files: Folder | Repository, source: str) -> DiffusersConfig | None:
    """The configuration of a folder or repository, if it is one of diffusers.

    Args:
        files: Its files.
        source: What the user called it.

    Raises:
        LorascopeError: It is broken, or the Hub cannot be read.
    """
    notes: tuple[str, ...] = ()
    if is_pipeline(files):
        files, notes = denoiser(files, source)
    if "config.json" not in files.names:
        return None
    return _checked(files, notes)


def _checked(files: Files, notes: tuple[str, ...]) -> DiffusersConfig | None:
    where = f"{files.where}/config.json"
    data = read_object(
        files, "config.json", MOST_CONFIG_BYTES, "Is this a model's config.json?", where=where, most_values=MOST_VALUES
    )
    if "_class_name" not in data:
        return None
    return DiffusersConfig(checked_config(data, where, typed=False), where, notes, files.commit)


def build_diffusers(config: DiffusersConfig) -> torch.nn.Module:
    """Build a model of diffusers on the meta device, within limits and without requests.

    Raises:
        LorascopeError: The class is none of diffusers' models, diffusers is not installed or refuses the configuration,
            or building takes too much.
    """
    name = config.values.get("_class_name")
    key = f"{DIFFUSERS}{name}"
    row = layout(key) if is_class_name(name) else None
    if row is None or row.model is None:
        raise LorascopeError(
            f"_class_name is {quoted(name)}, no model of diffusers {layouts_version('diffusers')}",
            where=config.where,
            hint="Build it yourself and give the module: lorascope.inspect(model).",
        )
    if faults := first_faults(dict.fromkeys(build_faults(config.values))):
        raise LorascopeError(*faults, where=config.where, hint=_HINT)
    library = _diffusers_library()
    import torch

    from lorascope.sandbox.build_limits import limited_build
    from lorascope.sandbox.seal import sealed
    from lorascope.sandbox.torch_modes import TorchModes

    modes = TorchModes()
    try:
        cls = getattr(library, str(name))
        with sealed(), limited_build(str(name)), torch.device("meta"):
            module: torch.nn.Module = cls.from_config(buildable(config.values))
            return module
    except LorascopeError:
        raise
    except Exception as error:  # modeling code can raise anything
        raise LorascopeError(
            f"diffusers cannot build {name} from this configuration: {error_text(error)}",
            where=config.where,
            hint=_HINT,
        ) from error
    finally:
        modes.restore()


def with_diffusers(model: ModelMap, config: DiffusersConfig) -> ModelMap:
    """The map of a built model, with its part of the pipeline and the releases."""
    versions = {"diffusers": importlib.metadata.version("diffusers"), **model.versions}
    if config.commit:
        versions["commit"] = config.commit
    return dataclasses.replace(model, versions=versions, notes=(*config.notes, *model.notes))


def _diffusers_library() -> Any:
    """The installed diffusers, silenced.

    Raises:
        LorascopeError: It, or torch, is not installed.
    """
    try:
        import diffusers
    except (ImportError, RuntimeError) as error:  # its lazy imports wrap errors
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else "diffusers"
        raise LorascopeError(
            f"Building a model of diffusers needs torch and diffusers; {missing} is not installed",
            hint="Install it with: pip install diffusers. A folder with safetensors files needs neither.",
        ) from error
    diffusers.logging.set_verbosity_error()
    return diffusers
