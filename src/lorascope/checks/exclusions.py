"""Ways to keep weights out of an adapter, tried before they are suggested."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.checks.context import CheckContext, adapted_sizes
from lorascope.checks.suggestions import pattern_of, plain_pattern, planning_command
from lorascope.errors import LorascopeError
from lorascope.model.types import Weight
from lorascope.names import NUMBER
from lorascope.peft_rules.addresses import peft_name, weight_of
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.matchers import NameSet
from lorascope.peft_rules.name_patterns import compiled
from lorascope.plans.compiler import compile_targets
from lorascope.plans.types import Assignment, Options

_MOST_BRANCHES = 6
# Longer configurations are written by a command instead.
_MOST_LETTERS = 400
_TARGET_KEYS = (
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
)


def excluded_by(pattern: str | Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that an `exclude_modules` of this value takes out.

    Raises:
        BadPatternError: It is not a regular expression.
    """
    if isinstance(pattern, str):
        regex = compiled(pattern, "exclude_modules")
        return [name for name in names if regex.fullmatch(name)]
    entries = NameSet(pattern)
    return [name for name in names if entries.has(name)]


def fix_without(context: CheckContext, weights: Sequence[Weight], others: Sequence[str] = ()) -> str:
    """How to keep weights, and modules that hold none, out."""
    adapted = [peft_name(context.model, weight) for weight in weights]
    return excluding_fix(context, [*adapted, *others], [*(weight.name for weight in weights), *others])


def excluding_fix(context: CheckContext, adapted: Sequence[str], modules: Sequence[str]) -> str:
    """How to keep weights out: settings that were tried, or a command.

    Args:
        context: The configuration on the model.
        adapted: The weights' names as PEFT adapts them.
        modules: Their names as modules.
    """
    unwanted = set(adapted)
    them = "them" if len(unwanted) > 1 else "it"
    wanted = {name: size for name, size in context.sizes.items() if name not in unwanted}
    if not context.is_of_peft:
        command = planning_command(context.model)
        return f"Name other weights in the trainer's own keys; lorascope export writes them from {command}"
    if not wanted:
        return "Nothing to do if only they are meant; otherwise name other weights."
    for value in _candidates(context, modules, wanted):
        if adapted_sizes(context.resolve_with(exclude_modules=value)) == wanted:
            return f"To leave {them} out, set {context.setting('exclude_modules', value)}."
    if arguments := _other_targets(context, wanted):
        return f"To leave {them} out, set {arguments}."
    return f"To leave {them} out, name what you mean, or generate it: {planning_command(context.model)}"


def _candidates(
    context: CheckContext, modules: Sequence[str], wanted: Mapping[str, object]
) -> Iterator[str | tuple[str, ...]]:
    """Values of `exclude_modules` to try: last words, then branches."""
    if not context.syntax.has("exclude_modules"):
        return
    given = context.config.exclude_modules
    leaves = tuple(dict.fromkeys(name.rpartition(".")[2] for name in modules))
    if len(leaves) == 1 and not leaves[0].isdecimal() and not (given and isinstance(given, str)):
        yield (*given, *leaves) if given else leaves
    if branches := _branches(modules, wanted):
        own = [given] if isinstance(given, str) else [pattern_of(given)] if given else []
        yield "|".join([*own, *branches])


def _other_targets(context: CheckContext, sizes: Mapping[str, tuple[int, float]]) -> str:
    """Other targets for exactly these sizes, if they fit on a line."""
    weights = {name: weight_of(context.model, name) for name in sizes}
    targets = [
        Assignment(weight, rank, alpha, 0)
        for name, (rank, alpha) in sizes.items()
        if (weight := weights[name]) is not None
    ]
    config = context.config
    options = Options(dropout=config.lora_dropout, bias=config.bias, rslora=config.use_rslora, dora=config.use_dora)
    if len(targets) != len(sizes):
        return ""
    try:
        arguments = peft_arguments(compile_targets(context.model, targets, options).config)
    except LorascopeError:
        return ""
    given = peft_arguments(config)
    if arguments["r"] != config.r or (config.exclude_modules and "exclude_modules" not in arguments):
        return ""
    changes = [key for key in _TARGET_KEYS if key in arguments and arguments[key] != given.get(key)]
    if not all(map(context.syntax.has, changes)):
        return ""
    if context.syntax.keys is None:
        text = ", ".join(f"{key}={json.dumps(arguments[key])}" for key in changes)
    else:
        text = " and ".join(context.setting(key, arguments[key]) for key in changes)
    return text if len(text) <= _MOST_LETTERS else ""


def _branches(modules: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """Patterns of the shortest branches with the modules and nothing wanted."""
    occupied = {name[:at] for name in wanted for at in _dots(name)} | set(wanted)
    patterns: dict[str, None] = {}
    for name in modules:
        parts = [name[:at] for at in _dots(name)] + [name]
        branch = next((part for part in parts if part not in occupied and not NUMBER.search(part)), "")
        if branch:
            patterns[plain_pattern(branch) + ("" if branch == name else "[.].*")] = None
        else:
            words = (r"[0-9]+" if word.isdecimal() else plain_pattern(word) for word in name.split("."))
            patterns["[.]".join(words)] = None
    return list(patterns) if len(patterns) <= _MOST_BRANCHES else []


def _dots(name: str) -> Iterator[int]:
    return (match.start() for match in re.finditer(r"\.", name))
