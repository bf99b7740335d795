"""Classifies the weights of a module tree by the lexicon."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from lorascope import light_dataclasses as dataclasses
from lorascope.model import lexicon
from lorascope.model.types import Kind, Module, Role, Weight
from lorascope.names import NUMBER, template


def classify(modules: Sequence[Module], *, model_type: str = "") -> tuple[Weight, ...]:
    """The weights of a module tree with their roles.

    A name's words decide (`read`); what they leave open, its neighbors and its shape do: which stacks there are, what
    else stands in the same attention, how many linear layers a connector has, whether a weight is a stack of experts.

    Args:
        modules: In `named_modules()` order.
        model_type: Chooses the lexicon's exceptions.
    """
    kinds = {name: kind for name, _, kind, _ in _weights(modules)}
    shapes = {name: shape for name, _, _, shape in _weights(modules)}
    roles = {name: role_of_name(template(name), kind, model_type) for name, kind in kinds.items()}
    roles.update(
        _roles_by_count([name for name, (_, guess) in roles.items() if guess and kinds[name] == "linear"], roles)
    )
    stacked = _components_with_two_stacks(roles)
    linear = _linear_attentions(modules)
    for name, (role, guess) in roles.items():
        if role.component in stacked and role.block != "head" and not role.stack:
            role = dataclasses.replace(role, stack=_stack(name))
        if role.block == "attention" and role.variant == "self" and not linear.isdisjoint(_owners(name)):
            role = dataclasses.replace(role, variant="linear")
        if role.variant == "dense" and kinds[name] == "parameter" and len(shapes[name]) == 3:
            role = dataclasses.replace(role, variant="expert")
        roles[name] = (role, guess)
    attentions = _attentions(roles, shapes)
    for part, names in (("q_gate", _queries_with_gate(attentions, shapes)), ("kv", _keys_as_values(attentions))):
        for name in names:
            role, guess = roles[name]
            roles[name] = (dataclasses.replace(role, part=part), guess)
    for name, (part, unsure) in _parts_by_width(roles, shapes).items():
        role, guess = roles[name]
        roles[name] = (dataclasses.replace(role, part=part), guess or unsure)
    return assemble(modules, roles)


def assemble(modules: Sequence[Module], roles: Mapping[str, tuple[Role, bool]]) -> tuple[Weight, ...]:
    """The weights of a module tree, with given roles and guesses.

    A weight without a role in `roles` is `other`, and a guess.
    """
    unknown = (Role(), True)
    quantization = {module.name: module.quantization for module in modules if module.quantization}
    weights = []
    for name, module, kind, shape in _weights(modules):
        role, guess = roles.get(name, unknown)
        weights.append(Weight(name, module, kind, shape, role, _layer(name, role), guess, quantization.get(module, "")))
    return tuple(weights)


def _layer(name: str, role: Role) -> int | None:
    """First number of the name; None outside of blocks."""
    number = NUMBER.search(name)
    outside = role.component == "connector" or role.block in ("embedding", "head")
    return None if outside or number is None else int(number[0])


def _weights(modules: Sequence[Module]) -> Iterator[tuple[str, str, Kind, tuple[int, ...]]]:
    """Matrices that LoRA could adapt: name, module, kind, (out, in) shape."""
    # nn.MultiheadAttention reads its own output projection's weight, so the two are one weight to LoRA.
    inside_attention = {f"{module.name}.out_proj" for module in modules if module.kind == "multihead_attention"}
    for module in modules:
        own = dict(module.parameters)
        name = module.name
        match module.kind:
            case "linear" | "embedding" if name not in inside_attention and "weight" in own:
                yield name, name, "linear" if module.kind == "linear" else "embedding", own["weight"]
            case "conv1d" if "weight" in own:
                yield name, name, "conv1d", own["weight"][::-1]
            case "conv" if "weight" in own and set(own["weight"][2:]) == {1}:  # a pointwise convolution is a matrix
                yield name, name, "conv", own["weight"][:2]
            case "multihead_attention" if "in_proj_weight" in own:
                yield name, name, "multihead_attention", own["in_proj_weight"]
            case "other":
                for parameter, shape in module.parameters:
                    if len(shape) == 3 and (module.transposed or module.class_name in lexicon.STORED_IN_OUT):
                        shape = (shape[0], shape[2], shape[1])
                    if len(shape) in (2, 3):
                        yield f"{name}.{parameter}", name, "parameter", shape


@cache
def role_of_name(folded: str, kind: Kind, model_type: str) -> tuple[Role, bool]:
    """The role that a folded name implies; whether it is guessed."""
    text: str | None = None
    for pattern, exception in _exceptions(model_type):
        if pattern.fullmatch(folded):
            text = exception
            break
    if text is None or text.endswith(".*"):
        text = _block_variant_part(folded, kind, text.removesuffix(".*") if text else "")
    role = parse_role(text or "other")
    return dataclasses.replace(role, component=_component(folded, model_type)), text is None


@cache
def parse_role(text: str) -> Role:
    """The role of a text such as `attention.self.q` or `vision.ffn.dense.up`."""
    words = text.split(".")
    component = "" if words[0] in lexicon.BLOCK_NAMES else words.pop(0)
    stack = words.pop(0) if words[0] in ("encoder", "decoder") else ""
    block = words.pop(0)
    variant = words.pop(0) if words and block in ("attention", "ffn") else ""
    return Role(component, stack, block, variant, words.pop(0) if words else "")


def _block_variant_part(folded: str, kind: Kind, opened: str = "") -> str | None:
    """The role's text by the tables; None where none has a row."""
    words = [word for word in folded.split(".") if word != "#"]
    if not words:  # a member of a bare Sequential
        return None
    if not lexicon.OTHER.isdisjoint(words) or (kind == "parameter" and words[-1] in lexicon.NO_MATRIX):
        return "other"
    while len(words) > 1 and words[-1] in lexicon.WRAPPERS:
        words.pop()
    leaf = words[-1]
    tail = lexicon.TAILS.get(".".join(words[-2:]))
    opened = opened or _opened(words[:-1])
    block = opened.partition(".")[0]
    if tail == "{o}":
        return f"{opened}.o" if block == "attention" else "ffn.dense.down"
    if tail:
        return tail
    if kind == "multihead_attention":
        cross = "attention.cross" in (opened, lexicon.BLOCKS.get(leaf))
        return "attention.cross.qkvo" if cross else "attention.self.qkvo"
    part = lexicon.PARTS.get(block, {}).get(leaf)
    if part is not None:
        return f"{opened if block in ('attention', 'ffn') else block}.{part}"
    if block in ("router", "indexer"):
        return block
    if leaf in lexicon.LEAVES:
        return lexicon.LEAVES[leaf]
    if folded in lexicon.ROOT_LEAVES:
        return lexicon.ROOT_LEAVES[folded]
    if block in ("embedding", "head"):
        return opened
    if kind == "embedding":
        return lexicon.BARE_LEAVES.get(leaf, "embedding")
    if lexicon.BLOCKS.get(leaf) in ("router", "indexer"):
        return lexicon.BLOCKS[leaf]
    # A member of a Sequential has only a number.
    return None if folded.endswith("#") else lexicon.BARE_LEAVES.get(leaf)


def _opened(words: Sequence[str]) -> str:
    """The block that the last of the words opens."""
    opening = [lexicon.BLOCKS[word] for word in words if word in lexicon.BLOCKS]
    opened = opening[-1] if opening else ""
    for plain, special in (("attention.self", "attention.cross"), ("ffn.dense", "ffn.expert")):
        if opened == plain and special in opening:
            return special
    return opened


def _roles_by_count(names: Sequence[str], roles: Mapping[str, tuple[Role, bool]]) -> dict[str, tuple[Role, bool]]:
    """Roles of unnamed linear layers, by how many stand together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        parent, _, leaf = name.rpartition(".")
        stem = leaf.rstrip("0123456789")
        groups.setdefault((parent, "" if stem == leaf else stem), []).append(name)
    roles_by_count = {}
    for (parent, stem), members in groups.items():
        component = roles[members[0]][0].component
        opened = _opened(parent.split("."))
        connects = component == "connector" and not opened.startswith("attention")
        sequential = members[0].rpartition(".")[2].isdecimal() and opened.startswith("ffn")
        texts: tuple[str, ...] = ()
        if len(members) == 2 and (connects or sequential or stem):
            texts = lexicon.PAIR
        elif len(members) == 1 and connects:
            texts = (lexicon.ALONE,)
        for name, text in zip(members, texts, strict=False):
            roles_by_count[name] = (dataclasses.replace(parse_role(text), component=component), False)
    return roles_by_count


def _attentions(roles: Mapping[str, tuple[Role, bool]], shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, str]]:
    """Matrices of each attention, by part."""
    attentions: dict[str, dict[str, str]] = {}
    for name, (role, _) in roles.items():
        if role.block == "attention" and len(shapes[name]) == 2:
            attentions.setdefault(name.rpartition(".")[0], {})[role.part] = name
    return list(attentions.values())


def _queries_with_gate(attentions: Sequence[Mapping[str, str]], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Query matrices that also give the output's gate.

    Keys and values are of one size there. Where they are not, queries may be larger because their heads are.
    """
    return [
        parts["q"]
        for parts in attentions
        if parts.keys() >= {"q", "k", "v", "o"}
        and shapes[parts["k"]] == shapes[parts["v"]]
        and shapes[parts["q"]][0] == 2 * shapes[parts["o"]][1]
    ]


def _keys_as_values(attentions: Sequence[Mapping[str, str]]) -> list[str]:
    """Key matrices of attentions without values of their own."""
    return [
        parts["k"]
        for parts in attentions
        if parts.keys() >= {"q", "k", "o"} and not any("v" in part for part in parts if part not in ("conv",))
    ]


def _parts_by_width(
    roles: Mapping[str, tuple[Role, bool]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[str, bool]]:
    """Parts of feed-forward matrices whose widths contradict their names.

    Of two matrices, the first holds gate and value both if it has twice as many rows as the last has columns; with as
    many there is no gate. Of three, one that is called the last and has the shape of the first is gate or value: which
    of the two does not show.
    """
    modules: dict[str, list[str]] = {}
    for name, (role, _) in roles.items():
        if role.block == "ffn" and len(shapes[name]) == 2:
            modules.setdefault(name.rpartition(".")[0], []).append(name)
    parts = {}
    for names in modules.values():
        last = [name for name in names if roles[name][0].part == "down"]
        first = [name for name in names if roles[name][0].part in ("gate", "up")]
        if len(first) != 1 or len(first) + len(last) != len(names):
            continue
        rows, width = shapes[first[0]][0], shapes[last[-1]][1] if last else 0
        alike = [name for name in last if shapes[name] == shapes[first[0]]]
        if len(last) == 1 and rows in (width, 2 * width):
            parts[first[0]] = ("up" if rows == width else "gate_up", False)
        elif len(last) == 2 and len(alike) == 1:
            part = roles[first[0]][0].part
            parts[first[0]] = (part, True)
            parts[alike[0]] = ("up" if part == "gate" else "gate", True)
    return parts


def _linear_attentions(modules: Sequence[Module]) -> set[str]:
    """Modules that hold what only a linear attention has."""
    names = [module.name for module in modules]
    names += [f"{module.name}.{parameter}" for module in modules for parameter, _ in module.parameters]
    split = (name.rpartition(".") for name in names)
    return {parent for parent, _, leaf in split if leaf in lexicon.LINEAR_ATTENTION_SIBLINGS}


def _owners(name: str) -> Iterator[str]:
    """Modules around a weight, up to the one that opens its block."""
    while "." in name:
        name, _, _ = name.rpartition(".")
        yield name
        if name.rpartition(".")[2] in lexicon.BLOCKS:
            return


def _component(folded: str, model_type: str) -> str:
    for pattern, component in lexicon.COMPONENT_EXCEPTIONS.get(model_type, ()):
        if re.match(pattern, folded):
            return component
    words = folded.split(".")
    return next((component for component, marks in lexicon.COMPONENTS if not marks.isdisjoint(words)), "text")


def _stack(name: str) -> str:
    return next((lexicon.STACKS[word] for word in name.split(".") if word in lexicon.STACKS), "")


def _components_with_two_stacks(roles: Mapping[str, tuple[Role, bool]]) -> set[str]:
    stacks: dict[str, set[str]] = {}
    for name, (role, _) in roles.items():
        if role.block in ("attention", "ffn", "mixer"):
            stacks.setdefault(role.component, set()).add(_stack(name))
    two = {component for component, words in stacks.items() if {"encoder", "decoder"} <= words}
    return two - lexicon.WITHOUT_STACKS


@cache
def _exceptions(model_type: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(pattern), role)
        for model_types, pattern, role, _ in lexicon.EXCEPTIONS
        if model_type in model_types.split()
    )
