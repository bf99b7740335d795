"""A plan's settings as YAML for a trainer: a heading, and a remark above each key that needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lorascope.records import ModelMap

_WIDE = 2**30  # one line for the longest regular expression: a folded one is hard to compare


def commented_yaml(heading: Sequence[str], settings: Mapping[str, Any], remarks: Mapping[str, str]) -> str:
    """A YAML text of top-level keys in their order.

    Args:
        heading: Comment lines at the top.
        settings: Keys with values of YAML's own types; tuples are written as lists.
        remarks: What to say above a key. A key that is none of the settings is passed over.
    """
    lines = [f"# {line}" for line in heading]
    for key, value in settings.items():
        if key in remarks:
            lines += ["", f"# {remarks[key]}"]
        lines.append(
            yaml.safe_dump({key: _plain(value)}, sort_keys=False, width=_WIDE, allow_unicode=True).rstrip("\n")
        )
    return "\n".join(lines) + "\n"


def named_by(model: ModelMap, remark: str = "") -> str:
    """Whose module names a written file has, for its heading."""
    release = model.versions.get("transformers")
    said = (
        f"Module names are those of transformers {release}." if release else "Module names are those of the checkpoint."
    )
    return f"{said} {remark}".rstrip()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
