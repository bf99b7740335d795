"""ms-swift's own search: endings of linear layers, or a regex.

Restated from ms-swift 4.6.0, utils/transformers_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from lorascope.model.types import ModelMap, Module
from lorascope.trainers.ms_swift.models import Towers

_NUMBER = re.compile(r"\d+\.")
# Heads for classes, of reward models, and what PEFT adds.
_PASSED_OVER = ("score", "v_head", "classifier", "lora_A", "lora_B", "base_layer")
# Wrappers of linear layers in phi4_multimodal and gemma4.
_NOT_LINEAR = ("glulinear", "gemma4clippablelinear")

# A module's name within the model that is searched, and the module; None for that model itself where it has no entry.
Named = tuple[str, Module]


def within(model: ModelMap, path: str = "") -> list[Named]:
    """A submodule, under the empty name, and what is in it."""
    if not path:
        root = Module("", model.architecture, "other")
        return [("", root), *((module.name, module) for module in model.modules)]
    start = f"{path}."
    inner = [(module.name[len(start) :], module) for module in model.modules if module.name.startswith(start)]
    own = model.module_by_name.get(path)
    return [("", own), *inner] if own is not None else inner


def linear_endings(modules: Sequence[Named], towers: Towers | None, *, embeddings: bool = False) -> list[str]:
    """Endings that match the linear layers only (`find_all_linears`)."""
    return _endings(modules, lambda name, module: is_searched(name, module, towers, embeddings=embeddings))


def is_searched(name: str, module: Module, towers: Towers | None, *, embeddings: bool = False) -> bool:
    """ms-swift counts a module as a linear layer to adapt."""
    words = (head_word(towers), *_PASSED_OVER)
    return (called_linear(module) or (embeddings and module.kind == "embedding")) and not any(w in name for w in words)


def called_linear(module: Module) -> bool:
    """The module's class is called linear, whatever it is."""
    class_name = module.class_name.lower()
    return "linear" in class_name and not any(word in class_name for word in _NOT_LINEAR)


def head_word(towers: Towers | None) -> str:
    """Last component of the head's name; names with it are skipped."""
    return towers.head.rpartition(".")[2] if towers is not None and towers.head else "lm_head"


def embedding_endings(modules: Sequence[Named]) -> list[str]:
    """The endings that stand for the embeddings (`find_embedding`)."""
    return _endings(modules, lambda _, module: module.kind == "embedding")


def norm_endings(modules: Sequence[Named]) -> list[str]:
    """Endings that match the norms only (`find_norm`), by class name."""
    return _endings(modules, lambda _, m: m.class_name == "LayerNorm" or "rmsnorm" in m.class_name.lower())


def _endings(modules: Sequence[Named], wanted: Callable[[str, Module], bool]) -> list[str]:
    """The shortest endings of the wanted names that no other has."""
    others = {_NUMBER.sub("{}.", name) for name, module in modules if not wanted(name, module)}
    return list(dict.fromkeys(_ending(name, others) for name, module in modules if wanted(name, module)))


def _ending(name: str, others: Iterable[str]) -> str:
    words = name.split(".")
    ending = words.pop()
    # A name that does not end with the shorter ending does not end with the longer one, so one round is enough.
    for other in others:
        while words and other.endswith(_NUMBER.sub("{}.", ending)):
            ending = f"{words.pop()}.{ending}"
    return ending


def towers_expression(
    model: ModelMap, towers: Towers, *, llm: bool, vision: bool, aligner: bool, embeddings: bool
) -> str | None:
    """The regular expression for the parts that may be adapted (`get_multimodal_target_regex`).

    Args:
        model: The map.
        towers: Where the parts lie.
        llm: The language model may be adapted.
        vision: The towers may be.
        aligner: What joins them may be.
        embeddings: Embeddings are searched too.

    Returns:
        The expression, or None where none of the parts has a path, at which ms-swift stops.
    """
    paths = [
        *(towers.language if llm else ()),
        *(towers.vision if vision else ()),
        *(towers.aligner if aligner else ()),
    ]
    if not paths:
        return None
    branches = []
    for path in paths:
        inside = [part for part in towers.aligner if part.startswith(f"{path}.")] if vision or llm else []
        own = model.module_by_name.get(path)
        # A path that names no module gives a branch that matches nothing, or none.
        if own is None or (own.kind == "linear" and path.endswith("lm_head")):
            continue
        endings = linear_endings(within(model, path), towers, embeddings=embeddings)
        start = (f"(?!({'|'.join(inside)}))" if inside else "") + re.escape(path)
        if "" in endings:
            branches.append(start)
        if named := [ending for ending in endings if ending]:
            branches.append(rf"{start}(?=\.).*\.({'|'.join(named)})")
    return f"^({'|'.join(branches)})$"
