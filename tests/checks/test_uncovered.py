"""Options whose effect the rules leave out: the rest is checked, and a finding names the part."""

from __future__ import annotations

from typing import Any

import pytest

from lorascope.checks.check import check
from lorascope.model.json import map_from_json, map_to_json
from lorascope.plans.verify import verify
from tests.helpers import peft_models as zoo
from tests.helpers.samples import fails

TIED = {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}
REPLICATED = {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 3]]}


@pytest.mark.parametrize(
    ("model", "values", "peft", "said"),
    [
        ("llama", {"target_modules": ["q_proj"], "velora_config": {}}, "0.19.1", "option-release"),
        ("llama", {"target_modules": ["q_proj"], "alora_invocation_tokens": [1]}, "0.19.1", "not-covered"),
        ("llama", {"target_modules": ["q_proj"], "use_bdlora": {"nblocks": 2}}, "0.19.1", "not-covered"),
        (
            "llama-tied",
            {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1], "ens": [1]}},
            "",
            "not-covered",
        ),
        ("llama", {"target_modules": ["q_proj"], "layer_replication": [[0, 3]] * 2000}, "", "not-covered"),
    ],
    ids=str,
)
def test_the_rest_is_checked(model: str, values: dict[str, Any], peft: str, said: str) -> None:
    found = check(zoo.mapped(model), values, peft=peft)
    codes = [finding.code for finding in found.findings]
    assert codes.count(said) == 1
    assert found.matters
    if said == "not-covered":
        assert len(found.resolution.adapted) == 3
        with fails("not covered by the rules"):
            verify(zoo.mapped(model), values, **({"peft": peft} if peft else {}))


def test_the_model_of_replicated_layers_is_checked() -> None:
    found = check(zoo.mapped("llama"), REPLICATED)
    names = [f"model.layers.{number}.self_attn.q_proj" for number in range(4)]
    assert [weight.name for weight in found.resolution.adapted] == names
    assert found.model.dimensions.layers == 4
    assert [weight.layer for weight in found.model.weights if weight.name in names] == [0, 1, 2, 3]
    # The base weights are shared, so the model has no more parameters than before.
    assert found.model.dimensions.parameters == zoo.mapped("llama").dimensions.parameters
    note = next(finding for finding in found.findings if finding.code == "layer-replication")
    assert note.severity == "note"
    assert "4 layers of 3" in note.message
    assert map_from_json(map_to_json(found.model)).modules == found.model.modules


@pytest.mark.parametrize(
    ("model", "ranges", "words"),
    [("llama", [[0, 9]], "layer 3"), ("llama", [[0, 1, 2]], "pairs"), ("llava", [[0, 1]], "none")],
)
def test_layers_that_cannot_be_replicated(model: str, ranges: list[list[int]], words: str) -> None:
    found = check(zoo.mapped(model), {"target_modules": ["q_proj"], "layer_replication": ranges})
    errors = [finding for finding in found.findings if finding.code == "layer-replication"]
    assert len(errors) == 1
    assert words in errors[0].message
    assert errors[0].severity == "error"


def test_megatron_is_a_note_on_layers_of_pytorch() -> None:
    values: dict[str, Any] = {"target_modules": ["q_proj"], "megatron_config": {"tensor_model_parallel_size": 1}}
    found = check(zoo.mapped("llama"), values)
    assert [finding.severity for finding in found.findings if finding.code == "megatron"] == ["note"]
    assert found.resolution.trainable == check(zoo.mapped("llama"), {"target_modules": ["q_proj"]}).resolution.trainable
    for wrong in ({"megatron_core": "mine"}, {"use_dora": True}):
        refused = check(zoo.mapped("llama"), values | wrong)
        assert [finding.severity for finding in refused.findings if finding.code == "megatron"] == ["error"]
