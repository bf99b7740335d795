"""From modules to weights with roles, by the lexicon."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from lorascope.records import Kind, Module, Role, Weight
from lorascope.folding import NUMBER, template
from lorascope.roles import lexicon



def classify(modules: Sequence[Module], *, model_type: str = "") -> tuple[Weight, ...]:
    """The weights of a module tree with their roles.

    Args:
        modules: In `named_modules()` order.
        model_type: Chooses the lexicon's exceptions.
    """
    found = [(name, template(name), kind) for name, _, kind, _ in _weights(modules)]
    readings = {(folded, kind): read(folded, kind, model_type) for _, folded, kind in found}
    stacked = _components_with_two_stacks(readings)
    roles = {}
    for name, folded, kind in found:
        role, guess = readings[folded, kind]
        if role.component in stacked and role.block != "head" and not role.stack:
            role = dataclasses.replace(role, stack=_stack(folded))
        roles[name] = (role, guess)
    return assemble(modules, roles)


def assemble(modules: Sequence[Module], roles: Mapping[str, tuple[Role, bool]]) -> tuple[Weight, ...]:
    """The weights of a module tree, given the role of each by name and whether it is a guess.

    A weight without a role in `roles` is `other`, and a guess.
    """
    unknown = (Role(), True)
    weights = []
    for name, module, kind, shape in _weights(modules):
        role, guess = roles.get(name, unknown)
        weights.append(Weight(name, module, kind, shape, role, _layer(name, role), guess))
    return tuple(weights)


def _layer(name: str, role: Role) -> int | None:
    """The first number of the name. What stands outside of blocks (a connector's `Sequential` members) has none."""
    number = NUMBER.search(name)
    outside = role.component == "connector" or role.block in ("embedding", "head")
    return None if outside or number is None else int(number[0])


def _weights(modules: Sequence[Module]) -> Iterator[tuple[str, str, Kind, tuple[int, ...]]]:
    """Every matrix that LoRA could adapt, as (name, module, kind, shape in out-in order)."""
    # nn.MultiheadAttention reads its own output projection's weight, so the two are one weight to LoRA.
    inside_attention = {f"{module.name}.out_proj" for module in modules if module.kind == "multihead_attention"}
    for module in modules:
        own = dict(module.parameters)
        name = module.name
        match module.kind:
            case "linear" | "embedding" if name not in inside_attention and "weight" in own:
                yield name, name, "linear" if module.kind == "linear" else "embedding", own["weight"]
            case "conv1d":
                yield name, name, "conv1d", own["weight"][::-1]
            case "conv" if set(own["weight"][2:]) == {1}:  # a pointwise convolution is a matrix
                yield name, name, "conv", own["weight"][:2]
            case "multihead_attention" if "in_proj_weight" in own:
                yield name, name, "multihead_attention", own["in_proj_weight"]
            case "other":
                for parameter, shape in module.parameters:
                    if len(shape) == 3 and module.transposed:
                        shape = (shape[0], shape[2], shape[1])
                    if len(shape) in (2, 3):
                        yield f"{name}.{parameter}", name, "parameter", shape


def read(folded: str, kind: Kind, model_type: str) -> tuple[Role, bool]:
    """The role that a folded name speaks of, without its stack, and whether it is a guess."""
    component = _component(folded, model_type)
    for pattern, text in _exceptions(model_type):
        if pattern.fullmatch(folded):
            role = parse_role(text)
            return (role if role.component else dataclasses.replace(role, component=component)), False
    text = _block_variant_part(folded, kind)
    if text is None:
        return Role(component), True
    role = parse_role(text)
    return dataclasses.replace(role, component=component), False


@cache
def parse_role(text: str) -> Role:
    """The role of a dotted text such as `attention.self.q` or `vision.ffn.dense.up`; the component may be left out."""
    words = text.split(".")
    component = "" if words[0] in lexicon.BLOCK_NAMES else words.pop(0)
    stack = words.pop(0) if words[0] in ("encoder", "decoder") else ""
    block = words.pop(0)
    variant = words.pop(0) if words and block in ("attention", "ffn") else ""
    return Role(component, stack, block, variant, words.pop(0) if words else "")


def _block_variant_part(folded: str, kind: Kind) -> str | None:
    words = [word for word in folded.split(".") if word != "#"]
    while len(words) > 1 and words[-1] in lexicon.WRAPPERS:
        words.pop()
    leaf = words[-1]
    opened = next((lexicon.BLOCKS[word] for word in reversed(words[:-1]) if word in lexicon.BLOCKS), "")
    block = opened.partition(".")[0]
    if any(lexicon.BLOCKS.get(word) == "attention.cross" for word in words) and block == "attention":
        opened = "attention.cross"
    if kind == "parameter" and leaf in lexicon.NO_MATRIX:
        return "other"
    if kind == "multihead_attention":
        return ("attention.cross" if opened == "attention.cross" else "attention.self") + ".qkvo"
    tail = lexicon.TAILS.get(".".join(words[-2:]))
    if tail == "{o}":
        tail = f"{opened}.o" if block == "attention" else "ffn.dense.down"
    if tail:
        return tail
    if kind == "embedding" and leaf not in lexicon.LEAVES:
        return "embedding"
    if leaf in lexicon.LEAVES:
        return lexicon.LEAVES[leaf]
    part = lexicon.PARTS.get(block, {}).get(leaf)
    if part is not None:
        return f"{opened}.{part}"
    if block in ("router", "indexer", "embedding", "head"):
        return block
    if leaf in lexicon.BLOCKS and lexicon.BLOCKS[leaf] in ("router", "indexer"):
        return lexicon.BLOCKS[leaf]
    return lexicon.BARE_LEAVES.get(leaf)


def _component(folded: str, model_type: str) -> str:
    for pattern, component in lexicon.COMPONENT_EXCEPTIONS.get(model_type, ()):
        if re.match(pattern, folded):
            return component
    words = set(folded.split("."))
    return next((component for component, marks in lexicon.COMPONENTS if words & marks), "text")


def _stack(folded: str) -> str:
    return next((lexicon.STACKS[word] for word in folded.split(".") if word in lexicon.STACKS), "")


def _components_with_two_stacks(readings: Mapping[tuple[str, Kind], tuple[Role, bool]]) -> set[str]:
    stacks: dict[str, set[str]] = {}
    for (folded, _), (role, _) in readings.items():
        if role.block in ("attention", "ffn", "mixer"):
            stacks.setdefault(role.component, set()).add(_stack(folded))
    return {component for component, found in stacks.items() if {"encoder", "decoder"} <= found}


@cache
def _exceptions(model_type: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(pattern), role)
        for model_types, pattern, role, _ in lexicon.EXCEPTIONS
        if model_type in model_types.split()
    )
