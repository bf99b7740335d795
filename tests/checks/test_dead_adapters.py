"""Findings on adapters that get no gradient: the installed PEFT before and after the fix."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

import peft
import pytest
import torch

import lorascope as ls
from lorascope.cli.main import main
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers import peft_models
from tests.helpers.findings import Example, check_example, codes, looked, on_builtin, told

EXAMPLES = {
    "a layer that is read": Example(
        "mamba",
        {"target_modules": ["in_proj", "dt_proj"]},
        "dead-or-crashing",
        "error",
        ("backbone.layers.{0-1}.mixer.dt_proj", "MambaMixer reads this weight and never calls the module"),
        ('exclude_modules=["dt_proj"]',),
        {"exclude_modules": ["dt_proj"]},
    ),
    "a layer that kernels read": Example(
        "mamba",
        {"target_modules": ["in_proj", "x_proj"]},
        "dead-with-kernels",
        "warning",
        ("2 adapters may stay untrained", "mamba_ssm", "mamba_inner_fn", "Without these kernels it trains"),
        ('exclude_modules=["x_proj"]',),
        {"exclude_modules": ["x_proj"]},
    ),
    "a module that only shares its tensor": Example(
        "t5",
        {"target_modules": ["q", "shared"]},
        "dead-or-crashing",
        "error",
        ("shared", "adapt that one"),
        ("exclude_modules",),
        {"target_modules": ["q", "encoder.embed_tokens"]},
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples(example: Example) -> None:
    check_example(example)


class Encoder(torch.nn.Module):  # type: ignore[misc]
    """A model of torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)


def effect(module: Any, x: torch.Tensor) -> float:
    """How much the adapter changes the output."""
    with torch.no_grad():
        adapted = module(x)
        with module.disable_adapter():
            return float((adapted - module(x)).abs().max())


@pytest.mark.parametrize("names", [["linear1"], ["linear2"], ["self_attn"]])
def test_the_fast_path_of_torch_leaves_adapters_out(names: list[str]) -> None:
    torch.manual_seed(0)
    found = looked(map_module(Encoder()), {"target_modules": names})
    assert [finding.severity for finding in told(found, "ignored-in-eval")] == ["warning"]
    assert told(found, "ignored-in-eval")[0].message.startswith("2 adapters may have no effect")
    (note,) = [note for note in ls.plan(map_module(Encoder()), "attention").notes if note.code == "ignored-in-eval"]
    assert str(note).startswith("2 modules may have no effect (attention.self.qkvo). Outside of training")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(target_modules=names, r=2, init_lora_weights=False)
        adapted = peft.get_peft_model(Encoder(), config).eval()
    x = torch.randn(2, 5, 16)
    assert effect(adapted, x) == 0
    torch.backends.mha.set_fastpath_enabled(False)  # the fix
    try:
        assert effect(adapted, x) > 0
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert effect(adapted, x) == 0


def without_gradient(**config: Any) -> set[str]:
    """The layers of a tiny mamba whose adapters get no gradient with the installed PEFT."""
    torch.manual_seed(0)
    model = peft_models.build("mamba", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False, **config))
    adapted(torch.arange(8).unsqueeze(0)).logits.sum().backward()
    return {
        name.split(".lora_")[0].rpartition(".")[2]
        for name, parameter in adapted.named_parameters()
        if ".lora_" in name and parameter.grad is None
    }


def test_the_fix_leaves_only_adapters_that_train() -> None:
    config = {"target_modules": ["in_proj", "x_proj", "dt_proj"]}
    finding = told(on_builtin("mamba", **config), "dead-or-crashing")[0]
    match = re.search(r"exclude_modules=(\[.*?\])", finding.fix)
    assert match, finding.fix
    assert without_gradient(**config) == {"dt_proj"}
    fixed = {**config, "exclude_modules": ast.literal_eval(match[1])}
    assert without_gradient(**fixed) == set()
    assert "dead-or-crashing" not in codes(on_builtin("mamba", **fixed))


@pytest.mark.parametrize(
    ("model", "names", "count"),
    [
        ("bamba", ["in_proj", "out_proj"], 32),
        ("zamba2", ["in_proj", "out_proj"], 54),
        ("granitemoehybrid", ["in_proj", "out_proj"], 32),
        ("falcon_mamba", ["in_proj", "x_proj"], 32),
    ],
)
def test_kernels_are_warned_of(model: str, names: list[str], count: int) -> None:
    found = told(on_builtin(model, target_modules=names), "dead-with-kernels")
    assert [finding.severity for finding in found] == ["warning"]
    assert found[0].message.startswith(f"{count} adapters may stay untrained")


@pytest.mark.parametrize("model", ["llama", "mixtral", "qwen3_next", "gpt2", "bert"])
def test_what_trains_is_not_reported(model: str) -> None:
    found = codes(on_builtin(model, target_modules="all-linear"))
    assert not {"dead-or-crashing", "dead-with-kernels"}.intersection(found)


def test_a_plan_of_nothing_but_breaking_adapters_says_what_to_run_next(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ls.LorascopeError, match="breaks the forward pass") as caught:
        ls.plan(ls.inspect("dbrx"), "ffn")
    command = caught.value.hint.removeprefix("See what PEFT can adapt: lorascope ")
    assert command == "inspect dbrx"
    assert main(command.split()) == 0
    assert "An adapter here breaks the forward pass" in " ".join(capsys.readouterr().out.split())
