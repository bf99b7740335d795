"""mlx-lm: its YAML, whose keys are exact names, and what they adapt."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import unknown_key_findings
from lorascope.trainers.mlx_names import MlxModel, as_mlx, mlx_types
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import transformers_release

_TITLE = "mlx-lm"
_RELEASE = "0.32.2"
_HINT = "The keys are those of mlx_lm.lora, explained in mlx-lm's LORA.md."
_MOST_NAMED = 4
_CLOSE = 1e-12
# Whole numbers from here on have no place in a configuration, and further up none among floats.
_TOO_LARGE = 2**63
# mlx-lm 0.32.2, lora.py: what holds where a file says nothing. Keys that it has given count as a whole.
_NUM_LAYERS = 16
_PARAMETERS: Mapping[str, Any] = {"rank": 8, "dropout": 0.0, "scale": 20.0}
# Options whose own defaults hide what a file says.
_ON_THE_COMMAND_LINE = ("clear_cache_threshold", "config", "trust_remote_code")
_TYPES = ("lora", "dora", "full")
_NUMBER = re.compile(r"\.\d+(?=\.|$)")
# Numbers that YAML 1.1 reads as texts, and that mlx-lm's own loader reads as numbers.
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")
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
    "no-match",
    "of the keys, these name no layer there that mlx-lm can adapt: {shown}. Names that it has not it passes over without "
    "a word",
)


class MlxLm:
    """The YAML file of `mlx_lm.lora --config`.

    mlx-lm has its own LoRA layers and does not use PEFT. A key is the exact name of a module within a block, or within the
    whole model; there is one rank and one scale, the scale being what PEFT calls alpha / rank.

    Run in the tests, with mlx-lm 0.32.2 on a CPU: what its `train_model` adapts, before the first step, on a small model of
    every known type that its own `load_model` read, with the files that are written here and with others: keys that it does
    not know, that match nothing, at which it stops; its training of four small models by `mlx_lm.lora --config`. Only read:
    training on Apple's GPUs, and quantized models, whose modules have the same names.
    """

    name = "mlx-lm"
    title = _TITLE
    release = _RELEASE
    peft = ""
    form: Form = "yaml"
    marks = frozenset({"lora_parameters", "fine_tune_type", "num_layers", "adapter_path", "steps_per_eval", "iters"})

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What mlx-lm's keys cannot say of a plan."""
        mlx = as_mlx(plan.model)
        if mlx is None:
            return (_unknown_type(plan.model, f"all {len(plan.targets)} weights. "),)
        lost = []
        if plan.model.head not in ("causal-lm", "image-text-to-text", "unknown"):
            lost.append(f"the kind of model ({plan.model.head}). {_TITLE} trains language models")
        lost += [*_missing(plan, mlx), *_divided(plan, mlx)]
        sizes = {one.rank: one.scale for one in plan.resolution.adapted}
        scales = {one.scale for one in plan.resolution.adapted}
        if len(sizes) > 1:
            lost.append(f"ranks that differ: {', '.join(map(str, sorted(sizes)))}. {_TITLE} has one for all")
        if max(scales) - min(scales) > _CLOSE * max(scales):
            lost.append(
                f"scales that differ: {', '.join(f'{scale:g}' for scale in sorted(scales))}. {_TITLE} has one for all"
            )
        if plan.config.bias != "none":
            lost.append(f"the biases that are trained ({plan.config.bias}). {_TITLE} trains none")
        if plan.config.use_dora and any(t.weight.kind == "embedding" for t in plan.targets):
            lost.append(f"DoRA of an embedding. {_TITLE} has a magnitude per token, PEFT one per feature")
        if plan.config.use_dora and any(t.weight.experts > 1 for t in plan.targets):
            lost.append(f"DoRA of experts. {_TITLE} has none for them")
        return tuple(lost)

    def write(self, plan: Plan, job: Job) -> str:
        """The YAML of a plan."""
        mlx = as_mlx(plan.model)
        if mlx is None:
            raise LorascopeError(_unknown_type(plan.model), where=f"export to {self.name}", hint=_types_hint())
        keys, layers = _keys_for(plan, mlx)
        first = plan.resolution.adapted[0]
        heading = [
            f"{_TITLE} {self.release}: mlx_lm.lora --config THIS_FILE",
            f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
            f"Module names are {_TITLE}'s own, for the {plan.model.model_type} of transformers "
            f"{transformers_release(plan.model) or 'as its checkpoint names it'}.",
        ]
        settings = {
            "model": job.base or PLACEHOLDER,
            "train": True,
            "fine_tune_type": "dora" if plan.config.use_dora else "lora",
            "num_layers": layers,
            "lora_parameters": {
                "rank": first.rank,
                "scale": float(first.scale),
                "dropout": float(plan.config.lora_dropout),
                "keys": keys,
            },
            "data": job.data or "mlx-community/WikiSQL",
            "adapter_path": job.output,
            "batch_size": 4,
            "iters": 1000,
            "learning_rate": 1e-5,
            "max_seq_length": 2048,
            "mask_prompt": False,
            "grad_checkpoint": False,
            "seed": 0,
        }
        whole = [key for key in keys if mlx.relative(key) or key in _outside(mlx)]
        remarks = {
            "model": "" if job.base else "Your model: a Hub id or a folder.",
            "num_layers": "All blocks."
            if layers == -1
            else "The last blocks only; keys within a block count there alone.",
            "lora_parameters": "The scale is what others call alpha / rank. Keys are exact names within a block"
            + (", or within the whole model." if whole else "."),
            "data": ""
            if job.data
            else "Your data: a folder with train.jsonl and valid.jsonl, or a data set of the Hub.",
        }
        return commented_yaml(heading, settings, {key: said for key, said in remarks.items() if said})

    def read(self, text: str, where: str) -> Asked:
        """Such a file.

        Raises:
            LorascopeError: It is no YAML, or mlx-lm cannot use a value of it.
        """
        data = parse_yaml(text, where, "Mend the file; mlx-lm reads it with PyYAML too.")
        settings = {key: _number(value) for key, value in data.items()}
        parameters = settings.get("lora_parameters")
        if isinstance(parameters, Mapping):
            settings["lora_parameters"] = {key: _number(value) for key, value in parameters.items()}
        faults = [*_setting_faults(settings), *_parameter_faults(settings)]
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        base = settings.get("model")
        return Asked(base if isinstance(base, str) else "", settings, tuple(_key_findings(settings, where)))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What mlx-lm's `linear_to_lora_layers` adapts.

        Raises:
            LorascopeError: The names of this type of model are not known, or the file trains without adapters, or adapts
                one half of a weight that mlx-lm splits, or nothing but modules that are no weight of the map.
        """
        mlx = as_mlx(model)
        if mlx is None:
            raise LorascopeError(_unknown_type(model), where=model.model, hint=_types_hint())
        settings = asked.settings
        kind = settings.get("fine_tune_type") or "lora"
        if kind == "full":
            raise LorascopeError(
                "fine_tune_type is full: it trains the blocks themselves", hint="Give lora or dora to train adapters."
            )
        parameters = settings.get("lora_parameters") or _PARAMETERS
        layers = _NUM_LAYERS if settings.get("num_layers") is None else settings["num_layers"]
        if layers > mlx.layers:
            refusal = _TOO_MANY_LAYERS.about(layers=layers, blocks=mlx.layers)
            return Outcome(Resolution(refusal=refusal), None, asked.findings)
        keys = parameters.get("keys")
        findings = list(asked.findings)
        if keys is None:
            keys = _default_keys(mlx)
            findings.append(_default_finding(mlx, layers, settings))
        stopped = _stopped(mlx, keys, layers)
        if stopped is not None:
            return Outcome(Resolution(refusal=stopped), None, tuple(findings))
        outcome = _outcome(model, mlx, parameters, kind == "dora", keys, layers, findings)
        return outcome if parameters.get("keys") is None else _with_unmatched(outcome, mlx, keys, layers)


# Writing.


def _missing(plan: Plan, mlx: MlxModel) -> Iterator[str]:
    """Targets that no adaptable module of mlx-lm holds, a sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for target in plan.targets:
        if target.weight.name in mlx.absent:
            reasons.setdefault(mlx.absent[target.weight.name], []).append(target.weight.name)
    for reason, names in reasons.items():
        yield f"{len(names)} weights ({listed(names, _MOST_NAMED)}): each {reason}"


def _divided(plan: Plan, mlx: MlxModel) -> Iterator[str]:
    """Targets that mlx-lm holds as several modules."""
    names = [t.weight.name for t in plan.targets if len(mlx.modules.get(t.weight.name, ())) > 1]
    if names:
        pieces = " and ".join(one.rpartition(".")[2] for one in mlx.modules[names[0]])
        yield (
            f"one adapter each for {len(names)} weights ({listed(names, _MOST_NAMED)}). {_TITLE} splits them into "
            f"{pieces}, with an adapter for each"
        )


def _keys_for(plan: Plan, mlx: MlxModel) -> tuple[list[str], int]:
    """The shortest keys, and the number of last blocks, that adapt the modules of a plan and no others."""
    wanted = {name for target in plan.targets for name in mlx.modules[target.weight.name]}
    inner = {name for name in wanted if mlx.relative(name)}
    keys = sorted({mlx.relative(name) for name in inner}) + sorted(wanted - inner)
    first = min((mlx.layer(name) or 0 for name in inner), default=0)
    for layers in (-1, mlx.layers - first):
        if set(_chosen(mlx, keys, layers)) == wanted and not _others_named(mlx, keys):
            return keys, layers
    return sorted(wanted, key=_in_order), -1


def _in_order(name: str) -> list[tuple[int, str]]:
    # Numbers in order of their values: of two without zeros in front, the longer is the larger.
    return [(len(part), part) if part.isdecimal() else (-1, part) for part in name.split(".")]


def _outside(mlx: MlxModel) -> set[str]:
    return {name for names in mlx.modules.values() for name in names if not mlx.relative(name)}


# Reading.


def _number(value: Any) -> Any:
    return float(value.replace("_", "")) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _setting_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    kind = settings.get("fine_tune_type")
    if kind is not None and kind not in _TYPES:
        yield f"fine_tune_type is {quoted(kind)}, not {' or '.join(_TYPES)}"
    layers = settings.get("num_layers")
    if layers is not None and not _is_whole(layers):
        yield f"num_layers is {quoted(layers)}, not a whole number"


def _parameter_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    parameters = settings.get("lora_parameters")
    if parameters is None or settings.get("fine_tune_type") == "full":
        return
    if not isinstance(parameters, Mapping):
        yield f"lora_parameters is {quoted(parameters)}, not keys with values"
        return
    absent = [key for key in _PARAMETERS if key not in parameters]
    if absent:
        text = f"lora_parameters has no {' and no '.join(absent)}, which mlx-lm does not fill in"
        if "scale" in absent and "alpha" in parameters:
            text += ": its scale is what others call alpha / rank"
        yield text
    rank, scale, dropout = (parameters.get(key) for key in ("rank", "scale", "dropout"))
    if rank is not None and not (_is_whole(rank) and rank > 0):
        yield f"rank is {quoted(rank)}, not a whole number above 0"
    if scale is not None and not _is_number(scale):
        yield f"scale is {quoted(scale)}, not a number"
    if dropout is not None and not (_is_number(dropout) and 0 <= dropout < 1):
        yield f"dropout is {quoted(dropout)}, not a number from 0 to below 1"
    yield from (f"{key} is empty" for key in _PARAMETERS if key in parameters and parameters[key] is None)
    keys = parameters.get("keys")
    if isinstance(keys, str):
        yield f"keys is the text {quoted(keys)}: mlx-lm takes parts of it for names, and stops; give a list"
    elif keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        yield f"keys is {quoted(keys)}, not a list of texts"


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < _TOO_LARGE


def _key_findings(settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    parameters = settings.get("lora_parameters")
    names = [str(key) for key in settings]
    names += [f"lora_parameters.{key}" for key in parameters] if isinstance(parameters, Mapping) else []
    yield from unknown_key_findings(
        "mlx_lm", names, where, consequence="mlx-lm ignores it silently", severity="warning"
    )
    for key in _ON_THE_COMMAND_LINE:
        if settings.get(key):
            said = f"mlx-lm does not read {key} from a file"
            yield Finding(
                "ignored-key", "warning", where, said, f"Give it on the command line: --{key.replace('_', '-')}"
            )


# Resolving.


def _chosen(mlx: MlxModel, keys: Sequence[str], layers: int) -> list[str]:
    """The modules of weights that keys name."""
    return _named(mlx, (name for modules in mlx.modules.values() for name in modules), keys, layers)


def _named(mlx: MlxModel, modules: Iterable[str], keys: Sequence[str], layers: int) -> list[str]:
    """Those of some modules that keys name: within the last blocks, and within the whole model."""
    names = set(keys)
    return [name for name in modules if name in names or (_counts(mlx, name, layers) and mlx.relative(name) in names)]


def _counts(mlx: MlxModel, name: str, layers: int) -> bool:
    """Whether a module is in one of the blocks that `num_layers` leaves."""
    layer = mlx.layer(name)
    return layer is not None and layer >= (0 if layers <= 0 else mlx.layers - layers)


def _stopped(mlx: MlxModel, keys: Sequence[str], layers: int) -> Diagnostic | None:
    """Why mlx-lm stops at keys; None if it does not: what it cannot adapt, and what it would adapt twice."""
    names = set(keys)
    chosen = _named(mlx, [name for modules in mlx.modules.values() for name in modules], keys, layers)
    twice = [name for name in chosen if name in names and _counts(mlx, name, layers) and mlx.relative(name) in names]
    if twice:
        return _NAMED_TWICE.about(twice[0], again=mlx.relative(twice[0]))
    whole = {part for modules in mlx.modules.values() for name in modules for part in _holding(name)}
    within = {
        part
        for modules in mlx.modules.values()
        for name in modules
        if _counts(mlx, name, layers)
        for part in _holding(mlx.relative(name))
    }
    holding = sorted(names & (whole | within))
    if holding:
        return _HOLDS_LAYERS.about(holding[0], key=quoted(holding[0]))
    return None


def _holding(name: str) -> Iterator[str]:
    """Names of the modules around one; a list of modules is none."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count, part in enumerate(parts) if not part.isdigit())


def _default_keys(mlx: MlxModel) -> list[str]:
    """Every name within a block that some block has an adaptable module under."""
    names = {mlx.relative(name) for modules in mlx.modules.values() for name in modules}
    others = {mlx.relative(pattern.replace("#", "0", 1)) for pattern in mlx.others}
    return sorted((names | others) - {""})


def _default_finding(mlx: MlxModel, layers: int, settings: Mapping[str, Any]) -> Finding:
    where = "lora_parameters.keys"
    blocks = f"the last {layers} of {mlx.layers} blocks" if layers > 0 else f"all {mlx.layers} blocks"
    said = "" if settings.get("num_layers") is not None else " num_layers is not given either, and 16 is its default."
    return Finding(
        "default-targets",
        "note",
        where,
        f"no keys are given: mlx-lm adapts every layer that it can in {blocks}, routers included, and no head.{said}",
        "Name the keys if that is not meant.",
    )


def _outcome(
    model: ModelMap,
    mlx: MlxModel,
    parameters: Mapping[str, Any],
    dora: bool,
    keys: Sequence[str],
    layers: int,
    findings: list[Finding],
) -> Outcome:
    hit = set(_chosen(mlx, keys, layers))
    adapted = []
    for weight in model.weights:
        names = mlx.modules.get(weight.name, ())
        pieces = [name for name in names if name in hit]
        if not pieces:
            continue
        if dora and weight.experts > 1:
            return Outcome(Resolution(refusal=_DORA_OF_EXPERTS.about(pieces[0])), None, tuple(findings))
        if len(pieces) < len(names):
            raise LorascopeError(
                f"{pieces[0]} is one part of {weight.name}, of which mlx-lm makes {' and '.join(names)}",
                where="lora_parameters.keys",
                hint="Name all of them, or none.",
            )
        if len(pieces) > 1:
            said = f"mlx-lm splits {weight.name} into {' and '.join(pieces)} and gives each its own adapter"
            findings.append(
                Finding("trainer-filter", "note", weight.name, said, "Nothing to do; PEFT has one for both.")
            )
        rank, scale = parameters["rank"], float(parameters["scale"])
        count = _count(model, weight, rank, len(pieces), dora)
        adapted.append(Adapted(weight.name, rank, scale * rank, scale, count))
    beside = list(_beside(mlx, model, keys, layers))
    if not adapted and beside:
        raise LorascopeError(
            *(one.message for one in beside),
            where="lora_parameters.keys",
            hint="Nothing else is adapted. Name modules that hold a weight of the map.",
        )
    findings.extend(beside)
    if not adapted:
        named = listed(map(quoted, keys), _MOST_NAMED)
        refusal = _NO_LAYER.about(*keys, shown=named) if keys else _NO_KEYS.about()
        return Outcome(Resolution(refusal=refusal), None, tuple(_without_repeats(findings)))
    trainable = sum(one.trainable for one in adapted)
    adapted.sort(key=lambda one: one.name)
    return Outcome(Resolution(tuple(adapted), trainable), None, tuple(_without_repeats(findings)))


def _beside(mlx: MlxModel, model: ModelMap, keys: Sequence[str], layers: int) -> Iterator[Finding]:
    """What is adapted and is no weight of the map by itself."""
    for module in _named(mlx, mlx.sharing, keys, layers):
        name = mlx.sharing[module]
        said = f"mlx-lm adapts {module}, where {name} {mlx.absent[name]}; it is not counted here"
        code = "tied" if model.weight_by_name[name].kind == "embedding" else "trainer-filter"
        yield Finding(code, "warning", name, said, "Leave it out of the keys.")
    others = _others_named(mlx, keys)
    if others:
        said = (
            "mlx-lm also adapts modules that the map has no weight for by itself, which are not counted here: "
            f"{listed(others, _MOST_NAMED)}"
        )
        yield Finding("trainer-filter", "warning", "lora_parameters.keys", said, "Give whole names of the modules.")


def _others_named(mlx: MlxModel, keys: Iterable[str]) -> list[str]:
    """Patterns of modules without a weight that keys name."""
    known = {name for modules in mlx.modules.values() for name in modules}
    named = {_NUMBER.sub(".#", f".{key}") for key in keys if key not in known}
    return [
        pattern
        for pattern in mlx.others
        if f".{pattern}" in named or f".{pattern.removeprefix(f'{mlx.blocks}.#.')}" in named
    ]


def _with_unmatched(outcome: Outcome, mlx: MlxModel, keys: Sequence[str], layers: int) -> Outcome:
    """An outcome with what is to be said of keys that nothing answers to."""
    done = outcome.resolution
    hit = {*_chosen(mlx, keys, layers), *_named(mlx, mlx.sharing, keys, layers)}
    used = hit | {mlx.relative(name) for name in hit}
    unmatched = [key for key in dict.fromkeys(keys) if key not in used and not _others_named(mlx, [key])]
    if not unmatched or done.refusal is not None:
        return outcome
    warning = _UNMATCHED_KEYS.about(*unmatched, shown=listed(unmatched, _MOST_NAMED))
    fix = (
        f"lorascope export writes {_TITLE}'s own names of a plan; it calls stacks of experts switch_mlp, and some layers "
        "otherwise."
    )
    finding = Finding("no-match", "error", "lora_parameters.keys", str(warning), fix)
    resolution = dataclasses.replace(done, warnings=(*done.warnings, warning))
    return dataclasses.replace(outcome, resolution=resolution, findings=(*outcome.findings, finding))


def _without_repeats(findings: Sequence[Finding]) -> Iterator[Finding]:
    """One finding for weights of all layers of which the same is so."""
    seen: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        seen.setdefault((one.code, re.sub(r"\d+", "#", one.message)), []).append(one)
    for (code, _), group in seen.items():
        first = group[0]
        if code != "trainer-filter" or len(group) == 1:
            yield from group
            continue
        places = listed((one.where for one in group), _MOST_NAMED)
        yield Finding(code, first.severity, places, f"{first.message} (and {len(group) - 1} like it)", first.fix)


def _count(model: ModelMap, weight: Weight, rank: int, pieces: int, dora: bool) -> int:
    """Parameters of a weight's adapters: a weight that is split has its input side once for each piece."""
    if weight.kind == "embedding":
        module = model.module_by_name[weight.module]
        tokens, width = stored_shape(module, "weight") or weight.shape
        return rank * (tokens + width) + (tokens if dora else 0)
    outer, inner = weight.shape[-2:]
    return weight.experts * rank * (pieces * inner + outer) + (outer if dora else 0)


def _unknown_type(model: ModelMap, lead: str = "") -> str:
    shown = model.model_type or model.architecture
    return (
        f"{lead}The names that {_TITLE} {_RELEASE} gives the modules of {shown} are not known, or it has no such model"
    )


def _types_hint() -> str:
    return f"Known are {len(mlx_types())} types: {', '.join(mlx_types())}."
