"""Weights whose adapter learns nothing or breaks the forward pass, by the modeling code of transformers.

The table is `data/dead_weights.json`. `tools/build_dead_weights.py` measures it with a backward pass of a small model of
each type, with adapters on everything that a map calls adaptable. A key is the class of the module's owner and the name
there: `MambaMixer.dt_proj`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Weight
from lorascope.names import NUMBER
from lorascope.packaged import load_json
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic

_CONTAINERS = frozenset({"ModuleList", "Sequential", "ModuleDict"})
# Lists in shared blocks, of which a block calls the one of its own place among the blocks. The others have the tensors of
# another block's, and are never called.
_BY_PLACE = ("Zamba2MLP", "Zamba2Attention")
# What torch's own layer reads on its fast path.
_FAST_PATH = ("linear1", "linear2", "self_attn")
_PLACE = re.compile(r"(.+)[.]\w+_adapter_list[.]([0-9]{1,6})[.][0-9]{1,6}")


@dataclasses.dataclass(frozen=True, slots=True)
class DeadWeights:
    """The packaged table.

    Attributes:
        read: Key to the model types on which the weight is read and its module never called; empty for all types.
        tied: The same where only another module with the same tensor is called.
        chooses: The same where the module is called, and its output only chooses.
        crashes: Key to why the first forward pass fails with an adapter (a word and its argument), and the model types.
        kernels: Key to the fused kernel that reads the weight in training, and the library that has it.
        when_quantized: Keys of `read` that are called where the model is loaded quantized.
        leaves: Last words of all keys.
    """

    read: dict[str, list[str]]
    tied: dict[str, list[str]]
    chooses: dict[str, list[str]]
    crashes: dict[str, tuple[str, str, list[str]]]
    kernels: dict[str, list[str]]
    when_quantized: frozenset[str]
    leaves: frozenset[str]


@cache
def dead_weights() -> DeadWeights:
    """The packaged table, read once."""
    data = load_json("dead_weights.json")
    tables = {name: data[name] for name in ("read", "tied", "chooses", "crashes", "kernels")}
    leaves = frozenset(key.rpartition(".")[2] for table in tables.values() for key in table)
    return DeadWeights(**tables, when_quantized=frozenset(data["when_quantized"]), leaves=leaves)


def key_of(model: ModelMap, name: str) -> str:
    """A weight by its owner's class and its name there: `MambaMixer.dt_proj`.

    Numbers are folded; lists and dictionaries of modules are no owners.
    """
    owner, _, path = name.rpartition(".")
    while owner and (module := model.module_by_name.get(owner)) is not None and module.class_name in _CONTAINERS:
        owner, _, leaf = owner.rpartition(".")
        path = f"{leaf}.{path}"
    module = model.module_by_name.get(owner)
    return f"{module.class_name if module else model.architecture}.{NUMBER.sub('#', path)}"


def why_dead(model: ModelMap, name: str, quantization: str = "") -> Diagnostic | None:
    """Why an adapter on a module or parameter is dead or breaks the forward pass, by a trace or by the table.

    Args:
        model: The map.
        name: The module's name, or `module.parameter`.
        quantization: How the weight is stored; some are called only where it is quantized.
    """
    module = model.module_by_name.get(name)
    if module is not None and "uncalled" in module.traits and not quantization:
        return reasons.UNCALLED.about(owner=key_of(model, name).partition(".")[0])
    table, leaf = dead_weights(), name.rpartition(".")[2]
    if not model.model_type or (leaf not in table.leaves and not leaf.isdigit()):
        return None  # of code that is not transformers', a class name says nothing
    key = key_of(model, name)
    owner = key.partition(".")[0]
    if key in table.crashes and _is_of(table.crashes[key][2], model.model_type):
        why, about = table.crashes[key][:2]
        return reasons.CRASHES[why].about(owner=owner, about=about)
    if _holds(table.read, key, model.model_type) and not (quantization and key in table.when_quantized):
        if key in table.when_quantized:
            return reasons.READ_UNLESS_QUANTIZED.about(owner=owner)
        return reasons.READ_ONLY.about(owner=owner)
    if _holds(table.tied, key, model.model_type) or _is_of_other_place(model, name, owner):
        return reasons.NEVER_CALLED_TIE.about(owner=owner)
    if _holds(table.chooses, key, model.model_type):
        return reasons.WITHOUT_GRADIENT.about(owner=owner)
    return None


def why_dead_with_kernels(model: ModelMap, weight: Weight, *, selector: str = "") -> Diagnostic | None:
    """Why an adapter on a weight is dead where fused kernels are installed, by the table.

    Args:
        model: The map.
        weight: One of its weights.
        selector: How a rule names the weight all the same, for the next step.
    """
    table = dead_weights()
    if not model.model_type or weight.name.rpartition(".")[2] not in table.leaves:
        return None
    key = key_of(model, weight.name)
    if key not in table.kernels:
        return None
    owner = key.partition(".")[0]
    kernel, library = table.kernels[key]
    if selector:
        return reasons.LEFT_TO_KERNEL.about(owner=owner, kernel=kernel, library=library, selector=selector)
    return reasons.READ_BY_KERNEL.about(owner=owner, kernel=kernel, library=library)


def read_by_kernels(model: ModelMap, weights: Iterable[Weight]) -> dict[Diagnostic, list[Weight]]:
    """The weights that fused kernels would read past their adapter, by reason."""
    groups: dict[Diagnostic, list[Weight]] = {}
    for weight in weights:
        if why := why_dead_with_kernels(model, weight):
            groups.setdefault(why, []).append(weight)
    return groups


def why_ignored_in_eval(model: ModelMap, weight: Weight) -> Diagnostic | None:
    """Why an adapter on a weight trains and then has no effect in evaluation mode, or None.

    `nn.TransformerEncoderLayer.forward` takes the fast path where none of its own tensors requires a gradient, as under PEFT.
    """
    owner, _, leaf = weight.name.rpartition(".")
    if leaf not in _FAST_PATH or (layer := model.module_by_name.get(owner)) is None:
        return None
    attention = model.module_by_name.get(f"{owner}.self_attn")
    if attention is None or attention.kind != "multihead_attention" or layer.class_name != "TransformerEncoderLayer":
        return None
    return reasons.FAST_PATH.about()


def _is_of_other_place(model: ModelMap, name: str, owner: str) -> bool:
    match = _PLACE.fullmatch(name) if owner in _BY_PLACE else None
    if match is None:
        return False
    owners = [module.name for module in model.modules if module.class_name == owner]
    return match[1] in owners and owners.index(match[1]) != int(match[2])


def _holds(table: dict[str, list[str]], key: str, model_type: str) -> bool:
    types = table.get(key)
    return types is not None and _is_of(types, model_type)


def _is_of(types: list[str], model_type: str) -> bool:
    return not types or model_type in types
