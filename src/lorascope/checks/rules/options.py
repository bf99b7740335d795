"""The settings beside the targets: exclusions, task type, biases, DoRA, and what does not go with parameters."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import Case
from lorascope.checks.entries import (
    MOST_EXPLAINED,
    Asked,
    counted,
    cut,
    in_quotes,
    pattern_of,
    plain_pattern,
    release_in,
)
from lorascope.checks.rules.layers import excluded_by
from lorascope.errors import alike
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.names import NUMBER, listed
from lorascope.peft_rules.matchers import CONDENSED_FROM, Match, ModuleMatcher
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.peft_rules.name_patterns import BadPatternError, cheap_matches
from lorascope.peft_rules.parameter_count import Tensors, trained_biases
from lorascope.plans.task_types import task_type, unsaved_heads

_ALIKE = 0.7
_LONGEST_TEXT = 2_000
_SAVING = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_HEADS = ("classifier", "score", "qa_outputs")


def option_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`parameters-options`, `exclude-unmatched`, `task-type`, `dora`, `bias`, `dropout` and `condensed`."""
    yield from _with_parameters(case, asked)
    yield from _excluding(case, asked)
    yield from _parameters_not_excluded(case, asked)
    yield from _task(case)
    yield from _biases(case)
    yield from _condensed(case, asked)
    if case.resolution.cause == "dora":
        fix = "Give use_dora=False, or leave these layers out."
        yield Finding("dora", "error", "use_dora", case.resolution.error, fix)
    if case.resolution.cause == "dropout":
        yield Finding(
            "dropout", "error", "lora_dropout", case.resolution.error, "Give a number from 0 to 1, such as 0.05."
        )


def _with_parameters(case: Case, asked: Asked) -> Iterator[Finding]:
    """Everything at once that parameters do not go with; PEFT names the first."""
    if case.resolution.cause != "parameters-options":
        return
    config = case.config
    settings = {
        f"lora_dropout={config.lora_dropout:g}": ("lora_dropout=0.0", bool(config.lora_dropout)),
        "use_dora=True": ("use_dora=False", config.use_dora),
        "lora_bias=True": ("lora_bias=False", config.lora_bias),
        "fan_in_fan_out=True": ("fan_in_fan_out=False", config.fan_in_fan_out),
    }
    present = [setting for setting, (_, is_set) in settings.items() if is_set]
    if not present:
        fix = "Adapt either the Conv1D layers or the parameters."
        yield Finding("parameters-options", "error", "target_parameters", case.resolution.error, fix)
        return
    moved = [entry.text for entry in asked.modules if entry.rewritten]
    given = [entry.text for entry in asked.parameters if entry.parameters]
    subject = (
        f"target_parameters ({in_quotes(given)})" if given else "The experts that PEFT's rewrite makes parameters of"
    )
    if moved:
        subject += f" ({in_quotes(moved)} on this model type)" if not given else ""
    verb = "do" if len(present) > 1 or not given or len(given) > 1 else "does"
    message = f"{subject} {verb} not go with {' and '.join(present)}. PEFT raises: {case.resolution.error}"
    fix = f"Give {', '.join(off for off, is_set in settings.values() if is_set)}"
    fix += f", or take {in_quotes(moved or given)} out." if moved or given else "."
    yield Finding("parameters-options", "error", ", ".join(one.partition("=")[0] for one in present), message, fix)


def _excluding(case: Case, asked: Asked) -> Iterator[Finding]:
    """Exclusions that take no target out."""
    exclude = case.config.exclude_modules
    targets = asked.targets
    if not exclude or targets is None:
        return
    saved = names_before_matching(case.config.modules_to_save, case.config.task_type)
    try:
        free = dataclasses.replace(case.config, exclude_modules=None)
        matcher = ModuleMatcher(targets, free, saved, release_in(case))
        names = [module.name for module in case.model.modules if matcher.match(module.name).targeted]
        entries: list[tuple[str, list[str]]] = (
            [(exclude, excluded_by(exclude, names))]
            if isinstance(exclude, str)
            else [(entry, excluded_by([entry], names)) for entry in exclude[:MOST_EXPLAINED]]
        )
    except BadPatternError:
        return
    left = any(entry.targeted or entry.parameters for entry in asked.modules)
    gone = [
        module.name
        for entry in asked.modules
        for module in entry.modules
        if asked.verdicts[module.name] is Match.EXCLUDED
    ]
    if case.resolution.cause == "no-match" and gone and not left:
        who = "exclude_modules and modules_to_save take" if saved else "exclude_modules takes"
        message = f"{who} out every target ({listed(gone, 2)}): nothing is left to adapt."
        yield Finding("no-match", "error", "exclude_modules", message, "Exclude less, or name other targets.")
    for text, taken in entries:
        if not taken:
            why, fix = _no_effect(case, text, names, isinstance(exclude, str))
            message = f'"{cut(text)}" excludes no target. {why}'.rstrip()
            yield Finding("exclude-unmatched", "warning", "exclude_modules", message, fix)


def _no_effect(case: Case, text: str, targets: list[str], is_text: bool) -> tuple[str, str]:
    modules = [module.name for module in case.model.modules]
    operators = any(sign in text for sign in "*?+[](){}|\\^$")
    if not is_text and operators:
        why = "Entries of a list are names or their endings, never regular expressions."
        hit = _full(text, targets)
        if hit:
            return (
                why,
                f"Give it as a text: exclude_modules={literal(text)}, which takes out {counted(len(hit), 'target')}.",
            )
        whole = f".*{text}.*"
        hit = _full(whole, targets)
        if hit:
            return why, f"Give exclude_modules={literal(whole)}, which takes out {counted(len(hit), 'target')}."
        return why, "As one it would exclude nothing either. Take it out."
    if is_text:
        for whole in (f"(.*[.])?{text}", f"(.*[.])?{text}[.].*", f".*{text}.*"):
            hit = _full(whole, targets)
            if hit:
                why = "A text is one regular expression for the whole name."
                return why, f"Give exclude_modules={literal(whole)}, which takes out {counted(len(hit), 'target')}."
    else:
        below = f"(.*[.])?{plain_pattern(text)}[.].*"
        hit = _full(below, targets)
        if hit:
            others = [entry for entry in case.config.exclude_modules or () if entry != text]
            whole = "|".join(([pattern_of(others)] if others else []) + [below])
            why = "An entry excludes modules of that name, not what lies below them."
            if len(whole) > _LONGEST_TEXT:
                return (
                    why,
                    f"Give {literal(below)} within a text that has the other entries too: it takes out {len(hit)} targets.",
                )
            return why, f"Give exclude_modules={literal(whole)}, which takes out {len(hit)} of these targets."
    matched = [name for name in modules if name == text or name.endswith(f".{text}")]
    if matched:
        return f"{listed(matched, 2)} is no target anyway.", "Take it out."
    leaf = text.rpartition(".")[2]
    words = sorted({word for name in targets for word in NUMBER.sub("", name).split(".") if word})
    near = alike(leaf, words, 2, _ALIKE)
    hint = f"Did you mean {' or '.join(in_quotes([name]) for name in near)}?" if near else "Take it out."
    return f"{case.model.model} has no such module.", hint


def _full(pattern: str, names: list[str]) -> list[str]:
    return cheap_matches(pattern, names, "fullmatch")


def _parameters_not_excluded(case: Case, asked: Asked) -> Iterator[Finding]:
    """`exclude_modules` does not reach parameters."""
    exclude = case.config.exclude_modules
    if not exclude:
        return
    adapted = {one.name for one in case.resolution.adapted}
    names = [name for entry in (*asked.modules, *asked.parameters) for name in entry.parameters if name in adapted]
    owners = {name: name.rpartition(".")[0] for name in names}
    try:
        meant = set(excluded_by(exclude, {*names, *owners.values()}))
    except BadPatternError:
        return
    beyond = [name for name in names if name in meant or owners[name] in meant]
    if beyond:
        message = f"exclude_modules does not apply to parameters: {listed(beyond, 2)} are adapted all the same."
        fix = "Name in target_parameters only what is meant, with its layer where that matters."
        yield Finding("exclude-unmatched", "warning", "exclude_modules", message, fix)


def _task(case: Case) -> Iterator[Finding]:
    model, given = case.model, case.config.task_type
    fits = task_type(model)
    if case.resolution.cause == "task-type":
        fix = f'Give task_type="{fits}".' if fits and fits != given else "Leave task_type out."
        if "before 0.21.2" in case.resolution.error:
            fix = "Update PEFT (pip install -U peft), or leave task_type out."
        yield Finding("task-type", "error", "task_type", case.resolution.error, fix)
        return
    classifier = model.head == "sequence-classification"
    heads = [m.name for m in model.modules if m.name.rpartition(".")[2] in _HEADS and "." not in m.name]
    trained = set(case.resolution.saved) | {one.name for one in case.resolution.adapted}
    if given not in _SAVING and (classifier or heads) and case.resolution.adapted:
        name = heads[0] if heads else "the head"
        if not set(case.resolution.saved).isdisjoint(heads):
            return
        task = "SEQ_CLS" if classifier else "TOKEN_CLS" if "classifier" in heads else "QUESTION_ANS"
        state = "gets a low-rank adapter on its random values" if name in trained else "stays at its random values"
        said = f"task_type is {literal(given, 200)}" if given else "task_type is missing"
        message = f"{said}, so that {name}, which is new in {model.architecture}, {state} and is not saved in full."
        fix = f'Give task_type="{task}", or modules_to_save=["{name}"].' if heads else f'Give task_type="{task}".'
        yield Finding("task-type", "warning", "task_type", message, fix)
    elif given == "SEQ_CLS" and classifier and not heads and not case.resolution.saved:
        message = (
            f'task_type="{given}" trains a new head in full where it is called classifier or score, and '
            f"{model.architecture} has no such module: its head stays random."
        )
        fix = "Give modules_to_save the head's name too."
        if unsaved_heads(model):
            fix = f"Give modules_to_save=[{in_quotes(unsaved_heads(model))}] too."
        yield Finding("task-type", "warning", "task_type", message, fix)


def _biases(case: Case) -> Iterator[Finding]:
    config = case.config
    if case.resolution.cause == "bias":
        fix = 'Give bias="none", "all" or "lora_only".'
        if "lora_bias" in case.resolution.error:
            fix = "Give lora_bias=False, or leave embeddings out."
        yield Finding("bias", "error", "bias", case.resolution.error, fix)
        return
    for one in case.resolution.warnings:
        if one.code == "bias":
            fix = "Give lora_bias=False, or keep the adapter unmerged."
            if one.names:
                fix = "Name the weight in full: entries match every parameter whose name ends with them."
            where = listed(one.names, 2) if one.names else "lora_bias"
            yield Finding("bias", "warning", where, one.message, fix)
    if config.bias == "none" or not case.resolution.adapted:
        return
    names = [one.name for one in case.resolution.adapted]
    owners = [name if name in case.model.module_by_name else name.rpartition(".")[0] for name in names]
    tensors = Tensors(case.model)
    trained = trained_biases(case.model, config, dict.fromkeys(owners), tensors, release_in(case))
    if not trained:
        message = f"bias={literal(config.bias, 200)} trains nothing: none of these layers has a bias."
        yield Finding("bias", "note", "bias", message, 'Give bias="none".')
    else:
        message = (
            f"bias={literal(config.bias, 200)} trains {len(trained)} of the biases of the base model ({tensors.size(trained):,} parameters), "
            "so that the model is another one even where the adapter is switched off."
        )
        yield Finding("bias", "note", "bias", message, 'Nothing to do if that is meant; otherwise give bias="none".')


def _condensed(case: Case, asked: Asked) -> Iterator[Finding]:
    """Lists of twenty and more, which PEFT shortens."""
    told = [one for one in case.resolution.warnings if one.code == "condensed"]
    for one in told:
        severity: Severity = "note" if asked.form == "all-linear" else "warning"
        fix = "Leave layers_to_transform out: full names say the layers themselves."
        yield Finding("condensed", severity, "target_modules", one.message, fix)
    if not told and asked.form == "list" and len(asked.modules) >= CONDENSED_FROM and case.resolution.adapted:
        message = (
            f"{len(asked.modules)} names are a long list: PEFT shortens one of {CONDENSED_FROM} or more to endings that "
            "match the same, and saves those instead."
        )
        fix = "Nothing to do: compare adapters by what they adapt, not by this list."
        yield Finding("condensed", "note", "target_modules", message, fix)
