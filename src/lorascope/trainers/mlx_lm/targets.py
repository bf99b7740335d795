"""What mlx-lm adapts: the modules that keys name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap, Weight
from lorascope.names import listed
from lorascope.peft_rules.diagnostics import Diagnostic, Reason
from lorascope.peft_rules.parameter_count import stored_shape
from lorascope.peft_rules.types import Adapted, Resolution
from lorascope.trainers.mlx_lm.names import MlxModel, as_mlx, mlx_types
from lorascope.trainers.mlx_lm.schema import PARAMETERS, RELEASE, SCHEMA, TITLE
from lorascope.trainers.protocol import Outcome, TrainerConfig, stopped, trainer_filter, without_lora
from lorascope.trainers.search_findings import MOST_NAMED

_WHERE = "lora_parameters.keys"
_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_TOO_MANY_LAYERS = Reason(
    "layers-absent", "num_layers is {layers}, and the model has {blocks} blocks: mlx-lm stops. -1 means all."
)
_NAMED_TWICE = Reason("refused", "{name} is named twice, as {again} too: mlx-lm stops at the adapter that it has.")
_HOLDS_LAYERS = Reason(
    "refused", "{key} holds layers and is none itself: mlx-lm stops, as it adapts single layers only."
)
_DORA_OF_EXPERTS = Reason("dora", "DoRA of {name}, whose experts are one layer: mlx-lm stops, as it has none for them.")
_NO_LAYER = Reason("no-match", "Nothing is adapted: no layer has the name {shown}.")
_NO_KEYS = Reason("no-match", "Nothing is adapted: keys is empty.")
_UNMATCHED_KEYS = Reason(
    "no-match", "mlx-lm has no layer to adapt under these keys: {shown}. It ignores unknown names silently"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a file, and where they apply.

    Attributes:
        mlx: The model as mlx-lm has it.
        names: The keys: names within a block, or within the whole model.
        layers: How many of the last blocks; 0 or less for all.
    """

    mlx: MlxModel
    names: tuple[str, ...]
    layers: int

    def chosen(self) -> list[str]:
        """The named modules that have a weight."""
        return self.among(_modules(self.mlx))

    def among(self, modules: Iterable[str]) -> list[str]:
        """Those of some modules that the keys name."""
        names = set(self.names)
        return [
            name for name in modules if name in names or (self.is_in_layers(name) and self.mlx.relative(name) in names)
        ]

    def is_in_layers(self, module: str) -> bool:
        """The module is in one of the adapted blocks."""
        layer = self.mlx.layer(module)
        return layer is not None and layer >= (0 if self.layers <= 0 else self.mlx.layers - self.layers)

    def without_weight(self) -> list[str]:
        """Patterns of named modules without a weight."""
        return _without_weight(self.mlx, self.names)


def _modules(mlx: MlxModel) -> list[str]:
    return [name for names in mlx.modules.values() for name in names]


def _without_weight(mlx: MlxModel, names: Iterable[str]) -> list[str]:
    known = {*_modules(mlx)}
    patterns = {_NUMBER.sub(".#", f".{name}") for name in names if name not in known}
    return [
        pattern
        for pattern in mlx.others
        if f".{pattern}" in patterns or f".{pattern.removeprefix(f'{mlx.blocks}.#.')}" in patterns
    ]


def resolve_mlx(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What mlx-lm's `linear_to_lora_layers` adapts.

    Raises:
        LorascopeError: The names of this type of model are not known, or the file adapts one
            half of a weight that mlx-lm splits, or nothing but modules that are no weight of the map.
    """
    mlx = as_mlx(model)
    if mlx is None:
        raise LorascopeError(unknown_type(model), where=model.model, hint=types_hint())
    settings = given.settings
    kind = settings.get("fine_tune_type") or SCHEMA.defaults["fine_tune_type"]
    if kind == "full":
        return without_lora(TITLE, "fine_tune_type", kind, "lora")
    parameters = settings.get("lora_parameters") or PARAMETERS.defaults
    layers = SCHEMA.defaults["num_layers"] if settings.get("num_layers") is None else settings["num_layers"]
    if layers > mlx.layers:
        return stopped(_TOO_MANY_LAYERS.about(layers=layers, blocks=mlx.layers))
    findings: list[Finding] = []
    is_default = parameters.get("keys") is None
    if is_default:
        findings.append(_default_finding(mlx, layers, settings))
    keys = Keys(mlx, tuple(_default_keys(mlx) if is_default else parameters["keys"]), layers)
    refusal = _refusal(keys)
    if refusal is not None:
        return stopped(refusal, findings)
    outcome = _outcome(model, keys, parameters, kind == "dora", findings)
    return outcome if is_default else _with_unmatched(outcome, keys)


def unknown_type(model: ModelMap) -> str:
    """That the names of a model's type are not known."""
    shown = model.model_type or model.architecture
    return f"{TITLE} {RELEASE} has no {shown} models, or its names for their modules are not known."


def types_hint() -> str:
    """The types whose names are known."""
    return f"Known are {len(mlx_types())} types: {', '.join(mlx_types())}."


def _default_keys(mlx: MlxModel) -> list[str]:
    """The names within a block of all adaptable modules."""
    names = {mlx.relative(name) for name in _modules(mlx)}
    others = {mlx.relative(pattern.replace("#", "0", 1)) for pattern in mlx.others}
    return sorted((names | others) - {""})


def _default_finding(mlx: MlxModel, layers: int, settings: Mapping[str, Any]) -> Finding:
    blocks = f"the last {layers} of {mlx.layers} blocks" if layers > 0 else f"all {mlx.layers} blocks"
    default = "" if settings.get("num_layers") is not None else " num_layers is not given either; its default is 16."
    message = (
        f"no keys are given: mlx-lm adapts every layer that it can in {blocks}, routers included, and no head.{default}"
    )
    return Finding("default-targets", "note", _WHERE, message, "Name the keys if you do not mean that.")


def _refusal(keys: Keys) -> Diagnostic | None:
    """Why mlx-lm stops at keys, or None."""
    mlx, names = keys.mlx, set(keys.names)
    within = [name for name in _modules(mlx) if keys.is_in_layers(name)]
    twice = [name for name in within if name in names and mlx.relative(name) in names]
    if twice:
        return _NAMED_TWICE.about(twice[0], again=mlx.relative(twice[0]))
    parents = {parent for name in _modules(mlx) for parent in _parents(name)}
    parents |= {parent for name in within for parent in _parents(mlx.relative(name))}
    if holders := sorted(names & parents):
        return _HOLDS_LAYERS.about(holders[0], key=quoted(holders[0]))
    return None


def _parents(name: str) -> Iterator[str]:
    """Names of the modules around one; a list of modules is none."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count, part in enumerate(parts) if not part.isdigit())


def _outcome(
    model: ModelMap, keys: Keys, parameters: Mapping[str, Any], dora: bool, findings: list[Finding]
) -> Outcome:
    chosen = set(keys.chosen())
    rank, scale = parameters["rank"], float(parameters["scale"])
    adapted: list[Adapted] = []
    split: list[tuple[str, list[str]]] = []
    for weight in model.weights:
        names = keys.mlx.modules.get(weight.name, ())
        pieces = [name for name in names if name in chosen]
        if not pieces:
            continue
        if dora and weight.experts > 1:
            return stopped(_DORA_OF_EXPERTS.about(pieces[0]), findings)
        if len(pieces) < len(names):
            raise LorascopeError(
                f"{pieces[0]} is one part of {weight.name}, of which mlx-lm makes {' and '.join(names)}",
                where=_WHERE,
                hint="Name all of them, or none.",
            )
        if len(pieces) > 1:
            split.append((weight.name, pieces))
        adapted.append(Adapted(weight.name, rank, scale * rank, scale, _count(model, weight, rank, len(pieces), dora)))
    uncounted = [*_sharing_findings(model, keys), *_weightless_findings(keys)]
    if not adapted and uncounted:
        raise LorascopeError(
            *(finding.message for finding in uncounted),
            where=_WHERE,
            hint="Nothing else is adapted. Name modules that hold a weight of the map.",
        )
    findings += [*_split_findings(split), *uncounted]
    if not adapted:
        named = listed(map(quoted, keys.names), MOST_NAMED)
        return stopped(_NO_LAYER.about(*keys.names, shown=named) if keys.names else _NO_KEYS.about(), findings)
    trainable = sum(weight.trainable for weight in adapted)
    adapted.sort(key=lambda weight: weight.name)
    return Outcome(Resolution(tuple(adapted), trainable), None, tuple(findings))


def _count(model: ModelMap, weight: Weight, rank: int, pieces: int, dora: bool) -> int:
    """Trainable parameters of a weight's adapters, one per piece."""
    if weight.kind == "embedding":
        module = model.module_by_name[weight.module]
        tokens, width = stored_shape(module, "weight") or weight.shape
        return rank * (tokens + width) + (tokens if dora else 0)
    outer, inner = weight.shape[-2:]
    return weight.experts * rank * (pieces * inner + outer) + (outer if dora else 0)


# Findings.


def _split_findings(split: Iterable[tuple[str, list[str]]]) -> Iterator[Finding]:
    """One finding for the same weight of all layers."""
    groups: dict[str, list[tuple[str, list[str]]]] = {}
    for name, pieces in split:
        groups.setdefault(_NUMBER.sub(".#", name), []).append((name, pieces))
    for group in groups.values():
        name, pieces = group[0]
        more = f" (and {len(group) - 1} like it)" if len(group) > 1 else ""
        message = f"mlx-lm splits {name} into {' and '.join(pieces)} and gives each its own adapter{more}"
        where = listed((name for name, _ in group), MOST_NAMED)
        yield trainer_filter("note", where, message, "Nothing to do; PEFT has one for both.")


def _sharing_findings(model: ModelMap, keys: Keys) -> Iterator[Finding]:
    """Adapted modules whose weight is shared; one finding for all layers."""
    sharing, groups = keys.mlx.sharing, dict[str, list[str]]()
    for module in keys.among(sharing):
        groups.setdefault(_NUMBER.sub(".#", module), []).append(module)
    for modules in groups.values():
        names = [sharing[module] for module in modules]
        more = f" (and {len(modules) - 1} like it)" if len(modules) > 1 else ""
        message = f"mlx-lm adapts {modules[0]}; not counted here, because {names[0]} {keys.mlx.absent[names[0]]}{more}"
        code = "tied" if model.weight_by_name[names[0]].kind == "embedding" else "trainer-filter"
        yield Finding(code, "warning", listed(names, MOST_NAMED), message, "Leave it out of the keys.")


def _weightless_findings(keys: Keys) -> Iterator[Finding]:
    """Modules that are adapted and have no weight of the map."""
    if patterns := keys.without_weight():
        shown = listed(patterns, MOST_NAMED)
        message = f"mlx-lm also adapts modules that have no weight in the map and are not counted here: {shown}"
        yield trainer_filter("warning", _WHERE, message, "Give whole names of the modules.")


def _with_unmatched(outcome: Outcome, keys: Keys) -> Outcome:
    """An outcome with a finding for keys that match nothing."""
    mlx, resolution = keys.mlx, outcome.resolution
    matched = {*keys.chosen(), *keys.among(mlx.sharing)}
    used = matched | {mlx.relative(name) for name in matched}
    unmatched = [key for key in dict.fromkeys(keys.names) if key not in used and not _without_weight(mlx, [key])]
    if not unmatched or resolution.refusal is not None:
        return outcome
    warning = _UNMATCHED_KEYS.about(*unmatched, shown=listed(unmatched, MOST_NAMED))
    fix = (
        f"lorascope export writes {TITLE}'s own names of a plan; stacks of experts are called switch_mlp, and some layers "
        "have other names."
    )
    finding = Finding("no-match", "error", _WHERE, str(warning), fix)
    resolution = dataclasses.replace(resolution, warnings=(*resolution.warnings, warning))
    return dataclasses.replace(outcome, resolution=resolution, findings=(*outcome.findings, finding))
