"""Ranks, alphas and the patterns that give some weights their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from lorascope.checks.context import Case
from lorascope.checks.entries import MOST_EXPLAINED, Asked, cut, in_quotes, some_in_quotes
from lorascope.errors import alike
from lorascope.findings import Finding
from lorascope.foreign_text import literal
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.name_patterns import BadPatternError, cheap_matches
from lorascope.peft_rules.rank_pattern import PatternTable

_PREFIX = "base_model.model."
_MOST_NAMED = 4
# Scales that differ by less than this are what people choose between anyway.
_WIDE = 4.0
_ALIKE = 0.75
_LONGEST_TAIL = 200
# Below this, adapters hardly change anything at the usual learning rates; published recipes have 0.5 to 4.
_SMALL = 0.25
_DEFAULT_ALPHA = 8


def size_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`rank-invalid`, `pattern-prefix`, `pattern-unmatched`, `pattern-shadowed`, `pattern-false-alarm` and `scale`."""
    yield from _invalid(case)
    for setting in ("rank_pattern", "alpha_pattern"):
        yield from _pattern(case, asked, setting)
    alarms = dict.fromkeys(
        name for one in case.resolution.warnings if one.code == "pattern-false-alarm" for name in one.names
    )
    if alarms:
        message = (
            f"PEFT will warn that the keys {some_in_quotes(alarms)} were ignored. They are not: they match parameters."
        )
        yield Finding("pattern-false-alarm", "note", "rank_pattern, alpha_pattern", message, "Nothing to do.")
    yield from _scales(case)


def _invalid(case: Case) -> Iterator[Finding]:
    config, told = case.config, False
    if config.r <= 0:
        told = True
        message = f"r is {config.r}, and PEFT takes positive ranks only."
        yield Finding("rank-invalid", "error", "r", message, "Give r=8, say.")
    zero = [key for key, rank in config.rank_pattern.items() if rank <= 0]
    if zero:
        refused = case.resolution.cause == "rank-invalid"
        told = told or refused
        message = f"rank_pattern gives {some_in_quotes(zero)} a rank of 0 or less, which does not switch an adapter off: PEFT "
        message += "refuses it." if refused else "would refuse it if it matched an adapted weight."
        words = list(dict.fromkeys(_leaf(key) for key in zero))
        fix = f"To leave weights out, give exclude_modules=[{some_in_quotes(words)}] instead."
        yield Finding("rank-invalid", "error" if refused else "warning", "rank_pattern", message, fix)
    if case.resolution.cause == "rank-invalid" and not told:
        groups = re.search(r"with (\d+) groups", case.resolution.error)
        fix = f"Leave it out of the targets, or give a rank that is a multiple of {groups[1] if groups else 'its groups'}."
        yield Finding("rank-invalid", "error", "r", case.resolution.error, fix)


def _pattern(case: Case, asked: Asked, setting: str) -> Iterator[Finding]:
    given: Mapping[str, float] = getattr(case.config, setting)
    names = [one.name for one in case.resolution.adapted]
    prefixed = [key for key in given if key.lstrip("^").replace("\\.", ".").startswith(_PREFIX)]
    if prefixed:
        short = [re.sub(r"^\^?base_model\\?\.model\\?\.", "", key) for key in prefixed]
        message = f"{some_in_quotes(prefixed)} match nothing: keys are names in the model, without {_PREFIX}"
        yield Finding("pattern-prefix", "warning", setting, message, f"Write {some_in_quotes(short)}.")
    if not names or not given:
        return
    set_aside = set(prefixed)
    try:
        table = PatternTable(given, setting)
        unmatched = [key for key in table.unmatched(names) if key not in set_aside]
        used = {key for name in names if (key := table.key(name)) is not None}
    except BadPatternError:  # Said by its own finding.
        return
    if rest := unmatched[MOST_EXPLAINED:]:
        message = f"{in_quotes(rest[:_MOST_NAMED])} and {max(0, len(rest) - _MOST_NAMED):,} more match no adapted weight either."
        yield Finding("pattern-unmatched", "warning", setting, message, "Take them out.")
    for key in unmatched[:MOST_EXPLAINED]:
        why, fix = _unmatched(case, asked, key, names)
        message = f'"{cut(key)}" matches no adapted weight, so that none gets {given[key]:g}. {why}'.rstrip()
        yield Finding("pattern-unmatched", "warning", setting, message, fix)
    told = {*unmatched, *prefixed, *used, *(key for key, _ in table.bad())}
    yield from _shadowed(given, table, setting, names, [key for key in given if key not in told])
    yield from _reordered(given, setting, names)


def _unmatched(case: Case, asked: Asked, key: str, names: list[str]) -> tuple[str, str]:
    # The rewrite for fused experts takes the old names away.
    moved = {entry.text: entry.rewritten for entry in asked.modules if entry.rewritten}
    leaf = re.split(r"\W+", key.rstrip("$)*+.")[-_LONGEST_TAIL:])[-1]
    if leaf in moved:
        return f"PEFT makes {moved[leaf]} of {leaf} on this model type.", f"Write {literal(moved[leaf])}."
    below = _matching(rf"(.*\.)?({key})\..*", names)
    if below:
        return (
            "A key must reach the end of the name, and these names go on.",
            f"Write {literal(f'{key}[.].*')}, which matches {len(below)} of the adapted weights.",
        )
    if _matching(rf".*({key})$", names):
        return "A key starts at the beginning of a name or after a dot.", f"Write {literal('.*' + key.lstrip('^'))}."
    if (len(key) <= _LONGEST_TAIL and key.startswith(("*", "+", "?"))) or (re.search(r"(?<![.)\]])\*", key)):
        pattern = re.sub(r"(?<![.)\]])\*", ".*", key)
        return "Keys are regular expressions, in which * alone stands for nothing.", f"Write {literal(pattern)}."
    everything = [peft_name(case.model, weight) for weight in case.model.weights]
    if hit := _matching(rf"(.*\.)?({key})$", everything):
        return (
            f"It matches {listed(hit, 2)}, which the targets do not.",
            "Add that to the targets, or take the key out.",
        )
    leaves = sorted({name.rpartition(".")[2] for name in names})
    near = alike(leaf, leaves, 1, _ALIKE)
    if near:
        return "", f"Did you mean {literal(near[0])}?"
    return "", f"The adapted weights end in {', '.join(leaves[:_MOST_NAMED])}."


def _matching(pattern: str, names: list[str]) -> list[str]:
    return cheap_matches(pattern, names, "match")


def _leaf(key: str) -> str:
    """The last word of a key."""
    words = re.findall(r"\w+", key[-_LONGEST_TAIL:])
    return words[-1] if words else key[-_LONGEST_TAIL:]


def _shadowed(
    given: Mapping[str, float], table: PatternTable[float], setting: str, names: list[str], shadowed: list[str]
) -> Iterator[Finding]:
    """Keys that match, and of all of whose weights an earlier key is taken."""
    for key in shadowed[:MOST_EXPLAINED]:
        alone = PatternTable({key: given[key]}, setting)
        hit = [name for name in names if alone.key(name) is not None]
        winners = [winner for winner in dict.fromkeys(table.key(name) for name in hit) if winner is not None]
        if all(given[winner] == given[key] for winner in winners):
            continue
        message = (
            f'"{cut(key)}" never counts: PEFT takes the first key that matches, and {in_quotes(winners[:_MOST_NAMED])} stands '
            f"before it and matches all {len(hit)} of its weights, so that they get "
            f"{', '.join(f'{given[winner]:g}' for winner in winners[:_MOST_NAMED])} and not {given[key]:g}."
        )
        # Saving sorts the keys, so an order alone would not last.
        fix = f"Put {literal(key)} first, and write keys that do not overlap if the adapter is to be saved: PEFT sorts them."
        yield Finding("pattern-shadowed", "warning", setting, message, fix)


def _reordered(given: Mapping[str, float], setting: str, names: list[str]) -> Iterator[Finding]:
    """PEFT writes `adapter_config.json` with sorted keys, so that another key may be first when it is read again."""
    if len(given) < 2 or list(given) == sorted(given):
        return
    before, after = PatternTable(given, setting), PatternTable(dict(sorted(given.items())), setting)
    try:
        changed = [n for n in names if (old := before.key(n)) and (new := after.key(n)) and given[old] != given[new]]
    except BadPatternError:  # Said by its own finding.
        return
    if not changed:
        return
    old, new = before.key(changed[0]), after.key(changed[0])
    assert old is not None
    assert new is not None
    does = "cannot be loaded" if setting == "rank_pattern" else "is scaled otherwise"
    message = (
        f'{len(changed)} weights have two keys, such as "{cut(old)}" ({given[old]:g}) and "{cut(new)}" ({given[new]:g}). The first '
        f"counts, and saving sorts them the other way round, so that a saved adapter {does} afterwards."
    )
    fix = f"Let the keys not overlap: make {literal(new)} leave out what {literal(old)} matches."
    yield Finding("pattern-shadowed", "warning", setting, message, fix)


def _scales(case: Case) -> Iterator[Finding]:
    """Scales of nothing, far below what people train with, or that differ because alpha does not follow the rank."""
    scales = {one.scale for one in case.resolution.adapted}
    config = case.config
    if scales and max(scales) == 0:
        message = f"lora_alpha={config.lora_alpha:g} scales every adapter by 0: nothing is trained and nothing changes."
        yield Finding("scale", "error", "lora_alpha", message, f"Give lora_alpha={config.r} or {2 * config.r}.")
        return
    if scales and max(scales) < _SMALL:
        message = f"lora_alpha={config.lora_alpha:g} at rank {config.r} scales every adapter by {max(scales):g}" + (
            ", because PEFT's default alpha is 8 whatever the rank." if config.lora_alpha == _DEFAULT_ALPHA else "."
        )
        fix = f"Give lora_alpha={config.r} or {2 * config.r} for a scale of 1 or 2, if that is not meant."
        yield Finding("scale", "note", "lora_alpha", message, fix)
    if not config.rank_pattern:
        return
    groups: dict[float, list[str]] = {}
    for one in case.resolution.adapted:
        groups.setdefault(one.scale, []).append(one.name)
    if len(groups) < 2 or min(groups) <= 0 or max(groups) / min(groups) < _WIDE:
        return
    alphas = {one.alpha for one in case.resolution.adapted}
    if len(alphas) > 1 and case.config.alpha_pattern:
        return  # Whoever sets both sets the scale.
    said = ", ".join(f"{scale:g} for {listed(names, 1)}" for scale, names in sorted(groups.items())[:_MOST_NAMED])
    message = f"The adapters are scaled differently, because rank_pattern changes the rank and alpha stays: {said}."
    fix = "Give alpha_pattern the same keys, with alphas in proportion, if equal scales are meant."
    yield Finding("scale", "note", "rank_pattern", message, fix)
