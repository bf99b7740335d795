"""Parts of a model that its class has and the table cannot read: by names, so that no tower is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.names import listed
from lorascope.sources.checkpoint.from_names import modules_from_names
from lorascope.sources.checkpoint.layout import Tree
from lorascope.sources.checkpoint.types import Stored

_MOST_SAID = 6


class ReadByNames(NamedTuple):
    """A tree with the parts that were read by names, and the notes on them."""

    tree: Tree
    notes: tuple[str, ...]


def fill_parts(tree: Tree, unplaced: Mapping[str, Stored]) -> ReadByNames:
    """Read lost parts of a tree by the names of unplaced tensors.

    Only where the class has a part, the checkpoint has tensors below that part's name, and none of them was placed. Such
    tensors stay unexplained: which modules the code makes of them, names do not say.

    Args:
        tree: What the table made of the names.
        unplaced: Tensors without a place, by their names at run time.
    """
    there = {module.name for module in tree.modules}
    lost = [name.removesuffix("*") for name in tree.missing if name.endswith(".*")]
    prefixes = tuple(prefix for prefix in lost if any(name.startswith(prefix) for name in unplaced))
    inner = {name: tensor for name, tensor in unplaced.items() if name.startswith(prefixes)} if prefixes else {}
    if not inner:
        return ReadByNames(tree, ())
    try:
        named = modules_from_names(inner)
    except LorascopeError:  # names as no model has them stay without a place
        return ReadByNames(tree, ())
    modules = tuple(module for module in named.modules if module.name not in there)
    missing = tuple(name for name in tree.missing if not name.startswith(prefixes))
    parts = [prefix.removesuffix(".") for prefix in prefixes]
    note = (
        f"read by names alone: {listed(parts, _MOST_SAID)}: the table has no class that fits these {len(inner)} tensors, so "
        "the kind of each module is a guess"
    )
    return ReadByNames(
        dataclasses.replace(tree, modules=(*tree.modules, *modules), missing=missing), (note, *named.notes)
    )
