"""Writes which parts each model class has that its configuration does not decide, from transformers' own models.

python tools/build_constructed_parts.py     some minutes

A class such as `BertModel` takes a flag beside its configuration (`add_pooling_layer`), and the class that holds it decides:
`BertForMaskedLM` has no pooler, `BertForPreTraining` has one. Both are built on the meta device, and what the flag adds is
looked for.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]
TABLE = ROOT / "src" / "lorascope" / "data" / "constructed_parts.json"


def python_classes() -> dict[str, type[Any]]:
    """Model classes of transformers by name, those that are no attribute of the package too."""
    import transformers
    import transformers.models

    found: dict[str, type[Any]] = {}
    for module in pkgutil.walk_packages(transformers.models.__path__, "transformers.models."):
        if not module.name.rpartition(".")[2].startswith("modeling_"):
            continue
        try:
            members = vars(importlib.import_module(module.name))
        except ImportError:  # of a package that is not there
            continue
        own = (member for member in members.values() if inspect.isclass(member) and member.__module__ == module.name)
        found.update((cls.__name__, cls) for cls in own if issubclass(cls, transformers.PreTrainedModel))
    return found


def flags(cls: type[Any]) -> list[str]:
    """The flags of a class's constructor, beside the configuration."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [parameter.name for parameter in parameters if type(parameter.default) is bool]


# ESM's configuration has no default for these.
_NEEDED = {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32}


def built(cls: type[Any], **arguments: bool) -> Any:
    """An instance with the default configuration, on the meta device, or None."""
    import torch

    for given in ({}, _NEEDED):
        try:
            with torch.device("meta"):
                return cls(cls.config_class(**given), **arguments)
        except Exception:  # modeling code raises whatever it likes
            continue
    return None


def _with_parameters(module: Any) -> set[str]:
    return {name for name, inner in module.named_modules() if name and next(inner.parameters(), None) is not None}


def flagged_parts(cls: type[Any]) -> set[str]:
    """The modules with parameters that a flag adds to a class."""
    parts: set[str] = set()
    for flag in flags(cls):
        both = [built(cls, **{flag: value}) for value in (True, False)]
        if None not in both:
            parts |= set.symmetric_difference(*map(_with_parameters, both))
    return {part for part in parts if not any(part.startswith(f"{other}.") for other in parts)}


def constructed_parts(key: str, cls: type[Any], flagged: dict[str, set[str]]) -> Iterator[tuple[str, str, bool]]:
    """The flagged parts that a model class has, or has not, and the class that each is in."""
    from lorascope.sources.checkpoint.layout import ModelLayout

    try:
        config = cls.config_class().to_dict()
    except Exception:  # it has no default
        config = {}
    owners = [part for part in ModelLayout(key, config).parts if part.key in flagged]
    module = built(cls) if owners else None
    if module is None:
        return
    there = _with_parameters(module)
    for owner in owners:
        if type(module.get_submodule(owner.path)).__name__ != owner.key:
            continue
        for part in sorted(flagged[owner.key]):
            path = f"{owner.path}.{part}" if owner.path else part
            yield path, owner.key, path in there


def build() -> dict[str, dict[str, dict[str, str]]]:
    """By class: the parts that it has (`with`) and has not (`without`), each with the class that it is in."""
    from lorascope.sources.checkpoint.layout_table import layout

    classes = {name: cls for name, cls in python_classes().items() if (row := layout(name)) and row.model}
    flagged = {name: parts for name, cls in classes.items() if flags(cls) and (parts := flagged_parts(cls))}
    table: dict[str, dict[str, dict[str, str]]] = {}
    for name in sorted(classes):
        for path, owner, there in constructed_parts(name, classes[name], flagged):
            table.setdefault(name, {}).setdefault("with" if there else "without", {})[path] = owner
    return table


def main() -> None:
    """Write the table."""
    import architectures

    warnings.simplefilter("ignore")
    architectures.mend_torchvision()
    rows = ",\n".join(f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in build().items())
    TABLE.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
