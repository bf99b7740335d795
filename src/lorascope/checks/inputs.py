"""Input of a check: names, an adapter, or a trainer's configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.phrases import cut
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plans.task_types import task_type
from lorascope.sources.checkpoint.types import Tensor
from lorascope.sources.files.plain import require_reachable
from lorascope.sources.source_kinds import is_hub_id

if TYPE_CHECKING:
    from lorascope.sources.adapters import Adapter
    from lorascope.trainers.detect import TrainerFile

# What a name of a module never holds, and a regular expression nearly always does.
_REGULAR = frozenset("*+?[](){}|^$\\")
_PATHLIKE = re.compile(r"[~.]?[/\\]|\.\.|.*\.(?:json|ya?ml|sh|py|ipynb|toml|txt|safetensors|gguf)\Z", re.IGNORECASE)
_MAGIC = "all-linear"
# So many of the names that were given are shown.
_MOST_NAMED = 20


@dataclasses.dataclass(frozen=True, slots=True)
class CheckInput:
    """What a check was given.

    Attributes:
        where: What messages and reports call it.
        settings: PEFT's keyword arguments, of an adapter or made of names; empty for a trainer's configuration.
        trainer_file: A trainer's configuration, or None.
        tensors: The tensors next to an adapter's configuration, by their headers; None where there are none.
        notes: What is good to know about where it comes from.
    """

    where: str
    settings: Mapping[str, Any]
    trainer_file: TrainerFile | None = None
    tensors: Mapping[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


def read_check_input(
    model: ModelMap,
    words: Sequence[str | os.PathLike[str]],
    *,
    trainer: str = "",
    rank: int = 8,
    alpha: float = 16,
    revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckInput:
    """Reads what the words of a check stand for.

    One word is a folder or file if there is one of that name, else a repository on the Hub if it is `owner/name`, else
    a name or a regular expression; several words are names, as in a list of `target_modules`.

    Args:
        model: The map, for the task type of names.
        words: The words.
        trainer: The trainer whose configuration or options the words are; found out if empty.
        rank: The rank of names.
        alpha: The alpha of names.
        revision: Branch, tag or commit of a Hub id.
        progress: Called with the number of parts read and of all.

    Raises:
        LorascopeError: There is no such file, it cannot be read, or nobody can tell what it is.
    """
    if trainer:
        from lorascope.trainers.detect import read_as  # with every trainer's room, which names do not need

        return _of_trainer(read_as(trainer, [os.fspath(word) for word in words]))
    if len(words) == 1 and os.fspath(words[0]).strip():
        word = os.fspath(words[0])
        path = Path(word)
        if len(path.parts) > 1:  # a name by itself may be meant where the working folder may not be looked into
            require_reachable(path)
        if _exists(path):
            file = path / "adapter_config.json" if path.is_dir() else path
            return _adapter(path) if path.is_dir() or file.name == "adapter_config.json" else _of_file(path)
        if is_hub_id(word):
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


def _adapter(source: str | Path, **arguments: Any) -> CheckInput:
    from lorascope.sources.adapters import read_adapter  # with what reads tensors, which names do not need

    adapter = read_adapter(source, **arguments)
    if "peft_type" not in adapter.config:
        return _of_another_tool(adapter)
    return CheckInput(adapter.where, adapter.config, tensors=adapter.tensors, notes=adapter.notes)


def _of_another_tool(adapter: Adapter) -> CheckInput:
    """A file that PEFT does not load, of a trainer that calls its own so.

    Raises:
        LorascopeError: It is no trainer's either.
    """
    from lorascope.trainers.detect import read_saved

    read = read_saved(adapter.config, adapter.where)
    if read is None:
        raise LorascopeError(
            "has no peft_type, without which PEFT loads no adapter",
            where=adapter.where,
            hint='If it is an adapter of PEFT, add "peft_type": "LORA" to the file.',
        )
    return CheckInput(adapter.where, {}, trainer_file=read, notes=adapter.notes)


def _of_names(model: ModelMap, words: Sequence[str], rank: int, alpha: float) -> CheckInput:
    first = words[0].strip() if words else ""
    if not first:
        raise LorascopeError(
            "nothing is given to check",
            hint="Give an adapter's folder, a trainer's configuration, or names: q_proj v_proj",
        )
    targets: str | list[str]
    if len(words) == 1 and (_REGULAR & set(first) or first.lower() == _MAGIC):
        targets, where = first, f"the regular expression {cut(first)}" if first.lower() != _MAGIC else first
    else:
        targets = [name for word in words for name in _names_in(word)]
        more = f" and {len(targets) - _MOST_NAMED:,} more" if len(targets) > _MOST_NAMED else ""
        names = " ".join(map(cut, targets[:_MOST_NAMED]))
        where = f"target modules {names}{more}" if len(targets) > 1 else f"target module {names}"
    settings = {"target_modules": targets, "r": rank, "lora_alpha": alpha, "task_type": task_type(model)}
    return CheckInput(where, settings)


def _names_in(word: str) -> list[str]:
    """One name, or several with commas between them, as LLaMA-Factory writes them."""
    if _REGULAR & set(word):
        return [word]
    return [name.strip() for name in word.split(",") if name.strip()] or [word]


def _of_file(path: Path) -> CheckInput:
    """A trainer's file, or an adapter's or plan's under another name."""
    from lorascope.trainers.detect import read_file

    content = read_file(path)
    return CheckInput(str(path), content) if isinstance(content, Mapping) else _of_trainer(content)


def _of_trainer(read: TrainerFile) -> CheckInput:
    return CheckInput(read.where, {}, trainer_file=read)
