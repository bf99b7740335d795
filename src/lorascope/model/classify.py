"""Classifies the weights of a module tree by the lexicon."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from lorascope import light_dataclasses as dataclasses
from lorascope.model import lexicon
from lorascope.model.diffusion import diffusion_roles
from lorascope.model.ffn_parts import ffn_groups, ffn_parts
from lorascope.model.structure import Matrix, components_by_structure
from lorascope.model.types import Kind, Module, Role, Weight
from lorascope.model.unknown import mixed_modules, unknown_roles
from lorascope.model.widths import StreamWidths
from lorascope.names import NUMBER, template

# Blocks that have no part but those of `PARTS`, and embedders of which every linear layer is one.
_WHOLE = ("router", "indexer", "modulation")
_EMBEDDERS = ("embedding.time", "embedding.caption", "embedding.merger")
_ENDINGS = tuple((re.compile(pattern), block) for pattern, block in lexicon.ENDINGS)
_PARAMETRIZED = re.compile(r"\.parametrizations\.\w+\.original\d*$")
_COMPONENTS = tuple((re.compile(pattern), component) for pattern, component in lexicon.COMPONENT_PATTERNS)
_HEADS = re.compile(lexicon.HEADS)
_NORM = re.compile(r"(?:^|_)(?:[a-z]*norm|ln)\d*(?:_|$)", re.IGNORECASE)


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
    linear = _linear_attentions(modules)
    for name, (role, guess) in roles.items():
        if role.component in stacked and role.block != "head" and not role.stack:
            role = dataclasses.replace(role, stack=_stack(name))
        if role.block == "attention" and role.variant == "self" and not linear.isdisjoint(_owners(name)):
            role = dataclasses.replace(role, variant="linear")
        if role.variant == "dense" and kinds[name] == "parameter" and len(shapes[name]) == 3:
            role = dataclasses.replace(role, variant="expert")
        roles[name] = (role, guess)
    roles.update(_outputs_in_mixers(roles))
    attentions = _attentions(roles, shapes)
    for part, names in (("q_gate", _queries_with_gate(attentions, shapes)), ("kv", _keys_as_values(attentions))):
        for name in names:
            role, guess = roles[name]
            roles[name] = (dataclasses.replace(role, part=part), guess)
    widths = StreamWidths(modules, shapes)
    groups = ffn_groups(roles, shapes, lambda word: _block(word).startswith("ffn"))
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
        name: Matrix(kinds[name], shapes[name], role, guess, _spoken_component(template(name), model_type))
        for name, (role, guess) in roles.items()
    }
    spoken = {
        module.name: _spoken_component(template(module.name), model_type) for module in modules if module.kind == "conv"
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
        if any(pattern.fullmatch(name) for name in _with_prefixes(folded)):
            text = exception
            break
    if text is None or text.endswith(".*"):
        text = _block_variant_part(folded, kind, text.removesuffix(".*") if text else "")
    role = parse_role(text or "other")
    return dataclasses.replace(role, component=_spoken_component(folded, model_type) or "text"), text is None


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
    folded = _PARAMETRIZED.sub("", folded)
    words = [word for word in folded.split(".") if word != "#"]
    if not words:  # a member of a bare Sequential
        return None
    if not lexicon.OTHER.isdisjoint(words) or (kind == "parameter" and words[-1] in lexicon.NO_MATRIX):
        return "other"
    if kind == "linear" and len(words) > 1 and _NORM.search(words[-2]) and words[-1] not in lexicon.PARTS["attention"]:
        return lexicon.TAILS.get(".".join(words[-2:]), "modulation")
    while len(words) > 1 and words[-1] in lexicon.WRAPPERS:
        words.pop()
    leaf = words[-1]
    if leaf.startswith(lexicon.RECURRENT):
        return "other"
    tail = lexicon.TAILS.get(".".join(words[-2:]))
    opened = opened or _opened(words[:-1])
    block = opened.partition(".")[0]
    if kind == "parameter" and folded.endswith("query"):
        return "other" if opened == "attention.self" else "embedding.query"
    if tail == "{o}":
        return f"{opened}.o" if block == "attention" else "ffn.dense.down"
    if tail:
        return opened if tail.startswith("ffn") and opened in _EMBEDDERS else tail
    if kind == "multihead_attention":
        cross = "attention.cross" in (opened, lexicon.BLOCKS.get(leaf))
        return "attention.cross.qkvo" if cross else "attention.self.qkvo"
    if leaf == "proj_out" and "#" in folded and not opened:  # of a layer, not of the model
        return "ffn.dense.down"
    part = lexicon.PARTS.get(block, {}).get(leaf)
    if part is not None:
        return f"{opened if block in ('attention', 'ffn') else block}.{part}"
    if block == "attention" and kind != "parameter" and (part := _part_by_tokens(leaf)):
        return f"{opened}.{part}"
    if block in _WHOLE or opened in _EMBEDDERS:
        return opened
    if leaf in lexicon.LEAVES:
        return lexicon.LEAVES[leaf]
    if folded in lexicon.ROOT_LEAVES:
        return lexicon.ROOT_LEAVES[folded]
    if block in ("embedding", "head"):
        return opened
    if kind == "embedding":
        return lexicon.BARE_LEAVES.get(leaf, "embedding")
    if lexicon.BLOCKS.get(leaf, "") in _WHOLE or lexicon.BLOCKS.get(leaf, "").startswith("embedding."):
        return lexicon.BLOCKS[leaf]
    # A member of a Sequential has only a number.
    bare = None if folded.endswith("#") else lexicon.BARE_LEAVES.get(leaf)
    if bare is None and (lexicon.BLOCKS.get(leaf) == "head" or any(_HEADS.fullmatch(word) for word in words)):
        return "head"
    return bare


def _opened(words: Sequence[str]) -> str:
    """The block that the last of the words opens."""
    opening = [block for word in words if (block := _block(word))]
    opened = opening[-1] if opening else ""
    if opened == "ffn.dense" and len(opening) > 1 and opening[-2] in _EMBEDDERS and _block(words[0]) != opened:
        last = max(index for index, word in enumerate(words) if _block(word) == opened)
        return opening[-2] if _block(words[last - 1]) == opening[-2] else opened
    for plain, special in (("attention.self", "attention.cross"), ("ffn.dense", "ffn.expert")):
        if opened == plain and special in opening:
            return special
    return opened


@cache
def _block(word: str) -> str:
    """The block that a word opens, by the table or by its end; or empty."""
    if word in lexicon.BLOCKS:
        return lexicon.BLOCKS[word]
    return next((block for pattern, block in _ENDINGS if pattern.fullmatch(word)), "")


@cache
def _part_by_tokens(leaf: str) -> str:
    """What an attention's leaf is, by the words in it; empty where they do not agree."""
    tokens = {lexicon.ATTENTION_TOKENS[token] for token in leaf.split("_") if token in lexicon.ATTENTION_TOKENS}
    joined = "".join(letter for letter in "qkvo" if letter in tokens)
    return joined if joined in ("q", "k", "v", "o", "qkv", "kv", "qk") else ""


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


def _outputs_in_mixers(roles: Mapping[str, tuple[Role, bool]]) -> dict[str, tuple[Role, bool]]:
    """Outputs of what is called a mixer and holds an attention's matrices (Phi's own `mixer.Wqkv`)."""
    attentions = {name.rpartition(".")[0] for name, (role, _) in roles.items() if role.part == "qkv"}
    return {
        name: (dataclasses.replace(role, block="attention", variant="self", part="o"), guess)
        for name, (role, guess) in roles.items()
        if (role.block, role.part) == ("mixer", "out") and name.rpartition(".")[0] in attentions
    }


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


def _kernels(modules: Sequence[Module], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Bare parameters that are kernels of convolutions, transposed or parametrized."""
    transposed = {module.name for module in modules if module.class_name.startswith("ConvTranspose")}
    return [
        name
        for name, shape in shapes.items()
        if len(shape) == 3 and (name.rpartition(".")[0] in transposed or ".parametrizations." in name)
    ]


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


@cache
def _spoken_component(folded: str, model_type: str) -> str:
    """The component that a word of the name says, or empty."""
    for pattern, component in lexicon.COMPONENT_EXCEPTIONS.get(model_type, ()):
        if any(re.match(pattern, name) for name in _with_prefixes(folded)):
            return component
    if folded in lexicon.ROOT_COMPONENTS:
        return lexicon.ROOT_COMPONENTS[folded]
    words = folded.split(".")
    spoken = next((component for component, marks in lexicon.COMPONENTS if not marks.isdisjoint(words)), "")
    outside = words[: words.index("#")] if "#" in words else words[:-1]
    return spoken or next((component for word in outside if (component := _component_by_parts(word))), "")


def _with_prefixes(folded: str) -> tuple[str, ...]:
    """A name, and the same where the model stands in another: a base model lacks the `model` of its heads."""
    return folded, f".{folded}", f"model.{folded}"


@cache
def _component_by_parts(word: str) -> str:
    return next((component for pattern, component in _COMPONENTS if pattern.fullmatch(word)), "")


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
