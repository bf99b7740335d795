"""What `modules_to_save` copies, misses, and takes away from the targets."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import Case
from lorascope.checks.entries import Asked, counted, cut, in_quotes, release_in, some_in_quotes
from lorascope.errors import alike
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal, shell_word
from lorascope.names import NUMBER, listed
from lorascope.peft_rules.matchers import ModuleMatcher, NameSet
from lorascope.peft_rules.modules_to_save import Endings, names_before_matching, unmatched
from lorascope.peft_rules.name_patterns import BadPatternError
from lorascope.peft_rules.parameter_count import Tensors

_MOST_NAMED = 4
_MOST_EXPLAINED = 10
# From this share of the model on, a full copy is more than a detail.
_LARGE = 0.1
_ALIKE = 0.7
_SETTING = "modules_to_save"


def saved_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`saved`, `saved-unmatched`, `saved-shadows`, `saved-loose`, `saved-nested` and `saved-copy`."""
    if case.resolution.cause == "saved":
        yield _refused(case)
    yield from _unmatched(case)
    yield from _shadows(case, asked)
    for one in case.resolution.warnings:
        if one.code == "saved-loose":
            entries = [entry for entry in case.config.modules_to_save or () if one.names[0].endswith(entry)]
            named = NameSet(entries)
            whole = [name for name in case.resolution.saved if named.has(name)]
            fix = "PEFT has no stricter form."
            if whole:
                fix = f"Give the full name: {in_quotes(dict.fromkeys(whole[:_MOST_NAMED]))}."
            # What the task type alone brings along is a head, and part of the new one.
            severity: Severity = "warning" if entries else "note"
            yield Finding(one.code, severity, _SETTING, one.message, fix)
        if one.code == "saved-nested":
            yield Finding(one.code, "warning", _SETTING, one.message, "Name the outermost modules only.")
    yield from _copies(case)


def _refused(case: Case) -> Finding:
    error = case.resolution.error
    if "already carries an adapter" in error or "directly within an adapter" in error:
        fix = "Take it out of the targets (exclude_modules), or out of modules_to_save."
        return Finding("saved-shadows", "error", _SETTING, error, fix)
    return Finding("saved", "error", _SETTING, error, "Name the modules that hold weights, with more of their names.")


def _unmatched(case: Case) -> Iterator[Finding]:
    absent = list(
        dict.fromkeys(n for one in case.resolution.warnings if one.code == "saved-unmatched" for n in one.names)
    )
    if case.resolution.error:
        names = [module.name for module in case.model.modules]
        absent = unmatched(case.config.modules_to_save or (), names)
    if rest := absent[_MOST_EXPLAINED:]:
        message = f"{some_in_quotes(rest)} match no module of {case.model.model} either."
        yield Finding("saved-unmatched", "warning", _SETTING, message, "Take them out.")
    for entry in absent[:_MOST_EXPLAINED]:
        fix = _nearest(case, entry)
        message = (
            f'"{cut(entry)}" matches no module of {case.model.model}, and PEFT ignores that silently: nothing is saved.'
        )
        yield Finding("saved-unmatched", "warning", _SETTING, message, fix)


def _nearest(case: Case, entry: str) -> str:
    model = case.model
    leaf = entry.rpartition(".")[2].lower()
    special = {
        "output": model.output_embeddings,
        "input": model.input_embeddings,
    }
    if any(word in leaf for word in ("head", "embed_out", "output")) and special["output"]:
        return f"The output embedding is called {literal(_short(special['output']))} here."
    if any(word in leaf for word in ("embed", "wte")) and special["input"]:
        return f"The input embedding is called {literal(_short(special['input']))} here."
    heads = [w.name for w in model.weights if w.role.block == "head" and w.role.component in case.own]
    if any(word in leaf for word in ("head", "classif", "score", "out", "pooler")) and heads:
        return f"The head is called {listed((_short(name) for name in heads), _MOST_NAMED)} here."
    leaves = sorted({NUMBER.sub("", module.name).rpartition(".")[2] for module in model.modules} - {""})
    near = alike(leaf, leaves, 2, _ALIKE)
    if near:
        return f"Did you mean {' or '.join(in_quotes([name]) for name in near)}?"
    return f"Take it out, or look the name up with: lorascope inspect {shell_word(model.model)}"


def _short(name: str) -> str:
    return name.rpartition(".")[2] if not name.rpartition(".")[2].isdecimal() else name


def _shadows(case: Case, asked: Asked) -> Iterator[Finding]:
    """Targets that lie in a saved module, and so get no adapter."""
    config = case.config
    targets = asked.targets
    if targets is None:
        return
    try:
        free = ModuleMatcher(targets, config, (), release_in(case))
        taken = [name for name, verdict in asked.verdicts.items() if not verdict.targeted and free.match(name).targeted]
    except BadPatternError:
        return
    explicit = set(config.modules_to_save or ())
    all_saved = some_in_quotes(sorted(explicit))
    # A classifier that the task saves is meant to be trained in full, and not beside.
    heads = {w.name for w in case.model.weights if w.role.block == "head"}
    by_entry: dict[str, list[str]] = {}
    saved = names_before_matching(config.modules_to_save, config.task_type)
    places = {entry: place for place, entry in reversed(list(enumerate(saved)))}
    entries = NameSet(entry.text for entry in asked.modules)
    for name in taken:
        place = min((places[word] for word in name.split(".") if word in places), default=None)
        entry = "" if place is None else saved[place]
        named = asked.form == "list" and entries.has(name)
        if entry in explicit or not entry or name not in heads or (named and "." not in name):
            by_entry.setdefault(entry or all_saved, []).append(name)
    for entry, names in by_entry.items():
        message = (
            f"modules_to_save takes {counted(len(names), 'target')} away ({listed(names, 2)}): what is in a module called {entry} "
            "is trained in full and gets no adapter."
        )
        fix = f"Take {literal(entry) if entry in places else entry} out of modules_to_save if adapters are meant, and the targets out otherwise."
        severity: Severity = "error" if case.resolution.cause == "no-match" else "warning"
        yield Finding("saved-shadows", severity, _SETTING, message, fix)


def _copies(case: Case) -> Iterator[Finding]:
    explicit = Endings(case.config.modules_to_save or ())
    saved = [name for name in dict.fromkeys(case.resolution.saved) if explicit.end(name)]
    if not saved:
        return
    tensors = Tensors(case.model)
    below = tensors.below(saved)
    size = sum(tensors.size(below[name]) for name in saved)
    if not size:
        return
    share = size / case.model.dimensions.parameters if case.model.dimensions.parameters else 0.0
    severity: Severity = "warning" if share >= _LARGE else "note"
    message = (
        f"{listed(saved, _MOST_NAMED)}: {size:,} parameters are copied and trained in full, {share:.1%} of the model."
    )
    fix = "Nothing to do if that is meant. For a few new tokens, trainable_token_indices costs far less."
    if not {case.model.input_embeddings, case.model.output_embeddings} & set(saved):
        fix = "Nothing to do if that is meant; an adapter on its layers costs less."
    yield Finding("saved-copy", severity, _SETTING, message, fix)
