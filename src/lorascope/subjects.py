"""What a check was given: names, an adapter, or a trainer's configuration; read, and not yet judged."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorascope.compiling import NEWEST, task_type
from lorascope.errors import LorascopeError
from lorascope.records import ModelMap
from lorascope.sources.adapters import read_adapter
from lorascope.sources.checkpoints import Tensor
from lorascope.sources.json_text import parse_json
from lorascope.sources.yaml_text import MOST_BYTES, parse_yaml
from lorascope.trainers.registry import TRAINERS, trainer_called, trainers_marked
from lorascope.trainers.surface import Asked, Trainer

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What a name of a module never holds, and a regular expression nearly always does.
_REGULAR = frozenset("*+?[](){}|^$\\")
_PATHLIKE = re.compile(r"[~.]?[/\\]|\.\.|.*\.(?:json|ya?ml|sh|py|toml|txt)\Z", re.IGNORECASE)
_MAGIC = "all-linear"


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What is to be checked.

    Attributes:
        where: What messages and reports call it.
        settings: PEFT's keyword arguments, of an adapter or made of names; empty for a trainer's configuration.
        trainer: The trainer whose configuration it is, or None.
        asked: That configuration.
        tensors: The tensors that lie beside an adapter's configuration, by their headers; None where none do.
        notes: What should be known of where it comes from.
    """

    where: str
    settings: Mapping[str, Any]
    trainer: Trainer | None = None
    asked: Asked | None = None
    tensors: Mapping[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


def subject_of(
    model: ModelMap,
    words: Sequence[str | os.PathLike[str]],
    *,
    trainer: str = "",
    rank: int = 8,
    alpha: float = 16,
    revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Subject:
    """What the words of a check mean.

    One word is a folder or file if there is one of that name, else a repository on the Hub if it is `owner/name`, else
    a name or a regular expression; several words are names, as in a list of `target_modules`.

    Args:
        model: The map, which tells the task that names are for.
        words: The words.
        trainer: The trainer whose configuration, or whose options, the words are; found out if empty.
        rank: The rank of names.
        alpha: The alpha of names.
        revision: Branch, tag or commit of a Hub id.
        progress: Called with the number of parts read and of all.

    Raises:
        LorascopeError: There is no such file, it cannot be read, or nobody can tell what it is.
    """
    if trainer:
        return _of_trainer(trainer_called(trainer), words)
    if len(words) == 1:
        word = os.fspath(words[0])
        path = Path(word)
        if _exists(path):
            file = path / "adapter_config.json" if path.is_dir() else path
            return _adapter(path) if path.is_dir() or file.name == "adapter_config.json" else _of_file(path)
        if _HUB_ID.fullmatch(word):
            return _adapter(word, revision=revision, progress=progress)
        if _PATHLIKE.match(word):
            raise LorascopeError(
                "there is no such file or folder",
                where=word,
                hint="Give an adapter's folder, its adapter_config.json, a trainer's configuration, or names.",
            )
    return _of_names(model, [os.fspath(word) for word in words], rank, alpha)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name can be, or with a zero byte
        return False


def _adapter(source: str | Path, **arguments: Any) -> Subject:
    adapter = read_adapter(source, **arguments)
    return Subject(adapter.where, adapter.config, tensors=adapter.tensors, notes=adapter.notes)


def _of_names(model: ModelMap, words: Sequence[str], rank: int, alpha: float) -> Subject:
    first = words[0].strip() if words else ""
    if not first:
        raise LorascopeError(
            "nothing is given to check",
            hint="Give an adapter's folder, a trainer's configuration, or names: q_proj v_proj",
        )
    targets: str | list[str]
    if len(words) == 1 and (_REGULAR & set(first) or first.lower() == _MAGIC):
        targets, said = first, f"the regular expression {first}" if first.lower() != _MAGIC else first
    else:
        targets = [name for word in words for name in _names_in(word)]
        said = f"the names {' '.join(targets)}" if len(targets) > 1 else f"the name {targets[0]}"
    settings = {"target_modules": targets, "r": rank, "lora_alpha": alpha, "task_type": task_type(model)}
    return Subject(said, settings)


def _names_in(word: str) -> list[str]:
    """One name, or several that commas part, as LLaMA-Factory has them."""
    if _REGULAR & set(word):
        return [word]
    return [name.strip() for name in word.split(",") if name.strip()] or [word]


def _of_trainer(trainer: Trainer, words: Sequence[str | os.PathLike[str]]) -> Subject:
    where = " ".join(os.fspath(word) for word in words)
    if len(words) == 1 and _exists(Path(words[0])):
        return _read_by(trainer, _text(Path(words[0])), where)
    if trainer.form == "command" or any(where.startswith(start) for start in ("--", trainer.name)):
        import shlex

        return _read_by(trainer, shlex.join(os.fspath(word) for word in words), f"options of {trainer.title}")
    raise LorascopeError(
        "there is no such file",
        where=where,
        hint=f"Give a configuration of {trainer.title}, or its options after --: --as {trainer.name} -- --option …",
    )


def _of_file(path: Path) -> Subject:
    """A trainer's file, or an adapter's or a plan's under a name of its own, told by its keys."""
    text = _text(path)
    where = str(path)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _read_by(_one_of(trainers_marked(parse_yaml(text, where).keys()), where), text, where)
    if suffix == ".json":
        data = parse_json(text.encode(), where, "Give an adapter_config.json or a trainer's configuration.")
        if not isinstance(data, dict):
            raise LorascopeError(f"holds a {type(data).__name__}, not an object", where=where)
        inner = data.get("adapter_config")
        if isinstance(inner, dict):  # a saved plan
            return Subject(where, inner)
        if "peft_type" in data or "target_modules" in data:
            return Subject(where, data)
        return _read_by(_one_of(trainers_marked(data.keys()), where), text, where)
    forms = ("python",) if suffix == ".py" else ("command",)
    marks = set(re.findall(r"[\w-]+", text))
    found = [one for one in TRAINERS.values() if one.form in forms or forms == ("command",)]
    return _read_by(_one_of([one for one in trainers_marked(marks) if one in found], where), text, where)


def _one_of(found: Sequence[Trainer], where: str) -> Trainer:
    if len(found) == 1:
        return found[0]
    said = (
        f"can be a configuration of {' or '.join(one.title for one in found)}"
        if found
        else "is no configuration of a trainer that is known here, and no adapter's"
    )
    raise LorascopeError(said, where=where, hint=f"Say which with --as: {', '.join(TRAINERS)}")


def _read_by(trainer: Trainer, text: str, where: str) -> Subject:
    return Subject(where, {}, trainer=trainer, asked=trainer.read(text, where))


def _text(path: Path) -> str:
    if not path.is_file():
        raise LorascopeError("is neither a file nor a folder", where=str(path), hint="Give a configuration file.")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise LorascopeError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(data) > MOST_BYTES:
        raise LorascopeError(
            f"has more than the {MOST_BYTES} bytes that are read", where=str(path), hint="Is this a configuration?"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LorascopeError(
            f"is not text: byte {error.start + 1} is not UTF-8", where=str(path), hint="Is this a configuration?"
        ) from error


def default_peft(subject: Subject) -> str:
    """The release of PEFT that a subject is judged by unless the user names one."""
    return (subject.trainer.peft if subject.trainer else "") or NEWEST
