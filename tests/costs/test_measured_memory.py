"""Estimates against measured peaks (`benchmarks/memory_cpu.json`), both of the same formulas."""

from __future__ import annotations

import importlib.util
import json
import statistics
from typing import Any

import pytest

from tests.helpers.paths import ROOT

BENCHMARK = ROOT / "benchmarks" / "memory.py"
# Adapted experts in bfloat16: oneDNN keeps something for every number of tokens that an expert gets, see docs/memory.md.
BESIDE_TORCH = ("mixtral, all, rank 4, 2 × 256, bf16, adamw, checkpointing",)


def measured() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((BENCHMARK.parent / "memory_cpu.json").read_text(encoding="utf-8"))[
        "settings"
    ]
    return rows


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("memory_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_processes_peak_where_it_is_said() -> None:
    rows = measured()
    errors = {row["setting"]: row["estimate"] / row["measured"] - 1 for row in rows}
    assert len(errors) == len(rows) == 23
    assert statistics.median(map(abs, errors.values())) <= 0.10
    assert [label for label, error in errors.items() if error < -0.10] == list(BESIDE_TORCH)
    assert max(errors.values()) <= 0.10


def test_torch_allocates_what_is_said() -> None:
    errors = [row["estimate"] / row["tensors"] - 1 for row in measured()]
    assert statistics.median(map(abs, errors)) <= 0.01
    assert -0.02 < min(errors) <= max(errors) < 0.10


def test_settings_are_those_of_the_benchmark() -> None:
    module = benchmark()
    assert [row["setting"] for row in measured()] == [setting.label for setting in module.CPU]
    assert len({setting.label for setting in (*module.CPU, *module.CUDA)}) == len(module.CPU) + len(module.CUDA) == 40
    assert {setting.training.get("optimizer", "adamw") for setting in module.CPU} == {"adamw", "sgd", "adafactor"}


@pytest.mark.slow
def test_estimates_are_those_of_today() -> None:
    module = benchmark()
    for row, setting in zip(measured(), module.CPU, strict=True):
        model = module.build(setting, small=False, device="meta")
        assert module.estimated(module.plan_of(setting, model), setting, "cpu")["estimate"] == row["estimate"], setting
