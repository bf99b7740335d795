"""Operations without weights: what is known stays real, made-up integers cover what there is, shapes are torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lorascope.tracing.record import meta_execution


class Running(TorchDispatchMode):  # type: ignore[misc]  # torch does not say what it is
    """Every operation goes through `meta_execution.run`, and nothing else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: meta_execution.Shapes = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return meta_execution.run_operation(func, func._overloadpacket.__name__, args, kwargs or {}, self.shapes)


def unknown(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with _disable_current_modes():  # a tensor that is made while running is known
        return torch.empty(shape, dtype=dtype, device="meta")


def made_up(choose: Callable[[torch.Tensor], Any], *shape: int) -> torch.Tensor:
    """The integers that a choice among unknown values gives, which are real."""
    with Running():
        found = choose(unknown(*shape))
    result: torch.Tensor = found if isinstance(found, torch.Tensor) else found.indices
    assert not result.is_meta and result.dtype == torch.long
    return result


CHOICES: list[tuple[Callable[[torch.Tensor], Any], int]] = [
    (lambda x: x.topk(2), -1),
    (lambda x: x.topk(2, dim=0), 0),
    (lambda x: x.topk(2, dim=1, sorted=False), 1),
    (lambda x: x.sort(), -1),
    (lambda x: x.sort(dim=0, descending=True), 0),
    (lambda x: x.sort(stable=True, dim=1), 1),
    (lambda x: x.argsort(), -1),
    (lambda x: x.argsort(1), 1),
    (lambda x: x.argmax(-1), -1),
    (lambda x: x.argmax(0, keepdim=True), 0),
    (lambda x: x.argmin(1), 1),
    (lambda x: x.max(-1), -1),
    (lambda x: x.max(0), 0),
    (lambda x: x.min(1, keepdim=True), 1),
    (lambda x: x.median(-1), -1),
    (lambda x: x.mode(0), 0),
    (lambda x: x.kthvalue(2, 1), 1),
]


@pytest.mark.parametrize(("choose", "dim"), CHOICES, ids=[str(place) for place in range(len(CHOICES))])
def test_made_up_integers_have_torchs_shape_and_name_every_place(
    choose: Callable[[torch.Tensor], Any], dim: int
) -> None:
    shape = (4, 6, 5)
    found = made_up(choose, *shape)
    real = choose(torch.rand(shape))
    assert found.shape == (real if isinstance(real, torch.Tensor) else real.indices).shape
    assert set(found.flatten().tolist()) == set(range(shape[dim]))
    if found.dim() == 3 and found.shape[dim] > 1:  # no place twice in one row
        rows = found.movedim(dim, -1).reshape(-1, found.shape[dim])
        assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_rows_take_every_expert_in_turn() -> None:
    assert made_up(lambda x: x.topk(2), 4, 6).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert made_up(lambda x: x.topk(2, 0), 6, 3).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert made_up(lambda x: x.argmax(-1), 4, 3).tolist() == [0, 1, 2, 0]


def test_what_chooses_nothing_has_no_made_up_integers() -> None:
    with Running():
        assert torch.max(unknown(4), unknown(4)).is_meta
        assert unknown(4).max().is_meta
        assert unknown(3, 4).argmax().tolist() == 0
        values, chosen = unknown(3, 4).topk(2)
        assert values.is_meta and not chosen.is_meta
        assert unknown(3, 4).multinomial(2).shape == (3, 2)


def test_known_tensors_stay_real() -> None:
    with Running():
        ids = torch.tensor([[3, 1, 4]])
        mask = torch.ones(1, 3, dtype=torch.bool, device="meta").tril()
        for tensor in (ids + 1, ids == 1, ids.float() / 2, torch.arange(5, device="meta"), mask, ids.new_zeros(2)):
            assert not tensor.is_meta
        assert (ids * 2).tolist() == [[6, 2, 8]]
        assert torch.empty(3, dtype=torch.long, device="meta").tolist() == [0, 0, 0]
        assert (unknown(3) * torch.ones(3)).is_meta
        assert (unknown(3) > 0).is_meta
        assert ids.to("meta").tolist() == [[3, 1, 4]]
        assert torch.histc(ids, 5, 0, 4).tolist() == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("elements", "real"),
    [(meta_execution.LARGEST_KNOWN_FLOATS, True), (meta_execution.LARGEST_KNOWN_FLOATS + 1, False)],
)
def test_large_tensors_of_floats_are_not_made(elements: int, real: bool) -> None:
    with Running():
        assert torch.ones(elements, device="meta").is_meta is not real


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (lambda: (torch.tensor([True, False, True]),), (2, 4)),
        (lambda: (torch.tensor([2, 0, 1, 1]),), (4, 4)),
        (lambda: (torch.ones(3, dtype=torch.bool, device="meta"),), (3, 4)),
        (lambda: (slice(None), torch.tensor([True, False, False, True])), (3, 2)),
        (lambda: (torch.tensor([[True, False, True, True]] * 3),), (9,)),
        (lambda: (None, torch.tensor([0, 2])), (1, 2, 4)),
    ],
)
def test_masks_let_known_places_through_and_unknown_ones_all(
    index: Callable[[], tuple[Any, ...]], expected: tuple[int, ...]
) -> None:
    with Running():
        found = unknown(3, 4)[index()]
    assert (tuple(found.shape), found.is_meta) == (expected, True)


def test_places_of_an_unknown_mask_are_all() -> None:
    with Running():
        mask = unknown(2, 2) > 0
        assert mask.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
        assert unknown(2, 2).masked_select(mask).shape == (4,)


def test_buffers_without_numbers_get_some() -> None:
    def of(name: str, dtype: torch.dtype) -> list[Any]:
        found: list[Any] = meta_execution.stand_in_of_buffer(name, unknown(1, 3, dtype=dtype)).tolist()
        return found

    assert of("position_ids", torch.long) == [[0, 1, 2]]
    assert of("relative_position_index", torch.long) == [[0, 0, 0]]
    assert of("attention_mask", torch.long) == [[1, 1, 1]]
    assert of("causal", torch.bool) == [[True, True, True]]
    assert of("counter", torch.int) == [[0, 0, 0]]
    assert meta_execution.stand_in_of_buffer("position_ids", unknown(1, dtype=torch.long)).tolist() == [0]


def test_grouped_products_of_any_type() -> None:
    with Running():
        offsets = torch.tensor([2, 5], dtype=torch.int32)
        for dtype in (torch.bfloat16, torch.float32):
            found = torch._grouped_mm(unknown(5, 8, dtype=dtype), unknown(2, 8, 16, dtype=dtype), offs=offsets)
            assert (tuple(found.shape), found.dtype, found.is_meta) == ((5, 16), dtype, True)


OPERATIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "view": lambda x: x.view(-1, x.shape[-1]),
    "transpose": lambda x: x.transpose(0, 1) * 2,
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "sum": lambda x: x.sum((0, 2)),
    "keepdim": lambda x: x.mean(-1, keepdim=True),
    "cat": lambda x: torch.cat([x, x[:, :1]], 1),
    "softmax": lambda x: x.softmax(1).to(torch.bfloat16),
    "norm": lambda x: functional.layer_norm(x, x.shape[-1:]),
    "chunk": lambda x: torch.unsafe_chunk(x, 2, -1),
    "permute": lambda x: x.permute(2, 0, 1).contiguous(),
    "compare": lambda x: x > 0,
    "pad": lambda x: functional.pad(x, (1, 0, 0, 2)),
    "topk": lambda x: x.topk(1).values,
    "in place": lambda x: (x + 0).transpose(0, 2).mul_(3),
    "glu": lambda x: functional.glu(torch.cat([x, x], -1)),
    "convolution": lambda x: functional.conv1d(x, x.new_zeros(3, x.shape[1], 1)),
    "scalars": lambda x: ((x > 0) * 1, (x > 0) * 1.0, (x > 0) * True),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_remembered_shapes_are_what_torch_gives(name: str) -> None:
    generator = torch.Generator().manual_seed(7)
    running = Running()
    compared = 0
    for _ in range(6):
        shape = [int(size) for size in torch.randint(1, 7, (3,), generator=generator) * 2]
        for dtype in (torch.float32, torch.float64):
            for real in (torch.zeros(shape, dtype=dtype), torch.zeros(shape[::-1], dtype=dtype).permute(2, 1, 0)):
                same = torch.empty_strided(real.shape, real.stride(), dtype=dtype, device="meta")
                try:
                    expected = meta_execution.tensors_in([OPERATIONS[name](real)])
                except RuntimeError:  # a view that these strides have not
                    continue
                for _ in range(2):  # worked out, then remembered
                    with running:
                        found = meta_execution.tensors_in([OPERATIONS[name](same)])
                    described = [(one.shape, one.stride(), one.dtype) for one in found]
                    assert described == [(one.shape, one.stride(), one.dtype) for one in expected]
                    compared += 1
    assert compared >= 24
    assert running.shapes or name in ("view", "chunk")  # views are not remembered


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.item(),
        lambda x: bool(x > 0),
        lambda x: float(x),
        lambda x: int(x.argmax() + x),
        lambda x: torch.equal(x, x),
        lambda x: torch.is_nonzero(x),
    ],
)
def test_what_depends_on_weights_cannot_be_asked_for(ask: Callable[[torch.Tensor], Any]) -> None:
    with (
        Running(),
        pytest.raises(meta_execution.UntraceableError, match="asks for a number that depends on the weights"),
    ):
        ask(unknown(1))


def test_an_operation_that_has_no_form_without_numbers() -> None:
    library = torch.library.Library("lorascopetests", "FRAGMENT")
    library.define("opaque(Tensor x) -> Tensor")
    library.impl("opaque", lambda x: x + 1, "CPU")
    with (
        Running(),
        pytest.raises(meta_execution.UntraceableError, match="the operation opaque has no form without numbers"),
    ):
        torch.ops.lorascopetests.opaque(unknown(2))


def test_operations_on_plain_numbers() -> None:
    """`torch.div` takes two integers, as Longformer's code gives it, and no device."""
    with Running():
        for found, number in ((torch.div(7, 2, rounding_mode="trunc"), 3), (torch.add(2, 3), 5), (torch.mul(2, 3), 6)):
            assert not found.is_meta and found.item() == number
