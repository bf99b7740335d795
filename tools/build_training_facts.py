"""Writes what the memory of a training turns on and a map does not say, from transformers' own classes.

python tools/build_training_facts.py

Per head and model type: `eager` where the class has no scaled_dot_product_attention, so that the attention's scores are
kept; `plain_loss` where the class computes the loss on logits of the model's dtype (its `forward` calls cross entropy
itself, rather than one of transformers' loss functions, which go through float32); `softcap` where the logits are capped,
which keeps them once more; `dropout` where the default configuration drops hidden states (dropout of attention's scores keeps
nothing of its own where a kernel does it).
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]
FACTS = ROOT / "src" / "lorascope" / "data" / "training_facts.json"


# Dropout of scores, of whole layers, and of what a head reads.
_ELSEWHERE = ("att", "layer", "classifier", "cls", "summary")


def facts() -> dict[str, list[str]]:
    """Name of a fact to the `head/model type` that it holds for."""
    from architectures import HEADS, entries

    found: dict[str, list[str]] = {"eager": [], "plain_loss": [], "softcap": [], "dropout": []}
    import transformers

    for entry in entries(*HEADS):
        cls: Any = getattr(transformers, entry.architecture)
        source = inspect.getsource(cls.forward)
        key = f"{entry.head}/{entry.model_type}"
        if not cls._supports_sdpa:
            found["eager"].append(key)
        if "ross" in source and ("CrossEntropyLoss(" in source or "cross_entropy(" in source):
            found["plain_loss"].append(key)
        if "softcapping" in source:
            found["softcap"].append(key)
        if drops(entry.config()):
            found["dropout"].append(key)
    return {name: sorted(set(keys)) for name, keys in found.items()}


def drops(config: Any) -> bool:
    """Some probability of dropping hidden states, of the text's configuration, is above zero."""
    values = config.get_text_config().to_dict()
    return any(
        "drop" in name and not any(word in name for word in _ELSEWHERE) and isinstance(value, float) and value > 0
        for name, value in values.items()
    )


if __name__ == "__main__":
    import architectures

    architectures.mend_torchvision()
    FACTS.write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
