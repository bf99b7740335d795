"""Classifies the weights of a module tree by the lexicon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model import lexicon
from lorascope.model.attention_parts import (
    attentions,
    keys_as_values,
    linear_attentions,
    outputs_in_mixers,
    owners,
    queries_with_gate,
)
from lorascope.model.diffusion import diffusion_roles
from lorascope.model.ffn_parts import ffn_groups, ffn_parts
from lorascope.model.role_names import block_of_word, opened_block, parse_role, role_of_name, spoken_component
from lorascope.model.structure import Matrix, components_by_structure
from lorascope.model.types import Kind, Module, Role, Weight
from lorascope.model.unknown import mixed_modules, unknown_roles
from lorascope.model.widths import StreamWidths
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
    roles = _with_components(modules, kinds, shapes, roles, model_type)
    roles.update({name: (roles[name][0], False) for name in _kernels(modules, shapes)})
    roles.update({name: (role, roles[name][1]) for name, role in diffusion_roles(roles, shapes)})
    stacked = _components_with_two_stacks(roles)
    linear = linear_attentions(modules)
    for name, (role, guess) in roles.items():
        if role.component in stacked and role.block != "head" and not role.stack:
            role = dataclasses.replace(role, stack=_stack(name))
        if role.block == "attention" and role.variant == "self" and not linear.isdisjoint(owners(name)):
            role = dataclasses.replace(role, variant="linear")
        if role.variant == "dense" and kinds[name] == "parameter" and len(shapes[name]) == 3:
            role = dataclasses.replace(role, variant="expert")
        roles[name] = (role, guess)
    roles.update(outputs_in_mixers(roles))
    found = attentions(roles, shapes)
    for part, names in (("q_gate", queries_with_gate(found, shapes)), ("kv", keys_as_values(found))):
        for name in names:
            role, guess = roles[name]
            roles[name] = (dataclasses.replace(role, part=part), guess)
    widths = StreamWidths(modules, shapes)
    groups = ffn_groups(roles, shapes, lambda word: block_of_word(word).startswith("ffn"))
    variants = {name: roles[names[0]][0].variant for names in groups.values() for name in names}
    for name, (part, unsure) in ffn_parts(groups, roles, shapes, widths).items():
        role, guess = roles[name]
        guess = guess and role.block == "ffn"  # beside named ones, its shape says what it is
        roles[name] = (dataclasses.replace(role, block="ffn", variant=variants[name], part=part), guess or unsure)
    roles.update(_unknown(modules, kinds, shapes, roles, widths))
    return assemble(modules, roles)


def _unknown(
    modules: Sequence[Module],
    kinds: Mapping[str, Kind],
    shapes: Mapping[str, tuple[int, ...]],
    roles: Mapping[str, tuple[Role, bool]],
    widths: StreamWidths,
) -> Iterator[tuple[str, tuple[Role, bool]]]:
    """Guesses for linear layers and experts whose names say nothing."""
    bare = [
        f"{module.name}.{parameter}"
        for module in modules
        for parameter, shape in module.parameters
        if (module.kind == "other" and len(shape) != 3 and parameter not in ("weight", "bias"))
        or (module.kind == "conv" and set(shape[2:]) != {1})
    ]
    names = [
        name
        for name, (role, guess) in roles.items()
        if guess and role.block == "other" and kinds[name] in ("linear", "conv1d", "conv", "parameter")
        if kinds[name] != "parameter" or len(shapes[name]) == 3
    ]
    connecting = {name for name in names if roles[name][0].component != "text"}
    tokens = {shapes[name] for name, (role, _) in roles.items() if (role.block, role.part) == ("embedding", "token")}
    if not any((role.block, role.part) == ("head", "lm") for role, _ in roles.values()):
        names_of_heads = [name for name in names if kinds[name] == "linear" and shapes[name] in tokens]
        yield from ((name, (Role(block="head", part="lm"), True)) for name in names_of_heads)
    for name, block, variant, part in unknown_roles(names, shapes, widths, mixed_modules(bare), connecting):
        yield name, (dataclasses.replace(roles[name][0], block=block, variant=variant, part=part), True)


def _with_components(
    modules: Sequence[Module],
    kinds: Mapping[str, Kind],
    shapes: Mapping[str, tuple[int, ...]],
    roles: Mapping[str, tuple[Role, bool]],
    model_type: str,
) -> dict[str, tuple[Role, bool]]:
    """The roles with the components that structure says where no word does."""
    matrices = {
        name: Matrix(kinds[name], shapes[name], role, guess, spoken_component(template(name), model_type))
        for name, (role, guess) in roles.items()
    }
    spoken = {
        module.name: spoken_component(template(module.name), model_type) for module in modules if module.kind == "conv"
    }
    placed = dict(roles)
    for name, (component, sure) in components_by_structure(modules, matrices, spoken, model_type).items():
        role, guess = roles[name]
        placed[name] = (dataclasses.replace(role, component=component), guess or not sure)
    return placed


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
            case "multihead_attention" if len(own.get("in_proj_weight", ())) == 2:
                yield name, name, "multihead_attention", own["in_proj_weight"]
            case "other":
                for parameter, shape in module.parameters:
                    if len(shape) == 3 and (module.transposed or module.class_name in lexicon.STORED_IN_OUT):
                        shape = (shape[0], shape[2], shape[1])
                    if len(shape) in (2, 3):
                        yield f"{name}.{parameter}", name, "parameter", shape


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
        opened = opened_block(parent.split("."))
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


def _kernels(modules: Sequence[Module], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Bare parameters that are kernels of convolutions, transposed or parametrized."""
    transposed = {module.name for module in modules if module.class_name.startswith("ConvTranspose")}
    return [
        name
        for name, shape in shapes.items()
        if len(shape) == 3 and (name.rpartition(".")[0] in transposed or ".parametrizations." in name)
    ]


def _stack(name: str) -> str:
    return next((lexicon.STACKS[word] for word in name.split(".") if word in lexicon.STACKS), "")


def _components_with_two_stacks(roles: Mapping[str, tuple[Role, bool]]) -> set[str]:
    stacks: dict[str, set[str]] = {}
    for name, (role, _) in roles.items():
        if role.block in ("attention", "ffn", "mixer"):
            stacks.setdefault(role.component, set()).add(_stack(name))
    two = {component for component, words in stacks.items() if {"encoder", "decoder"} <= words}
    return two - lexicon.WITHOUT_STACKS
