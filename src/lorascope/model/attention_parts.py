"""Parts of attentions that only the matrices beside them tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model import lexicon
from lorascope.model.types import Module, Role


def outputs_in_mixers(roles: Mapping[str, tuple[Role, bool]]) -> dict[str, tuple[Role, bool]]:
    """Outputs of what is called a mixer and holds an attention's matrices (Phi's own `mixer.Wqkv`)."""
    attentions = {name.rpartition(".")[0] for name, (role, _) in roles.items() if role.part == "qkv"}
    return {
        name: (dataclasses.replace(role, block="attention", variant="self", part="o"), guess)
        for name, (role, guess) in roles.items()
        if (role.block, role.part) == ("mixer", "out") and name.rpartition(".")[0] in attentions
    }


def attentions(roles: Mapping[str, tuple[Role, bool]], shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, str]]:
    """Matrices of each attention, by part."""
    attentions: dict[str, dict[str, str]] = {}
    for name, (role, _) in roles.items():
        if role.block == "attention" and len(shapes[name]) == 2:
            attentions.setdefault(name.rpartition(".")[0], {})[role.part] = name
    return list(attentions.values())


def queries_with_gate(attentions: Sequence[Mapping[str, str]], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
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


def keys_as_values(attentions: Sequence[Mapping[str, str]]) -> list[str]:
    """Key matrices of attentions without values of their own."""
    return [
        parts["k"]
        for parts in attentions
        if parts.keys() >= {"q", "k", "o"} and not any("v" in part for part in parts if part not in ("conv",))
    ]


def linear_attentions(modules: Sequence[Module]) -> set[str]:
    """Modules that hold what only a linear attention has."""
    names = [module.name for module in modules]
    names += [f"{module.name}.{parameter}" for module in modules for parameter, _ in module.parameters]
    split = (name.rpartition(".") for name in names)
    return {parent for parent, _, leaf in split if leaf in lexicon.LINEAR_ATTENTION_SIBLINGS}


def owners(name: str) -> Iterator[str]:
    """Modules around a weight, up to the one that opens its block."""
    while "." in name:
        name, _, _ = name.rpartition(".")
        yield name
        if name.rpartition(".")[2] in lexicon.BLOCKS:
            return
