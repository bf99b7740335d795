"""Maps and plans as files: a saved plan embeds its map, so everything after `plan` works from one file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.compiling import compile_targets, peft_arguments, peft_name
from lorascope.errors import LorascopeError
from lorascope.folding import fold, unfold
from lorascope.inspecting import PLAN_FORMAT
from lorascope.peft_rules.resolving import resolve
from lorascope.planning import option_faults
from lorascope.records import ModelMap, Options, Plan, Rule, Target
from lorascope.selecting import parse_rule
from lorascope.serializing import map_from_json, map_to_json
from lorascope.sources.configurations import read_json

Json = dict[str, Any]

_AGAIN = "Make it again with: lorascope plan … -o DIR"


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
        options = _options(data["options"], exclude)
        targets = {
            name: Target(model.weight_by_name[name], *_size(group), _whole(group["rule"]))
            for group in data["targets"]
            for folded in group["names"]
            for name in unfold(folded)
        }
        unreachable = tuple((model.weight_by_name[item["name"]], str(item["reason"])) for item in data["unreachable"])
        notes = tuple(str(note) for note in data["notes"])
        if not targets or any(not 0 <= target.rule < len(rules) for target in targets.values()):
            raise LorascopeError("its targets are empty, or of no rule", where="saved plan", hint=_AGAIN)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LorascopeError):
            raise
        raise LorascopeError(
            f"it is broken: {type(error).__name__}: {error}", where="saved plan", hint=_AGAIN
        ) from error
    ordered = tuple(targets[weight.name] for weight in model.weights if weight.name in targets)
    config = compile_targets(model, ordered, options)
    return Plan(model, rules, options, ordered, config, resolve(model, config), unreachable, notes)


def _options(data: Json, exclude: tuple[Rule, ...]) -> Options:
    options = Options(**{**data, "exclude": exclude})
    checked = (options.rank, options.alpha, options.scale, options.dropout, options.bias, options.layers)
    for fault in option_faults(*checked):
        raise LorascopeError(*fault.faults, where="saved plan", hint=_AGAIN)
    if options.alpha is None and options.scale is None:
        raise LorascopeError("neither alpha nor scale is given", where="saved plan", hint=_AGAIN)
    if not (type(options.rslora) is bool and type(options.dora) is bool and isinstance(options.recipe, str)):
        raise LorascopeError("rslora, dora or recipe is of a wrong type", where="saved plan", hint=_AGAIN)
    return options


def _size(group: Json) -> tuple[int, float]:
    """The rank and alpha of a group of targets, within what a plan can have."""
    rank, alpha = group["rank"], group["alpha"]
    for fault in option_faults(rank, alpha, None, None, "none", ""):
        raise LorascopeError(*fault.faults, where="saved plan: targets", hint=_AGAIN)
    return rank, float(alpha)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


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
    files = (Path(folder) / "adapter_config.json", Path(folder) / "plan.json")
    _write({files[0]: json.dumps(config, indent=2), files[1]: json.dumps(plan_to_json(plan))})
    return files


def save_map(model: ModelMap, path: str | os.PathLike[str]) -> Path:
    """Writes a map that `inspect` reads back.

    Raises:
        LorascopeError: The file cannot be written; nothing is left half-written.
    """
    _write({Path(path): json.dumps(map_to_json(model))})
    return Path(path)


def save_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Writes a text to a file of any name.

    Raises:
        LorascopeError: The file cannot be written; nothing is left half-written.
    """
    _write({Path(path): text.removesuffix("\n")})
    return Path(path)


def _write(texts: Mapping[Path, str]) -> None:
    """Writes every text beside its place, and moves them there once all are written."""
    written: list[tuple[Path, Path]] = []
    path = next(iter(texts))
    try:
        for path, text in texts.items():
            if path.exists() and not path.is_file():  # a device or a pipe would be replaced by a file
                raise IsADirectoryError(None, "there is something else than a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            written.append((temporary, path))
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text + "\n")
        for temporary, path in written:
            temporary.replace(path)
    except (OSError, ValueError) as error:
        raise LorascopeError(
            f"cannot be written: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            hint="Name a place that can be written to (-o).",
        ) from error
    finally:
        for temporary, _ in written:
            with contextlib.suppress(OSError, ValueError):
                temporary.unlink(missing_ok=True)
