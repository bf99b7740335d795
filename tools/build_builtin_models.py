"""Writes `src/lorascope/data/builtin`: the map of every architecture's default configuration.

python tools/build_builtin_models.py            build every model and write its map
python tools/build_builtin_models.py --roles    only read the roles again, from the written maps (no torch)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "src" / "lorascope" / "data" / "builtin"
sys.path.insert(0, str(ROOT / "src"))

from lorascope.model.classify import classify  # noqa: E402
from lorascope.model.json import map_from_json, map_to_json  # noqa: E402
from lorascope.model.types import ModelMap  # noqa: E402


def builtin_map_json(model: ModelMap) -> str:
    """The file of a map: one line per top-level field, so that a change is readable in a diff."""
    fields = (
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in map_to_json(model).items()
    )
    return "{\n" + ",\n".join(fields) + "\n}\n"


def build() -> None:
    import transformers
    from architectures import HEADS, entries, mend_torchvision

    from lorascope.sources.transformers.meta_model import map_module

    transformers.logging.set_verbosity_error()
    mend_torchvision()
    promised = {entry.model_type for entry in entries()}
    written: set[Path] = set()
    for head in HEADS:
        for entry in entries(head):
            if entry.model_type not in promised:
                continue
            model = map_module(entry.build(), model=entry.model_type, head=entry.head, source="built-in")
            # The mapping's key is what people type, also where the class reads a sub-configuration's own type.
            path = GALLERY / head / f"{entry.model_type}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(builtin_map_json(model), encoding="utf-8")
            written.add(path)
            print(f"\r{len(written)} maps", end="", file=sys.stderr)
    for stale in set(GALLERY.glob("*/*.json")) - written:
        stale.unlink()
    print(file=sys.stderr)


def read_roles() -> None:
    for path in sorted(GALLERY.glob("*/*.json")):
        model = map_from_json(json.loads(path.read_text(encoding="utf-8")))
        weights = classify(model.modules, model_type=model.model_type)
        path.write_text(builtin_map_json(dataclasses.replace(model, weights=weights)), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roles", action="store_true")
    read_roles() if parser.parse_args().roles else build()
