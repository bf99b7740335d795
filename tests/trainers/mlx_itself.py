"""Run by a Python that has mlx-lm: what it adapts on small models of many types under the files that are written for it.

Prints one JSON object a line: a model type, what was asked, and what mlx-lm adapted: which weights of the map, found by the
numbers that they were filled with and not by a name, their rank and scale, and how many parameters it trains.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("src", "tools", "tests/conformance")]

import build_mlx_names as names  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from architectures import entries, mend_torchvision  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm import lora  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers  # noqa: E402
from shrinking import small_model  # noqa: E402

import lorascope as ls  # noqa: E402
from lorascope.exporting import export  # noqa: E402
from lorascope.planning import plan  # noqa: E402

PLANS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("attention=4",), {}),
    (("attention=4",), {"rslora": True, "dropout": 0.1, "layers": "-1:"}),
    (("attention[0]=8", "ffn[1]=8"), {"alpha": 24}),
    (("attention,ffn=2",), {"dora": True}),
    (("ffn=4",), {}),
    (("ffn.down=4",), {}),
    (("mixer=4",), {}),
    (("head=4",), {}),
    (("embedding=4", "attention.o=4"), {}),
)
# As users write them: no keys, few blocks, names that no module has, whole names.
FILES = (
    "fine_tune_type: lora\nnum_layers: 2\n",
    "num_layers: -1\nlora_parameters: {rank: 2, scale: 1e1, dropout: 0.0}\n",
    "num_layers: 1\nlora_parameters: {rank: 3, scale: 2.5, dropout: 0, keys: [self_attn.q_proj, self_attn.nothing]}\n",
    "fine_tune_type: dora\nnum_layers: 1\nlora_parameters: {rank: 3, scale: 2.5, dropout: 0, keys: [self_attn.q_proj]}\n",
    "num_layers: 99\n",
)


def arguments_of(text: str) -> Any:
    """What mlx-lm's own program makes of a file."""
    found: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(text, encoding="utf-8")
        sys.argv = ["mlx_lm.lora", "--config", str(file)]
        lora.run = found.append
        with contextlib.redirect_stdout(io.StringIO()):
            lora.main()
    return found[0]


def adapted_by(model: Any, text: str, numbers: dict[int, Any]) -> dict[str, Any]:
    """What mlx-lm adapts on a model that it loaded, as its `train_model` begins."""
    arguments = arguments_of(text)
    model.freeze()
    if arguments.num_layers > len(model.layers):
        return {"error": "num_layers"}
    try:
        linear_to_lora_layers(
            model, arguments.num_layers, arguments.lora_parameters, use_dora=arguments.fine_tune_type == "dora"
        )
    except ValueError as error:
        return {"error": str(error)}
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if "lora_a" not in module:
            continue
        base = module["linear"] if "linear" in module else module["embedding"]
        values = np.unique(np.array(base.weight.astype(mx.float32))).tolist()
        rank = module.lora_b.shape[-1] if module.lora_b.ndim == 3 else module.lora_b.shape[0]
        weight = numbers.get(int(values[0])) if len(values) == 1 else None
        found[weight.name if weight else f"?{name}"] = [rank, module.scale, module.dropout._p_1]
    trainable = sum(value.size for _, value in tree_flatten(model.trainable_parameters()))
    return {"adapted": found, "trainable": trainable}


def asked_of(model: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what, the file, what it should adapt) for every plan that can be exported."""
    for rules, options in PLANS:
        what = f"{' '.join(rules)} {options}"
        try:
            made = plan(model, *rules, **{"dropout": 0.0, **options})
        except ls.LorascopeError:
            continue
        try:
            text = export(made, "mlx-lm")
        except ls.LorascopeError as error:
            yield what, "", {"refused": list(error.faults)}
            continue
        sizes = {one.name: [one.rank, one.scale, 1 - made.config.lora_dropout] for one in made.resolution.adapted}
        yield what, text, {"adapted": sizes, "trainable": made.resolution.trainable}


def main() -> None:
    warnings.simplefilter("ignore")
    mend_torchvision()
    from lorascope.trainers.mlx_lm import MlxLm
    from lorascope.trainers.mlx_names import as_mlx, mlx_types

    wanted = set(sys.argv[1:]) or set(mlx_types())
    done = set()
    for entry in entries("image-text-to-text", "causal-lm"):
        if entry.model_type not in wanted or entry.model_type in done:
            continue
        done.add(entry.model_type)
        module = small_model(entry).float()
        model = ls.inspect(module)
        if model.model_type not in mlx_types():
            continue
        numbers = names.fill_with_numbers(module, list(model.weights))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            with contextlib.redirect_stderr(io.StringIO()):
                module.save_pretrained(folder)
            names.as_uploaded(folder, model.model_type)
            for what, text, should in asked_of(model):
                row = {"type": model.model_type, "what": what, "should": should}
                if text:
                    row["did"] = adapted_by(names.loaded_by_mlx(folder), text, numbers)
                print(json.dumps(row), flush=True)
            trainer = MlxLm()
            mlx = as_mlx(model)
            assert mlx is not None
            for text in FILES:
                try:
                    outcome = trainer.resolve(model, trainer.read(text, "file"))
                except ls.LorascopeError as error:
                    should = {"refused": list(error.faults)}
                else:
                    one = outcome.resolution
                    sizes = {weight.name: [weight.rank, weight.scale] for weight in one.adapted}
                    should = {"error": one.error} if one.error else {"adapted": sizes, "trainable": one.trainable}
                did = adapted_by(names.loaded_by_mlx(folder), text, numbers)
                row = {"type": model.model_type, "what": "file " + text, "should": should, "did": did}
                print(json.dumps({**row, "others": list(mlx.others), "absent": list(mlx.absent)}), flush=True)


if __name__ == "__main__":
    main()
