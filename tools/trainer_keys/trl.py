"""Prints the options of TRL's scripts and `accelerate launch`, one a line.

Run by a Python that has TRL; what it prints is `src/lorascope/data/trainer_keys/trl.txt`.
"""

from __future__ import annotations

import importlib
import importlib.metadata

import architectures

_SCRIPTS = ("distillation", "dpo", "grpo", "kto", "reward", "rloo", "sft")
# Known to TrlParser and to `trl` beside the options.
_OWN = ("accelerate_config", "config", "env")


def main() -> None:
    architectures.mend_torchvision()
    parsers = [importlib.import_module(f"trl.scripts.{script}").make_parser() for script in _SCRIPTS]
    parsers.append(importlib.import_module("accelerate.commands.launch").launch_command_parser())
    options = {option for parser in parsers for option in parser._option_string_actions if option.startswith("--")}
    print(f"# trl {importlib.metadata.version('trl')}")
    print("\n".join(sorted({option[2:].replace("-", "_") for option in options}.union(_OWN))))


if __name__ == "__main__":
    main()
