"""From a module to its map with roles by dataflow: whole small models, and calls that fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap, Trace
from lorascope.sources.transformers.meta_model import map_module
from lorascope.tracing.traced_map import trace_roles
from tests.helpers.expressions import IDS

VOCABULARY, WIDTH = 50, 8


class Block(nn.Module):  # type: ignore[misc]  # torch does not say what it is
    """Attention and a feed-forward block under names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcd":
            setattr(self, name, nn.Linear(WIDTH, WIDTH))
        self.e, self.f = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.d(functional.scaled_dot_product_attention(self.a(x), self.b(x), self.c(x)))
        return x + self.f(functional.gelu(self.e(x)))


class Network(nn.Module):  # type: ignore[misc]  # torch does not say what it is
    """Blocks between an embedding and a head."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.first = nn.Embedding(VOCABULARY, WIDTH)
        self.inner = nn.ModuleList(Block() for _ in range(layers))
        self.last = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.first(ids)
        for number, block in enumerate(self.inner):
            x = self.between(number, block(x))
        out: torch.Tensor = self.last(x)
        return out

    def between(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return x


PARTS = dict(
    zip("abcdef", [f"attention.self.{part}" for part in "qkvo"] + ["ffn.dense.up", "ffn.dense.down"], strict=True)
)


def traced(module: nn.Module, **options: Any) -> ModelMap:
    return trace_roles(module, map_module(module), inputs={"ids": IDS}, **options)


def of(model: ModelMap) -> dict[str, Trace]:
    return {trace.weight: trace for trace in model.traces}


def test_every_weight_of_a_model_without_words() -> None:
    model = traced(Network())
    expected = {"first": "embedding.token", "last": "head.lm"}
    expected |= {f"inner.{number}.{name}": part for number in range(3) for name, part in PARTS.items()}
    assert {weight.name: str(weight.role).removeprefix("text.") for weight in model.weights} == expected
    assert [trace.weight for trace in model.traces] == [weight.name for weight in model.weights]
    assert {(trace.status, trace.disagrees) for trace in model.traces} == {("executed", False)}
    assert model.notes == ()
    assert not any(weight.guess for weight in model.weights)
    assert [weight.layer for weight in model.weights if weight.name.endswith(".a")] == [0, 1, 2]


def test_without_inputs_for_a_module_that_is_not_known_it_says_what_to_give() -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(LorascopeError) as caught:
        trace_roles(module, map_module(module))
    assert "inputs={" in str(caught.value)


@pytest.mark.parametrize("inputs", [{}, {"wrong": IDS}, {"ids": "text"}, {"ids": torch.ones(2, 3)}])
def test_inputs_that_do_not_fit_are_an_error_with_the_models_own_words(inputs: dict[str, Any]) -> None:
    module = Network()
    with pytest.raises(LorascopeError) as caught:
        trace_roles(module, map_module(module), inputs=inputs)
    assert caught.value.faults[0].startswith("no call of Network came to a weight: ")
    assert "Error: " in caught.value.faults[0]
    assert "inputs={" in caught.value.hint


class FailsAtOnce(Network):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        raise KeyError("nothing to see")


def test_a_call_that_fails_before_any_weight_is_an_error_with_its_place() -> None:
    with pytest.raises(LorascopeError) as caught:
        traced(FailsAtOnce())
    assert "KeyError: 'nothing to see' (test_traced_map.py, line " in caught.value.faults[0]


class FailsMidway(Network):
    def between(self, number: int, x: torch.Tensor) -> torch.Tensor:
        if number == 1:
            raise RuntimeError("no further")
        return x


class Branches(Network):
    def between(self, number: int, x: torch.Tensor) -> torch.Tensor:
        if number == 1 and x.mean() > 0:
            return -x
        return x


class Calls(Network):
    def between(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.detach().numpy()) if number == 1 else x


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (FailsMidway, "RuntimeError: no further"),
        (Branches, "its code asks for a number that depends on the weights"),
        (Calls, "Error: "),
    ],
)
def test_what_ran_before_a_call_ended_keeps_its_role_and_the_rest_says_why(cls: type[Network], reason: str) -> None:
    named = map_module(cls())
    traces = of(traced(cls()))
    ran = {f"inner.0.{name}": f"text.{part}" for name, part in PARTS.items()}
    assert {name: str(traces[name].flow) for name in ran} == ran
    for name in ("inner.2.a", "inner.2.e", "last"):
        assert (traces[name].status, traces[name].flow) == ("unexecuted", None)
        assert reason in traces[name].evidence and "test_traced_map.py, line " in traces[name].evidence
        assert traces[name].named == named.weight_by_name[name].role
    missed, note = traced(cls()).notes
    assert missed.startswith("No call reached these parts")
    assert note.startswith("A call was not traced to its end. the inputs given: ")
    assert reason in note
    assert not any(trace.disagrees for trace in traces.values())


def test_a_model_without_roles_by_flow_keeps_those_by_name() -> None:
    class Named(Branches):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = nn.Linear(WIDTH, VOCABULARY)

    model = traced(Named())
    (head,) = (weight for weight in model.weights if weight.name == "lm_head")
    assert (str(head.role), head.guess) == ("text.head.lm", False)
    assert of(model)["lm_head"].confidence == "medium"


def test_progress_is_told_with_rising_numbers() -> None:
    told: list[tuple[int, int]] = []
    traced(Network(), progress=lambda made, of: told.append((made, of)))
    assert told == [(0, 1), (1, 1)]


def test_progress_may_stop_it() -> None:
    def stop(made: int, of: int) -> None:
        raise KeyboardInterrupt

    module = Network().train()
    with pytest.raises(KeyboardInterrupt):
        traced(module, progress=stop)
    assert all(part.training for part in module.modules())


def test_a_tied_head_and_its_table_have_a_role_each() -> None:
    module = Network()
    module.last.weight = module.first.weight
    named = map_module(module)
    assert named.ties
    model = trace_roles(module, named, inputs={"ids": IDS})
    found = of(model)
    assert (str(found["first"].flow), str(found["last"].flow)) == ("text.embedding.token", "text.head.lm")


class Expert(nn.Module):  # type: ignore[misc]  # torch does not say what it is
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(functional.relu(self.a(x)))
        return out


class Sparse(Network):
    """Eight experts, of which five tokens take one each."""

    def __init__(self) -> None:
        super().__init__(layers=1)
        self.gate = nn.Linear(WIDTH, 8)
        self.many = nn.ModuleList([nn.ModuleList(Expert() for _ in range(8))])

    def between(self, number: int, x: torch.Tensor) -> torch.Tensor:
        x = x[0]
        weights, chosen = self.gate(x).topk(1, -1)
        out = torch.zeros_like(x)
        for place in range(5):
            rows = torch.where(chosen[:, 0] == place)[0]
            out.index_add_(0, rows, self.many[number][place](x[rows]) * weights[rows])
        return (x + out)[None]


def test_experts_that_no_token_was_sent_to_are_as_their_siblings() -> None:
    found = of(traced(Sparse()))
    assert {str(found[f"many.0.{number}.a"].flow) for number in range(8)} == {"text.ffn.expert.up"}
    assert {str(found[f"many.0.{number}.b"].flow) for number in range(8)} == {"text.ffn.expert.down"}
    assert [found[f"many.0.{number}.a"].evidence.startswith("as 5 like it that ran: ") for number in range(8)] == [
        number >= 5 for number in range(8)
    ]
    assert str(found["gate"].flow) == "text.router"


def test_matrices_that_only_scale_are_other() -> None:
    class Scaled(Network):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(5, WIDTH))
            self.holder = nn.ParameterDict({"grid": nn.Parameter(torch.ones(5, WIDTH))})

        def between(self, number: int, x: torch.Tensor) -> torch.Tensor:
            return x * self.holder["grid"]

    trace = of(traced(Scaled()))["holder.grid"]
    assert (str(trace.flow), trace.status) == ("text.other", "executed")
    assert trace.evidence == "it is no matrix: it multiplies values one by one"


def test_the_module_may_lie_on_the_meta_device() -> None:
    with torch.device("meta"):
        module = Network()
    assert of(traced(module)) == of(traced(Network()))
