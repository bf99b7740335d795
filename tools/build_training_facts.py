"""Writes what the memory of a training turns on and a map does not say, from transformers' own classes.

python tools/build_training_facts.py            by reading them, seconds
python tools/build_training_facts.py --kept     and by training a small model of each, five minutes

`kept` is what autograd really kept of a small model of the type, over what the formulas say of it: text alone, 2 × 48 tokens (or a
chunk of a state space), one of the sequences padded, float32, every layer adapted, no dropout of attention's scores. Types that cannot be called with text alone
have none.

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


_KEPT_OF: tuple[Any, ...] = ("causal-lm", "masked-lm", "seq2seq-lm")
_LENGTH = 48
# They pad what they are given to windows much longer than that, so that a short text says nothing of a long one.
_PADDING = ("longformer", "led", "longt5", "pegasus_x")


def kept() -> dict[str, float]:
    """`head/model type` to what is really kept, over what is said."""
    from architectures import entries

    found = {}
    for entry in entries(*_KEPT_OF):
        if entry.model_type in _PADDING:
            continue
        try:
            found[f"{entry.head}/{entry.model_type}"] = round(_kept(entry), 3)
        except Exception as error:  # modeling code raises whatever it likes on what it cannot use
            print(f"{entry.head}/{entry.model_type}: {type(error).__name__}", file=sys.stderr)
    return found


def _kept(entry: Any) -> float:
    import peft
    import torch
    import transformers

    import lorascope
    from lorascope.costs.memory_estimate import MemoryEstimate
    from lorascope.costs.training_run import Training
    from lorascope.sources.transformers.meta_model import map_module
    from tests.helpers.small_configs import shrunk

    torch.manual_seed(0)
    config = shrunk(entry)
    cls: Any = getattr(transformers, entry.architecture)
    if cls.config_class is not None and cls.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    for name, value in vars(config).items():
        if "drop" in name and "att" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    config.use_cache = False
    if entry.head == "seq2seq-lm":
        config.decoder_start_token_id = 0
    model = cls._from_config(config)
    for module in model.modules():
        if "Attention" in type(module).__name__ and isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    plan = lorascope.plan(map_module(model, head=entry.head), "all", rank=4, dropout=0.0)
    adapted: Any = peft.get_peft_model(model, plan.to_peft())
    adapted.train()
    # State spaces work in chunks, to which they pad.
    length = max([_LENGTH, *(value for name, value in vars(config).items() if name.endswith("chunk_size") and value)])
    words = torch.randint(5, 100, (2, length))
    mask = torch.ones_like(words)
    mask[1, -5:] = 0
    real = _saved(adapted, {"input_ids": words, "labels": words, "attention_mask": mask})
    how = Training(batch=2, seq_len=length, dtype="fp32", device="cpu")
    return real / MemoryEstimate(plan, how, corrected=False).saved_before_backward()


def _saved(model: Any, inputs: dict[str, Any]) -> int:
    """Bytes of the storages that autograd keeps, without parameters and buffers."""
    import torch

    ours = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs)
    return sum(found.values())


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
    sys.path.append(str(ROOT))
    known = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else {}
    measured = kept() if "--kept" in sys.argv else known.get("kept", {})
    FACTS.write_text(json.dumps({**facts(), "kept": dict(sorted(measured.items()))}, indent=1) + "\n", encoding="utf-8")
