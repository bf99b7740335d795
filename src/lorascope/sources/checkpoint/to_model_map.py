"""Maps a checkpoint: exactly by the tables, else by names."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.model.classify import classify
from lorascope.model.shapes import separate_misshapen, shape_notes
from lorascope.model.storage import parse_storage
from lorascope.model.types import Head, ModelMap, Module
from lorascope.names import listed
from lorascope.sources.builtin import PREFERRED
from lorascope.sources.checkpoint import ties
from lorascope.sources.checkpoint.conversions.convert import Converted, convert, stacked
from lorascope.sources.checkpoint.from_names import flattened_weights, input_output_embeddings, modules_from_names
from lorascope.sources.checkpoint.layout import ModelLayout, Part, Tree
from lorascope.sources.checkpoint.layout_table import (
    DIFFUSERS,
    class_name,
    classes_of,
    layouts_version,
    moe_pattern,
    setting,
    text_config,
)
from lorascope.sources.checkpoint.paired_layers import with_joined_layers
from lorascope.sources.checkpoint.quantization.unpack import unpack, unpacked_name
from lorascope.sources.checkpoint.repeats import FEWEST, reduce
from lorascope.sources.checkpoint.root_class import class_notes, conversion_rules, root_class, stated_class
from lorascope.sources.checkpoint.tensor_table import TensorTable
from lorascope.sources.checkpoint.types import Checkpoint, Stored
from lorascope.sources.checkpoint.unread_parts import fill_parts
from lorascope.sources.dimensions import checked_dimensions

# What transformers leaves out of any model whose own buffers have taken its place: _adjust_missing_and_unexpected_keys.
_OLD_BUFFERS = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
_MOST_SAID = 6
# Of so many tensors it is asked whether another class of the model type has them; more are not a head's.
_MOST_LOOKED_UP = 10_000


def map_checkpoint(
    stored: Mapping[str, Stored],
    config: Mapping[str, Any],
    *,
    model: str,
    head: str = "",
    source: str = "headers",
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    unexplained: Sequence[str] = (),
) -> ModelMap:
    """The map of a checkpoint.

    Args:
        stored: Its tensors without their packing, by the names that the files have.
        config: Its `config.json`.
        model: What the user calls it.
        head: The head that the user asks for; the checkpoint's own if empty.
        source: What to write into `ModelMap.source`.
        versions: What else to write into `ModelMap.versions`.
        notes: Notes to add to those found here.
        unexplained: Tensors of the file that are not among `stored` because nothing is known of them.

    Raises:
        LorascopeError: The tensors contradict the conversions or each other, or the head is not the checkpoint's.
    """
    config = with_joined_layers(config)
    root = root_class(config, head, stored)
    if not root:
        return _by_names(stored, config, model, head, source, versions or {}, notes, unexplained)
    chosen = ModelLayout(root, config)
    whole = chosen.parts[0]
    converted = convert(
        stored,
        conversion_rules(chosen),
        known=chosen.knows,
        base_model_prefix=whole.facts.base,
        config=config,
        expected_shape=lambda name: None,
    )
    if converted.faults:
        raise LorascopeError(
            *converted.faults,
            where=model,
            hint="Is the checkpoint complete? --source config builds the model from its configuration instead.",
        )
    shapes = {name: tensor.shape for name, tensor in converted.tensors.items()}
    pairs = ties.tied_parameters(chosen.parts, shapes)
    tree = chosen.tree({**shapes, **_shapes_of(pairs, shapes)})
    if tree.missing and (more := ties.shared_blocks(chosen.parts, tree.missing, shapes)):
        pairs |= more
        tree = chosen.tree({**shapes, **_shapes_of(pairs, shapes)})
    order = tuple(_parameter_names(tree))
    names = frozenset(order)
    pairs = {target: origin for target, origin in pairs.items() if target in names and origin in names}
    tied_groups = ties.tie_groups(pairs, order)
    extra, odd = _sorted_out(converted.unknown, tree, chosen)
    unplaced = _unplaced(odd, tree, converted, stored)
    tree, by_names = fill_parts(tree, unplaced) if odd else (tree, ())
    modules, misshapen = separate_misshapen(_quantized(tree.modules, {**unplaced, **converted.tensors}))
    weights = classify(modules, model_type=whole.model_type)
    text = text_config(whole.config)
    where = "the metadata" if source == "gguf" else "config.json"
    dimensions, contradicted = checked_dimensions(
        lambda name: setting(text, name),
        text,
        weights,
        modules,
        _size(tree, tied_groups),
        where,
        complete=not tree.missing,
    )
    architecture = class_name(root)
    library = "diffusers" if root.startswith(DIFFUSERS) else "transformers"
    return ModelMap(
        model=model,
        model_type=str(whole.config.get("model_type") or whole.model_type),
        architecture=architecture,
        head=_head(head or whole.facts.head),
        source=source,
        versions={library: layouts_version(library), **(versions or {})},
        dimensions=dimensions,
        modules=modules,
        weights=weights,
        root_parameters=tree.parameters,
        ties=tied_groups,
        moe_conversion=moe_pattern(whole.model_type),
        input_embeddings=_existing(whole.facts.input, chosen.parts, "input", modules),
        output_embeddings=_existing(whole.facts.output, chosen.parts, "output", modules),
        prepares_generation=whole.facts.generates,
        refusal=whole.facts.refusal,
        notes=(
            *contradicted,
            *shape_notes(misshapen, modules),
            *notes,
            *by_names,
            *_notes(config, root, tree, extra, pairs, shapes),
        ),
        unexplained=(*unexplained, *odd, *misshapen),
        missing=tree.missing,
    )


def map_headers(checkpoint: Checkpoint, config: Mapping[str, Any], *, head: str = "", **described: Any) -> ModelMap:
    """The map of headers, as `map_checkpoint`; alike experts are read once."""
    with contextlib.suppress(LorascopeError):  # for which all tensors are read
        table = checkpoint.tensors
        if isinstance(table, TensorTable) and len(table) >= FEWEST and (root := root_class(config, head, table)):
            alike = reduce(table.headers, functools.partial(_stacked, ModelLayout(root, config)))
            if alike:
                reduced = dataclasses.replace(checkpoint, tensors=alike)
                return map_checkpoint(unpack(reduced), config, head=head, **described)
    return map_checkpoint(unpack(checkpoint), config, head=head, **described)


def _stacked(chosen: ModelLayout, pairs: Mapping[str, str]) -> dict[str, bool]:
    """Whether the model stacks tensors that differ in a number."""
    named = {first: unpacked_name(first) for first in pairs}
    unpacked = {name: unpacked_name(pairs[first]) for first, name in named.items() if name}
    verdicts = stacked(
        {**pairs, **unpacked},
        conversion_rules(chosen),
        known=chosen.knows,
        base_model_prefix=chosen.parts[0].facts.base,
    )
    return {
        first: bool(name) and verdicts.get(first, True) and verdicts.get(name, True)
        for first, name in named.items()
        if not name or first in verdicts or name in verdicts
    }


def _by_names(
    stored: Mapping[str, Stored],
    config: Mapping[str, Any],
    model: str,
    head: str,
    source: str,
    versions: Mapping[str, str],
    notes: Sequence[str],
    unexplained: Sequence[str],
) -> ModelMap:
    """The map of a model without known code."""
    model_type = str(config.get("model_type") or "")
    architecture = stated_class(config)
    untyped = f"{architecture} without a model type" if architecture else "a model without a model type"
    what = f'model type "{model_type}"' if model_type else untyped
    library = "transformers"
    if "_class_name" in config:
        what, library = f'the class "{architecture}"', "diffusers"
    if head:
        raise LorascopeError(
            f"{what} is not known to transformers {layouts_version()}, and so neither are its heads",
            where="--head",
            hint="Leave --head out.",
        )
    named = modules_from_names(stored)
    modules, misshapen = separate_misshapen(_quantized(named.modules, stored))
    misshapen |= flattened_weights(modules, model_type)
    weights = classify(modules, model_type=model_type)
    inputs, outputs = input_output_embeddings(weights)
    size = sum(_sizes(modules, named.root_parameters))
    dimensions, contradicted = checked_dimensions(config.get, config, weights, modules, size, "config.json")
    caveat = (
        f"{what} is not in the table of {library} {layouts_version(library)}: every weight below rests on its name and shape "
        "in the checkpoint alone. Whether each is an nn.Linear, and what its code calls it, only that code can say; none of "
        "it was run. --strict refuses such a model."
    )
    dropped = by_reason(named.dropped)
    return ModelMap(
        model=model,
        model_type=model_type,
        architecture=architecture,
        head=_head(_head_by_name(architecture)),
        source=source,
        versions=versions,
        dimensions=dimensions,
        modules=modules,
        weights=weights,
        root_parameters=named.root_parameters,
        input_embeddings=inputs,
        output_embeddings=outputs,
        notes=(*contradicted, *shape_notes(misshapen, modules), *notes, caveat, *named.notes, *dropped),
        basis="names",
        unexplained=(*unexplained, *misshapen),
    )


def _head_by_name(architecture: str) -> str:
    """The head that a class's name implies."""
    return "causal-lm" if architecture.endswith(("ForCausalLM", "LMHeadModel")) else "unknown"


def _head(name: str) -> Head:
    return next((known for known in PREFERRED if known == name), "unknown")


def _shapes_of(pairs: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters tied to present ones."""
    tied_shapes: dict[str, tuple[int, ...]] = {}
    for target, source in pairs.items():
        for target_name, source_name in ((target, source), (source, target)):
            if target_name not in shapes and (shape := shapes.get(source_name) or tied_shapes.get(source_name)):
                tied_shapes[target_name] = shape
    return tied_shapes


def _sorted_out(unknown: Mapping[str, str], tree: Tree, chosen: ModelLayout) -> tuple[dict[str, str], tuple[str, ...]]:
    """Tensors without a place: explained, or unexplained."""
    ignored = [(f"{part.path}." if part.path else "", part.facts.ignored) for part in chosen.parts]
    extra: dict[str, str] = {}
    unexplained = list(tree.unexplained)
    others = _OtherHeads(chosen)
    for name, renamed in unknown.items():
        if any(re.search(pattern, renamed) for pattern in _OLD_BUFFERS):
            extra[name] = "a buffer that the model computes by itself"
        elif any(
            re.search(pattern, renamed.removeprefix(prefix)) or re.search(pattern, name)
            for prefix, patterns in ignored
            for pattern in patterns
        ):
            extra[name] = "transformers does not load it (_keys_to_ignore_on_load_unexpected)"
        elif len(unknown) <= _MOST_LOOKED_UP and (owner := others.owner(renamed)):
            extra[name] = f"a weight of {owner}, which {class_name(chosen.root)} does not have"
        else:
            unexplained.append(name)
    return extra, tuple(unexplained)


def _unplaced(odd: Sequence[str], tree: Tree, converted: Converted, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Unexplained tensors by their names at run time."""
    names = {name: name for name in tree.unexplained} | dict(converted.unknown)
    tensors = {**stored, **converted.tensors}
    return {names[name]: tensors[name] for name in odd if name in names and name in tensors}


class _OtherHeads:
    """Other classes of a model type, whose weights checkpoints may hold."""

    def __init__(self, chosen: ModelLayout) -> None:
        self._chosen = chosen
        self._layouts: list[ModelLayout] | None = None
        self._base = ""

    def owner(self, name: str) -> str:
        """The class that has a parameter of this name, or empty."""
        if self._layouts is None:
            whole = self._chosen.parts[0]
            keys = (key for key in classes_of(whole.model_type) if key != self._chosen.root)
            self._layouts = [ModelLayout(key, whole.config) for key in keys]
            self._base = f"{whole.facts.base}."
        bare = name.removeprefix(self._base)  # as the base model calls it
        owners = (layout for layout in self._layouts if layout.knows(name) or layout.knows(bare))
        return next((class_name(layout.root) for layout in owners), "")


def by_reason(names: Mapping[str, str], what: str = "not part of the model") -> Iterator[str]:
    """A note for each reason, with the names."""
    reasons: dict[str, list[str]] = {}
    for name, reason in names.items():
        reasons.setdefault(reason, []).append(name)
    for reason, same in reasons.items():
        yield f"{what}: {listed(same, _MOST_SAID)}: {reason}"


def _notes(
    config: Mapping[str, Any],
    root: str,
    tree: Tree,
    extra: Mapping[str, str],
    pairs: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[str]:
    architecture = class_name(root)
    yield from class_notes(config, root)
    if config.get("auto_map"):
        yield (
            "the model brings code of its own (auto_map), which was not run: the names are those of transformers' "
            f"{architecture}, and other code may use others"
        )
    if tree.missing:
        yield f"not in the checkpoint, though {architecture} has it: {listed(tree.missing, _MOST_SAID)}"
    yield from by_reason(extra)
    both = [target for target, source in pairs.items() if target in shapes and source in shapes]
    if both:
        yield (
            f"stored twice: {listed(both, _MOST_SAID)}: the configuration ties it to another tensor that is there too; "
            "transformers ties them if their values are equal, which headers do not tell"
        )


def _quantized(modules: Sequence[Module], tensors: Mapping[str, Stored]) -> Iterator[Module]:
    """Modules with the quantization of their parameters."""
    for module in modules:
        stored = (tensors.get(f"{module.name}.{name}") for name, _ in module.parameters)
        kinds = dict.fromkeys(tensor.quantization for tensor in stored if tensor is not None and tensor.quantization)
        if not kinds:
            yield module
            continue
        quantization = " + ".join(kinds)
        # A packed Conv1D is the library's linear layer, and stored as that: (out, in).
        kind = "linear" if module.kind == "conv1d" and parse_storage(quantization).scheme != "fp8" else module.kind
        yield dataclasses.replace(module, kind=kind, quantization=quantization)


def _parameter_names(tree: Tree) -> Iterator[str]:
    yield from (name for name, _ in tree.parameters)
    for module in tree.modules:
        yield from (f"{module.name}.{name}" for name, _ in module.parameters)


def _sizes(modules: Sequence[Module], root: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[int]:
    yield from (math.prod(shape) for _, shape in root)
    for module in modules:
        yield from (math.prod(shape) for _, shape in module.parameters)


def _size(tree: Tree, tied_groups: Sequence[Sequence[str]]) -> int:
    """Scalars in all parameters, tied ones counted once."""
    shapes = {f"{module.name}.{name}": shape for module in tree.modules for name, shape in module.parameters}
    twice = sum(math.prod(shapes.get(name, (0,))) for group in tied_groups for name in group[1:])
    return sum(_sizes(tree.modules, tree.parameters)) - twice


def _existing(name: str, parts: Sequence[Part], side: str, modules: Sequence[Module]) -> str:
    """The module of a model's embeddings, or of a part's.

    The table has it for the models that it was made from. In one that is composed of others, it is that of a part.
    """
    there = frozenset(module.name for module in modules)
    if not name or name in there:
        return name
    for part in parts[1:]:
        inner = part.facts.input if side == "input" else part.facts.output
        if inner and name.startswith(f"{part.path}.") and f"{part.path}.{inner}" in there:
            return f"{part.path}.{inner}"
    return ""
