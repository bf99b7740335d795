"""Which modules and parameters the names in a configuration match.

A name is the dotted name of a module relative to the model, as `named_modules()` gives it. A list entry matches it if
it is the name itself or ends it after a dot; entries are never regular expressions. A string is one regular expression
that must match the whole name. All patterns are compiled once, and list entries are looked up in a set, so that
matching is linear in the number of names whatever the length of the list.
"""

from __future__ import annotations

import bisect
import enum
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.model.types import ModelMap
from lorascope.peft_rules import reasons
from lorascope.peft_rules.name_patterns import BadPatternError, Pattern, compiled
from lorascope.peft_rules.quantization import is_repacked
from lorascope.peft_rules.rank_pattern import masked
from lorascope.peft_rules.releases import Release
from lorascope.peft_rules.types import AdapterConfig

ALL_LINEAR = "all-linear"
# PEFT lets this one string match nothing without an error.
DUMMY_TARGET = "dummy-target-modules"
SEQUENCE_CLASSIFICATION_HEADS = ("score", "classifier")
# From this many list entries on, PEFT replaces the list by shorter suffixes (MIN_TARGET_MODULES_FOR_OPTIMIZATION).
CONDENSED_FROM = 20
# So many letters of a setting stand in a message.
_MOST_SHOWN = 200

_Q_V = ("q_proj", "v_proj")
_QUERY_VALUE = ("query", "value")

# TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING: what PEFT adapts where target_modules is None.
_DEFAULTS: Mapping[str, str | tuple[str, ...]] = {
    "t5": ("q", "v"),
    "mt5": ("q", "v"),
    "bart": _Q_V,
    "gpt2": ("c_attn",),
    "bloom": ("query_key_value",),
    "blip-2": ("q", "v", "q_proj", "v_proj"),
    "opt": _Q_V,
    "gptj": _Q_V,
    "gpt_neox": ("query_key_value",),
    "gpt_neo": _Q_V,
    "bert": _QUERY_VALUE,
    "roberta": _QUERY_VALUE,
    "xlm-roberta": _QUERY_VALUE,
    "electra": _QUERY_VALUE,
    "deberta-v2": ("query_proj", "value_proj"),
    "deberta": ("in_proj",),
    "layoutlm": _QUERY_VALUE,
    "llama": _Q_V,
    "llama4": _Q_V,
    "chatglm": ("query_key_value",),
    "gpt_bigcode": ("c_attn",),
    "mpt": ("Wqkv",),
    "RefinedWebModel": ("query_key_value",),
    "RefinedWeb": ("query_key_value",),
    "falcon": ("query_key_value",),
    "btlm": ("c_proj", "c_attn"),
    "codegen": ("qkv_proj",),
    "mistral": _Q_V,
    "mixtral": _Q_V,
    "stablelm": _Q_V,
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "gemma": _Q_V,
    "gemma2": _Q_V,
    "gemma3_text": _Q_V,
    "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
    "qwen2": _Q_V,
    "qwen3": _Q_V,
    "rwkv": ("key", "value", "receptance", "output"),
    "rwkv7": ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value"),
}
_NEMOTRON = ("q_proj", "k_proj", "v_proj", "o_proj")


class Match(enum.Enum):
    """What the configuration says of one module name."""

    NO = "no"
    EXACT = "exact"
    SUFFIX = "suffix"
    REGEX = "regex"
    EXCLUDED = "excluded"
    OTHER_LAYER = "other layer"
    NO_LAYER = "no layer"

    @property
    def targeted(self) -> bool:
        """The module gets an adapter."""
        return self in (Match.EXACT, Match.SUFFIX, Match.REGEX)


def default_targets(model_type: str, release: Release) -> str | frozenset[str] | None:
    """PEFT's default targets for a model type, or None."""
    if model_type == "nemotron_h" and release >= (0, 20):  # The row came with 0.20.
        return frozenset(_NEMOTRON)
    if model_type == "gemma4" and release < (0, 19):  # The row came with 0.19.
        return None
    row = _DEFAULTS.get(model_type)
    return frozenset(row) if isinstance(row, tuple) else row


def all_linear_targets(model: ModelMap, task_type: str | None) -> frozenset[str]:
    """The full names that `all-linear` stands for (`_maybe_include_all_linear_layers`).

    Every linear layer of every tower, without the output embedding; where the model has none, without the head of a
    sequence classifier, but only if the task type says that it is one. What GPTQModel holds is no linear layer to PEFT.
    """
    linear = (module for module in model.modules if module.kind in ("linear", "conv1d"))
    names = {module.name for module in linear if not is_repacked(module.quantization)}
    if model.output_embeddings:
        names.discard(model.output_embeddings)
    elif task_type == "SEQ_CLS" and model.model_type:
        head = next((name for name in SEQUENCE_CLASSIFICATION_HEADS if name in model.module_by_name), None)
        names.discard(head or "")
    return frozenset(names)


def dotted_suffixes(name: str, parts: int | None = None) -> list[str]:
    """Proper suffixes after a dot, shortest first, at most `parts` parts long."""
    suffixes: list[str] = []
    at = name.rfind(".")
    while at >= 0 and (parts is None or len(suffixes) < parts):
        suffixes.append(name[at + 1 :])
        at = name.rfind(".", 0, at)
    return suffixes


class NameSet:
    """List entries: each matches a name, or its end after a dot."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = frozenset(entries)
        self._parts = max((entry.count(".") + 1 for entry in self.entries), default=0)

    def has(self, name: str) -> bool:
        """The name is an entry, or ends with one."""
        return name in self.entries or self.ends(name)

    def ends(self, name: str) -> bool:
        """The name ends with an entry after a dot."""
        at = name.rfind(".")
        for _ in range(self._parts):
            if at < 0:
                return False
            if name[at + 1 :] in self.entries:
                return True
            at = name.rfind(".", 0, at)
        return False

    def hits(self, name: str) -> list[str]:
        """The entries that match the name."""
        return [text for text in (name, *dotted_suffixes(name, self._parts)) if text in self.entries]


class Substrings:
    """A search for thousands of texts within names at once.

    Args:
        texts: Whatever a file holds in the place of the list.

    Raises:
        TypeError: It is no list.
    """

    def __init__(self, texts: Iterable[object]) -> None:
        # Python tries them in order, and raises at the first that is not a string.
        before: list[str] = []
        self._faulty = False
        for text in texts:
            if not isinstance(text, str):
                self._faulty = True
                break
            before.append(text)
        # A text that begins with another adds nothing. Of the others, the last that sorts no later than the rest of a
        # name is the only one that the rest can begin with.
        self._sorted: list[str] = []
        for text in sorted(before):
            if not self._sorted or not text.startswith(self._sorted[-1]):
                self._sorted.append(text)
        self._known: dict[str, bool] = {}

    def within(self, name: str) -> bool:
        """One of the texts is part of the name.

        Raises:
            TypeError: None is, before the first entry that is not a string.
        """
        inside = self._known.get(name)
        if inside is None:
            inside = self._known[name] = any(map(self._starts, (name[at:] for at in range(len(name) or 1))))
        if self._faulty and not inside:
            raise TypeError("an entry is not a string")
        return inside

    def _starts(self, rest: str) -> bool:
        at = bisect.bisect_right(self._sorted, rest)
        return at > 0 and rest.startswith(self._sorted[at - 1])


class _SavedNames:
    """Modules that `modules_to_save` keeps free of adapters, with all below.

    PEFT puts one entry after the other raw into a regular expression, and stops at the first that matches. An entry
    that is one plain word is one component of the name.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._words: dict[str, int] = {}
        # Of entries of words and dots: length -> where its dots stand, which are any character -> text -> place.
        self._dotted: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
        self._others: list[tuple[int, str]] = []
        # Of the others, as they are tried: PEFT never compiles one behind the first that matches.
        self._compiled: dict[int, Pattern] = {}
        for place, entry in enumerate(entries):
            if re.fullmatch(r"\w+", entry):
                self._words.setdefault(entry, place)
            elif re.fullmatch(r"[\w.-]+", entry):
                dots = tuple(at for at, letter in enumerate(entry) if letter == ".")
                self._dotted.setdefault(len(entry), {}).setdefault(dots, {}).setdefault(entry, place)
            else:
                self._others.append((place, entry))
        self._none = len(entries)

    def has(self, name: str) -> bool:
        """The name is one of them.

        Raises:
            BadPatternError: PEFT would try an entry that is not a regular expression.
        """
        first = min(self._literal_places(name), default=self._none)
        for place, entry in self._others:
            if place >= first:
                break
            pattern = self._compiled.get(place)
            if pattern is None:
                pattern = self._compiled[place] = compiled(rf"(^|.*\.){entry}($|\..*)", "modules_to_save")
            if pattern.match(name):
                return True
        return first < self._none

    def _literal_places(self, name: str) -> Iterator[int]:
        if self._words:
            yield from (self._words[part] for part in name.split(".") if part in self._words)
        if not self._dotted:
            return
        ends = [at for at, letter in enumerate(name) if letter == "."] + [len(name)]
        for start in (0, *(at + 1 for at in ends[:-1])):
            for end in ends:
                for dots, texts in self._dotted.get(end - start, {}).items():
                    if (place := texts.get(masked(name[start:end], dots))) is not None:
                        yield place


class LayerFilter:
    """`layers_to_transform` and `layers_pattern`: the layer of each name."""

    def __init__(
        self, layers: int | tuple[int, ...] | None, pattern: str | tuple[str, ...] | None, release: Release
    ) -> None:
        self.wanted = frozenset([layers]) if isinstance(layers, int) else frozenset(layers or ())
        # An empty list means all layers, as None does; the number 0 means layer 0.
        self.active = layers is not None and (isinstance(layers, int) or len(layers) > 0)
        self._given = [pattern] if isinstance(pattern, str) and pattern else list(pattern or ())
        self._texts = self._expressions(release) if self.active else []
        # An expression of one plain word matches names that have it between their dots: word -> its first place.
        self._words: dict[str, int] = {}
        self._others: list[int] = []
        self._compiled: dict[int, Pattern] = {}
        for place, text in enumerate(self._given or [""]):
            if re.fullmatch(r"[\w-]+", text):
                self._words.setdefault(text, place)
            else:
                self._others.append(place)
        # Up to 0.20 PEFT reads the first group, which is the user's own if the pattern has one; 0.21 names its group.
        self._group: int | str = "idx" if release >= (0, 21) else 1

    def _expressions(self, release: Release) -> list[str]:
        # Up to 0.19 PEFT takes the last number (on unfused experts that is the expert), later the first; up to 0.20 it
        # does not find a pattern at the very start of the name ("layers.0.…").
        lead = r".*" if release < (0, 20) else r".*?"
        index = r"(?P<idx>\d+)" if release >= (0, 21) else r"(\d+)"
        if not self._given:
            return [rf"{lead}\.[^.]*\.{index}\."]
        start = r"(?:^|.*?\.)" if release >= (0, 21) else rf"{lead}\."
        return [rf"{start}{text}\.{index}\." for text in self._given]

    def index(self, name: str) -> int | None:
        """The layer that PEFT reads from a name, or None.

        Raises:
            BadPatternError: A pattern that PEFT tries is not a regular expression, or a group of it is in the way of the
                number.
        """
        if not self._texts:
            return None
        words = {self._words[word] for word in name.split(".") if word in self._words} if self._words else ()
        for place in heapq.merge(sorted(words), self._others):
            pattern = self._compiled.get(place)
            if pattern is None:
                pattern = self._compiled[place] = compiled(self._texts[place], "layers_pattern")
            match = pattern.match(name)
            if match is not None:
                text = match.group(self._group)
                try:
                    return int(text or "")
                except (TypeError, ValueError) as error:
                    given = ", ".join(self._given)[:_MOST_SHOWN]
                    raise BadPatternError(reasons.NO_LAYER_NUMBER.about(pattern=given, text=text)) from error
        return None


class ModuleMatcher:
    """Decides over one module name after the other (`check_target_module_exists`).

    Args:
        targets: A regular expression, list entries, or None for no module at all.
        config: For `exclude_modules`, `layers_to_transform` and `layers_pattern`.
        saved: `modules_to_save`, with what the task type adds before PEFT matches.
        release: PEFT's release.

    Raises:
        BadPatternError: A pattern is not a regular expression.
    """

    def __init__(
        self, targets: str | frozenset[str] | None, config: AdapterConfig, saved: Sequence[str], release: Release
    ) -> None:
        self.names = NameSet(()) if targets is None or isinstance(targets, str) else NameSet(targets)
        self._pattern = compiled(targets, "target_modules") if isinstance(targets, str) else None
        exclude = config.exclude_modules
        self._exclude_pattern = compiled(exclude, "exclude_modules") if isinstance(exclude, str) and exclude else None
        self._exclude_names = NameSet(exclude) if exclude and not isinstance(exclude, str) else None
        self._saved = _SavedNames(saved) if saved else None
        self.layers = LayerFilter(config.layers_to_transform, config.layers_pattern, release)

    def match(self, name: str) -> Match:
        """Match one module name; never the root's."""
        if self._exclude_pattern is not None and self._exclude_pattern.fullmatch(name):
            return Match.EXCLUDED
        if self._exclude_names is not None and self._exclude_names.has(name):
            return Match.EXCLUDED
        if self._saved is not None and self._saved.has(name):
            return Match.EXCLUDED
        if self._pattern is not None:
            return Match.REGEX if self._pattern.fullmatch(name) else Match.NO
        # A full name counts at once: layers_to_transform is not looked at.
        if name in self.names.entries:
            return Match.EXACT
        if not self.names.ends(name):
            return Match.NO
        if not self.layers.active:
            return Match.SUFFIX
        index = self.layers.index(name)
        if index is None:
            return Match.NO_LAYER
        return Match.SUFFIX if index in self.layers.wanted else Match.OTHER_LAYER


def condensed_targets(targets: frozenset[str], names: Sequence[str]) -> frozenset[str]:
    """Shorten a long list to the suffixes that tell its names apart.

    Args:
        targets: The list entries.
        names: All names of `named_modules()`, the root's empty one included.

    Raises:
        BadPatternError: One entry is the empty string, on which PEFT stops.
    """
    if len(targets) < CONDENSED_FROM:
        return targets
    if "" in targets:
        raise BadPatternError(reasons.EMPTY_NAME.about())
    matcher = NameSet(targets)
    # Only suffixes of the targets are ever looked up, and those are at most this long.
    parts = max(target.count(".") + 1 for target in targets)
    taken: set[str] = set()
    for name in names:
        if not matcher.has(name):
            taken.add(name)
            taken.update(dotted_suffixes(name, parts))
    chosen: set[str] = set()
    longest = 0
    for target in sorted(targets, key=_by_suffixes):
        # A suffix longer than all chosen ones is none of them, and one longer than all names is free.
        if any(suffix in chosen for suffix in _growing_suffixes(target, longest) if suffix != target):
            continue
        free = next(
            (suffix for suffix in _growing_suffixes(target) if suffix not in chosen and suffix not in taken), None
        )
        if free is not None:
            chosen.add(free)
            longest = max(longest, len(free))
    return frozenset(chosen) if chosen and len(chosen) < len(targets) else targets


def _by_suffixes(target: str) -> tuple[str, ...]:
    """Sort key: the list of a name's suffixes, shortest first."""
    leaf, *words = reversed(target.split("."))
    return leaf, *(f"{word}." for word in words)


def _growing_suffixes(name: str, longest: int | None = None) -> Iterator[str]:
    """Suffixes after a dot, shortest first, then the name; up to a length."""
    at = name.rfind(".")
    while at >= 0:
        if longest is not None and len(name) - at - 1 > longest:
            return
        yield name[at + 1 :]
        at = name.rfind(".", 0, at)
    if longest is None or len(name) <= longest:
        yield name


def parameter_names(model: ModelMap) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """All parameters in `named_parameters()` order: owner, full name, stored shape.

    A tensor that has several names appears under each of them.
    """
    yield from (("", name, shape) for name, shape in model.root_parameters)
    for module in model.modules:
        yield from ((module.name, f"{module.name}.{name}", shape) for name, shape in module.parameters)
