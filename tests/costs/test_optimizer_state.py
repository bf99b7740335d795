"""Bytes of optimizers' states against the optimizers' own tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorascope.costs.optimizer_state import TrainedTensor, optimizer_bytes, step_bytes

SHAPES = ((100, 300), (64, 64), (8, 16), (700,), (5000,), (4, 32, 48))


def made(name: str, parameters: list[torch.nn.Parameter]) -> Any:
    import bitsandbytes
    import transformers

    if name == "adafactor":
        return transformers.Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)
    return {
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "adamw-8bit": bitsandbytes.optim.AdamW8bit,
    }[name](parameters, lr=1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "adamw-8bit"])
def test_states_are_those_of_the_optimizer(name: str) -> None:
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = made(name, parameters)
    sum(parameter.square().sum() for parameter in parameters).backward()  # type: ignore[union-attr]
    optimizer.step()
    real = sum(
        value.nbytes
        for state in optimizer.state.values()
        for key, value in state.items()
        # Counters, and the table of values that all 8-bit states share.
        if torch.is_tensor(value) and value.dim() and not key.startswith("qmap")
    )
    trained: list[TrainedTensor] = [(shape, 4) for shape in SHAPES]
    assert optimizer_bytes(name, trained) == real
    assert (real > 0) == (name != "sgd")


def test_states_of_bf16_parameters_are_bf16() -> None:
    parameter = torch.nn.Parameter(torch.randn(10, 20, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    real = optimizer.state[parameter]["exp_avg"].nbytes + optimizer.state[parameter]["exp_avg_sq"].nbytes
    assert optimizer_bytes("adamw", [((10, 20), 2)]) == real == 800


def test_only_adafactor_needs_more_for_a_moment() -> None:
    trained: list[TrainedTensor] = [((10, 20), 4), ((5,), 4)]
    assert step_bytes("adafactor", trained) == 3 * 4 * 200
    assert step_bytes("adamw", trained) == step_bytes("sgd", trained) == step_bytes("adamw-8bit", []) == 0
