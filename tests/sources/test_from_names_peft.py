"""What PEFT adapts in models with the names, shapes and classes of remote code, and what a plan from the names says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.model.classify import classify
from lorascope.model.types import Dimensions, ModelMap
from lorascope.names import NUMBER, template
from lorascope.plan_api import plan
from lorascope.sources.checkpoint.from_names import input_output_embeddings, modules_from_names
from lorascope.sources.checkpoint.types import Stored
from tests.helpers import remote_models
from tests.helpers.oracle import peft_kwargs, peft_truth

pytestmark = pytest.mark.slow


def _first_layers(layout: remote_models.Layout) -> dict[str, Stored]:
    """The tensors of the first two layers and experts; a connector's few members stay."""
    return {
        name: tensor
        for name, tensor in layout.tensors().items()
        if name.startswith("mlp1.") or all(int(number) < 2 for number in NUMBER.findall(name))
    }


def _module(kind: str, own: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A module of the class that the code has, with its own parameters (biases and norms included)."""
    weight = own.get("weight", ())
    if kind == "linear" and len(weight) == 2:
        return nn.Linear(weight[1], weight[0], bias="bias" in own)
    if kind == "embedding":
        return nn.Embedding(*weight)
    if kind == "conv1d":
        return Conv1D(weight[1], weight[0])
    if kind == "conv":
        return nn.Conv2d(weight[1], weight[0], weight[2:], bias="bias" in own)
    if kind == "multihead_attention":
        return nn.MultiheadAttention(own["in_proj_weight"][1], 1)
    module = nn.Module()
    for name, shape in own.items():
        module.register_parameter(name, nn.Parameter(torch.empty(shape)))
    return module


def _build(layout: remote_models.Layout, tensors: Mapping[str, Stored]) -> nn.Module:
    """The model on the meta device, with the kinds that the layout states from the code."""
    own: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        if template(name) not in layout.buffers:
            module, _, leaf = name.rpartition(".")
            own.setdefault(module, {})[leaf] = tensor.shape
    root = nn.Module()
    with torch.device("meta"):
        for name in sorted(own, key=lambda name: name.count(".")):
            *containers, leaf = name.split(".")
            parent = root
            for container in containers:
                if container not in parent._modules:
                    parent.add_module(container, nn.Module())
                parent = parent.get_submodule(container)
            if leaf not in parent._modules:  # a MultiheadAttention brings its output projection along
                parent.add_module(leaf, _module(layout.kinds.get(template(name), "linear"), own[name]))
    return root


@pytest.mark.parametrize("layout", remote_models.LAYOUTS, ids=lambda layout: layout.model.replace("/", "-"))
def test_peft_adapts_what_the_plan_from_names_says(layout: remote_models.Layout) -> None:
    tensors = _first_layers(layout)
    reading = modules_from_names(tensors)
    built = _build(layout, tensors)
    names, built_names = (
        {module.name for module in reading.modules},
        {name for name, _ in built.named_modules() if name},
    )
    assert built_names <= names
    assert names - built_names <= {name.rpartition(".")[0] for name in reading.dropped}  # they hold nothing else
    stored = {name: tensor.shape for name, tensor in tensors.items() if name not in reading.dropped}
    assert {name: tuple(parameter.shape) for name, parameter in built.named_parameters()} == stored
    weights = classify(reading.modules, model_type=layout.model_type)
    inputs, outputs = input_output_embeddings(weights)
    model = ModelMap(
        model=layout.model,
        model_type=layout.model_type,
        architecture="",
        head="unknown",
        source="names",
        versions={},
        dimensions=Dimensions(),
        modules=reading.modules,
        weights=weights,
        root_parameters=reading.root_parameters,
        input_embeddings=inputs,
        output_embeddings=outputs,
    )
    made = plan(model, "attention=8", "ffn=4")
    assert made.targets
    truth, trainable = peft_truth(built, peft_kwargs(made.config))
    assert truth == {adapted.name: (adapted.rank, adapted.alpha, adapted.scale) for adapted in made.resolution.adapted}
    assert trainable == made.resolution.trainable
    assert truth.keys() == {target.weight.name for target in made.targets}
