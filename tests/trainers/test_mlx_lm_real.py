"""What is said of mlx-lm beside mlx-lm itself: the adapters it makes on small models of every known type, and trainings.

All of it runs on a CPU, with the build of MLX for it. mlx-lm reads the small models with the keys in their configuration
that released ones have, and passes over tensors that it has no place for. Not run: Apple's GPUs, whose kernels compute the
same layers, and quantized models.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorascope
from lorascope.plan_api import plan
from lorascope.plans.types import Plan
from lorascope.trainers.exports import export
from lorascope.trainers.mlx_lm.names import as_mlx, mlx_types
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.tiny_models import conversations, tiny_model
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

ITSELF = HELPERS / "trainers" / "mlx_itself.py"
# Refused here though mlx-lm begins: nothing can be trained of these, or nothing is adapted.
ONLY_HERE = {"rank 0", "scale '2'", "scale 'null'", "scale [1.0]", "keys [3]"}


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("mlx-lm")


@pytest.fixture(scope="module")
def rows(python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is said here and what mlx-lm did, for every file on every model."""
    folder = tmp_path_factory.mktemp("mlx-lm")
    # -P, or a module of this folder could stand before one of mlx-lm's.
    printed = run_in(python, ["-P", str(ITSELF)], folder)
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def verdict(row: Mapping[str, Any]) -> str:
    """How what was said and what was done agree; `WRONG` and what is wrong where they do not."""
    said, done = row["should"], row.get("did")
    if done is None:
        return "not exported"
    if "refused" in said:
        return _of_refusal(row, said["refused"], done)
    if "error" in said:
        if said["cause"] == "no-match":
            # A norm has a name that is no linear layer's: mlx-lm stops at it, as it does at no other name.
            norm = row["what"] == "a norm" and "Can't convert layer of type" in done.get("error", "")
            return "nothing adapted" if norm or done.get("adapted") == {} else "WRONG: something is adapted"
        return "both stop" if "error" in done else "WRONG: it goes on"
    if "error" in done:
        return f"WRONG: it stops, {done['error']}"
    for name, sizes in said["adapted"].items():
        if not _same(sizes, done["adapted"].get(name, ())):
            return f"WRONG: {name} has {done['adapted'].get(name)} for {sizes}"
    more = done["adapted"].keys() - said["adapted"].keys()
    if not more:
        return "same" if _told_beside(said) == 0 and said["trainable"] == done["trainable"] else "WRONG: the count"
    known = all(name.startswith("?") or name in row.get("absent", ()) for name in more)
    good = known and _told_beside(said) > 0 and said["trainable"] < done["trainable"]
    return "said to be beside" if good else f"WRONG: more is adapted, {sorted(more)}"


def _of_refusal(row: Mapping[str, Any], faults: list[str], done: Mapping[str, Any]) -> str:
    if row["what"].startswith("value "):
        return "both refuse" if "error" in done else f"refused here: {row['what'].removeprefix('value ')}"
    if any("is one part of" in fault for fault in faults):
        (name,) = done["adapted"]
        return "half a weight" if name in faults[0] else "WRONG: it is no half"
    names = done.get("adapted", {})
    beside = names and all(name.startswith("?") or name in row.get("absent", ()) for name in names)
    return "nothing but beside" if beside and _beside(faults) else "WRONG: refused"


def _told_beside(said: Mapping[str, Any]) -> int:
    return _beside(said.get("findings", ()))


def _beside(messages: Any) -> int:
    return sum("not counted here" in message for message in messages)


def _same(said: list[float], done: Any) -> bool:
    """Rank and scale, and for plans what dropout leaves."""
    return len(done) >= len(said) and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(said, done, strict=False))


def test_what_it_adapts_is_what_is_said(rows: list[dict[str, Any]]) -> None:
    assert {row["type"] for row in rows} == set(mlx_types()) and len(mlx_types()) == 85
    found = [(row, verdict(row)) for row in rows if not row["what"].startswith("value ")]
    assert [(row["type"], row["what"], said) for row, said in found if said.startswith("WRONG")] == []
    assert Counter(said for _, said in found) == {
        "same": 1227,
        "both stop": 372,
        "nothing adapted": 212,
        "said to be beside": 74,
        "nothing but beside": 65,
        "half a weight": 31,
        "not exported": 117,
    }
    plans = Counter(said for row, said in found if "absent" not in row)
    assert plans == {"same": 505, "not exported": 117}


def test_every_layer_that_it_can_adapt_is_known_or_said_to_be_beside(rows: list[dict[str, Any]]) -> None:
    """The names are mlx-lm's own, and so is the list of them."""
    every = {row["type"]: row for row in rows if row["what"] == "every layer of mlx-lm"}
    assert len(every) == 85
    for model_type, row in every.items():
        assert row["should"]["adapted"], model_type
        # A weight that is said to be absent is in no layer of its own, or in one that is the output layer too.
        assert not row["should"]["adapted"].keys() & set(row["absent"]), model_type
        assert not any("no layer to adapt" in message for message in row["should"]["findings"]), row


def test_single_values_are_taken_or_refused_as_it_does(rows: list[dict[str, Any]]) -> None:
    found = [(row, verdict(row)) for row in rows if row["what"].startswith("value ")]
    assert [(row["what"], said) for row, said in found if said.startswith("WRONG")] == []
    counts = Counter(said.partition(":")[0] for _, said in found)
    assert counts == {"same": 17, "both stop": 2, "both refuse": 25, "refused here": 5}
    assert {said.partition(": ")[2] for _, said in found if said.startswith("refused here")} == ONLY_HERE


def test_the_keys_are_its_own(python: Path, tmp_path: Path) -> None:
    printed = run_in(python, ["-P", str(ROOT / "tools/trainer_keys/mlx_lm.py")], tmp_path)
    kept = (ROOT / "src/lorascope/data/trainer_keys/mlx_lm.txt").read_text(encoding="utf-8")
    assert printed == kept
    assert len(kept.splitlines()) == 35


# Rules of the plans that are trained, each with what to plan and to change beside.
TRAINED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "llama": (("attention.q,v", "ffn.down"), {"dropout": 0.1}),
    "qwen3": (("attention[-1:]",), {"dora": True}),
    "mixtral": (("attention.o", "ffn.down"), {"dropout": 0.0}),
    "qwen3_moe": (("attention.q[0]", "head", "embedding"), {"rslora": True}),
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For its command: the installed torchvision may not fit the installed torch, and no kernels are compiled for two steps."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['torchvision'] = None\n", encoding="utf-8")
    return {"PYTHONPATH": str(folder), "MLX_DISABLE_COMPILE": "1"}


@pytest.mark.parametrize("family", TRAINED)
def test_it_trains_what_was_planned(family: str, python: Path, variables: dict[str, str], tmp_path: Path) -> None:
    rules, options = TRAINED[family]
    base = tiny_model(tmp_path / family, family)
    made = plan(lorascope.inspect(str(base)), *rules, rank=4, alpha=6, **options)
    # Keys of released models that transformers no longer writes and mlx-lm asks for.
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({"num_experts": 4, "rope_theta": 1e4, **config}), encoding="utf-8")
    data = tmp_path / "data"
    data.mkdir()
    conversations(data / "train.jsonl")
    shutil.copy(data / "train.jsonl", data / "valid.jsonl")
    file = tmp_path / "config.yaml"
    text = export(made, "mlx-lm", base=str(base), data=str(data), output=str(tmp_path / "out"))
    file.write_text(text, encoding="utf-8")
    command = [str(python.parent / "mlx_lm.lora"), "--config", str(file), "--iters", "2", "--val-batches", "1"]
    run_in(python, command, tmp_path, variables)
    trained(made, tmp_path / "out")


def trained(made: Plan, folder: Path) -> None:
    """The adapters that were saved are those of the plan, and have moved."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "adapters.safetensors")
    mlx = as_mlx(made.model)
    assert mlx is not None
    meant = {name: target.rank for target in made.targets for name in mlx.modules[target.weight.name]}
    saved = {name.rpartition(".")[0] for name in tensors if name.endswith(".lora_a")}
    assert saved == meant.keys()
    for name, rank in meant.items():
        assert rank in tensors[f"{name}.lora_a"].shape and rank in tensors[f"{name}.lora_b"].shape
        assert np.abs(tensors[f"{name}.lora_b"]).max() > 0, name
    assert sum(value.size for value in tensors.values()) == made.resolution.trainable
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["lora_parameters"]["scale"] == made.resolution.adapted[0].scale
