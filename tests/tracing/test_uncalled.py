"""Layers whose weight a traced pass reads without calling them: PEFT's adapters on them get no gradient."""

from __future__ import annotations

import warnings
from typing import Any

import peft
import pytest
import torch
from torch import nn

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.model.json import map_from_json, map_to_json
from lorascope.model.types import ModelMap
from tests.helpers import peft_models


class Block(nn.Module):
    """Each way to use a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.read = nn.Linear(16, 16)
        self.down = nn.Linear(16, 8)
        self.by_forward = nn.Linear(8, 8)
        self.multiplied = nn.Linear(8, 8, bias=False)
        self.both = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(nn.functional.linear(self.up(x), self.read.weight, self.read.bias))
        x = x + self.down(inner) + self.by_forward.forward(x) + x @ self.multiplied.weight
        return self.both(x) + x @ self.both.weight


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def uncalled(model: ModelMap) -> set[str]:
    return {module.name.rpartition(".")[2] for module in model.modules if "uncalled" in module.traits}


def without_gradient(module: nn.Module, names: list[str], *inputs: Any) -> set[str]:
    """The layers whose adapters get no gradient with the installed PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(target_modules=names, r=2, init_lora_weights=False)
        adapted = peft.get_peft_model(module, config)
    adapted(*inputs).sum().backward()
    named = [
        (name.split(".lora_")[0].rpartition(".")[2], p) for name, p in adapted.named_parameters() if "lora_" in name
    ]
    return {name for name, parameter in named if parameter.grad is None}


def test_what_is_read_is_told_as_autograd_shows_it() -> None:
    module = Model()
    traced = ls.inspect(module, trace=True, inputs={"x": torch.randn(1, 4, 8)})
    assert uncalled(traced) == {"read", "multiplied"}
    assert all("forward" not in vars(part) for part in module.modules())
    names = ["up", "read", "down", "by_forward", "multiplied", "both"]
    assert without_gradient(module, names, torch.randn(1, 4, 8)) == {"read", "multiplied"}
    found = [f for f in ls.check(traced, {"target_modules": names}).findings if f.code == "dead-or-crashing"]
    assert {finding.severity for finding in found} == {"error"}
    assert all("never called the module" in finding.message for finding in found)
    left = {"target_modules": [name for name in names if name not in ("read", "multiplied")]}
    assert "dead-or-crashing" not in {finding.code for finding in ls.check(traced, left).findings}


def test_a_saved_map_keeps_it() -> None:
    traced = ls.inspect(Model(), trace=True, inputs={"x": torch.randn(1, 4, 8)})
    assert uncalled(map_from_json(map_to_json(traced))) == {"read", "multiplied"}


def test_a_rule_leaves_it_out() -> None:
    traced = ls.inspect(Model(), trace=True, inputs={"x": torch.randn(1, 4, 8)})
    selectors = {
        f"{w.role.component}.{w.role.block}" for w in traced.weights if w.name.endswith((".read", ".multiplied"))
    }
    for selector in selectors:
        try:
            plan = ls.plan(traced, f"{selector}=2")
        except LorascopeError as error:
            assert "dead" in str(error)
            continue
        assert not {target.weight.name.rpartition(".")[2] for target in plan.targets} & {"read", "multiplied"}
    assert selectors


def test_an_own_forward_is_put_back() -> None:
    module = Model()
    layer = module.layers[0].up
    own = layer.forward
    layer.forward = own
    ls.inspect(module, trace=True, inputs={"x": torch.randn(1, 4, 8)})
    assert vars(layer)["forward"] is own


@pytest.mark.parametrize(
    ("name", "expected"), [("mamba", {"dt_proj"}), ("llama", set()), ("gpt2", set()), ("bart", set())]
)
def test_transformers_models(name: str, expected: set[str]) -> None:
    assert uncalled(ls.inspect(peft_models.build(name), trace=True)) == expected
