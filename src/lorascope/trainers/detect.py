"""Recognizes and reads a trainer's file or options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import json_text, quoted
from lorascope.sources.files.json_text import parse_json
from lorascope.sources.files.plain import read_plain, require_reachable
from lorascope.sources.files.yaml_text import MOST_BYTES, parse_yaml
from lorascope.trainers.command_lines import programs_of, words_of_commands
from lorascope.trainers.notebooks import MOST_BYTES as NOTEBOOK_BYTES
from lorascope.trainers.notebooks import notebook_code
from lorascope.trainers.protocol import Trainer, TrainerConfig
from lorascope.trainers.registry import TRAINERS, trainer_called, trainers_marked

# Programs whose options stand in a file, and what they call themselves.
_READS_FILES = (
    ("axolotl", "Axolotl"),
    ("llamafactory-cli", "LLaMA-Factory"),
    ("tune", "torchtune"),
    ("mlx_lm", "mlx-lm"),
)


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
    where = str(path)
    suffix = path.suffix.lower()
    if suffix == ".ipynb":
        code = notebook_code(read_plain(path, NOTEBOOK_BYTES, hint="Give a notebook."), where)
        return _read_by(_only(_of_python(code), where), code, where)
    text = _text(path)
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
    trainers = _of_python(text) if suffix == ".py" else _of_script(text, where)
    return _read_by(_only(trainers, where), text, where)


def read_saved(config: Mapping[str, Any], where: str) -> TrainerFile | None:
    """Read what a trainer saves beside an adapter under PEFT's name; None if no trainer does that.

    mlx-lm saves its options so.
    """
    trainer = TRAINERS["mlx-lm"]
    return None if trainer.marks.isdisjoint(config) else _read_by(trainer, json_text(config), where)


def _of_python(text: str) -> list[Trainer]:
    """The trainers whose calls a Python text has: Unsloth's before PEFT's, which it may make too."""
    words = set(re.findall(r"\w+", text))
    found = [trainer for trainer in TRAINERS.values() if trainer.form == "python" and trainer.marks & words]
    calls = [trainer for trainer in found if trainer.name == "unsloth" and "get_peft_model" in words]
    return calls or found[:1]


def _of_script(text: str, where: str) -> list[Trainer]:
    """The trainers that a shell script runs, else those whose options its words are.

    Raises:
        LorascopeError: It runs a trainer whose options stand in another file.
    """
    words = {word.replace("-", "_") for word in re.findall(r"\w[\w-]*", text)}
    commands = words_of_commands(text, where)
    programs = programs_of(commands)
    running = [trainer for trainer in TRAINERS.values() if not programs.isdisjoint(trainer.programs)]
    if len(running) == 1:
        return running
    marked = trainers_marked(words)
    both = [trainer for trainer in marked if trainer in running]
    if not running and (elsewhere := _file_of(commands)):
        title, file = elsewhere
        raise LorascopeError(
            f"runs {title} with the options in {quoted(file)}", where=where, hint="Check that file instead."
        )
    return both or running or marked


def _file_of(commands: Sequence[Sequence[str]]) -> tuple[str, str] | None:
    """A trainer that reads its options from a file, and the file."""
    for command in commands:
        program = next((title for word in command for start, title in _READS_FILES if _starts(word, start)), "")
        file = next((word for word in command if word.endswith((".yaml", ".yml", ".json"))), "")
        if program and file:
            return program, file
    return None


def _starts(word: str, program: str) -> bool:
    name = word.rpartition("/")[2]
    return name == program or name.startswith(f"{program}.")


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
