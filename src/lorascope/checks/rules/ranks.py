"""Ranks, alphas and the patterns that give some weights their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import cut, in_quotes, some_in_quotes
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import MOST_EXPLAINED, suggest_alike
from lorascope.findings import Finding
from lorascope.foreign_text import literal
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.name_patterns import BadPatternError, cheap_matches
from lorascope.peft_rules.rank_pattern import PatternTable

RANK_INVALID = FindingRule(
    "rank-invalid",
    "error",
    "a rank is not possible",
    "PEFT takes positive ranks only, and for a grouped convolution multiples of its groups.",
)
PATTERN_PREFIX = FindingRule(
    "pattern-prefix",
    "warning",
    "a rank_pattern or alpha_pattern key begins with the prefix that PEFT adds on saving",
    "Keys are names in the model, without `base_model.model.`, so it matches nothing.",
)
PATTERN_UNMATCHED = FindingRule(
    "pattern-unmatched",
    "warning",
    "a rank_pattern or alpha_pattern key matches no adapted weight",
    "The weights that were meant keep the common rank or alpha.",
)
PATTERN_SHADOWED = FindingRule(
    "pattern-shadowed",
    "warning",
    "an earlier key matches first",
    "PEFT takes the first key that matches, and sorts the keys when it saves.",
)
PATTERN_FALSE_ALARM = FindingRule(
    "pattern-false-alarm",
    "note",
    "PEFT will warn of a key that does count",
    "Its check looks at modules only, and the key matches parameters.",
)
SCALE = FindingRule(
    "scale",
    "note",
    "the scale alpha / rank is 0, far below 1, or differs widely between weights",
    "The output of an adapter is multiplied by it.",
)

_PREFIX = "base_model.model."
_MOST_NAMED = 4
# Scales that differ by less than this are what people choose between anyway.
_WIDE = 4.0
_ALIKE = 0.75
_LONGEST_TAIL = 200
# Below this, adapters hardly change anything at the usual learning rates; published recipes have 0.5 to 4.
_SMALL = 0.25
_DEFAULT_ALPHA = 8


@finds(RANK_INVALID)
def find_invalid_ranks(context: CheckContext) -> Iterator[Finding]:
    """Ranks that PEFT refuses, or would refuse."""
    config, explained = context.config, False
    refused = context.refused_as("rank-invalid")
    if config.r <= 0:
        explained = True
        message = f"r is {config.r}, and PEFT takes positive ranks only."
        yield RANK_INVALID.finding("r", message, "Set r=8, for example.")
    zero = [key for key, rank in config.rank_pattern.items() if rank <= 0]
    if zero:
        explained = explained or refused
        consequence = "PEFT refuses it." if refused else "PEFT would refuse it if it matched an adapted weight."
        message = (
            f"rank_pattern sets a rank of 0 or less for {some_in_quotes(zero)}. That does not switch an adapter off: "
            f"{consequence}"
        )
        words = list(dict.fromkeys(_last_word(key) for key in zero))
        fix = f"To leave weights out, set {context.setting('exclude_modules', words)}."
        yield RANK_INVALID.finding("rank_pattern", message, fix, "error" if refused else "warning")
    if refused and not explained:
        groups = context.refusal.values.get("groups", "its groups") if context.refusal else ""
        fix = f"Take it out of the targets, or use a rank that is a multiple of {groups}."
        yield RANK_INVALID.finding("r", context.refusal, fix)


@finds(PATTERN_PREFIX, PATTERN_UNMATCHED, PATTERN_SHADOWED)
def find_idle_keys(context: CheckContext) -> Iterator[Finding]:
    """Keys of `rank_pattern` and `alpha_pattern` that never count."""
    for setting, keys in (
        ("rank_pattern", context.config.rank_pattern),
        ("alpha_pattern", context.config.alpha_pattern),
    ):
        yield from _pattern(context, setting, keys)


def _pattern(context: CheckContext, setting: str, given: Mapping[str, float]) -> Iterator[Finding]:
    names = [*context.sizes]
    prefixed = [key for key in given if key.lstrip("^").replace("\\.", ".").startswith(_PREFIX)]
    if prefixed:
        short = [re.sub(r"^\^?base_model\\?\.model\\?\.", "", key) for key in prefixed]
        message = f"{some_in_quotes(prefixed)} match nothing: keys are names in the model, without {_PREFIX}"
        yield PATTERN_PREFIX.finding(setting, message, f"Use {some_in_quotes(short)}.")
    if not names or not given:
        return
    set_aside = set(prefixed)
    try:
        table = PatternTable(given, setting)
        unmatched = [key for key in table.unmatched(names) if key not in set_aside]
        used = {key for name in names if (key := table.key(name)) is not None}
    except BadPatternError:  # `bad-pattern` says so.
        return
    if rest := unmatched[MOST_EXPLAINED:]:
        many = max(0, len(rest) - _MOST_NAMED)
        message = f"{in_quotes(rest[:_MOST_NAMED])} and {many:,} more match no adapted weight either."
        yield PATTERN_UNMATCHED.finding(setting, message, "Take them out.")
    for key in unmatched[:MOST_EXPLAINED]:
        why, fix = _why_unmatched(context, key, names)
        message = f'"{cut(key)}" matches no adapted weight, so none gets {given[key]:g}. {why}'.rstrip()
        yield PATTERN_UNMATCHED.finding(setting, message, fix)
    explained = {*unmatched, *prefixed, *used, *(key for key, _ in table.bad())}
    shadowed = [key for key in given if key not in explained][:MOST_EXPLAINED]
    yield from _shadowed(given, table, setting, names, shadowed)
    yield from _reordered(given, setting, names)


def _why_unmatched(context: CheckContext, key: str, names: list[str]) -> tuple[str, str]:
    # The rewrite for fused experts takes the old names away.
    rewritten = {entry.text: entry.rewritten for entry in context.entries.modules if entry.rewritten}
    leaf = re.split(r"\W+", key.rstrip("$)*+.")[-_LONGEST_TAIL:])[-1]
    if leaf in rewritten:
        return f"PEFT turns {leaf} into {rewritten[leaf]} on this model type.", f"Use {literal(rewritten[leaf])}."
    below = cheap_matches(rf"(.*\.)?({key})\..*", names, "match")
    if below:
        return (
            "A key must reach the end of the name, and these names go on.",
            f"Use {literal(f'{key}[.].*')}, which matches {len(below)} of the adapted weights.",
        )
    if cheap_matches(rf".*({key})$", names, "match"):
        return "A key starts at the beginning of a name or after a dot.", f"Use {literal('.*' + key.lstrip('^'))}."
    if (len(key) <= _LONGEST_TAIL and key.startswith(("*", "+", "?"))) or re.search(r"(?<![.)\]])\*", key):
        pattern = re.sub(r"(?<![.)\]])\*", ".*", key)
        return "Keys are regular expressions, in which * repeats what is before it.", f"Use {literal(pattern)}."
    everything = [peft_name(context.model, weight) for weight in context.model.weights]
    if matches := cheap_matches(rf"(.*\.)?({key})$", everything, "match"):
        return (
            f"It matches {listed(matches, 2)}, which the targets do not.",
            "Add that to the targets, or take the key out.",
        )
    leaves = sorted({name.rpartition(".")[2] for name in names})
    question = suggest_alike(leaf, leaves, 1, _ALIKE)
    return "", question or f"The adapted weights end in {', '.join(leaves[:_MOST_NAMED])}."


def _last_word(key: str) -> str:
    words = re.findall(r"\w+", key[-_LONGEST_TAIL:])
    return words[-1] if words else key[-_LONGEST_TAIL:]


def _shadowed(
    given: Mapping[str, float], table: PatternTable[float], setting: str, names: list[str], keys: list[str]
) -> Iterator[Finding]:
    """Keys whose weights all match an earlier key."""
    for key in keys:
        alone = PatternTable({key: given[key]}, setting)
        matches = [name for name in names if alone.key(name) is not None]
        winners = [winner for winner in dict.fromkeys(table.key(name) for name in matches) if winner is not None]
        if all(given[winner] == given[key] for winner in winners):
            continue
        first = in_quotes(winners[:_MOST_NAMED])
        values = ", ".join(f"{given[winner]:g}" for winner in winners[:_MOST_NAMED])
        message = (
            f'"{cut(key)}" never counts: PEFT takes the first key that matches. {first} stands before it and matches all '
            f"{len(matches)} of its weights, so they get {values} and not {given[key]:g}."
        )
        # Saving sorts the keys, so an order alone would not last.
        fix = (
            f"Put {literal(key)} first; if the adapter is saved, use keys that do not overlap, because PEFT sorts them."
        )
        yield PATTERN_SHADOWED.finding(setting, message, fix)


def _reordered(given: Mapping[str, float], setting: str, names: list[str]) -> Iterator[Finding]:
    """Keys whose order, and so their effect, changes when PEFT saves them."""
    if len(given) < 2 or list(given) == sorted(given):
        return
    before, after = PatternTable(given, setting), PatternTable(dict(sorted(given.items())), setting)
    try:
        changed = [n for n in names if (old := before.key(n)) and (new := after.key(n)) and given[old] != given[new]]
    except BadPatternError:  # `bad-pattern` says so.
        return
    if not changed:
        return
    old, new = before.key(changed[0]), after.key(changed[0])
    assert old is not None
    assert new is not None
    consequence = "cannot be loaded" if setting == "rank_pattern" else "gets another scale"
    message = (
        f'Two keys match {len(changed)} weights: "{cut(old)}" ({given[old]:g}) and "{cut(new)}" ({given[new]:g}), for '
        f"example. The first one counts, saving sorts them the other way round, and the saved adapter {consequence}."
    )
    fix = f"Change the keys so that they do not overlap: let {literal(new)} leave out what {literal(old)} matches."
    yield PATTERN_SHADOWED.finding(setting, message, fix)


@finds(PATTERN_FALSE_ALARM)
def find_false_alarms(context: CheckContext) -> Iterator[Finding]:
    """Keys that PEFT warns of without a reason."""
    keys = dict.fromkeys(name for warning in context.warnings_of("pattern-false-alarm") for name in warning.names)
    if keys:
        message = f"PEFT will warn that it ignored the keys {some_in_quotes(keys)}. It did not: they match parameters."
        yield PATTERN_FALSE_ALARM.finding("rank_pattern, alpha_pattern", message, "Nothing to do.")


@finds(SCALE)
def find_odd_scales(context: CheckContext) -> Iterator[Finding]:
    """Scales of 0, tiny ones, and ones that differ with the rank."""
    config, adapted = context.config, context.resolution.adapted
    largest = max((weight.scale for weight in adapted), default=None)
    alpha = f"lora_alpha={config.lora_alpha:g}"
    usual = f"Set {context.setting('lora_alpha', config.r)} or {2 * config.r}"
    if largest == 0:
        message = f"{alpha} multiplies every adapter by 0: training changes nothing."
        yield SCALE.finding("lora_alpha", message, f"{usual}.", "error")
        return
    if largest is not None and largest < _SMALL:
        default = "; PEFT's default alpha is 8 whatever the rank" if config.lora_alpha == _DEFAULT_ALPHA else ""
        message = f"{alpha} at rank {config.r} multiplies every adapter by {largest:g}{default}."
        yield SCALE.finding("lora_alpha", message, f"{usual} for a scale of 1 or 2, if that is not meant.")
    if not config.rank_pattern:
        return
    groups: dict[float, list[str]] = {}
    for weight in adapted:
        groups.setdefault(weight.scale, []).append(weight.name)
    if len(groups) < 2 or min(groups) <= 0 or max(groups) / min(groups) < _WIDE:
        return
    if config.alpha_pattern and len({weight.alpha for weight in adapted}) > 1:
        return  # Whoever sets both sets the scale.
    values = ", ".join(f"{scale:g} for {listed(names, 1)}" for scale, names in sorted(groups.items())[:_MOST_NAMED])
    message = f"The scales differ, because rank_pattern changes the rank and alpha stays: {values}."
    fix = "For equal scales, set alpha_pattern with the same keys and alphas in proportion to the ranks."
    yield SCALE.finding("rank_pattern", message, fix)
