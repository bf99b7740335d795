"""From targets to the shortest adapter configuration that makes PEFT adapt exactly them.

Forms are tried from the shortest to the longest: a list of name endings; the same with layers, with exclusions, with
both; one anchored regular expression; a list of full names. The first one that every supported PEFT resolves to the
targets is taken, so a trap in PEFT's rules costs brevity and never exactness.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap, Weight
from lorascope.names import NUMBER, filled, numbers_apart
from lorascope.peft_rules.matchers import LayerFilter
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.peft_rules.moe_rewrite import rewritten_name
from lorascope.peft_rules.releases import release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.rules import own_components
from lorascope.plans.types import Options, Target

# One release of each minor version, because the rules differ between them and not within them.
SUPPORTED_PEFT = ("0.19.1", "0.20.0", "0.21.2")
NEWEST = SUPPORTED_PEFT[-1]

_TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "image-text-to-text": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
    "sequence-classification": "SEQ_CLS",
}

# An ending that matches well and tells a reader nothing.
_SAYS_NOTHING = ("weight",)

Size = tuple[int, float]


def as_parameter(model: ModelMap, weight: Weight, peft: str = NEWEST) -> bool:
    """PEFT can only reach this weight through `target_parameters`.

    That is so for bare parameters, and for linear layers whose name PEFT would rewrite into that of fused experts
    (peft issue 3711), which it does since 0.19.
    """
    if weight.kind == "linear":
        return rewritten_name(model, weight.name, release_of(peft)) != ""
    return weight.kind == "parameter"


def peft_name(model: ModelMap, weight: Weight, peft: str = NEWEST) -> str:
    """The name under which PEFT matches a weight: `….weight` for a linear layer that is reached as a parameter."""
    return f"{weight.name}.weight" if weight.kind == "linear" and as_parameter(model, weight, peft) else weight.name


def weight_of(model: ModelMap, name: str) -> Weight | None:
    """The weight that PEFT adapts under a name: the inverse of `peft_name`; None for what is no weight of the map."""
    return model.weight_by_name.get(name) or model.weight_by_name.get(name.removesuffix(".weight"))


def task_type(model: ModelMap) -> str | None:
    """PEFT's task type for the model's head; None where PEFT's wrapper of that task does not fit the class."""
    wanted = _TASK_TYPES.get(model.head)
    generates = wanted in ("CAUSAL_LM", "SEQ_2_SEQ_LM")
    return None if generates and not model.prepares_generation else wanted


def unsaved_heads(model: ModelMap) -> tuple[str, ...]:
    """The outermost modules of a classifier's new head, where PEFT does not train and save it by itself.

    With SEQ_CLS it does so for modules called classifier or score; elsewhere the head would stay random.
    """
    if model.head != "sequence-classification":
        return ()
    if any(name in model.module_by_name for name in names_before_matching(None, "SEQ_CLS")):
        return ()
    own = own_components(model)
    heads = [w for w in model.weights if w.role.block == "head" and w.role.component in own]
    others = [f"{weight.module}." for weight in model.weights if weight.role.block != "head"]
    found: dict[str, None] = {}
    for head in heads:
        words = head.module.split(".")
        roots = (".".join(words[:end]) for end in range(1, len(words) + 1))
        found[next((r for r in roots if not any(o.startswith(f"{r}.") for o in others)), head.module)] = None
    return tuple(found)


def unfit_releases(model: ModelMap, config: AdapterConfig) -> dict[str, str]:
    """The supported releases of PEFT that cannot wrap this model with this task type at all, each with the reason.

    That is a matter of their wrapper class for the task, not of what is adapted; the newest release is never among
    them.
    """
    if config.task_type != "SEQ_2_SEQ_LM":  # the only task of which the wrapper changed
        return {}
    bare = dataclasses.replace(config, task_type=None)
    found = {}
    for peft in SUPPORTED_PEFT[:-1]:
        error = resolve(model, config, peft).error
        if error and not resolve(model, bare, peft).error:
            found[peft] = error
    return found


def compile_targets(model: ModelMap, targets: Sequence[Target], options: Options) -> AdapterConfig:
    """The adapter configuration of targets.

    Raises:
        LorascopeError: PEFT cannot adapt exactly these targets, with the reason.
    """
    if model.refusal:
        raise LorascopeError(f"PEFT cannot wrap {model.architecture}: {model.refusal}")
    sizes: dict[str, Size] = {peft_name(model, t.weight): (t.rank, t.alpha) for t in targets}
    first = min(target.rule for target in targets)
    headline = Counter((target.rank, target.alpha) for target in targets if target.rule == first).most_common(1)[0][0]
    modules = {t.weight.name for t in targets if not as_parameter(model, t.weight)}
    parameters = sorted(peft_name(model, t.weight) for t in targets if as_parameter(model, t.weight))
    heads = unsaved_heads(model)
    asked = any(t.weight.module == head or t.weight.module.startswith(f"{head}.") for t in targets for head in heads)
    base = _with_sizes(
        AdapterConfig(
            lora_dropout=options.dropout,
            bias=options.bias,
            use_rslora=options.rslora,
            use_dora=options.dora,
            # Conv1D stores (in, out). PEFT finds out by itself, with a warning for each.
            fan_in_fan_out=all(target.weight.kind == "conv1d" for target in targets),
            task_type=task_type(model),
            modules_to_save=None if asked else heads or None,
            target_parameters=shortest_endings(parameters, _all_parameters(model)) if parameters else None,
        ),
        sizes,
        headline,
    )
    reasons: list[str] = []
    for form in module_forms(model, modules):
        config = dataclasses.replace(base, **form)
        reasons = [reason for peft in SUPPORTED_PEFT if (reason := _difference(model, config, sizes, peft))]
        if not reasons:
            return config
    raise LorascopeError(
        f"PEFT cannot adapt exactly these {len(targets)} weights: {reasons[0] if reasons else 'nothing to adapt'}",
        where=model.model,
        hint="Take the weights that it names out of the plan, with --exclude or a narrower rule.",
    )


def _difference(model: ModelMap, config: AdapterConfig, sizes: Mapping[str, Size], peft: str) -> str:
    """How what PEFT does differs from the sizes that were asked for; empty if it does not."""
    if peft != NEWEST and config.task_type == "SEQ_2_SEQ_LM":
        # Some older releases cannot wrap any model of a newer transformers for this task (see unfit_releases), which
        # says nothing about the form.
        config = dataclasses.replace(config, task_type=None)
    resolution = resolve(model, config, peft)
    if resolution.error:
        return f"PEFT {peft}: {resolution.error}"
    return size_difference(resolution, sizes, peft)


def size_difference(resolution: Resolution, sizes: Mapping[str, Size], peft: str = NEWEST) -> str:
    """The first weight whose adaptation is not the one asked for, in a sentence; empty if there is none."""
    found = {adapted.name: (adapted.rank, adapted.alpha) for adapted in resolution.adapted}
    if found == dict(sizes):
        return ""
    for name in sorted(found.keys() | sizes.keys()):
        if found.get(name) != sizes.get(name):
            return f"PEFT {peft} gives {name} (rank, alpha) {found.get(name)} where {sizes.get(name)} was asked for"
    return ""


def module_forms(
    model: ModelMap, modules: set[str], *, layers: bool = True, excludes: bool = True, regex: bool = True
) -> Iterator[dict[str, Any]]:
    """Ways to say `modules` to PEFT, the shortest first: what differs between them of an `AdapterConfig`.

    Args:
        model: The map.
        modules: Names of modules that PEFT can adapt.
        layers: Ways with `layers_to_transform` are among them.
        excludes: Ways with `exclude_modules` are among them.
        regex: The one with a regular expression in `target_modules` is among them.
    """
    if not modules:
        # An empty list keeps PEFT from adding its default targets to the parameters.
        yield {"target_modules": ()}
        return
    names = [module.name for module in model.modules]
    layer_of = LayerFilter((0,), None, release_of(NEWEST)).index
    for layered in (False, True) if layers else (False,):
        for excluding in (False, True) if excludes else (False,):
            form = _endings_form(names, modules, layer_of if layered else None, excluding)
            if form is not None:
                yield form
    if regex:
        yield {"target_modules": full_match(modules, names)}
    yield {"target_modules": tuple(sorted(modules))}


def _endings_form(
    names: Sequence[str], modules: set[str], layer_of: Callable[[str], int | None] | None, excluding: bool
) -> dict[str, Any] | None:
    """Name endings, restricted to the layers of the targets and to outside of target-free branches if so asked."""
    form: dict[str, Any] = {}
    considered: Iterable[str] = names
    if layer_of is not None:
        layers = {layer_of(name) for name in modules}
        if None in layers or layers >= {layer for name in names if (layer := layer_of(name)) is not None}:
            return None
        form["layers_to_transform"] = tuple(sorted(layer for layer in layers if layer is not None))
        considered = [name for name in considered if layer_of(name) in layers]
    if excluding:
        leaves = {name.rpartition(".")[2] for name in modules}
        rivals = [name for name in considered if name not in modules and name.rpartition(".")[2] in leaves]
        branches = _target_free_branches(rivals, modules)
        if not branches:
            return None
        form["exclude_modules"] = _either(sorted(branches)) + r"\..*"
        considered = [name for name in considered if not any(name.startswith(f"{branch}.") for branch in branches)]
    endings = shortest_endings(sorted(modules), considered, numbers=False)
    return {"target_modules": endings, **form} if endings else None


def shortest_endings(wanted: Sequence[str], names: Iterable[str], *, numbers: bool = True) -> tuple[str, ...] | None:
    """The shortest dotted endings that match all of `wanted` and nothing else of `names`, sorted.

    None if some name has no such ending without a number in it and `numbers` is off.
    """
    among = Counter(ending for name in names for ending in _endings(name))
    among_wanted = Counter(ending for name in wanted for ending in _endings(name))
    chosen: set[str] = set()
    for name in wanted:
        for ending in _endings(name):
            if not numbers and NUMBER.search(ending):
                return None
            if ending in _SAYS_NOTHING or (ending != name and NUMBER.match(ending)):
                continue
            if among[ending] == among_wanted[ending]:
                chosen.add(ending)
                break
        else:
            return None
    return tuple(sorted(chosen))


def _endings(name: str) -> Iterator[str]:
    at = len(name)
    while (at := name.rfind(".", 0, at)) >= 0:
        yield name[at + 1 :]
    yield name


def _target_free_branches(rivals: Iterable[str], modules: set[str]) -> set[str]:
    """The shortest branches of the module tree without a number that hold the rivals and no target."""
    occupied = {name[:at] for name in modules for at in _dots(name)}
    branches: set[str] = set()
    for rival in rivals:
        branch = next((rival[:at] for at in _dots(rival) if rival[:at] not in occupied), "")
        if branch and not NUMBER.search(branch):
            branches.add(branch)
    return branches


def _dots(name: str) -> Iterator[int]:
    return (match.start() for match in re.finditer(r"\.", name))


def _all_parameters(model: ModelMap) -> list[str]:
    return [f"{module.name}.{name}" for module in model.modules for name, _ in module.parameters]


def full_match(wanted: Iterable[str], names: Iterable[str]) -> str:
    """One regular expression whose full matches among `names` are `wanted`."""
    numbers_of = _numbers_by_pieces(names)
    leaves_of: dict[str, list[str]] = {}
    for pieces, rows in _numbers_by_pieces(wanted).items():
        escaped = [re.escape(piece) for piece in pieces]
        for numbers in _number_patterns(rows, numbers_of.get(pieces, rows)):
            stem, _, leaf = filled(escaped, numbers).rpartition(r"\.")
            leaves_of.setdefault(stem, []).append(leaf)
    stems_of: dict[tuple[str, ...], list[str]] = {}
    for stem, leaves in leaves_of.items():
        stems_of.setdefault(tuple(sorted(set(leaves))), []).append(stem)
    branches: list[str] = []
    for endings, stems in stems_of.items():
        ending = _group(endings)
        branches.extend(f"{stem}\\.{ending}" if stem else ending for stem in sorted(stems))
    return "|".join(sorted(branches))


def _numbers_by_pieces(names: Iterable[str]) -> dict[tuple[str, ...], set[tuple[int, ...]]]:
    rows: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    for name in names:
        pieces, numbers = numbers_apart(name)
        rows.setdefault(pieces, set()).add(numbers)
    return rows


def _number_patterns(rows: set[tuple[int, ...]], existing: set[tuple[int, ...]]) -> list[tuple[str, ...]]:
    """For each box of number rows, a pattern per column; any number everywhere where all existing rows are wanted."""
    if rows == existing:
        return [(r"\d+",) * len(next(iter(rows)))]
    lasts_of: dict[tuple[int, ...], list[int]] = {}
    for row in sorted(rows):
        lasts_of.setdefault(row[:-1], []).append(row[-1])
    merged: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for head, found in lasts_of.items():
        merged.setdefault(tuple(found), []).append(head)
    patterns: list[tuple[str, ...]] = []
    for lasts, heads in merged.items():
        ending = _group([str(number) for number in lasts])
        patterns.extend((*(str(number) for number in head), ending) for head in heads)
    return patterns


def _group(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else "(" + "|".join(words) + ")"


def _either(branches: Sequence[str]) -> str:
    return _group([re.escape(branch) for branch in branches])


def _with_sizes(config: AdapterConfig, sizes: Mapping[str, Size], headline: Size) -> AdapterConfig:
    """The configuration with the headline's rank and alpha, and the patterns for what differs from them.

    Every weight of another rank gets its alpha written out, even where that is the
    default's, so that the file says what was meant. Keys are disjoint, so their order (which saving changes) is moot.
    """
    by_size: dict[Size, list[str]] = {}
    for name, size in sizes.items():
        by_size.setdefault(size, []).append(name)
    rank, alpha = headline
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for (own_rank, own_alpha), names in sorted(by_size.items()):
        if (own_rank, own_alpha) == (rank, alpha):
            continue
        for key in _pattern_keys(names, sizes):
            if own_rank != rank:
                ranks[key] = own_rank
            alphas[key] = _tidy(own_alpha)
    return dataclasses.replace(
        config,
        r=rank,
        lora_alpha=_tidy(alpha),
        rank_pattern=dict(sorted(ranks.items())),
        alpha_pattern=dict(sorted(alphas.items())),
    )


def _pattern_keys(names: Sequence[str], sizes: Mapping[str, Size]) -> list[str]:
    endings = shortest_endings(names, sizes, numbers=False)
    if endings is not None:
        return [re.escape(ending) for ending in endings]
    pattern = full_match(names, sizes)
    return [f"^({pattern})" if "|" in pattern else f"^{pattern}"]


def _tidy(alpha: float) -> float:
    """A whole alpha as an integer, as people write it."""
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha
