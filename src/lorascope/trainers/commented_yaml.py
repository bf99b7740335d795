"""Settings as YAML with comments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from lorascope.errors import LorascopeError
from lorascope.foreign_text import comment, quoted

_WIDE = 2**30  # one line for the longest regular expression: a folded one is hard to compare


class Reference(str):
    """A text of ours in which OmegaConf fills in a value: `${output_dir}/logs`."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, with strings on one line."""

    def ignore_aliases(self, data: object) -> bool:
        """Writes a value again where it stands again."""
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML would spread line breaks within single quotation marks over several lines.
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(Reference, _text_node)


def commented_yaml(
    heading: Sequence[str], settings: Mapping[str, Any], remarks: Mapping[str, str], *, references: bool = False
) -> str:
    """A YAML text of top-level keys in their order.

    Args:
        heading: Comment lines at the top.
        settings: Keys with values of YAML's own types; tuples are written as lists.
        remarks: The comment above a key, none if empty. A key that is none of the settings is ignored.
        references: The trainer reads it with OmegaConf, which fills in `${…}` in a string.

    Raises:
        LorascopeError: A number is not finite, or a string would be read as a reference.
    """
    faults = [
        f"{key} would hold {quoted(value)}, {reason}"
        for key, setting in settings.items()
        for value, reason in _unwritable(setting, references)
    ]
    if faults:
        raise LorascopeError(*faults, hint="Give it another name, or export to peft.")
    lines = [*map(comment, heading)]
    for key, value in settings.items():
        if remarks.get(key):
            lines += ["", comment(remarks[key])]
        lines.append(_written({key: _plain(value)}))
    return "\n".join(lines) + "\n"


def _written(setting: Mapping[str, Any]) -> str:
    legible = all(text.isprintable() for text in _texts(setting))
    dumped: str = yaml.dump(setting, Dumper=_Dumper, sort_keys=False, width=_WIDE, allow_unicode=legible)
    return dumped.rstrip("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value
        value = value.values()
    elif not isinstance(value, tuple | list):
        yield value
        return
    for item in value:
        yield from _scalars(item)


def _texts(value: Any) -> Iterator[str]:
    return (scalar for scalar in _scalars(value) if isinstance(scalar, str))


def _unwritable(value: Any, references: bool) -> Iterator[tuple[Any, str]]:
    for scalar in _scalars(value):
        if isinstance(scalar, float) and not math.isfinite(scalar):
            yield scalar, "which is not a finite number"
        elif references and isinstance(scalar, str) and not isinstance(scalar, Reference) and "${" in scalar:
            yield scalar, "which the trainer would read as a reference"
