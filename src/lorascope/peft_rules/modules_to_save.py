"""Which modules `modules_to_save` copies and trains in full (`_set_trainable`).

PEFT takes every module whose name *ends* with an entry, with no dot in between: `head` also copies `lm_head`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic

# Task type -> the heads that PEFT saves by itself. Only SEQ_CLS adds them before it matches target modules, so that the
# others can run into a head that already carries an adapter.
_HEADS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
# With these task types PEFT looks for modules to save twice, the second time in the model that it has wrapped.
SAVING_TWICE = frozenset(_HEADS)
_MOST_ENTRIES = 10
_CONTAINERS = frozenset({"ModuleDict", "ModuleList", "ParameterDict", "ParameterList"})
# What an adapter puts below the module it wraps; PEFT stops where an entry ends one of these names.
_INSIDE_ADAPTERS = ("lora_dropout", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


@dataclasses.dataclass(frozen=True, slots=True)
class Copied:
    """The modules that are copied.

    Attributes:
        modules: The copied modules that lie in no other, in module order, repeated where one module has two names.
        nested: Copied modules within another copied module.
        refusal: Why PEFT stops, or None.
    """

    modules: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    refusal: Diagnostic | None = None


def names_before_matching(entries: tuple[str, ...] | None, task_type: str | None) -> tuple[str, ...]:
    """`modules_to_save` as it is when PEFT matches target modules."""
    return (entries or ()) + (_HEADS["SEQ_CLS"] if task_type == "SEQ_CLS" else ())


def names_in_the_end(entries: tuple[str, ...] | None, task_type: str | None) -> tuple[str, ...]:
    """`modules_to_save` with all that the task type adds."""
    return (entries or ()) + _HEADS.get(task_type or "", ())


class Endings:
    """Endings of names, looked up by their lengths."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = set(texts)
        self._lengths = sorted({len(text) for text in self._texts})

    def of(self, name: str) -> list[str]:
        """The texts that end a name."""
        endings = []
        for length in self._lengths:
            if length > len(name):
                break
            if (ending := name[len(name) - length :]) in self._texts:
                endings.append(ending)
        return endings

    def end(self, name: str) -> bool:
        """One of the texts ends a name."""
        return bool(self.of(name))


def unmatched(entries: Iterable[str], names: Iterable[str]) -> list[str]:
    """The entries that end none of the names."""
    entries = list(entries)
    endings = Endings(entries)
    matched = {entry for name in names for entry in endings.of(name)}
    return [entry for entry in entries if entry not in matched]


def missing(entries: Iterable[str], names: Iterable[str], task_type: str | None) -> list[str]:
    """The entries that end none of the names, without those that PEFT itself adds to each other.

    Of `classifier` and `score`, which it saves for a classifier, a model has one. That it has neither is another matter: the
    head of a sequence classifier then stays random.
    """
    entries, names = list(entries), list(names)
    absent = unmatched(entries, names)
    heads = heads_of(task_type)
    own = task_type == "SEQ_CLS" or len(unmatched(heads, names)) < len(heads)
    return [entry for entry in absent if entry not in heads] if own else absent


def heads_of(task_type: str | None) -> tuple[str, ...]:
    """The heads that PEFT saves by itself for a task type."""
    return _HEADS.get(task_type or "", ())


def copied_modules(model: ModelMap, entries: Sequence[str], wraps: Mapping[str, int]) -> Copied:
    """The modules that PEFT copies.

    Args:
        model: The map of the model.
        entries: `modules_to_save`, with what the task type adds.
        wraps: The modules that carry an adapter, of their own or of their parameters, with the number of wrappers
            around each: PEFT puts as many `base_layer` into the names of what lies below.
    """
    if not entries:
        return Copied()
    ends = Endings(entries)
    outer: list[str] = []
    nested: list[str] = []
    inside: set[str] = set()
    paths: dict[str, str] = {}
    for module in model.modules:
        name = module.name
        owner, _, leaf = name.rpartition(".")
        path = f"{paths.get(owner, owner)}.{leaf}" if owner else leaf
        below = owner in inside
        if below:
            inside.add(name)
        count = wraps.get(name, 0)
        if count:
            paths[name] = path + ".base_layer" * count
            if ends.end(path) or (count > 1 and ends.end("base_layer")):
                return Copied(refusal=reasons.SAVED_WRAPPED.about(name))
        elif owner in paths:
            paths[name] = path
        if not ends.end(paths.get(name, path)):
            continue
        if module.class_name in _CONTAINERS:
            return Copied(refusal=reasons.SAVED_CONTAINER.about(name, class_name=module.class_name))
        if owner in wraps:
            return Copied(refusal=reasons.SAVED_BELOW_ADAPTER.about(name))
        inside.add(name)
        (nested if below else outer).append(name)
    if wraps and any(map(ends.end, (*_INSIDE_ADAPTERS, "default"))):
        shown = ", ".join(map(repr, entries[:_MOST_ENTRIES])) + (", …" if len(entries) > _MOST_ENTRIES else "")
        return Copied(refusal=reasons.SAVED_WITHIN_ADAPTERS.about(entries=shown))
    return Copied(modules=tuple(outer + _aliases(model, ends)), nested=tuple(nested))


def _aliases(model: ModelMap, ends: Endings) -> list[str]:
    """Modules that match under a second name, which PEFT copies again.

    A module that is registered twice has one entry in the map; its second name shows in the names of its tensors.
    """
    owners: dict[str, str] = {}
    for group in model.ties:
        owner = group[0].rpartition(".")[0]
        for name in group[1:]:
            alias = name.rpartition(".")[0]
            if alias and alias not in model.module_by_name and ends.end(alias):
                owners[alias] = owner
    return list(owners.values())
