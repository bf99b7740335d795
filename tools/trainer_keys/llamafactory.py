"""Prints the keys of LLaMA-Factory's own parser, one a line.

Run by a Python that has LLaMA-Factory; what it prints is `src/lorascope/data/trainer_keys/llamafactory.txt`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from pathlib import Path

import architectures


def main() -> None:
    architectures.mend_torchvision()
    # Python looks for modules beside this script first, and would take this one for the trainer.
    sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    sys.modules.pop("llamafactory", None)
    from llamafactory.hparams import parser

    print(f"# llamafactory {importlib.metadata.version('llamafactory')}")
    # What HfArgumentParser.parse_dict takes: the fields that its dataclasses are made with.
    fields = {field.name for part in parser._TRAIN_ARGS for field in dataclasses.fields(part) if field.init}
    print("\n".join(sorted(fields)))


if __name__ == "__main__":
    main()
