"""Maps and plans as files; a saved plan embeds its map."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import json_text, quoted
from lorascope.inspecting import PLAN_FORMAT
from lorascope.model.json import FORMAT, map_from_json, map_to_json
from lorascope.model.types import LOADABLE, ModelMap
from lorascope.names import fold, unfold_all
from lorascope.outputs import checked_place, file_objection, sealed_file, seals, write_files
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.lora_config import peft_arguments, saved_config
from lorascope.plans.arguments import require_map, require_plan
from lorascope.plans.compiler import compile_targets
from lorascope.plans.notes import EXPERT_RANK, NO_DROPOUT
from lorascope.plans.planner import assemble_plan, option_faults, why_left_out
from lorascope.plans.rules import parse_rule
from lorascope.plans.types import Assignment, Options, Plan, Rule, Target
from lorascope.sources.files.json_files import read_json
from lorascope.sources.files.plain import MOST_BYTES
from lorascope.sources.modules.python_objects import path_text

Json = dict[str, Any]

_AGAIN = "Make it again with: lorascope plan … -o DIR"
_LONGEST = 200
# Each of a plan's sizes is compiled with all of its targets: room for a size of its own for each of 1,700 weights.
_MOST_WORK = 3_000_000
_CONFIG_FILE, _PLAN_FILE = "adapter_config.json", "plan.json"
_EDITED = "and is not a {} as lorascope saved it; you may have edited it"
# Names of a model's or an adapter's tensors, and of what a training leaves.
_TENSORS = (".safetensors", ".gguf", "model.bin", ".index.json", "training_args.bin", "trainer_state.json")
_CHECKPOINT = re.compile(r"checkpoint-\d+|pytorch_model.*\.bin")


def plan_to_json(plan: Plan) -> Json:
    """The JSON form of a plan, its map included."""
    groups: dict[tuple[int, float, int], list[Target]] = {}
    for target in plan.targets:
        groups.setdefault((target.rank, target.alpha, target.rule), []).append(target)
    return {
        "format": PLAN_FORMAT,
        "rules": [str(rule) for rule in plan.rules],
        "options": _options_to_json(plan.options),
        "targets": [
            {
                "rank": rank,
                "alpha": alpha,
                "rule": rule,
                "trainable": sum(target.adapted.trainable for target in targets),
                "names": fold(target.weight.name for target in targets),
            }
            for (rank, alpha, rule), targets in groups.items()
        ],
        "trainable": plan.resolution.trainable,
        "parameters": plan.model.dimensions.parameters,
        "unreachable": [{"name": weight.name, "reason": str(reason)} for weight, reason in plan.unreachable],
        "notes": [_note_to_json(note) for note in plan.notes],
        "adapter_config": peft_arguments(plan.config),
        "map": map_to_json(plan.model),
    }


def _options_to_json(options: Options) -> Json:
    fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {**fields, "exclude": [str(rule) for rule in options.exclude]}


def _note_to_json(note: Diagnostic) -> Json:
    """A note's code and text, and values that are read back."""
    values = {"names": list(note.names), **note.values} if note.reason in (EXPERT_RANK, NO_DROPOUT) else {}
    return {"code": note.code, "text": str(note), **({"values": values} if values else {})}


def plan_from_json(data: object) -> Plan:
    """The plan of a JSON form, its configuration compiled again.

    Raises:
        LorascopeError: It is not one.
    """
    if not isinstance(data, dict) or data.get("format") != PLAN_FORMAT:
        form = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise LorascopeError(f"not a saved plan: format is {quoted(form)}, not {PLAN_FORMAT!r}")
    model = map_from_json(data.get("map"))
    try:
        rules = tuple(parse_rule(text) for text in data["rules"])
        exclude = tuple(parse_rule(text) for text in data["options"]["exclude"])
        options = _options(data["options"], exclude)
        assignments = _assignments(data["targets"], model)
        weights = [model.weight_by_name[item["name"]] for item in data["unreachable"]]
        notes = tuple(_notes(data["notes"]))
        if not assignments or any(not 0 <= item.rule < len(rules) for item in assignments.values()):
            raise LorascopeError("its targets are empty, or of no rule", where="saved plan", hint=_AGAIN)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LorascopeError):
            raise
        message = str(error) if len(str(error)) <= _LONGEST else quoted(str(error))
        raise LorascopeError(
            f"it is broken: {type(error).__name__}: {message}", where="saved plan", hint=_AGAIN
        ) from error
    ordered = tuple(assignments[weight.name] for weight in model.weights if weight.name in assignments)
    unreachable = tuple((weight, reason) for weight in weights if (reason := why_left_out(model, weight)))
    return assemble_plan(model, rules, options, ordered, unreachable, compile_targets(model, ordered, options), notes)


def _assignments(groups: Sequence[Json], model: ModelMap) -> dict[str, Assignment]:
    """Ranks and alphas by the names of weights.

    Raises:
        LorascopeError: A name occurs twice; or there are more names than weights, or more sizes than can be compiled.
    """
    assignments: dict[str, Assignment] = {}
    sizes: set[tuple[int, float]] = set()
    for group in groups:
        (rank, alpha), rule = _size(group), _whole(group["rule"])
        sizes.add((rank, alpha))
        for name in unfold_all(group["names"], len(model.weights) - len(assignments)):
            if name in assignments:
                raise LorascopeError(f"{quoted(name)} is a target twice", where="saved plan: targets", hint=_AGAIN)
            assignments[name] = Assignment(model.weight_by_name[name], rank, alpha, rule)
    if len(sizes) > 1 and len(sizes) * len(assignments) > _MOST_WORK:
        fault = f"{len(assignments)} targets have {len(sizes)} ranks and alphas, more than can be compiled"
        raise LorascopeError(fault, where="saved plan: targets", hint=_AGAIN)
    return assignments


def _notes(items: Sequence[Json]) -> Iterator[Diagnostic]:
    """Notes on the rules and options; all others are found again."""
    for item in items:
        if item["code"] == EXPERT_RANK.code:
            values = item["values"]
            numbers = {name: _whole(values[name]) for name in ("rank", "each", "active")}
            yield EXPERT_RANK.about(**numbers, selector=str(parse_rule(values["selector"])))
        elif item["code"] == NO_DROPOUT.code:
            values = item["values"]
            yield NO_DROPOUT.about(
                str(values["names"][0]), count=_whole(values["count"]), experts=values["experts"] is True
            )


def _options(data: Json, exclude: tuple[Rule, ...]) -> Options:
    options = Options(**{**data, "exclude": exclude})
    for fault in option_faults(options):
        raise LorascopeError(*fault.faults, where="saved plan", hint=_AGAIN)
    if options.alpha is None and options.scale is None:
        raise LorascopeError("neither alpha nor scale is given", where="saved plan", hint=_AGAIN)
    if options.dropout is None:
        raise LorascopeError("no dropout is given", where="saved plan", hint=_AGAIN)
    if not (type(options.rslora) is bool and type(options.dora) is bool and isinstance(options.recipe, str)):
        raise LorascopeError("rslora, dora or recipe is of a wrong type", where="saved plan", hint=_AGAIN)
    return options


def _size(group: Json) -> tuple[int, float]:
    """The rank and alpha of a group of targets, checked."""
    rank, alpha = group["rank"], group["alpha"]
    for fault in option_faults(Options(rank=rank, alpha=alpha)):
        raise LorascopeError(*fault.faults, where="saved plan: targets", hint=_AGAIN)
    return rank, float(alpha)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file, or in the `plan.json` of a folder.

    Raises:
        LorascopeError: There is none, or the folder's leads out of it.
    """
    text = path_text(path)
    if text is None:
        raise LorascopeError(
            "path must be a text or a path", where="load_plan", hint="Give a saved plan's file or folder."
        )
    file = Path(text)
    if os.path.isdir(file):  # noqa: PTH112  which takes a name that no file can have for one that is not there
        folder, file = file, sealed_file(file, _PLAN_FILE)
        if file.is_symlink() and not file.resolve().is_relative_to(folder.resolve()):
            raise LorascopeError(
                f"{file.name} is a link that leads out of the folder",
                where=str(folder),
                hint="Give the file that is meant itself.",
            )
    return plan_from_json(read_json(file))


def save_plan(plan: Plan, folder: str | os.PathLike[str], *, force: bool = False) -> tuple[Path, Path]:
    """Writes `adapter_config.json`, which `PeftConfig.from_pretrained` reads, and `plan.json`; returns both paths.

    Both change or neither does, whatever ends the process. A plan of before is replaced.

    Args:
        plan: What to save.
        folder: Where; it is made if it is not there.
        force: Write even into a folder with a model, a trained adapter, or files of those names that are not a plan's.

    Raises:
        LorascopeError: The folder holds something that the plan would damage, or cannot be written.
    """
    require_plan(plan, "save_plan")
    place = checked_place(folder)
    data = plan_to_json(plan)
    texts = {_CONFIG_FILE: json_text(_written_config(data), indent=2), _PLAN_FILE: _signed(data)}
    write_files(place, texts, lambda: _plan_objections(place), force=force)
    return place / _CONFIG_FILE, place / _PLAN_FILE


def save_map(model: ModelMap, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Writes a map that `inspect` reads back.

    Args:
        model: What to save.
        path: The file. A map that is there is replaced.
        force: Replace any other file, too.

    Raises:
        LorascopeError: There is another file, or it cannot be written; nothing is left half-written.
    """
    require_map(model, "save_map")
    return _save(path, _signed(map_to_json(model)), lambda file: _as_saved(file, FORMAT), _EDITED.format("map"), force)


def save_text(text: str, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Writes a text to a file of any name.

    Args:
        text: What to write.
        path: The file.
        force: Replace a file with another text.

    Raises:
        LorascopeError: There is a file with another text, or it cannot be written; nothing is left half-written.
    """
    text = text.removesuffix("\n")

    def same(file: Path) -> bool:
        return file.is_file() and file.stat().st_size < MOST_BYTES and file.read_bytes() == f"{text}\n".encode()

    return _save(path, text, same, "with other content; you may have edited it", force)


def _save(path: str | os.PathLike[str], text: str, mine: Callable[[Path], bool], what: str, force: bool) -> Path:
    place = checked_place(path)
    write_files(place.parent, {place.name: text}, lambda: file_objection(place, mine, what), force=force)
    return place


def _signed(data: Json) -> str:
    """A JSON form as text, with a digest that shows edits."""
    return json_text({**data, "digest": _digest(data)})


def _digest(data: Json) -> str:
    import hashlib  # takes longer to load than most commands need

    return hashlib.sha256(json_text(data).encode()).hexdigest()


def _as_saved(file: Path, form: str) -> bool:
    """A file of this format, exactly as it was saved."""
    data = _json_object(file)
    digest = data.pop("digest", None)
    return data.get("format") == form and digest == _digest(data)


def _json_object(file: Path) -> Json:
    """The object in a JSON file; empty if there is none."""
    try:
        data = read_json(file)
    except LorascopeError:
        return {}
    return data if isinstance(data, dict) else {}


def _plan_objections(folder: Path) -> Iterator[str]:
    """What in a folder keeps a plan from being written there."""
    for entry in sorted(folder.iterdir()):
        if entry.name.endswith(_TENSORS) or _CHECKPOINT.fullmatch(entry.name):
            yield f"holds {quoted(entry.name)}: an adapter_config.json next to a model or a trained adapter changes what loads"
            break
    if _json_object(folder / "config.json").keys() & {"model_type", "architectures"}:
        yield "holds a model's config.json: an adapter_config.json next to it changes what loads"
    yield from file_objection(folder / _PLAN_FILE, lambda file: _as_saved(file, PLAN_FORMAT), _EDITED.format("plan"))
    yield from file_objection(
        folder / _CONFIG_FILE,
        _belongs_to_plan,
        "and does not belong to the plan.json next to it; you may have edited it",
    )


def _belongs_to_plan(file: Path) -> bool:
    """The file belongs to the plan next to it, or to an interrupted write."""
    config = _json_object(file)
    for plan in seals(file.parent, _PLAN_FILE):
        data = _json_object(plan)
        try:
            if config and config == _written_config(data):
                return True
        except (KeyError, TypeError, AttributeError):
            continue
    return False


def _written_config(data: Json) -> Json:
    """The `adapter_config.json` that belongs to the JSON form of a plan."""
    model = data["map"]
    return saved_config(data["adapter_config"], model["model"] if model["source"] in LOADABLE else "")
