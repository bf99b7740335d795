"""Findings on tensors against the installed PEFT: files that it saved, and what it does with files that were changed."""

from __future__ import annotations

import collections
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lorascope.checks.context import CheckContext
from lorascope.findings import Finding
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.state_dict import PREFIX, saved_tensors
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.verify import adapter_config
from lorascope.sources.adapters import read_adapter
from lorascope.sources.checkpoint.types import Span, Tensor
from tests.helpers import peft_models
from tests.helpers.findings import base_findings, tensor_findings
from tests.helpers.oracle import peft_kwargs
from tests.helpers.saved_adapters import CONFIGS, Tensors, dead, loaded, real, resave, save, state_shapes
from tests.peft_rules.test_state_dict import PER_MODEL, at_random

pytestmark = pytest.mark.slow
# All pairs of `test_saved_tensors`, by way of files.
SAVED = 332
LLAMA = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
LAYER = f"{PREFIX}model.layers.0.self_attn"


def findings(name: str, folder: Path) -> tuple[CheckContext, list[Finding]]:
    adapter = read_adapter(folder)
    assert adapter.tensors is not None
    config = adapter_config(adapter.config)
    model = peft_models.mapped(name)
    context = CheckContext(model, config, resolve(model, config), where=adapter.where, given=adapter.config)
    return context, tensor_findings(context, adapter.tensors)


def test_nothing_is_found_in_files_of_peft(tmp_path: Path) -> None:
    tried = 0
    for name in peft_models.NAMES:
        for config in CONFIGS.values():
            if resolve(peft_models.mapped(name), config).refusal is not None:
                continue
            folder = tmp_path / "adapter"
            save(real(name), folder, **peft_kwargs(config))
            context, found = findings(name, folder)
            assert found == [], (name, config)
            others = [finding for finding in base_findings(context) if finding.code != "task-type"]
            assert others == [], (name, config)
            shutil.rmtree(folder)
            tried += 1
    assert tried >= SAVED


def test_nothing_is_found_under_random_configurations() -> None:
    def look(name: str, model: nn.Module, config: AdapterConfig) -> str:
        context = CheckContext(peft_models.mapped(name), config, resolve(peft_models.mapped(name), config))
        if context.resolution.refusal is not None:
            return "refused"
        shapes = state_shapes(model, config)
        tensors = {key: Tensor(key, "F32", shape, Span("", 0, 0)) for key, shape in shapes.items()}
        found = tensor_findings(context, tensors)
        assert found == [] or not saved_tensors(context.model, config, context.resolution).exact, config
        return "inexact" if found else "saved"

    results: collections.Counter[str] = collections.Counter()
    for name in peft_models.NAMES:
        results += at_random(name, look)
    assert results["saved"] >= len(peft_models.NAMES) * PER_MODEL // 3, results
    assert results["inexact"] <= 5, results  # what PEFT makes of copies within copies


Change = Callable[[Tensors], Tensors]


def names(change: Callable[[str], str]) -> Change:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def without(word: str) -> Change:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if word not in name}


# Model, what is saved, what is changed in the file, what PEFT does with it (the number of B that stay zero, or what it
# raises), and the findings.
CASES: dict[str, tuple[str, dict[str, object], Change, int | str, list[tuple[str, str]]]] = {
    "unchanged": ("llama", LLAMA, dict, 0, []),
    "no prefix": ("llama", LLAMA, names(lambda n: n.removeprefix(PREFIX)), 6, [("tensor-unexpected", "error")]),
    "doubled prefix": ("llama", LLAMA, names(lambda n: PREFIX + n), 6, [("tensor-unexpected", "error")]),
    "half a prefix": (
        "llama",
        LLAMA,
        names(lambda n: n.replace("model.model.", "model.", 1)),
        6,
        [("tensor-unexpected", "error")],
    ),
    "default left in": (
        "llama",
        LLAMA,
        names(lambda n: n.replace(".weight", ".default.weight")),
        0,
        [("tensor-unexpected", "warning")],
    ),
    "another adapter's name": (
        "llama",
        LLAMA,
        names(lambda n: n.replace(".weight", ".sales.weight")),
        6,
        [("tensor-unexpected", "error")],
    ),
    "a layer is missing": ("llama", LLAMA, without(".layers.0."), 2, [("tensor-missing", "error")]),
    "all A are missing": ("llama", LLAMA, without("lora_A"), 0, [("tensor-missing", "error")]),
    "a module that is not targeted": (
        "llama",
        LLAMA,
        lambda t: {**t, f"{LAYER}.k_proj.lora_A.weight": torch.ones(8, 16)},
        0,
        [("tensor-unexpected", "error")],
    ),
    "another rank": (
        "llama",
        {**LLAMA, "r": 4},
        lambda t: {n: torch.cat([x, x], 0 if "lora_A" in n else 1) for n, x in t.items()},
        "size mismatch",
        [("tensor-rank", "error")],
    ),
    "another size": (
        "llama",
        LLAMA,
        lambda t: {n: x[:, :12] if "lora_A" in n else x for n, x in t.items()},
        "size mismatch",
        [("tensor-shape", "error")],
    ),
    "not gathered": (
        "llama",
        LLAMA,
        lambda t: {n: torch.empty(0) for n in t},
        "size mismatch",
        [("tensor-shape", "error")],
    ),
    "resized vocabulary": (
        "llama",
        LLAMA,
        lambda t: {**t, f"{PREFIX}lm_head.weight": torch.ones(70, 16)},
        "size mismatch",
        [("tensor-shape", "error")],
    ),
    "the base model's own": (
        "llama",
        LLAMA,
        lambda t: {**t, f"{PREFIX}model.norm.weight": torch.ones(16)},
        0,
        [("tensor-unexpected", "warning")],
    ),
    "magnitudes under their other name": (
        "llama",
        {**LLAMA, "use_dora": True},
        names(lambda n: n + ".weight" if n.endswith("vector") else n),
        0,
        [],
    ),
    "no magnitudes": ("llama", {**LLAMA, "use_dora": True}, without("magnitude"), 0, [("tensor-missing", "error")]),
    "no copy": (
        "llama-classifier",
        {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"},
        without("score"),
        "KeyError",
        [("tensor-missing", "error")],
    ),
    "modules_to_save left in": (
        "llama-classifier",
        {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"},
        names(lambda n: n.replace("score.", "score.modules_to_save.default.")),
        "KeyError",
        [("tensor-unexpected", "error")],
    ),
    "no biases": (
        "bert",
        {"target_modules": ["query"], "bias": "all"},
        without("bias"),
        0,
        [("tensor-missing", "warning")],
    ),
    "nested the other way": (
        "gpt_oss",
        {"target_modules": [], "target_parameters": ["gate_up_proj", "down_proj"]},
        names(
            lambda n: (
                n.replace("experts.base_layer.", "experts.@")
                .replace("experts.lora", "experts.base_layer.lora")
                .replace("@", "")
            )
        ),
        "size mismatch",
        [("tensor-shape", "error")],
    ),
    "vision-language names before transformers 5": (
        "llava",
        {"target_modules": ".*language_model.*q_proj"},
        names(lambda n: n.replace("model.model.language_model.", "model.language_model.model.")),
        0,
        [("tensor-unexpected", "note")],
    ),
    "such names that PEFT does not know": (
        "qwen2_vl",
        {"target_modules": ["q_proj"]},
        names(lambda n: n.replace("model.model.language_model.", "model.model.")),
        3,
        [("tensor-unexpected", "error")],
    ),
    "no prefix, where names are converted": (
        "llava",
        {"target_modules": ".*language_model.*q_proj"},
        names(lambda n: n.removeprefix(PREFIX)),
        0,
        [],
    ),
}


@pytest.mark.parametrize("context", CASES)
def test_what_peft_does_with_it(context: str, tmp_path: Path) -> None:
    name, arguments, change, outcome, codes = CASES[context]
    save(real(name), tmp_path / "saved", **arguments)
    folder = resave(tmp_path / "saved", tmp_path / "changed", change)
    wrapped, said = loaded(real(name), folder)
    if isinstance(outcome, str):
        assert wrapped is None
        assert outcome in said
    else:
        assert wrapped is not None, said
        assert dead(wrapped) == outcome
    assert [(finding.code, finding.severity) for finding in findings(name, folder)[1]] == codes


def per_expert(tensors: Tensors, leaves: tuple[str, str, str], experts: int = 4) -> Tensors:
    """Factors of single experts with the shapes that they had beside these of the fused ones."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, rest = name.partition(".experts.")
        if not rest:
            result[name] = tensor
            continue
        fused = rest.startswith("base_layer.")
        halves = 2 if fused else 1
        rows, columns = tensor.shape
        shape = (
            (rows // experts // halves, columns) if "lora_A" in rest else (rows // halves, columns // experts // halves)
        )
        factor = rest.removeprefix("base_layer.")
        for leaf in leaves[:2] if fused else leaves[2:]:
            result |= {f"{stem}.experts.{expert}.{leaf}.{factor}": torch.ones(shape) for expert in range(experts)}
    return result


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("mixtral", ("w1", "w3", "w2")),
        ("qwen3_moe", ("gate_proj", "up_proj", "down_proj")),
        ("deepseek_v3", ("gate_proj", "up_proj", "down_proj")),
        ("qwen3_next", ("gate_proj", "up_proj", "down_proj")),
    ],
)
def test_single_experts(name: str, leaves: tuple[str, str, str], tmp_path: Path) -> None:
    save(real(name), tmp_path / "saved", target_modules=["q_proj", *leaves])
    old = {"target_modules": ["q_proj", *leaves], "target_parameters": None, "rank_pattern": {}, "alpha_pattern": {}}
    folder = resave(tmp_path / "saved", tmp_path / "old", lambda tensors: per_expert(tensors, leaves), old)
    wrapped, said = loaded(real(name), folder)
    assert wrapped is not None, said
    assert dead(wrapped) == 0
    assert [(one.code, one.severity) for one in findings(name, folder)[1]] == [("tensor-unexpected", "note")]

    lacking = resave(folder, tmp_path / "lacking", without(f".experts.2.{leaves[0]}."))
    wrapped, said = loaded(real(name), lacking)
    assert wrapped is None
    assert "Sizes of tensors must match" in said
    assert ("tensor-missing", "error") in [(one.code, one.severity) for one in findings(name, lacking)[1]]


def test_single_experts_of_which_peft_loses_some(tmp_path: Path) -> None:
    """Without a down projection there is one wrapper, and PEFT's conversion goes by two."""
    save(real("mixtral"), tmp_path / "saved", target_modules=["q_proj", "w1", "w3"])

    def change(tensors: Tensors) -> Tensors:
        inner = {name.replace(".experts.lora", ".experts.base_layer.lora"): one for name, one in tensors.items()}
        return per_expert(inner, ("w1", "w3", "w2"))

    old = {"target_modules": ["q_proj", "w1", "w3"], "target_parameters": None, "rank_pattern": {}, "alpha_pattern": {}}
    folder = resave(tmp_path / "saved", tmp_path / "old", change, old)
    wrapped, _ = loaded(real("mixtral"), folder)
    assert wrapped is not None
    assert dead(wrapped) == 2
    found = findings("mixtral", folder)[1]
    assert ("tensor-missing", "error") in [(one.code, one.severity) for one in found]
    assert "2 of 4 adapted weights" in " ".join(one.message for one in found)


def test_the_base_models_own_are_overwritten(tmp_path: Path) -> None:
    save(real("llama"), tmp_path / "saved", **LLAMA)
    folder = resave(
        tmp_path / "saved", tmp_path / "changed", lambda t: {**t, f"{PREFIX}lm_head.weight": torch.full((64, 16), 7.0)}
    )
    wrapped, _ = loaded(real("llama"), folder)
    assert wrapped is not None
    assert wrapped.get_base_model().lm_head.weight[0, 0] == 7


def test_a_name_left_in_is_found_under_that_name_only(tmp_path: Path) -> None:
    save(real("llama"), tmp_path / "saved", **LLAMA)
    folder = resave(tmp_path / "saved", tmp_path / "changed", names(lambda n: n.replace(".weight", ".default.weight")))
    wrapped, _ = loaded(real("llama"), folder, "other")
    assert wrapped is not None
    assert dead(wrapped) == 6
