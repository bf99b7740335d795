"""The held-out models are what they say: they run, every weight has a truth, and their names give nothing away."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lorascope.model.role_names import parse_role
from lorascope.plans.rules import FACT_OF
from lorascope.sources.transformers.meta_model import map_module
from tests.zoo import ZOO, Specimen

HONEST = [specimen for specimen in ZOO.values() if not specimen.hostile]
HOSTILE = [specimen for specimen in ZOO.values() if specimen.hostile]


def by_name(specimens: list[Specimen]) -> Any:
    return pytest.mark.parametrize("specimen", specimens, ids=[specimen.name for specimen in specimens])


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))
    else:
        for element in value.values() if isinstance(value, dict) else value:
            yield from tensors(element)


@by_name(HONEST)
def test_it_runs_with_numbers(specimen: Specimen) -> None:
    with torch.no_grad():
        outputs = list(tensors(specimen.build()(**specimen.inputs())))
    assert outputs
    for output in outputs:
        assert output.isfinite().all() and output.std() > 1e-4


@by_name(HONEST)
def test_the_outputs_depend_on_every_weight_that_is_reached_and_on_no_other(specimen: Specimen) -> None:
    module, inputs = specimen.build(), specimen.inputs()
    with torch.no_grad():
        before = list(tensors(module(**inputs)))
        for weight in map_module(module).weights:
            own = weight.name.removeprefix(f"{weight.module}.") if weight.kind == "parameter" else "weight"
            own = "in_proj_weight" if weight.kind == "multihead_attention" else own
            parameter = getattr(module.get_submodule(weight.module), own)
            kept = parameter.clone()
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
            after = list(tensors(module(**inputs)))
            parameter.copy_(kept)
            changed = any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
            assert changed == (specimen.rows[weight.name] not in specimen.unreached), weight.name


@by_name(HONEST)
def test_it_runs_on_the_meta_device_where_it_says_so(specimen: Specimen) -> None:
    module = specimen.build("meta")
    inputs = {name: value.to("meta") for name, value in specimen.inputs().items()}
    with torch.no_grad():
        if not specimen.meta:
            with pytest.raises((RuntimeError, NotImplementedError)):
                module(**inputs)
            return
        outputs = list(tensors(module(**inputs)))
        real = list(tensors(specimen.build()(**specimen.inputs())))
    assert [output.shape for output in outputs] == [output.shape for output in real]
    assert {output.device.type for output in outputs} == {"meta"}


@by_name(HOSTILE)
def test_a_hostile_one_cannot_run_without_numbers(specimen: Specimen) -> None:
    inputs = {name: value.to("meta") for name, value in specimen.inputs().items()}
    with torch.no_grad(), pytest.raises((RuntimeError, NotImplementedError)):
        specimen.build("meta")(**inputs)


@by_name(list(ZOO.values()))
def test_every_weight_has_a_truth_and_every_truth_a_weight(specimen: Specimen) -> None:
    uncovered = [name for name, row in specimen.rows.items() if row is None]
    assert uncovered == []
    assert set(specimen.rows.values()) == set(specimen.templates)
    assert specimen.unreached <= set(specimen.templates)
    for weight in map_module(specimen.build("meta")).weights:
        assert len(weight.shape) in (2, 3)


@by_name(list(ZOO.values()))
def test_every_truth_is_made_of_the_vocabulary(specimen: Specimen) -> None:
    for row, text in specimen.templates.items():
        if row in specimen.unreached and not text:
            continue
        for role in (parse_role(f"text.{one}") for joined in text.split(" | ") for one in joined.split(" + ")):
            facts = {fact: getattr(role, fact) for fact in ("component", "stack", "block", "variant", "part")}
            assert all(FACT_OF[value] == fact for fact, value in facts.items() if value), (row, text)


def test_that_is_many_models_and_their_names_say_little() -> None:
    assert (len(HONEST), len(HOSTILE)) == (77, 3)
    weights = [(specimen, weight) for specimen in HONEST for weight in map_module(specimen.build("meta")).weights]
    named = sum(
        str(weight.role).removeprefix(f"{weight.role.component}.") == specimen.roles[weight.name]
        for specimen, weight in weights
    )
    assert len(weights) == 1366
    assert named < len(weights) / 4  # by their shapes, most of all
