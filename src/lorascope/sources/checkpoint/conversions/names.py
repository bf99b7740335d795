"""Renames checkpoint names by conversion rules, a template at a time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.sources.checkpoint.conversions.table import ConversionRule


@cache
def source_pattern(sources: tuple[str, ...]) -> re.Pattern[str]:
    """The expression that finds any of a rule's sources.

    Group `g2` is the third, as in `WeightTransform.__init__`.
    """
    branches = []
    for index, source in sorted(enumerate(sources), key=lambda item: -len(item[1])):
        pattern = source.replace("*.", r".*\.")
        if re.search(r"[a-zA-Z0-9]$", pattern):
            pattern += r"(?!\w)"  # it ends where a word ends
        branches.append(f"(?P<g{index}>{pattern})")
    return re.compile("|".join(branches))


def _scoped(rule: ConversionRule, key: str) -> tuple[str, str] | None:
    """The sub-model's prefix and the rest; None for other parts."""
    if rule.scope is None:
        return "", key
    scope = f"{rule.scope}." if rule.scope else ""
    base = f"{rule.base_model_prefix}." if rule.base_model_prefix else ""
    prefix = base + scope if key.startswith(base + scope) else scope
    return (prefix, key[len(prefix) :]) if key.startswith(prefix) else None


def _apply(rule: ConversionRule, key: str, active: set[ConversionRule]) -> tuple[str, str | None]:
    """A key after one rule, and the source that matched.

    Args:
        rule: The rule.
        key: The key.
        active: The groups whose first pattern has been seen; changed here.
    """
    scoped = _scoped(rule, key)
    if scoped is None:
        return key, None
    prefix, rest = scoped
    expression = source_pattern(rule.sources)
    match = expression.search(rest)
    if match is None or match.lastgroup is None:
        return key, None
    index, captured = int(match.lastgroup[1:]), expression.groupindex[match.lastgroup]
    target = rule.targets[0]
    if rule.kind == "pair":
        number, word = int(match.group(captured + 1)), match.group(captured + 2)
        target = f"layers.{number // 2}.{dict(rule.words).get(word, rule.targets[number % 2])}"
    elif rule.kind == "group":
        if index == 0:
            active.add(rule)
        elif rule not in active:
            return key, None
        target = re.sub(r"\\(\d+)", lambda number: match.group(captured + int(number.group(1))), rule.targets[index])
    elif r"\1" in target:
        value = match.group(captured + 1)
        target = target.replace(r"\1", str(int(value) + rule.offset) if rule.kind == "offset" else value)
    return prefix + rest.replace(match.group(0), target, 1), rule.sources[index]


# A name's template is the texts around its numbers. For the rules, the numbers are then digits of another script: one
# character each, which `\d`, `\w` and `.` match as they match the number itself, and which no pattern means literally.
_NUMBER = re.compile(r"\.([0-9]+)(?=\.)")
_LAST_NUMBER = re.compile(r"(.*)\.([0-9]+)(\..*)", re.DOTALL)
_MARKS = "٠١٢٣٤٥٦٧٨٩"


@dataclasses.dataclass(frozen=True, slots=True)
class _Renamed:
    """Renaming of all names of one template.

    Attributes:
        text: A format for the new name.
        pattern: The converter's source that matched, or empty.
        kept: Which of a name's numbers the text takes, in this order.
        merged: Which it does not take.
    """

    text: str
    pattern: str
    kept: tuple[int, ...]
    merged: tuple[int, ...]


class _Renaming:
    """The rules as a function of a name or a template."""

    def __init__(self, rules: Sequence[ConversionRule]) -> None:
        # At most one converter applies, after all renamings.
        self._renames = [rule for rule in rules if rule.kind != "convert"]
        self._converters = [rule for rule in rules if rule.kind == "convert"]
        self._active: set[ConversionRule] = set()

    def of_template(self, texts: Sequence[str]) -> _Renamed | None:
        """Renaming of a template; None where numbers or order matter."""
        marks = _MARKS[: len(texts) - 1]
        if len(texts) > len(_MARKS) or any(mark in text for mark in _MARKS for text in texts):
            return None
        key = texts[0] + "".join(f".{mark}{text}" for mark, text in zip(marks, texts[1:], strict=True))
        pattern = ""
        for rule in (*self._renames, *self._converters):
            if _minds_numbers(rule, key):
                return None
            key, matched = _apply(rule, key, {rule})
            if matched is not None and rule.kind == "convert":
                pattern = matched
                break
            if matched is not None and rule.kind != "rename":
                return None
        kept = tuple(i for i, mark in enumerate(marks) if mark in key)
        text = key.replace("{", "{{").replace("}", "}}")
        for position, i in enumerate(kept):
            text = text.replace(marks[i], f"{{{position}}}")
        return _Renamed(text, pattern, kept, tuple(i for i in range(len(marks)) if i not in kept))

    def of_name(self, name: str) -> tuple[str, str]:
        """Renaming of one name; names must come in natural order."""
        key = name
        for rule in self._renames:
            key, _ = _apply(rule, key, self._active)
        for rule in self._converters:
            key, pattern = _apply(rule, key, self._active)
            if pattern is not None:
                return key, pattern
        return key, ""


def _minds_numbers(rule: ConversionRule, template: str) -> bool:
    """The rule may mean one of the template's numbers literally."""
    if rule.scope and any(part.isdigit() for part in rule.scope.split(".")):
        return True
    loose = _loose(rule.sources)
    scoped = _scoped(rule, template) if loose else None
    return bool(loose and scoped and loose.search(scoped[1]))


@cache
def _loose(sources: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds at least what sources with literal numbers find."""
    literal = r"(?<![A-Za-z_\d])\d+"  # a digit after a letter is part of a word: `w1`, `conv2d`
    plain = [source.replace(r"\d", "@") for source in sources]
    patterns = []
    for source in (source for source in plain if re.search(literal, source)):
        loose = re.sub(r"\(\?<?[!=][^()]*\)", "", source)  # what must not stand beside it
        loose = re.sub(r"\[[^]]*\d[^]]*\]", "@", loose)
        patterns.append(re.sub(r"\d+", "@+", loose).replace("@+", r"\d+").replace("@", r"\d").replace("*.", r".*\."))
    return re.compile("|".join(patterns)) if patterns else None


def natural_key(name: str) -> list[tuple[Any, ...]]:
    """Sort key of transformers' `dot_natural_key`."""
    key: list[tuple[Any, ...]] = []
    for part in name.split("."):
        text = part.rstrip("0123456789")
        digits = part[len(text) :]
        key.append((0, int(part)) if part.isdecimal() else (1, text, int(digits)) if digits else (1, text))
    return key


# Tensors by name, each with the numbers that its new name lacks.
Members = list[tuple[tuple[str, ...], str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Tensors that one pattern brings to one name."""

    renamed: str
    pattern: str
    members: Members


def _templates(names: Iterable[str]) -> dict[tuple[str, ...], list[tuple[tuple[str, ...], Members]]]:
    """Names by template, as series that differ in the last number.

    A series comes with the numbers before, and each of its names with the last. So only what its names have in common is
    looked for further numbers, and not each of 90,000 names.
    """
    series: defaultdict[tuple[str, str], Members] = defaultdict(list)
    for name in names:
        cut = _LAST_NUMBER.fullmatch(name)
        before, number, after = cut.groups() if cut else (name, "", "")
        series[before, after].append(((number,) if cut else (), name))
    templates: defaultdict[tuple[str, ...], list[tuple[tuple[str, ...], Members]]] = defaultdict(list)
    for (before, after), members in series.items():
        if not after:
            templates[(before,)].append(((), members))
            continue
        *pieces, text = _NUMBER.split(f"{before}.")
        templates[(*pieces[::2], text.removesuffix("."), after)].append((tuple(pieces[1::2]), members))
    return templates


def grouped(names: Iterable[str], rules: Sequence[ConversionRule]) -> Iterator[Group]:
    """The names as the rules rename them."""
    renaming = _Renaming(rules)
    one_by_one: list[str] = []
    for texts, series in _templates(names).items():
        renamed = renaming.of_template(texts)
        if renamed is None:
            one_by_one += [name for _, members in series for _, name in members]
            continue
        groups: defaultdict[tuple[str, ...], Members] = defaultdict(list)
        for before, members in series:
            if renamed.merged == (len(before),):  # the last number alone, as of experts
                groups[before] += members
                continue
            for last, name in members:
                numbers = before + last
                merged = tuple([numbers[i] for i in renamed.merged])
                groups[tuple([numbers[i] for i in renamed.kept])].append((merged, name))
        for kept, group in groups.items():
            yield Group(renamed.text.format(*kept), renamed.pattern, group)
    for name in sorted(one_by_one, key=natural_key):
        yield Group(*renaming.of_name(name), [((), name)])
