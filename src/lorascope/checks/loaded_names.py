"""Names under which PEFT loads an adapter's tensors with transformers 5.

Restates `convert_peft_adapter_state_dict_for_transformers` of PEFT 0.21.2, which came with 0.19: with transformers 5, and
only on model types that its conversion mapping has a row for, adapters of earlier releases are renamed, and those of
single experts are put together to those of the fused stacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules.state_dict import PREFIX
from lorascope.sources.checkpoint.conversions.names import grouped
from lorascope.sources.checkpoint.conversions.table import ConversionRule, SubModel, rules_for
from lorascope.sources.checkpoint.types import Tensor

Shape = tuple[int, ...]
_LORA = ".lora_"
_EXPERT = re.compile(r"(.+\.experts)\.(\d{1,9})\.(\w+)\.lora_([AB])\.weight")


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """One tensor as PEFT's load sees it.

    Attributes:
        name: Its name there.
        shape: Its shape there.
        sources: The tensors of the file that it comes from.
    """

    name: str
    shape: Shape
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Arrivals:
    """What PEFT's load sees of a file.

    Attributes:
        tensors: By name.
        renamed: Tensors of the file that transformers' rules give another name.
        merged: Those of single experts, which become part of a stack.
        uneven: Experts whose tensors cannot be put together, on which PEFT raises.
        converts: The model type has rules, so that names of earlier releases may be known after all.
    """

    tensors: Mapping[str, Arrival]
    renamed: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    uneven: tuple[str, ...] = ()
    converts: bool = False


def arrivals(model: ModelMap, tensors: Mapping[str, Tensor]) -> Arrivals:
    """What PEFT's load sees of an adapter's tensors on a model."""
    plain = {name: Arrival(name, tensor.shape, (name,)) for name, tensor in tensors.items()}
    rules = _rules(model)
    if not rules or not any(_LORA in name for name in plain):
        return Arrivals(plain, converts=bool(rules))
    names = dict(_renamed((name for name in plain if _LORA in name), rules))
    seen = {
        names.get(name, name): dataclasses.replace(arrival, name=names.get(name, name))
        for name, arrival in plain.items()
    }
    # A prefix that only has to be added is no other name.
    renamed = tuple(old for old, new in names.items() if new not in (old, PREFIX + old))
    leaves = dict(_expert_leaves(rules))
    singles: dict[tuple[str, str, str], dict[str, list[Arrival]]] = {}
    for name in list(seen):
        match = _EXPERT.fullmatch(name)
        if match and match[3] in leaves:
            stem, _, leaf, factor = match.groups()
            singles.setdefault((stem, leaves[leaf], factor), {}).setdefault(leaf, []).append(seen.pop(name))
    uneven: list[str] = []
    merged: list[str] = []
    for (stem, stack, factor), by_leaf in singles.items():
        sources = tuple(source for arrivals_ in by_leaf.values() for arrival in arrivals_ for source in arrival.sources)
        shape = _merged_shape(list(by_leaf.values()), factor)
        if shape is None:
            uneven += sources
            continue
        merged += sources
        # PEFT takes the gate and up projections for the inner of two wrappers, be there a second or not.
        name = f"{stem}{'.base_layer' if stack == 'gate_up_proj' else ''}.lora_{factor}.weight"
        seen[name] = Arrival(name, shape, sources)
    again = set(merged) | set(uneven)
    return Arrivals(seen, tuple(name for name in renamed if name not in again), tuple(merged), tuple(uneven), True)


def _rules(model: ModelMap) -> tuple[ConversionRule, ...]:
    """The renaming rules of transformers; PEFT applies those of model types alone."""
    if len(rules_for([SubModel("", "", model.model_type)], "")) == len(rules_for([], "")):
        return ()
    inner = (SubModel(module.name, module.class_name, "") for module in model.modules)
    base = "model" if "model" in model.module_by_name else ""
    return rules_for([SubModel("", model.architecture, model.model_type), *inner], base)


def _renamed(names: Iterable[str], rules: tuple[ConversionRule, ...]) -> Iterator[tuple[str, str]]:
    bare = {name.replace(PREFIX, "", 1): name for name in names}
    for group in grouped(bare, [rule for rule in rules if rule.kind != "convert"]):
        for _, name in group.members:
            old = bare[name]
            # A rule that only takes something off the front is undone.
            new = old if old.endswith(group.renamed) else PREFIX + group.renamed
            yield old, new if new.startswith("base_model.") else PREFIX + new


def _expert_leaves(rules: Iterable[ConversionRule]) -> Iterator[tuple[str, str]]:
    """The names of single experts' layers, with the stack of each."""
    for rule in rules:
        stack = rule.targets[0].rpartition(".")[2]
        merges = any(operation.name == "MergeModulelist" for operation in rule.operations)
        if rule.kind == "convert" and merges and len(rule.targets) == 1 and stack in ("gate_up_proj", "down_proj"):
            yield from ((source.removesuffix(".weight").rpartition(".")[2], stack) for source in rule.sources)


def _merged_shape(lists: list[list[Arrival]], factor: str) -> Shape | None:
    """The shape of joined experts' factors; None if PEFT cannot join them."""
    shapes = [{arrival.shape for arrival in experts} for experts in lists]
    counts = {len(experts) for experts in lists}
    if len(counts) > 1 or any(len(distinct) != 1 for distinct in shapes) or any(len(shape) != 2 for (shape,) in shapes):
        return None
    experts = counts.pop()
    sides = [shape for (shape,) in shapes]
    if factor == "A":
        inner = {shape[1] for shape in sides}
        return (experts * sum(shape[0] for shape in sides), inner.pop()) if len(inner) == 1 else None
    return sum(shape[0] for shape in sides), experts * sum(shape[1] for shape in sides)
