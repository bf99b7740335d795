"""Prints ms-swift's own options and table of models.

Run by a Python that has ms-swift, with `sft`, `rlhf` or `models`; what it prints is
`src/lorascope/data/trainer_keys/ms-swift.txt`, `ms-swift-rlhf.txt` beside it, and `src/lorascope/data/ms_swift_models.tsv`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from typing import Any

import architectures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sft", "rlhf", "models"), nargs="?", default="sft")
    what = parser.parse_args().what
    architectures.mend_torchvision()
    lines = models() if what == "models" else options(what)
    print(f"# ms-swift {importlib.metadata.version('ms-swift')}")
    print("\n".join(lines))


def options(command: str) -> list[str]:
    """Every option of a command, with underscores for dashes."""
    from swift.arguments import RLHFArguments, SftArguments
    from transformers import HfArgumentParser

    parser = HfArgumentParser([SftArguments if command == "sft" else RLHFArguments])
    return sorted({option[2:].replace("-", "_") for option in parser._option_string_actions if option.startswith("--")})


def models() -> list[str]:
    """Tab-separated lines: model types, then where the parts of each lie."""
    from swift.model.model_arch import MODEL_ARCH_MAPPING
    from swift.model.model_meta import MODEL_MAPPING

    lines = []
    for name, meta in MODEL_MAPPING.items():
        towers = meta.model_arch.arch_name if meta.model_arch else ""
        kind = "multimodal" if meta.is_multimodal else "text"
        lines.append("\t".join(["model", name, kind, towers, meta.task_type or "", " ".join(meta.architectures)]))
    for name, keys in MODEL_ARCH_MAPPING.items():
        parts = [" ".join(listed(getattr(keys, part, None))) for part in ("language_model", "aligner", "vision_tower")]
        lines.append("\t".join(["towers", name, *parts, keys.lm_head or ""]))
    return [line.rstrip("\t") for line in lines]


def listed(value: Any) -> list[str]:
    # An empty path is the model itself.
    return [path or "." for path in value or ()]


if __name__ == "__main__":
    main()
