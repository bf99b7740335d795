"""A module that is recorded is as it was before, whatever happens meanwhile, and its weights' numbers are not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lorascope.tracing.graph import Graph
from lorascope.tracing.record.recorder import record
from tests.helpers.expressions import IDS, NUMBERS, Expression, matrix, node, shape
from tests.helpers.peak_memory import forget_peak, peak_memory


class Everything(nn.Module):  # type: ignore[misc]  # torch does not say what it is
    """Embeddings, dropout, a norm with running statistics, a buffer, experts and attention; it may raise at the end."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.norm = nn.BatchNorm1d(8)
        self.router = nn.Linear(8, 4)
        self.experts = matrix(4, 8, 8)
        self.head = nn.Linear(8, 10)
        self.register_buffer("scale", torch.ones(8))
        self.scale: torch.Tensor
        self.fails = fails

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.attention(self.tokens(ids)) * self.scale
        self.scale.mul_(x.mean((0, 1)))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        weights, chosen = self.router(x).topk(1, -1)
        x = x + (x[:, :, None] @ self.experts[chosen[..., 0]])[:, :, 0] * weights
        if self.fails:
            raise RuntimeError("it never ends well")
        out: torch.Tensor = self.head(x)
        return out


def everything_of(module: nn.Module) -> dict[str, Any]:
    """All that recording could change of a module."""
    found: dict[str, Any] = {"attributes": {name: sorted(part.__dict__) for name, part in module.named_modules()}}
    found["training"] = {name: part.training for name, part in module.named_modules()}
    found["hooks"] = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        found[name] = (id(tensor), tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape)
        found[name] += (tensor.requires_grad, tensor.grad, sorted(vars(tensor)))
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_module_is_as_it_was_also_after_an_error(training: bool, fails: bool) -> None:
    module = Everything(fails=fails).train(training)
    module.attention.eval()  # part of it may be frozen in the other mode
    module.tokens.weight.requires_grad_(False)
    before, numbers = everything_of(module), {name: one.clone() for name, one in module.state_dict().items()}
    graph = record(module, "forward", {"ids": IDS})
    assert graph.failure.startswith("RuntimeError: it never ends well (test_untouched.py, line" if fails else "")
    assert bool(graph.failure) is fails
    assert everything_of(module) == before
    assert all(torch.equal(module.state_dict()[name], one) for name, one in numbers.items())
    assert len(numbers) == 24


def test_buffers_that_its_own_code_writes_keep_their_numbers() -> None:
    def function(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.calls += 1
        m.factors.mul_(2)
        m.factors[0].zero_()
        m.mean.copy_(x.mean((0, 1)))
        return m.w(x) * m.factors + m.mean + m.calls

    module = Expression(function, w=nn.Linear(8, 8))
    module.register_buffer("calls", torch.zeros(1, dtype=torch.long))
    for name in ("factors", "mean"):
        module.register_buffer(name, torch.ones(8))
    graph = record(module, "forward", {"x": NUMBERS})
    assert graph.failure == ""
    assert {name: one.tolist() for name, one in module.named_buffers()} == {
        "calls": [0],
        "factors": [1.0] * 8,
        "mean": [1.0] * 8,
    }


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_settings_of_torch_are_as_they_were(enabled: bool, fails: bool) -> None:
    validates = torch.distributions.Distribution._validate_args
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        assert bool(record(Everything(fails=fails), "forward", {"ids": IDS}).failure) is fails
        inside: list[bool] = []
        record(Expression(lambda m, x: inside.append(torch.backends.mha.get_fastpath_enabled())), "forward", {"x": IDS})
        assert inside == [False]
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        assert torch.distributions.Distribution._validate_args is validates
        assert torch.is_grad_enabled()
        assert torch.empty(1).device.type == "cpu"
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_the_module_still_gives_what_it_gave() -> None:
    module = Everything().eval()
    expected = Everything().eval()
    expected.load_state_dict(module.state_dict())
    record(module, "forward", {"ids": IDS})
    with torch.no_grad():
        assert torch.equal(module(IDS), expected(IDS))


def of(change: Callable[[nn.Module], nn.Module]) -> Graph:
    graph = record(change(Everything()), "forward", {"ids": IDS})
    assert graph.failure == ""
    return graph


def with_numbers(number: float) -> Callable[[nn.Module], nn.Module]:
    def change(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(number)
        return module

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_numbers(float("nan")),
        with_numbers(float("inf")),
        with_numbers(0.0),
        lambda module: module.train(),
        lambda module: module.bfloat16(),
        lambda module: module.double(),
        lambda module: module.requires_grad_(False),
    ],
    ids=["nan", "inf", "zero", "training", "bf16", "double", "frozen"],
)
def test_the_graph_does_not_depend_on_numbers_or_their_type(change: Callable[[nn.Module], nn.Module]) -> None:
    expected = of(lambda module: module.eval())
    found = of(change)
    assert (found.nodes, found.outputs, found.elementwise) == (expected.nodes, expected.outputs, expected.elementwise)
    assert len(found.nodes) >= 10


def test_nor_on_the_device() -> None:
    with torch.device("meta"):
        module = Everything()
    found = record(module, "forward", {"ids": IDS})
    assert found.nodes == of(lambda module: module).nodes
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


def test_the_numbers_of_weights_are_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has touched has no pages: reading 4 GB of it, or copying it, would bring them."""
    width = 1 << 15
    module = Expression(lambda m, x: m.b(functional.silu(m.a(x))), a=nn.Linear(1, 1), b=nn.Linear(1, 1))
    for name in "ab":
        part = getattr(module, name)
        part.weight = nn.Parameter(torch.empty(width, width, dtype=torch.bfloat16))
        part.bias = None
    before = forget_peak()
    graph = record(module, "forward", {"x": torch.ones(2, width, dtype=torch.bfloat16)})
    assert shape(graph) == ["weight a.weight", "weight b.weight"]
    assert peak_memory() - before < 100 * 2**20


def test_a_hundred_billion_parameters() -> None:
    width, layers = 1 << 15, 48
    with torch.device("meta"):
        parts = nn.ModuleList(nn.Linear(width, width * 2, bias=False) for _ in range(layers))
    assert sum(parameter.numel() for parameter in parts.parameters()) > 10**11

    def function(m: Any, x: torch.Tensor) -> torch.Tensor:
        for part in m.parts:
            one, other = part(x).chunk(2, -1)
            x = x + one * other
        return x

    before = forget_peak()
    graph = record(Expression(function, parts=parts), "forward", {"x": torch.ones(2, 5, width)})
    assert (len(graph.nodes), graph.failure) == (1 + 2 * layers, "")
    assert peak_memory() - before < 100 * 2**20


def test_a_method_and_a_submodule_are_called_by_their_dotted_names() -> None:
    module = nn.Module()
    module.inner = Expression(lambda m, x: m.w(x), w=nn.Linear(8, 4))
    for method in ("inner", "inner.forward"):
        graph = record(module, method, {"x": NUMBERS})
        assert (node(graph, "inner.w.weight").rows, graph.failure) == (4, "")


def test_a_buffer_that_its_own_code_replaces_is_put_back() -> None:
    class Replaces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.register_buffer("table", torch.arange(12.0).view(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                self.table = self.table.to(x.device) + self.one(x)
            return self.table

    module = Replaces()
    before = module.table
    graph = record(module, "forward", {"x": torch.ones(3, 4)})
    assert not graph.failure
    assert module.table is before
    assert before.tolist() == torch.arange(12.0).view(3, 4).tolist()
