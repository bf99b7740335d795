"""mlx-lm's YAML, written and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.names import listed
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import unequal_sizes, untrained_biases, untrained_head
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import unknown_key_findings
from lorascope.trainers.mlx_lm.names import MlxModel, as_mlx
from lorascope.trainers.mlx_lm.schema import RELEASE, TITLE, mlx_settings
from lorascope.trainers.mlx_lm.targets import Keys, types_hint, unknown_type
from lorascope.trainers.protocol import PLACEHOLDER, Job, TrainerConfig, Unsupported, require_no_faults
from lorascope.trainers.provenance import YOUR_MODEL, file_heading
from lorascope.trainers.search_findings import MOST_NAMED

_HINT = "For the keys of mlx_lm.lora, see mlx-lm's LORA.md."
# Options whose own defaults hide what a file sets.
_COMMAND_LINE_ONLY = ("clear_cache_threshold", "config", "trust_remote_code")


# Writing.


def unsupported_by_mlx(plan: Plan) -> Iterator[Unsupported]:
    """What mlx-lm's keys cannot express."""
    mlx = as_mlx(plan.model)
    if mlx is None:
        yield Unsupported("model", unknown_type(plan.model))
        return
    yield from untrained_head(plan.model, TITLE)
    yield from _absent_weights(plan, mlx)
    yield from unequal_sizes(plan, TITLE)
    yield from untrained_biases(plan, TITLE)
    if plan.config.use_dora and any(target.weight.kind == "embedding" for target in plan.targets):
        message = "mlx-lm's DoRA of an embedding has a magnitude per token; PEFT's has one per feature."
        yield Unsupported("variant", message)
    if plan.config.use_dora and any(target.weight.experts > 1 for target in plan.targets):
        yield Unsupported("variant", "mlx-lm has no DoRA for experts.")


def _absent_weights(plan: Plan, mlx: MlxModel) -> Iterator[Unsupported]:
    """Targets without a module of their own in mlx-lm."""
    reasons: dict[str, list[str]] = {}
    for target in plan.targets:
        if target.weight.name in mlx.absent:
            reasons.setdefault(mlx.absent[target.weight.name], []).append(target.weight.name)
    for reason, names in reasons.items():
        message = f"mlx-lm cannot adapt {len(names)} weights ({listed(names, MOST_NAMED)}): each {reason}."
        yield Unsupported("weights", message)
    split = [t.weight.name for t in plan.targets if len(mlx.modules.get(t.weight.name, ())) > 1]
    if split:
        pieces = " and ".join(piece.rpartition(".")[2] for piece in mlx.modules[split[0]])
        message = (
            f"mlx-lm splits {len(split)} weights ({listed(split, MOST_NAMED)}) into {pieces}, with an adapter for each."
        )
        yield Unsupported("weights", message)


def write_mlx(plan: Plan, job: Job) -> str:
    """The YAML of a plan, for `mlx_lm.lora --config`."""
    mlx = as_mlx(plan.model)
    if mlx is None:
        raise LorascopeError(unknown_type(plan.model), where="export to mlx-lm", hint=types_hint())
    keys, layers = _shortest_keys(plan, mlx)
    first = plan.resolution.adapted[0]
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
    outside = {name for names in mlx.modules.values() for name in names if not mlx.relative(name)}
    whole = any(mlx.relative(key) or key in outside for key in keys)
    remarks = {
        "model": "" if job.base else YOUR_MODEL,
        "num_layers": "All blocks." if layers == -1 else "The last blocks only; keys within a block apply to these.",
        "lora_parameters": "scale = alpha / rank. Keys are exact names within a block"
        + (", or within the whole model." if whole else "."),
        "data": "" if job.data else "Your data: a folder with train.jsonl and valid.jsonl, or a data set of the Hub.",
    }
    lines = file_heading(plan, f"{TITLE} {RELEASE}: mlx_lm.lora --config THIS_FILE", own_names=TITLE)
    return commented_yaml(lines, settings, remarks)


def _shortest_keys(plan: Plan, mlx: MlxModel) -> tuple[list[str], int]:
    """The shortest keys, and last blocks, for exactly a plan."""
    modules = {name for target in plan.targets for name in mlx.modules[target.weight.name]}
    inner = {name for name in modules if mlx.relative(name)}
    names = sorted({mlx.relative(name) for name in inner}) + sorted(modules - inner)
    first = min((mlx.layer(name) or 0 for name in inner), default=0)
    for layers in (-1, mlx.layers - first):
        keys = Keys(mlx, tuple(names), layers)
        if set(keys.chosen()) == modules and not keys.without_weight():
            return names, layers
    return sorted(modules, key=_by_numbers), -1


def _by_numbers(name: str) -> list[tuple[int, str]]:
    # Numbers in order of their values: of two without leading zeros, the longer is the larger.
    return [(len(part), part) if part.isdecimal() else (-1, part) for part in name.split(".")]


# Reading.


def read_mlx(text: str, where: str) -> TrainerConfig:
    """A file for `mlx_lm.lora --config`.

    Raises:
        LorascopeError: Not YAML, or with values that mlx-lm cannot use.
    """
    data = parse_yaml(text, where, "Correct the file; mlx-lm reads it with PyYAML too.")
    settings, faults = mlx_settings(data)
    require_no_faults(faults, where, _HINT)
    base = settings.get("model")
    return TrainerConfig(base if isinstance(base, str) else "", settings, tuple(_findings(settings, where)))


def _findings(settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    parameters = settings.get("lora_parameters")
    names = [str(key) for key in settings]
    names += [f"lora_parameters.{key}" for key in parameters] if isinstance(parameters, Mapping) else []
    consequence = "mlx-lm ignores it silently"
    yield from unknown_key_findings("mlx_lm", names, where, consequence=consequence, severity="warning")
    for key in _COMMAND_LINE_ONLY:
        if settings.get(key):
            fix = f"Give it on the command line: --{key.replace('_', '-')}"
            yield Finding("ignored-key", "warning", where, f"mlx-lm does not read {key} from a file", fix)
