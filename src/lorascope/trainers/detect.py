"""Recognizes and reads a trainer's file or options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.files.json_text import parse_json
from lorascope.sources.files.plain import read_plain, require_reachable
from lorascope.sources.files.yaml_text import MOST_BYTES, parse_yaml
from lorascope.trainers.protocol import Trainer, TrainerConfig
from lorascope.trainers.registry import TRAINERS, trainer_called, trainers_marked


@dataclasses.dataclass(frozen=True, slots=True)
class TrainerFile:
    """A trainer's configuration, read.

    Attributes:
        where: What messages call it.
        trainer: Whose it is.
        config: Its options.
    """

    where: str
    trainer: Trainer
    config: TrainerConfig


def read_as(name: str, words: Sequence[str]) -> TrainerFile:
    """Read a trainer's file or command-line options.

    Raises:
        LorascopeError: No such trainer or file, or it cannot be read.
    """
    trainer = trainer_called(name)
    if len(words) == 1:
        require_reachable(Path(words[0]))
    if len(words) == 1 and _is_there(Path(words[0])):
        return _read_by(trainer, _text(Path(words[0])), words[0])
    if words and words[0].startswith(("--", trainer.name)):
        return _read_by(trainer, shlex.join(words), f"options of {trainer.title}")
    raise LorascopeError(
        "there is no such file",
        where=quoted(" ".join(words)),
        hint=f"Give a configuration of {trainer.title}, or its options after --: --as {trainer.name} -- --option …",
    )


def read_file(path: Path) -> TrainerFile | Mapping[str, Any]:
    """Read a trainer's file, or PEFT's settings of an adapter or plan.

    Raises:
        LorascopeError: It cannot be read, or it could be several trainers' or none's.
    """
    text = _text(path)
    where = str(path)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _read_by(_only(trainers_marked(parse_yaml(text, where).keys()), where), text, where)
    if suffix == ".json":
        data = parse_json(text.encode(), where, "Give an adapter_config.json or a trainer's configuration.")
        if not isinstance(data, dict):
            raise LorascopeError(f"holds a {type(data).__name__}, not an object", where=where)
        inner = data.get("adapter_config")
        if isinstance(inner, dict):  # a saved plan
            return inner
        if "peft_type" in data or "target_modules" in data:
            return data
        return _read_by(_only(trainers_marked(data.keys()), where), text, where)
    marked = trainers_marked(set(re.findall(r"[\w-]+", text)))
    form = "python" if suffix == ".py" else ""
    return _read_by(_only([trainer for trainer in marked if not form or trainer.form == form], where), text, where)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name can be, or with a zero byte
        return False


def _only(trainers: Sequence[Trainer], where: str) -> Trainer:
    if len(trainers) == 1:
        return trainers[0]
    message = (
        f"can be a configuration of {' or '.join(trainer.title for trainer in trainers)}"
        if trainers
        else "is neither a trainer's configuration nor an adapter's"
    )
    raise LorascopeError(message, where=where, hint=f"Name the trainer with --as: {', '.join(TRAINERS)}")


def _read_by(trainer: Trainer, text: str, where: str) -> TrainerFile:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise LorascopeError("holds bytes that are not UTF-8", where=where, hint="Is this a configuration?")
    return TrainerFile(where, trainer, trainer.read(text, where))


def _text(path: Path) -> str:
    data = read_plain(path, MOST_BYTES, hint="Give a configuration file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LorascopeError(
            f"is not text: byte {error.start + 1} is not UTF-8", where=str(path), hint="Is this a configuration?"
        ) from error
