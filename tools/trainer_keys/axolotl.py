"""Prints the keys of axolotl's own schema, one a line.

Run by a Python that has axolotl; what it prints is `src/lorascope/data/trainer_keys/axolotl.txt`.
"""

from __future__ import annotations

import importlib
import importlib.metadata

import architectures


def main() -> None:
    architectures.mend_torchvision()
    schema = importlib.import_module("axolotl.utils.schemas.config").AxolotlInputConfig
    print(f"# axolotl {importlib.metadata.version('axolotl')}")
    # By name and by alias: the schema takes both.
    names = {name for name, field in schema.model_fields.items()}
    aliases = {field.alias for field in schema.model_fields.values() if field.alias}
    print("\n".join(sorted(names | aliases)))


if __name__ == "__main__":
    main()
