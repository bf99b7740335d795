"""Run by a Python that has mlx-lm: what it adapts on small models of many types under the files that are written for it.

Prints one JSON object a line: a model type, what was asked, what is said of it here, and what mlx-lm adapted: which weights
of the map, found by the numbers that they were filled with and not by a name, their rank and scale, and how many parameters
it trains.
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

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import build_mlx_names as names  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from architectures import entries, mend_torchvision  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm import lora  # noqa: E402

import lorascope as ls  # noqa: E402
from lorascope.peft_rules.addresses import weight_of  # noqa: E402
from lorascope.plan_api import plan  # noqa: E402
from lorascope.trainers.exports import export  # noqa: E402
from lorascope.trainers.mlx_lm.names import as_mlx, mlx_types  # noqa: E402
from lorascope.trainers.mlx_lm.trainer import MLX_LM  # noqa: E402
from tests.helpers.small_configs import small_model  # noqa: E402

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
# As users write them: no keys, few blocks, names that no module has, more blocks than there are.
FILES: dict[str, str] = {
    "no keys": "fine_tune_type: lora\nnum_layers: 2\n",
    "no keys in all blocks": "num_layers: -1\nlora_parameters: {rank: 2, scale: 1e1, dropout: 0.0}\n",
    "no layers": "num_layers: 0\nlora_parameters: {rank: 2, scale: 1, dropout: 0.25}\n",
    "a key of nothing": "num_layers: 1\nlora_parameters: {rank: 3, scale: 2.5, dropout: 0, "
    "keys: [self_attn.q_proj, self_attn.nothing]}\n",
    "DoRA": "fine_tune_type: dora\nnum_layers: 1\nlora_parameters: {rank: 3, scale: 2.5, dropout: 0, "
    "keys: [self_attn.q_proj]}\n",
    "DoRA without keys": "fine_tune_type: dora\nnum_layers: 1\nlora_parameters: {rank: 3, scale: 2.5, dropout: 0}\n",
    "a norm": "lora_parameters: {rank: 3, scale: 2.5, dropout: 0, keys: [input_layernorm]}\nnum_layers: 1\n",
    "no key": "lora_parameters: {rank: 3, scale: 2.5, dropout: 0, keys: []}\nnum_layers: 1\n",
    "too many layers": "num_layers: 99\n",
}


# Single settings in place of those of one file, tried on llama: None leaves the key out.
VALUES: tuple[tuple[str, Any], ...] = (
    *(("rank", value) for value in (2, "2", 0, -1, 2.5, [2], "null")),
    *(("scale", value) for value in (2, "2", "null", -1, 0, [1.0])),
    *(("dropout", value) for value in (0, 0.5, 1, 1.5, -0.1, "null", "0.1")),
    *(("keys", value) for value in ("self_attn.q_proj", "null", ["self_attn.q_proj", "self_attn.v_proj"], 3, [3])),
    *((key, None) for key in ("rank", "scale", "dropout", "keys", "num_layers", "fine_tune_type", "lora_parameters")),
    *(("num_layers", value) for value in (2, -5, "2", "null", 1.5)),
    *(("fine_tune_type", value) for value in ("lora", "qlora", "null", "dora", "LoRA")),
    *(("lora_parameters", value) for value in ("null", [], [1], 3, {}, {"r": 8, "alpha": 16}, {"rank": 8})),
)


def with_value(key: str, value: Any) -> str:
    """A file with one setting as given; the text null stands for YAML's own."""
    inner = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    outer = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": inner}
    place = inner if key in inner else outer
    if value is None:
        del place[key]
    else:
        place[key] = None if value == "null" else value
    return json.dumps(outer)


def files_for(mlx: Any, loaded: Any) -> Iterator[tuple[str, str]]:
    """(what, the file) for `FILES`, and for names that this model has: mlx-lm's own, and those that are said of it here."""
    yield from FILES.items()
    every = [name for name, can, _, _ in names.held_numbers(loaded) if can]
    yield "every layer of mlx-lm", _file(every)
    outside = [name for name in every if not mlx.relative(name)]
    yield "outside of blocks", _file([*outside, "lm_head"])
    yield "DoRA outside of blocks", _file([*outside, "lm_head"], kind="dora")
    whole = min(name for modules in mlx.modules.values() for name in modules if mlx.relative(name))
    yield "one by its whole name", _file([whole], layers=1)
    yield "holding others", _file([mlx.relative(whole).partition(".")[0]])
    yield "twice", _file([whole, mlx.relative(whole)])
    yield "all of it", _file(["", whole])
    for name in mlx.sharing:
        yield f"sharing {name}", _file([name])
        yield f"sharing {name} and another", _file([name, whole])
    split = [modules for modules in mlx.modules.values() if len(modules) > 1]
    if split:
        yield "a half", _file(split[0][:1])
        yield "both halves", _file(split[0])


def _file(keys: list[str], layers: int = -1, kind: str = "lora") -> str:
    parameters = {"rank": 2, "scale": 3.0, "dropout": 0.0, "keys": keys}
    return json.dumps({"fine_tune_type": kind, "num_layers": layers, "lora_parameters": parameters})


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


class _BegunError(Exception):
    """Training has its adapters and would begin."""


def _begun(_: Any) -> None:
    raise _BegunError


def adapted_by(model: Any, text: str, numbers: dict[int, Any]) -> dict[str, Any]:
    """What mlx-lm's own `train_model` adapts on a model that it loaded, before its first step."""
    lora.print_trainable_parameters = _begun
    try:
        arguments = arguments_of(text)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            lora.train_model(arguments, model, None, None)
        raise AssertionError("it would have trained")
    except _BegunError:
        pass
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
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
        kept = 1 - made.config.lora_dropout
        sizes = {_name_of(model, one.name): [one.rank, one.scale, kept] for one in made.resolution.adapted}
        yield what, text, {"adapted": sizes, "trainable": made.resolution.trainable}


def _name_of(model: Any, name: str) -> str:
    """The weight that PEFT may reach under its parameter's name."""
    weight = weight_of(model, name)
    assert weight is not None, name
    return weight.name


def said_of(model: Any, text: str) -> dict[str, Any]:
    """What is said here of a file."""
    trainer = MLX_LM
    try:
        outcome = trainer.resolve(model, trainer.read(text, "file"))
    except ls.LorascopeError as error:
        return {"refused": list(error.faults)}
    one = outcome.resolution
    if one.refusal is not None:
        return {"error": str(one.refusal), "cause": one.refusal.code}
    sizes = {weight.name: [weight.rank, weight.scale] for weight in one.adapted}
    findings = [finding.message for finding in outcome.findings]
    return {"adapted": sizes, "trainable": one.trainable, "findings": findings}


def rows_of(entry: Any) -> Iterator[dict[str, Any]]:
    """What is compared on one small model."""
    module = small_model(entry).float()
    model = ls.inspect(module)
    mlx = as_mlx(model)
    if mlx is None:
        return
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
            yield row
        files = [*files_for(mlx, names.loaded_by_mlx(folder))]
        if model.model_type == "llama":
            files += [(f"value {key} {value!r}", with_value(key, value)) for key, value in VALUES]
        for what, text in files:
            did = adapted_by(names.loaded_by_mlx(folder), text, numbers)
            row = {"type": model.model_type, "what": what, "should": said_of(model, text), "did": did}
            yield {**row, "absent": list(mlx.absent)}


def main() -> None:
    warnings.simplefilter("ignore")
    mend_torchvision()
    wanted = set(sys.argv[1:]) or set(mlx_types())
    done = set()
    for entry in entries("image-text-to-text", "causal-lm"):
        if entry.model_type not in wanted or entry.model_type in done:
            continue
        for row in rows_of(entry):
            done.add(entry.model_type)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
