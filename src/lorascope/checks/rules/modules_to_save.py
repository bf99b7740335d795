"""What `modules_to_save` copies, misses, and takes away from the targets."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import cut, in_quotes, plural, some_in_quotes
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import inspecting_command, suggest_alike
from lorascope.findings import Finding
from lorascope.foreign_text import literal
from lorascope.names import NUMBER, listed
from lorascope.number_text import share_text
from lorascope.peft_rules.matchers import ModuleMatcher, NameSet
from lorascope.peft_rules.modules_to_save import Endings, heads_of, missing, names_before_matching
from lorascope.peft_rules.name_patterns import BadPatternError
from lorascope.peft_rules.parameter_count import Tensors
from lorascope.peft_rules.reasons import SAVED_BELOW_ADAPTER, SAVED_WRAPPED

SAVED = FindingRule(
    "saved", "error", "modules_to_save names what PEFT cannot copy", "PEFT raises at a list of modules, for example."
)
SAVED_UNMATCHED = FindingRule(
    "saved-unmatched",
    "warning",
    "a modules_to_save entry matches nothing",
    "The module is neither trained in full nor saved, and PEFT says nothing.",
)
SAVED_SHADOWS = FindingRule(
    "saved-shadows",
    "warning",
    "modules_to_save takes targets away",
    "What lies in a copied module trains in full and gets no adapter.",
)
SAVED_LOOSE = FindingRule(
    "saved-loose",
    "warning",
    "a modules_to_save entry matches more than it says",
    "PEFT compares the ends of names without a dot, so `norm` copies every layer norm.",
)
SAVED_NESTED = FindingRule(
    "saved-nested",
    "warning",
    "modules_to_save copies a module and one within it",
    "PEFT may train a second copy that is never used.",
)
SAVED_COPY = FindingRule(
    "saved-copy",
    "note",
    "modules_to_save copies many parameters",
    "Full copies train, and are stored, whatever the rank.",
)

_MOST_NAMED = 4
_MOST_EXPLAINED = 10
# From this share of the model on, a full copy is more than a detail.
_LARGE = 0.1
_ALIKE = 0.7
_SETTING = "modules_to_save"


@finds(SAVED, SAVED_SHADOWS)
def find_refused_copies(context: CheckContext) -> Iterator[Finding]:
    """Copies that PEFT refuses."""
    if not context.refused_as("saved"):
        return
    if context.refusal and context.refusal.reason in (SAVED_WRAPPED, SAVED_BELOW_ADAPTER):
        fix = "Take it out of the targets (exclude_modules), or out of modules_to_save."
        yield SAVED_SHADOWS.finding(_SETTING, context.refusal, fix, "error")
    else:
        fix = "Name the modules that hold weights, with more of their names."
        yield SAVED.finding(_SETTING, context.refusal, fix)


@finds(SAVED_UNMATCHED)
def find_unmatched_saves(context: CheckContext) -> Iterator[Finding]:
    """Entries that match no module."""
    names = dict.fromkeys(name for warning in context.warnings_of("saved-unmatched") for name in warning.names)
    absent = [*names]
    if context.refusal:
        absent = missing(context.config.modules_to_save or (), context.module_names, context.config.task_type)
    model = context.model.model
    if rest := absent[_MOST_EXPLAINED:]:
        message = f"{some_in_quotes(rest)} match no module of {model} either."
        yield SAVED_UNMATCHED.finding(_SETTING, message, "Take them out.")
    for entry in absent[:_MOST_EXPLAINED]:
        message = f'"{cut(entry)}" matches no module of {model}. PEFT ignores that silently: nothing is trained in full or saved.'
        yield SAVED_UNMATCHED.finding(_SETTING, message, _nearest(context, entry))


def _nearest(context: CheckContext, entry: str) -> str:
    model = context.model
    leaf = entry.rpartition(".")[2].lower()
    if any(word in leaf for word in ("head", "embed_out", "output")) and model.output_embeddings:
        return f"The output embedding is called {literal(_short(model.output_embeddings))} here."
    if any(word in leaf for word in ("embed", "wte")) and model.input_embeddings:
        return f"The input embedding is called {literal(_short(model.input_embeddings))} here."
    heads = [w.name for w in model.weights if w.role.block == "head" and w.role.component in context.main_components]
    if any(word in leaf for word in ("head", "classif", "score", "out", "pooler")) and heads:
        return f"The head is called {listed((_short(name) for name in heads), _MOST_NAMED)} here."
    leaves = sorted({NUMBER.sub("", name).rpartition(".")[2] for name in context.module_names} - {""})
    question = suggest_alike(leaf, leaves, 2, _ALIKE)
    return question or f"Take it out, or look its name up: {inspecting_command(model)}"


def _short(name: str) -> str:
    leaf = name.rpartition(".")[2]
    return name if leaf.isdecimal() else leaf


@finds(SAVED_SHADOWS)
def find_shadowed_targets(context: CheckContext) -> Iterator[Finding]:
    """Targets that lie in a saved module, and so get no adapter."""
    config = context.config
    saved = names_before_matching(config.modules_to_save, config.task_type)
    # PEFT writes the heads of the task into the configuration that it saves.
    explicit = set(config.modules_to_save or ()) - set(heads_of(config.task_type))
    numbers = {entry: number for number, entry in reversed(list(enumerate(saved)))}
    entries = NameSet(entry.text for entry in context.entries.modules)
    # A classifier that the task saves is meant to be trained in full, and not to get an adapter.
    heads = {weight.name for weight in context.model.weights if weight.role.block == "head"}
    by_entry: dict[str, list[str]] = {}
    for name in _shadowed(context):
        number = min((numbers[word] for word in name.split(".") if word in numbers), default=None)
        entry = "" if number is None else saved[number]
        named = context.entries.form == "list" and entries.has(name)
        if entry in explicit or not entry or name not in heads or (named and "." not in name):
            by_entry.setdefault(entry or some_in_quotes(sorted(explicit)), []).append(name)
    for entry, names in by_entry.items():
        message = (
            f"modules_to_save takes {plural(len(names), 'target')} away ({listed(names, 2)}): what lies in a module called "
            f"{entry} trains in full and gets no adapter."
        )
        shown = literal(entry) if entry in numbers else entry
        fix = f"Take {shown} out of modules_to_save if adapters are meant, and the targets out otherwise."
        yield SAVED_SHADOWS.finding(_SETTING, message, fix, "error" if context.refused_as("no-match") else "warning")


def _shadowed(context: CheckContext) -> list[str]:
    """The modules that would be targets without `modules_to_save`."""
    patterns = context.entries.patterns
    if patterns is None:
        return []
    try:
        free = ModuleMatcher(patterns, context.config, (), context.release)
        verdicts = context.entries.verdicts.items()
        return [name for name, verdict in verdicts if not verdict.targeted and free.match(name).targeted]
    except BadPatternError:
        return []


@finds(SAVED_LOOSE, SAVED_NESTED)
def find_loose_and_nested(context: CheckContext) -> Iterator[Finding]:
    """Entries that copy more than they say, or a module twice."""
    for warning in context.resolution.warnings:
        if warning.code == SAVED_LOOSE.code:
            entries = [entry for entry in context.config.modules_to_save or () if warning.names[0].endswith(entry)]
            named = NameSet(entries)
            whole = [name for name in context.resolution.saved if named.has(name)]
            fix = "PEFT has no stricter form."
            if whole:
                fix = f"Use the full name: {in_quotes(dict.fromkeys(whole[:_MOST_NAMED]))}."
            # What the task type alone adds is a head, and part of the new one.
            yield SAVED_LOOSE.finding(_SETTING, warning, fix, "warning" if entries else "note")
        elif warning.code == SAVED_NESTED.code:
            yield SAVED_NESTED.finding(_SETTING, warning, "Name the outermost modules only.")


@finds(SAVED_COPY)
def find_large_copies(context: CheckContext) -> Iterator[Finding]:
    """How much is copied and trained in full."""
    explicit = Endings(context.config.modules_to_save or ())
    saved = [name for name in dict.fromkeys(context.resolution.saved) if explicit.end(name)]
    if not saved:
        return
    model, tensors = context.model, Tensors(context.model)
    below = tensors.below(saved)
    size = sum(tensors.size(below[name]) for name in saved)
    if not size:
        return
    share = size / model.dimensions.parameters if model.dimensions.parameters else 0.0
    names = listed(saved, _MOST_NAMED)
    message = f"{size:,} parameters, {share_text(share)} of the model, are copied and trained in full: {names}."
    fix = "Nothing to do if that is meant. For a few new tokens, trainable_token_indices costs far less."
    if not {model.input_embeddings, model.output_embeddings} & set(saved):
        fix = "Nothing to do if that is meant; an adapter on its layers costs less."
    yield SAVED_COPY.finding(_SETTING, message, fix, "warning" if share >= _LARGE else "note")
