"""Writes what released models have that the built-in map of their type lacks, and the other way round.

    python tools/build_released_parts.py     a minute

A built-in map is that of transformers' default configuration. `tests/data/released_configs.jsonl` has the configurations of
released models; each is built on the meta device, and its modules are compared with those of the built-in map by their names
without numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tools")]
TABLE = ROOT / "src" / "lorascope" / "data" / "released_parts.json"


def released_parts() -> dict[str, list[dict[str, Any]]]:
    """By head and type, the released models with other modules than the built-in one; those that differ alike once."""
    table: dict[str, list[dict[str, Any]]] = {}
    for name, model in released_models():
        from lorascope.sources.builtin import load_builtin

        here, there = load_builtin(model.model_type, model.head), templates(model)
        own = templates(here)
        extra = {template: there[template] for template in sorted(there.keys() - own.keys())}
        lacking = sorted(own.keys() - there.keys())
        rows = table.setdefault(f"{model.head}/{model.model_type}", [])
        if (extra or lacking) and not any((row["extra"], row["lacking"]) == (extra, lacking) for row in rows):
            rows.append({"release": name, "extra": extra, "lacking": lacking})
    return {key: table[key] for key in sorted(table) if table[key]}


def released_models() -> Iterator[tuple[str, Any]]:
    """The maps of the released configurations whose type and head are built in, by name."""
    import architectures

    architectures.mend_torchvision()
    from lorascope.sources.builtin import builtin_models
    from tests.conformance.released import built_model, released_configs
    from tests.helpers.sparse_checkpoints import write_checkpoint

    builtin = builtin_models()
    for name, row in sorted(released_configs().items()):
        if row["config"]["model_type"] not in builtin:
            continue
        with tempfile.TemporaryDirectory(prefix="lorascope-") as folder:
            built = built_model(write_checkpoint(Path(folder), {}, config=row["config"]))
        if built is not None and built[1].head in builtin[row["config"]["model_type"]]:
            yield name, built[1]


def templates(model: Any) -> dict[str, str]:
    """The modules that an entry may be meant for, by their names with `*` for numbers: their kind, or `other`."""
    from lorascope.names import NUMBER

    return {
        NUMBER.sub("*", module.name): module.kind
        for module in model.modules
        if module.kind != "other" or module.class_name.endswith("Linear")
    }


if __name__ == "__main__":
    text = json.dumps(released_parts(), separators=(",", ":")).replace('"]}],"', '"]}],\n"').replace("[]}],", "[]}],\n")
    TABLE.write_text(text + "\n", encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(text):,} bytes")
