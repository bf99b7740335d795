"""Maps and plans as files: a saved plan embeds its map, so everything after `plan` works from one file."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from lorascope.compiling import compile_targets, peft_arguments, peft_name
from lorascope.errors import LorascopeError
from lorascope.folding import fold, unfold
from lorascope.inspecting import PLAN_FORMAT, read_json
from lorascope.peft_rules.reaching import obstacle
from lorascope.peft_rules.resolving import resolve
from lorascope.records import ModelMap, Options, Plan, Target
from lorascope.selecting import parse_rule
from lorascope.serializing import map_from_json, map_to_json

Json = dict[str, Any]


def map_report(model: ModelMap) -> Json:
    """The map's JSON with its weights listed: names folded, roles, shapes, shares and what PEFT can reach."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for weight in model.weights:
        key = (weight.role, weight.kind, weight.shape, weight.guess, obstacle(model, weight))
        groups.setdefault(key, []).append(weight.name)
    listed = []
    for (role, kind, shape, guess, reason), names in groups.items():
        entry = {"role": str(role), "kind": kind, "shape": shape, "count": len(names), "names": fold(names)}
        entry |= ({"guess": True} if guess else {}) | ({"obstacle": reason} if reason else {})
        listed.append(entry)
    return {**map_to_json(model), "weights": listed}


def plan_to_json(plan: Plan) -> Json:
    """The JSON form of a plan, its map included."""
    groups: dict[tuple[int, float, int], list[Target]] = {}
    for target in plan.targets:
        groups.setdefault((target.rank, target.alpha, target.rule), []).append(target)
    trainable = {adapted.name: adapted.trainable for adapted in plan.resolution.adapted}
    return {
        "format": PLAN_FORMAT,
        "rules": [str(rule) for rule in plan.rules],
        "options": {**dataclasses.asdict(plan.options), "exclude": [str(rule) for rule in plan.options.exclude]},
        "targets": [
            {
                "rank": rank,
                "alpha": alpha,
                "rule": rule,
                "trainable": sum(trainable[peft_name(plan.model, target.weight)] for target in targets),
                "names": fold(target.weight.name for target in targets),
            }
            for (rank, alpha, rule), targets in groups.items()
        ],
        "trainable": plan.resolution.trainable,
        "parameters": plan.model.figures.parameters,
        "unreachable": [{"name": weight.name, "reason": reason} for weight, reason in plan.unreachable],
        "notes": list(plan.notes),
        "adapter_config": peft_arguments(plan.config),
        "map": map_to_json(plan.model),
    }


def plan_from_json(data: object) -> Plan:
    """The plan of a JSON form: its targets as they were saved, the configuration compiled from them again.

    Raises:
        LorascopeError: It is not one.
    """
    if not isinstance(data, dict) or data.get("format") != PLAN_FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise LorascopeError(f"not a saved plan: format is {found!r}, not {PLAN_FORMAT!r}")
    model = map_from_json(data.get("map"))
    try:
        rules = tuple(parse_rule(text) for text in data["rules"])
        exclude = tuple(parse_rule(text) for text in data["options"]["exclude"])
        options = Options(**{**data["options"], "exclude": exclude})
        targets = {
            name: Target(model.weight_by_name[name], int(group["rank"]), float(group["alpha"]), int(group["rule"]))
            for group in data["targets"]
            for folded in group["names"]
            for name in unfold(folded)
        }
        unreachable = tuple((model.weight_by_name[item["name"]], str(item["reason"])) for item in data["unreachable"])
        notes = tuple(str(note) for note in data["notes"])
        if not targets or any(target.rank < 1 or not 0 <= target.rule < len(rules) for target in targets.values()):
            raise LorascopeError("its targets are empty, or of no rank or rule", where="saved plan")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LorascopeError):
            raise
        raise LorascopeError(f"it is broken: {type(error).__name__}: {error}", where="saved plan") from error
    ordered = tuple(targets[weight.name] for weight in model.weights if weight.name in targets)
    config = compile_targets(model, ordered, options)
    return Plan(model, rules, options, ordered, config, resolve(model, config), unreachable, notes)


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file, or in the `plan.json` of a folder.

    Raises:
        LorascopeError: There is none.
    """
    file = Path(path)
    return plan_from_json(read_json(file / "plan.json" if file.is_dir() else file))


def save_plan(plan: Plan, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Writes `adapter_config.json`, which `PeftConfig.from_pretrained` reads, and `plan.json`; returns both paths.

    Raises:
        LorascopeError: The folder cannot be written. Neither file is left half-written.
    """
    known = plan.model.source == "config" and plan.model.model
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": plan.model.model if known else None,
        **peft_arguments(plan.config),
    }
    return (
        _write(Path(folder) / "adapter_config.json", config),
        _write(Path(folder) / "plan.json", plan_to_json(plan)),
    )


def save_map(model: ModelMap, path: str | os.PathLike[str]) -> Path:
    """Writes a map that `inspect` reads back.

    Raises:
        LorascopeError: The file cannot be written; nothing is left half-written.
    """
    return _write(Path(path), map_to_json(model))


def _write(path: Path, data: Json) -> Path:
    text = json.dumps(data, indent=2) if path.name == "adapter_config.json" else json.dumps(data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise LorascopeError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    return path
