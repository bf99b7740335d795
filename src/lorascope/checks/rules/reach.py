"""What is adapted that few people mean: towers, routers, heads, tied and dead weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from lorascope.checks.context import Case, places
from lorascope.checks.entries import Asked, Entry, counted, in_quotes, pattern_of, plain_pattern, resolved_with
from lorascope.checks.rules.unmatched import planning_command
from lorascope.errors import LorascopeError
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.model.classify import role_of_name
from lorascope.model.types import Weight
from lorascope.names import NUMBER, listed, template
from lorascope.peft_rules.adaptability import obstacle
from lorascope.peft_rules.addresses import peft_name, weight_of
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.plans.compiler import compile_targets
from lorascope.plans.notes import describe_trace
from lorascope.plans.plan_notes import quantization_notes
from lorascope.plans.types import Assignment, Options

_PLANNED = ("attention", "ffn", "mixer")
_MOST_BRANCHES = 6
# A configuration of more than so many letters is better written than told.
_MOST_LETTERS = 400


def reach_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`dead-or-crashing`, `outside`, `router`, `head`, `tied`, `unmergeable`, `quantized` and what the map doubts."""
    yield from _dead(case)
    yield from _beyond(case, asked)
    yield from _ties(case)
    for one in case.resolution.warnings:
        if one.code == "unmergeable":
            fix = "Keep the adapter unmerged, or leave these layers out."
            yield Finding(one.code, "note", listed(one.names, 2), one.message, fix)
    yield from _map_doubts(case)


def _grouped(weights: Iterable[Weight], key: Callable[[Weight], str]) -> dict[str, list[Weight]]:
    groups: dict[str, list[Weight]] = {}
    for weight in weights:
        groups.setdefault(key(weight), []).append(weight)
    return groups


def _dead(case: Case) -> Iterator[Finding]:
    peft = case.peft
    blocked = _grouped(case.hit, lambda w: obstacle(case.model, w, peft) if peft else obstacle(case.model, w))
    said: set[str] = set()
    for reason, weights in blocked.items():
        if reason:
            said.update(weight.name for weight in weights)
            fix = _all_out(case, weights)
            yield Finding("dead-or-crashing", "error", places(weights), reason, fix)
    # What is no weight of the map, such as the dead output projection within torch's own attention.
    left: dict[str, list[str]] = {}
    for one in case.resolution.warnings:
        if one.code == "dead-or-crashing" and not said.intersection(one.names):
            _, _, reason = one.message.partition(": ")
            left.setdefault(NUMBER.sub("*", reason), []).extend(one.names)
    for reason, names in left.items():
        text = reason[0].upper() + reason[1:]
        yield Finding("dead-or-crashing", "error", listed(names, 3), text, excluding_fix(case, names, names))


def _beyond(case: Case, asked: Asked) -> Iterator[Finding]:
    """Adapted weights that are neither attention nor FFN nor mixer of the model itself."""

    def place(weight: Weight) -> str:
        if weight.role.component not in case.own:
            return f"outside {weight.role.component}"
        if weight.role.block in _PLANNED:
            return ""
        return {"router": "router", "head": "head", "embedding": "head"}.get(weight.role.block, "inner")

    groups = _grouped(case.hit, place)
    uncharted = _uncharted(case)
    foreign = [name for name, component in uncharted.items() if component not in case.own]
    beside = [weight for where, weights in groups.items() if where.startswith("outside") for weight in weights]
    for where, weights in groups.items():
        if not where:
            continue
        code, _, component = where.partition(" ")
        are = "are" if len(weights) > 1 else "is"
        severity: Severity = "note" if _meant(case, asked, weights) else "warning"
        names = {peft_name(case.model, weight) for weight in weights}
        cost = sum(one.trainable for one in case.resolution.adapted if one.name in names)
        share = (
            f"{cost / case.resolution.trainable:.1%} of the trainable parameters" if case.resolution.trainable else ""
        )
        fix = _all_out(case, beside, foreign) if code == "outside" else _all_out(case, weights)
        if code == "outside":
            blocks = ", ".join(dict.fromkeys(weight.role.block for weight in weights))
            part = f"connector ({blocks})" if component == "connector" else f"{component} tower ({blocks})"
            message = f"{counted(len(weights), 'weight')} of the {part} {are} adapted too, {share}."
            yield Finding("outside", severity, places(weights), message, fix)
        elif code == "router":
            message = f"{counted(len(weights), 'router')} {are} adapted, {share}: which expert a token goes to changes in training."
            yield Finding("router", severity, places(weights), message, fix)
        elif code == "head":
            kinds = " and ".join(dict.fromkeys(_head_word(weight) for weight in weights))
            message = f"The {kinds} is adapted, {share}." if len(weights) == 1 else f"{kinds} are adapted, {share}."
            message = message[0].upper() + message[1:]
            if case.model.head == "sequence-classification" and "classifier" in kinds:
                message += " It is new and random, so that a low-rank change on top of it is not what is wanted."
                fix = 'Give task_type="SEQ_CLS": PEFT then trains it in full and saves it.'
            yield Finding("head", severity, places(weights), message, fix)
        else:
            message = f"{counted(len(weights), 'weight')} {are} adapted beside attention and FFN, {share}."
            yield Finding("outside", "note", places(weights), message, fix)
    if uncharted:
        fix = _all_out(case, beside, foreign) if foreign else excluding_fix(case, [*uncharted], [*uncharted])
        yield _no_linear(case, asked, uncharted, fix)


def _all_out(case: Case, weights: Sequence[Weight], others: Sequence[str] = ()) -> str:
    adapted = [peft_name(case.model, weight) for weight in weights]
    return excluding_fix(case, [*adapted, *others], [*(weight.name for weight in weights), *others])


def _head_word(weight: Weight) -> str:
    if weight.role.block == "embedding":
        return "position embedding" if weight.role.part == "position" else "input embedding"
    return "classifier" if weight.role.part == "classifier" else "output embedding (the head)"


def _meant(case: Case, asked: Asked, weights: Sequence[Weight]) -> bool:
    """The configuration names these weights and does not merely catch them with others."""
    names = {peft_name(case.model, weight) for weight in weights}
    blocks = {(weight.role.component, weight.role.block) for weight in weights}
    if asked.form == "all-linear":
        return False
    for entry in asked.modules:
        hit = {module.name for module in entry.targeted} | (set(entry.parameters) if entry.rewritten else set())
        if not hit & names:
            continue
        if asked.form == "string":
            if not _speaks_of(case, entry, names):
                return False
            continue
        for name in hit - names:
            weight = case.model.weight_by_name.get(name.removesuffix(".weight")) or case.model.weight_by_name.get(name)
            if weight is not None and (weight.role.component, weight.role.block) not in blocks:
                return False
    return True


def _speaks_of(case: Case, entry: Entry, names: set[str]) -> bool:
    """A regular expression holds a word of these names that no other name it matches has."""
    others = {word for module in entry.targeted if module.name not in names for word in module.name.split(".")}
    words = {word for name in names for word in name.split(".")} - others
    if not others:
        return True
    spoken = set(re.findall(r"\w+", entry.text))
    return any(
        word in spoken if word.isidentifier() else re.search(rf"(?<!\w){re.escape(word)}(?!\w)", entry.text) is not None
        for word in words
        if not word.isdecimal()
    )


def _uncharted(case: Case) -> dict[str, str]:
    """Adapted modules that hold no matrix of the map, convolutions above all, and their components."""
    known = {peft_name(case.model, weight) for weight in case.hit} | {weight.name for weight in case.hit}
    dead = {name for one in case.resolution.warnings if one.code in ("dead-or-crashing", "bias") for name in one.names}
    names = [one.name for one in case.resolution.adapted if one.name not in known and one.name not in dead]
    return {name: role_of_name(template(name), "conv", case.model.model_type)[0].component for name in names}


def _no_linear(case: Case, asked: Asked, modules: Mapping[str, str], fix: str) -> Finding:
    classes = dict.fromkeys(
        case.model.module_by_name[name].class_name if name in case.model.module_by_name else "parameter"
        for name in modules
    )
    named = asked.form == "list" and len(asked.modules) == 1
    severity: Severity = "note" if named or case.own.issuperset(modules.values()) else "warning"
    message = f"{counted(len(modules), 'module')} adapted that are no linear layers ({', '.join(classes)})."
    return Finding("outside", severity, listed(modules, 3), message, fix)


def excluding_fix(case: Case, adapted: Sequence[str], modules: Sequence[str]) -> str:
    """How to keep weights out, as an `exclude_modules` that was tried, or the way to have it written.

    Args:
        case: The case.
        adapted: The weights' names as PEFT adapts them.
        modules: Their names as modules.
    """
    unwanted = set(adapted)
    them = "them" if len(unwanted) > 1 else "it"
    before = {one.name: (one.rank, one.alpha) for one in case.resolution.adapted}
    wanted = {name: size for name, size in before.items() if name not in unwanted}
    if {one.name for one in resolved_with(case).adapted} != before.keys():  # It is not PEFT that this was asked of.
        return (
            f"Name other weights, in the trainer's own keys: lorascope export writes them from {planning_command(case)}"
        )
    if not wanted:
        return "Nothing to do if only they are meant; otherwise name other weights."
    branches = _branches([*modules], wanted)
    config = case.config
    tries: list[str | tuple[str, ...]] = []
    leaves = tuple(dict.fromkeys(name.rpartition(".")[2] for name in modules))
    given = config.exclude_modules
    if len(leaves) == 1 and not leaves[0].isdecimal():
        tries.append(leaves if not given or isinstance(given, str) else (*given, *leaves))
    if branches:
        tries.append(_as_text(given, branches))
    for value in tries:
        if given and isinstance(given, str) and not isinstance(value, str):
            continue
        after = resolved_with(case, exclude_modules=value)
        if {one.name: (one.rank, one.alpha) for one in after.adapted} == wanted:
            shown = literal(value) if isinstance(value, str) else f"[{in_quotes(value)}]"
            return f"To leave {them} out, give exclude_modules={shown}."
    if written := _written(case, wanted):
        return f"To leave {them} out, give {written}."
    return f"To leave {them} out, name what is meant: {planning_command(case)} writes it."


def _written(case: Case, sizes: Mapping[str, tuple[int, float]]) -> str:
    """Other targets that adapt exactly some weights at their sizes, as far as they can be told in a line."""
    weights = {name: weight_of(case.model, name) for name in sizes}
    targets = [
        Assignment(weight, rank, alpha, 0) for name, (rank, alpha) in sizes.items() if (weight := weights[name]) is not None
    ]
    config = case.config
    options = Options(dropout=config.lora_dropout, bias=config.bias, rslora=config.use_rslora, dora=config.use_dora)
    if len(targets) != len(sizes):
        return ""
    try:
        arguments = peft_arguments(compile_targets(case.model, targets, options).config)
    except LorascopeError:
        return ""
    given = peft_arguments(config)
    keys = (
        "target_modules",
        "target_parameters",
        "exclude_modules",
        "layers_to_transform",
        "rank_pattern",
        "alpha_pattern",
    )
    if arguments["r"] != config.r or (config.exclude_modules and "exclude_modules" not in arguments):
        return ""
    changed = [
        f"{key}={json.dumps(arguments[key])}" for key in keys if key in arguments and arguments[key] != given.get(key)
    ]
    text = ", ".join(changed)
    return text if len(text) <= _MOST_LETTERS else ""


def _branches(modules: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """Patterns of the shortest branches without a number that hold the modules and nothing wanted."""
    occupied = {name[:at] for name in wanted for at in _dots(name)} | set(wanted)
    found: dict[str, None] = {}
    for name in modules:
        whole = [name[:at] for at in _dots(name)] + [name]
        branch = next((part for part in whole if part not in occupied and not NUMBER.search(part)), "")
        if branch:
            found[plain_pattern(branch) + ("" if branch == name else "[.].*")] = None
        else:
            found["[.]".join(r"[0-9]+" if word.isdecimal() else plain_pattern(word) for word in name.split("."))] = None
    return list(found) if len(found) <= _MOST_BRANCHES else []


def _as_text(given: str | tuple[str, ...] | None, branches: Sequence[str]) -> str:
    own = [given] if isinstance(given, str) else [pattern_of(given)] if given else []
    return "|".join([*own, *branches])


def _dots(name: str) -> Iterator[int]:
    return (match.start() for match in re.finditer(r"\.", name))


def _ties(case: Case) -> Iterator[Finding]:
    adapted = {name for one in case.resolution.warnings if one.code == "tied" for name in one.names}
    alone: dict[str, str] = {}
    together: dict[str, None] = {}
    for group in case.model.ties if adapted else ():
        owners = list(dict.fromkeys(name.rpartition(".")[0] for name in group))
        hit = [owner for owner in owners if owner in adapted]
        others = [owner for owner in owners if owner not in adapted]
        if others:
            alone.update(dict.fromkeys(hit, others[0]))
        else:
            together.update(dict.fromkeys(hit))
    keep = "To keep them, leave the adapter unmerged, or untie the model before training (tie_word_embeddings=False)."
    if alone:
        message = (
            f"{listed(alone, 2)}: the tensor is that of {listed(alone.values(), 2)} too. Only what is named is adapted, and "
            "merging changes both or unties them."
        )
        yield Finding("tied", "warning", listed(alone, 3), message, f"{excluding_fix(case, [*alone], [*alone])} {keep}")
    if together:
        message = (
            f"{len(together)} modules share their tensors and get an adapter each; merging adds all to the one tensor."
        )
        # Two stacks that share all their layers are adapted together; an embedding and its head seldom are.
        blocks = {w.role.block for name in together if (w := case.model.weight_by_name.get(name)) is not None}
        inner = blocks.isdisjoint(("head", "embedding"))
        fix = "Leave the adapter unmerged."
        yield Finding("tied", "note" if inner else "warning", listed(together, 3), message, fix)
    saved = set(case.resolution.saved)
    for group in case.model.ties:
        owners = [name.rpartition(".")[0] for name in group]
        hit = [owner for owner in dict.fromkeys(owners) if owner in saved]
        if not hit:
            continue
        others = [owner for owner in dict.fromkeys(owners) if owner not in hit]
        beside = (
            f", and {listed(others, 2)} keeps the old one" if others else ", so that they are two tensors from then on"
        )
        message = f"modules_to_save copies {listed(hit, 2)}, whose tensor is shared: a copy is not{beside}."
        fix = "Take it out of modules_to_save, or untie the model before training (tie_word_embeddings=False)."
        yield Finding("tied", "warning", listed(hit, 2), message, fix)


def _map_doubts(case: Case) -> Iterator[Finding]:
    model = case.model
    for need in map(str, quantization_notes(case.model, case.hit)):
        yield Finding("quantized", "note", "the base model", need, "Install what it names before training.")
    if model.basis == "names":
        message = (
            f'the findings rest on names alone: model type "{model.model_type}" is not known, so that nobody has checked '
            "that its code calls these modules so."
        )
        fix = "Try the configuration on the loaded model: get_peft_model raises where a name is wrong."
        yield Finding("names-only", "note", model.source, message, fix)
    traces = {trace.weight: trace for trace in model.traces}
    doubts: dict[str, list[Weight]] = {}
    for weight in case.hit:
        trace = traces.get(weight.name)
        if trace is not None and (trace.disagrees or trace.status != "executed"):
            kind = "names and dataflow disagree" if trace.disagrees else "no forward pass confirms what they do"
            doubts.setdefault(f"{kind}: {describe_trace(trace)}: {trace.evidence}", []).append(weight)
    for doubt, weights in doubts.items():
        fix = "Look at the modeling code before you trust the role."
        yield Finding("traced-doubt", "note", places(weights), f"{len(weights)} weights: {doubt}", fix)
