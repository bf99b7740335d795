"""Released checkpoints: a released configuration and the names of a checkpoint of it, read by headers and by the code.

The configurations of `tests/data/released_configs.jsonl` and the names of `released_names.jsonl` are figures and names as
they were released, with the source of each. Shapes come from transformers: what it would save, or the parameter that it
loads a name into.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)

from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from lorascope.model.types import ModelMap
from lorascope.names import unfold_all
from lorascope.sources.transformers.config import configuration
from lorascope.sources.transformers.meta_model import build_for_head, map_module
from tests.conformance.checkpoints import FIELDS, _same
from tests.helpers.sparse_checkpoints import write_checkpoint

# Why a map by headers differs from the model's, by the name of the row.
REASONS: dict[str, str] = {
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": (
        "Llama4TextL2Norm has no parameters, and the layers without it have the same names as those with it"
    ),
}
DATA = Path(__file__).resolve().parent.parent / "data"
Shape = tuple[int, ...]


def released_configs() -> dict[str, dict[str, Any]]:
    """Rows of released configurations by name: `source` and `config`."""
    return _rows("released_configs.jsonl")


def released_names() -> dict[str, dict[str, Any]]:
    """Rows of released weight names by name: `source`, `config` (a row's name, or the figures) and folded `names`."""
    return _rows("released_names.jsonl")


def _rows(file: str) -> dict[str, dict[str, Any]]:
    lines = (DATA / file).read_text(encoding="utf-8").splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def measure_released() -> dict[str, Any]:
    """What came of all rows, as it is recorded."""
    configs, lists = released_configs(), released_names()
    return {
        "transformers": version("transformers"),
        "configurations": {name: measure_config(row["config"]) for name, row in configs.items()},
        "names": {name: measure_names(row["names"], config_of(row, configs)) for name, row in lists.items()},
    }


def config_of(row: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The configuration that a list of names is read with."""
    stated: str | Mapping[str, Any] = row["config"]
    found: Mapping[str, Any] = configs[stated]["config"] if isinstance(stated, str) else stated
    return found


def measure_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What came of a released configuration, with the tensors that transformers saves of its model.

    Returns:
        `tensors` in the file; `parameters`, `weights` and `roles` of the model's own map; which fields of the map by
        headers `differ` from it. Or `refused`: that transformers has no code for it; then the map is by names alone.
    """
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        folder = write_checkpoint(Path(name), {}, config=config)
        built = built_model(folder)
        if built is None:
            return {"refused": True}
        module, real = built
        tensors = saved_tensors(module)
        write_checkpoint(folder, tensors, config=config)
        return {**_figures(tensors, real), "differ": _differences(inspect(str(folder), read="headers"), real)}


def measure_names(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """What came of released weight names.

    Returns:
        As `measure_config`, with `unexpected`: how many of the names transformers does not load. `differ` has `unexplained`
        where the map by headers explains one of all names neither as a parameter nor with a reason. Without transformers'
        code: `by_names`, how many of the names are parameters of the map, and `others`.
    """
    names = list(unfold_all(names))
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        folder = write_checkpoint(Path(name), {}, config=config)
        built = built_model(folder)
        if built is None:
            packed = {one: "I32" if one.endswith((".qweight", ".qzeros", ".g_idx")) else "BF16" for one in names}
            write_checkpoint(folder, {one: (packed[one], _likely_shape(one)) for one in names}, config=config)
            return _by_names(names, inspect(str(folder), read="headers"))
        module, real = built
        shapes, unexpected = loaded_shapes(module, names)
        write_checkpoint(folder, {one: ("BF16", shape) for one, shape in shapes.items()}, config=config)
        ours = inspect(str(folder), read="headers")
        return {**_figures(names, real), "unexpected": len(unexpected), "differ": _differences(ours, real)}


def built_model(folder: Path) -> tuple[Any, ModelMap] | None:
    """The meta model of a folder's configuration and its map, where transformers has its code."""
    try:
        module, head = build_for_head(configuration(str(folder)), None)
    except LorascopeError:
        return None
    return module, map_module(module, head=head, source="config")


def _figures(tensors: Iterable[str], real: ModelMap) -> dict[str, Any]:
    roles = Counter(str(weight.role) for weight in real.weights)
    return {
        "tensors": len(list(tensors)),
        "parameters": real.dimensions.parameters,
        "weights": len(real.weights),
        "roles": dict(sorted(roles.items())),
    }


def _differences(ours: ModelMap, real: ModelMap) -> list[str]:
    differ = [field for field in FIELDS if not _same(ours, real, field)]
    differ += [gap for gap in ("unexplained", "missing") if getattr(ours, gap)]
    return differ + (["basis"] if (ours.source, ours.basis) != ("headers", "code") else [])


def saved_tensors(module: Any) -> dict[str, tuple[str, Shape]]:
    """Dtype and shape of each tensor that `save_pretrained` writes of a meta model: tied ones once, names as released."""
    names_of: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    ties = getattr(module, "all_tied_weights_keys", None) or {}
    dropped: set[str] = set()
    for names in names_of.values():
        kept = next((name for name in names if name not in ties), names[0])
        dropped |= set(names) - {kept}
    state = {name: tensor for name, tensor in module.state_dict().items() if name not in dropped}
    return {
        name: ("BF16" if tensor.is_floating_point() else "I64", tuple(tensor.shape))
        for name, tensor in revert_weight_conversion(module, state).items()
        if name not in (module._keys_to_ignore_on_save or ())
    }


def loaded_shapes(module: Any, names: Iterable[str]) -> tuple[dict[str, Shape], set[str]]:
    """Shapes of names by the parameters that transformers loads them into, and the names that it loads into none."""
    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    state = module.state_dict()

    def place(name: str) -> tuple[str, str | None]:
        target, pattern = rename_source_key(name, renamings, converters, module.base_model_prefix, state)
        if target not in state and name in state:
            target, pattern = rename_source_key(name, [], [], module.base_model_prefix, state)
        return target, pattern

    # The parts of a parameter that a conversion makes of several tensors have the shapes that they are saved with.
    parts = {place(name): shape for name, (_, shape) in saved_tensors(module).items()}
    shapes: dict[str, Shape] = {}
    unexpected = set()
    for name in names:
        target, pattern = place(name)
        if target not in state:
            unexpected.add(name)
        shape = parts.get((target, pattern)) if pattern is not None else None
        shapes[name] = shape or (tuple(state[target].shape) if target in state else _likely_shape(name))
    return shapes, unexpected


def _likely_shape(name: str) -> Shape:
    """A shape for a name of which no code is at hand; that of GPTQ in 4 bits where it is packed."""
    module, _, leaf = name.rpartition(".")
    packed = {"qweight": (16, 128), "qzeros": (1, 16), "scales": (1, 128), "g_idx": (128,)}
    if leaf in packed:
        return packed[leaf]
    norm = re.search(r"norm|(^|[._])ln(_|\d|$)", module.rpartition(".")[2])
    return (64, 64) if leaf.endswith("weight") and not norm else (64,)


def _by_names(names: Iterable[str], ours: ModelMap) -> dict[str, Any]:
    parameters = {f"{module.name}.{name}" for module in ours.modules for name, _ in module.parameters}
    parameters |= {name for name, _ in ours.root_parameters}
    found = Counter(re.sub(r"\.(qweight|qzeros|scales|g_idx)$", ".weight", name) in parameters for name in names)
    return {
        "by_names": found[True],
        "others": found[False],
        "unexplained": len(ours.unexplained),
        "weights": len(ours.weights),
    }
