"""Writes `src/lorascope/data/conversions.json`: the rules by which transformers renames and merges on loading.

python tools/build_conversions.py            write the table of the installed transformers
python tools/build_conversions.py --check    exit with 1 where the table is not that of the installed transformers
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "src" / "lorascope" / "data" / "conversions.json"
sys.path.insert(0, str(ROOT / "src"))

from lorascope.sources.checkpoint.conversions.operations import OPERATIONS  # noqa: E402

# What an operation's arguments are when it is not told otherwise; only others are written.
_USUAL = {"num_shards_attribute": None, "inverse": False, "check_dims": False}
# Arguments that decide numbers, not names or shapes.
_NUMBERS_ONLY = {"subconfig_key", "permute_layer_names"}
# A prefix that is added or taken away is, on loading, a renaming like others.
_KINDS = {
    "WeightRenaming": "rename",
    "PrefixChange": "rename",
    "GroupWeightRename": "group",
    "Inkling2IndexOffsetWeightRename": "offset",
    "LayerPairCollapse": "pair",
    "WeightConverter": "convert",
}


def table() -> dict[str, Any]:
    """The table of the installed transformers.

    Raises:
        ValueError: It has a kind of rule or an operation that `lorascope.sources.checkpoint.conversions` does not restate.
    """
    import transformers
    from transformers import conversion_mapping

    rules: dict[str, list[dict[str, Any]]] = {}
    aliases: dict[str, str] = {}
    first: dict[str, str] = {}  # the rules as text to the identifier that has them
    for identifier, transforms in conversion_mapping._build_checkpoint_conversion_mapping().items():
        rows = [row(transform) for transform in transforms]
        text = json.dumps(rows)
        if text in first:
            aliases[identifier] = first[text]
        else:
            first[text] = identifier
            rules[identifier] = rows
    return {
        "transformers": transformers.__version__,
        "aliases": dict(sorted(aliases.items())),
        "rules": dict(sorted(rules.items())),
    }


def row(transform: Any) -> dict[str, Any]:
    """One of transformers' weight transforms as plain data.

    Raises:
        ValueError: Nothing restates it.
    """
    kind = _KINDS.get(type(transform).__name__)
    if kind is None:
        raise ValueError(f"{type(transform).__name__} is a kind of rule that nothing restates")
    written: dict[str, Any] = {} if kind == "rename" else {"kind": kind}
    written |= {"from": transform.source_patterns, "to": transform.target_patterns}
    if any(r"\1" in target for target in transform.target_patterns):
        for source in transform.source_patterns:
            if not re.compile(source.replace("*.", r".*\.")).groups:
                raise ValueError(f'"{source}" captures nothing that {transform.target_patterns} could repeat')
    if kind == "pair":  # its own code decides; tests/sources/test_conversions.py holds this beside it
        written |= {"from": [transform.pattern.pattern], "to": ["self_attn", "mlp"]}
        written["words"] = {"attn_alpha": "lambda_1", "mlp_alpha": "lambda_2"}
    if kind == "offset":
        written["offset"] = transform.offset
    if kind == "convert":
        written["by"] = [[type(op).__name__, _arguments(op)] for op in transform.operations]
        if "MergeModulelist" in [name for name, _ in written["by"][1:]]:
            raise ValueError("MergeModulelist is restated as a first operation only")
    return written


def _arguments(operation: Any) -> Mapping[str, Any]:
    name = type(operation).__name__
    if name not in OPERATIONS:
        raise ValueError(f"{name} is an operation that nothing restates")
    arguments = {
        key: value
        for key, value in vars(operation).items()
        if key not in _NUMBERS_ONLY and not (key in _USUAL and value == _USUAL[key])
    }
    if name == "Concatenate":
        arguments.pop("num_shards_attribute", None)  # how many pieces it is cut into on saving
    if "num_shards_attribute" in arguments:
        raise ValueError(f"{name} into as many as the configuration says is an operation that nothing restates")
    return arguments


def table_text(made: Mapping[str, Any]) -> str:
    """The file of a table: one line per rule, so that a change is readable in a diff."""
    lines = ["{", f'"transformers": {json.dumps(made["transformers"])},', '"aliases": {']
    lines.append(",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in made["aliases"].items()))
    lines += ["},", '"rules": {']
    lines.append(",\n".join(f"{json.dumps(key)}: {_rows(rows)}" for key, rows in made["rules"].items()))
    return "\n".join([*lines, "}", "}"]) + "\n"


def _rows(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(" " + json.dumps(one, separators=(",", ":")) for one in rows) + "\n]" if rows else "[]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = table_text(table())
    if not parser.parse_args().check:
        TABLE.write_text(text, encoding="utf-8")
    elif not TABLE.is_file() or TABLE.read_text(encoding="utf-8") != text:
        sys.exit(
            f"{TABLE.relative_to(ROOT)} is not what the installed transformers has: run tools/build_conversions.py"
        )
