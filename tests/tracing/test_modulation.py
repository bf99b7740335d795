"""Modulations and what feeds them, and what only looks like one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import lorascope as ls

WIDTH = 32


def traced(module: nn.Module, **inputs: Tensor) -> dict[str, str]:
    """Weight name to its role by dataflow, without the component."""
    model = ls.inspect(module, trace=True, inputs=inputs)
    assert [note for note in model.notes if "traced" in note] == []
    return {trace.weight: str(trace.flow).partition(".")[2] for trace in model.traces}


def waves(step: Tensor, size: int) -> Tensor:
    angles = step.float()[:, None] * torch.exp(-math.log(1e4) * torch.arange(size // 2, device=step.device) / size)
    return torch.cat([angles.cos(), angles.sin()], -1)


class Pair(nn.Module):
    def __init__(self, columns: int, rows: int = WIDTH) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(columns, rows), nn.Linear(rows, rows)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.silu(self.first(x)))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 80), nn.Linear(80, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Tabled(nn.Module):
    """A table of its own, and shifts, scales and gates that all blocks share (arXiv 2310.00426, section 2.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.ff = nn.Parameter(torch.randn(3, WIDTH) / 8), Inner()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        shift, scale, gate = (self.table[None] + t.reshape(1, 3, WIDTH)).chunk(3, 1)
        return x + gate * self.ff(F.layer_norm(x, (WIDTH,)) * (1 + scale) + shift)


class OneForAll(nn.Module):
    def __init__(self, made: bool = True) -> None:
        super().__init__()
        self.cut, self.paint = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 8)
        self.clock, self.all = (Pair(16), nn.Linear(WIDTH, 3 * WIDTH)) if made else (None, None)
        self.blocks = nn.ModuleList(Tabled() for _ in range(3))
        self.last = nn.Parameter(torch.randn(2, WIDTH)) if made else None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.cut(x)
        vector = self.clock(waves(t, 16)) if self.clock else t
        t = self.all(F.silu(vector)) if self.all else t
        for block in self.blocks:
            x = block(x, t)
        if self.last is not None:
            shift, scale = (self.last[None] + vector[:, None]).chunk(2, 1)
            x = F.layer_norm(x, (WIDTH,)) * (1 + scale) + shift
        return self.paint(x)


STEPS = {"whole": torch.tensor([5]), "float": torch.tensor([0.5])}


@pytest.mark.parametrize("step", STEPS)
def test_a_learned_table_with_shared_shifts_scales_and_gates(step: str) -> None:
    found = traced(OneForAll(), x=torch.randn(1, 7, 8), t=STEPS[step])
    assert (found["clock.first"], found["clock.second"], found["all"]) == (
        *("embedding.time", "embedding.time"),
        "modulation",
    )
    for block in range(3):
        assert (found[f"blocks.{block}.ff.up"], found[f"blocks.{block}.ff.down"]) == ("ffn.dense.up", "ffn.dense.down")
        assert found[f"blocks.{block}.table"] == "other"
    assert (found["cut"], found["paint"]) == ("embedding", "head")


def test_a_condition_that_is_given_ready_made() -> None:
    found = traced(OneForAll(made=False), x=torch.randn(1, 7, 8), t=torch.randn(1, 3 * WIDTH))
    assert {found[f"blocks.{block}.ff.{name}"] for block in range(3) for name in ("up", "down")} == {
        *("ffn.dense.up", "ffn.dense.down"),
    }


class TwoStreams(nn.Module):
    """Text and picture side by side, each with shifts, scales and gates (arXiv 2408.06072, section 2.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(20, 6 * WIDTH), nn.Linear(20, 6 * WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.ff = Inner()

    def forward(self, x: Tensor, text: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        words = text.shape[1]
        for made, block in ((self.before, self.attend), (self.after, self.ff)):
            shift, scale, gate, shift_text, scale_text, gate_text = made(F.silu(t))[:, None].chunk(6, -1)
            normed = F.layer_norm(x, (WIDTH,)) * (1 + scale) + shift
            normed_text = F.layer_norm(text, (WIDTH,)) * (1 + scale_text) + shift_text
            y = block(torch.cat([normed_text, normed], 1))
            x, text = x + gate * y[:, words:], text + gate_text * y[:, :words]
        return x, text

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (one(x).unflatten(-1, (4, 8)).transpose(1, 2) for one in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cut, self.words, self.clock = nn.Linear(8, WIDTH), nn.Linear(12, WIDTH), Pair(16, 20)
        self.blocks = nn.ModuleList(TwoStreams() for _ in range(2))
        self.last, self.paint = nn.Linear(20, 2 * WIDTH), nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor, text: Tensor, t: Tensor) -> Tensor:
        x, text, t = self.cut(x), self.words(text), self.clock(waves(t, 16))
        for block in self.blocks:
            x, text = block(x, text, t)
        x = F.layer_norm(torch.cat([text, x], 1), (WIDTH,))[:, text.shape[1] :]
        shift, scale = self.last(F.silu(t))[:, None].chunk(2, -1)
        return self.paint(x * (1 + scale) + shift)


@pytest.mark.parametrize("step", STEPS)
def test_a_rule_for_the_feed_forward_never_adapts_a_modulation(step: str) -> None:
    inputs = {"x": torch.randn(1, 7, 8), "text": torch.randn(1, 5, 12), "t": STEPS[step]}
    found = traced(Video(), **inputs)
    assert {name for name, role in found.items() if role == "modulation"} == {
        *(f"blocks.{block}.{name}" for block in range(2) for name in ("before", "after")),
        "last",
    }
    assert (found["clock.first"], found["clock.second"]) == ("embedding.time", "embedding.time")
    assert {found[f"blocks.{block}.{name}"] for block in range(2) for name in "qkvo"} == {
        f"attention.self.{name}" for name in "qkvo"
    }
    plan = ls.plan(ls.inspect(Video(), trace=True, inputs=inputs), "ffn=4")
    assert sorted(plan.to_peft().target_modules) == ["down", "up"]


class Convolutions(nn.Module):
    """A time step shifts the channels between two convolutions (arXiv 2006.11239, appendix B)."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.end = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 3, 3, padding=1)
        self.a, self.b = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.clock, self.shift = Pair(16, 40), nn.Linear(40, WIDTH)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.start(x)
        y = self.a(F.silu(F.group_norm(x, 4))) + self.shift(F.silu(self.clock(waves(t, 16))))[:, :, None, None]
        return self.end(x + self.b(F.silu(F.group_norm(y, 4))))


def test_a_shift_of_channels() -> None:
    found = traced(Convolutions(), x=torch.randn(1, 3, 8, 8), t=torch.tensor([0.5]))
    assert found == {"clock.first": "embedding.time", "clock.second": "embedding.time", "shift": "modulation"}


class Labels(nn.Module):
    """A label and a number steer every block; the scales are of low rank."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.label, self.clock = nn.Linear(8, WIDTH), nn.Embedding(10, WIDTH), Pair(16)
        self.blocks = nn.ModuleList(Inner() for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(WIDTH, 6) for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(6, 2 * WIDTH) for _ in range(2))
        self.paint = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor, label: Tensor, t: Tensor) -> Tensor:
        x, condition = self.cut(x), self.label(label) + self.clock(waves(t, 16))
        for block, narrow, wide in zip(self.blocks, self.narrow, self.wide, strict=True):
            scale, gate = wide(narrow(F.silu(condition)))[:, None].chunk(2, -1)
            x = x + gate * block(F.layer_norm(x, (WIDTH,)) * (1 + scale))
        return self.paint(x)


def test_a_label_and_modulations_of_low_rank() -> None:
    found = traced(Labels(), x=torch.randn(1, 7, 8), label=torch.tensor([3]), t=torch.tensor([0.5]))
    assert found["label"] == "embedding"
    assert {found[f"{name}.{layer}"] for name in ("narrow", "wide") for layer in range(2)} == {"modulation"}
    assert (found["clock.first"], found["clock.second"]) == ("embedding.time", "embedding.time")


class Captioned(nn.Module):
    """A pair embeds the caption that every block looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.caption, self.paint = nn.Linear(8, WIDTH), Pair(12), nn.Linear(WIDTH, 8)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(3))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        x, text = self.cut(x), self.caption(text)
        for block in self.blocks:
            x = x + block(x, text, text)[0]
        return self.paint(x)


def test_a_pair_that_embeds_a_caption_is_not_split() -> None:
    found = traced(Captioned(), x=torch.randn(1, 7, 8), text=torch.randn(1, 5, 12))
    assert (found["caption.first"], found["caption.second"]) == ("embedding", "embedding")
    assert {found[f"blocks.{block}"] for block in range(3)} == {"attention.cross.qkvo"}


class OwnScales(nn.Module):
    """What a stream makes of itself scales it: channels by their mean, a block by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.paint = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 8)
        self.squeeze, self.excite, self.gate, self.ff = (
            Pair(WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 1),
            Inner(),
        )
        self.more = Inner()

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x)
        x = x + torch.sigmoid(self.gate(x)) * self.ff(x)
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(1, keepdim=True)))))
        return self.paint(x + self.more(x * scale))


def test_what_a_stream_makes_of_itself_is_no_modulation() -> None:
    found = traced(OwnScales(), x=torch.randn(1, 7, 8))
    assert "modulation" not in found.values()
    assert (found["more.up"], found["more.down"]) == ("ffn.dense.up", "ffn.dense.down")


class Halved(nn.Module):
    """Half the resolution twice as wide, and a depthwise convolution within the feed-forward."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
            self.near = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width)

        def forward(self, x: Tensor) -> Tensor:
            y = self.near(self.up(F.layer_norm(x, x.shape[-1:])).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return x + self.down(F.gelu(y))

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.last = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(2 * WIDTH, 10)
        self.small, self.large = (nn.Sequential(*(self.Block(width) for _ in range(2))) for width in (WIDTH, 2 * WIDTH))
        self.halve = nn.Linear(4 * WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.small(self.cut(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)], -1)
        return self.last(self.large(self.halve(x)).mean((1, 2)))


def test_the_step_to_half_the_resolution_is_a_merger() -> None:
    found = traced(Halved(), x=torch.randn(1, 3, 32, 32))
    assert found.pop("halve") == "embedding.merger"
    assert found.pop("last") == "head"
    assert found == {
        f"{stage}.{block}.{name}": f"ffn.dense.{name}"
        for stage in ("small", "large")
        for block in range(2)
        for name in ("up", "down")
    }


def test_the_specimens_run_with_numbers() -> None:
    calls: list[tuple[nn.Module, dict[str, Any]]] = [
        (OneForAll(), {"x": torch.randn(1, 7, 8), "t": torch.tensor([5])}),
        (Video(), {"x": torch.randn(1, 7, 8), "text": torch.randn(1, 5, 12), "t": torch.tensor([5])}),
        (Labels(), {"x": torch.randn(1, 7, 8), "label": torch.tensor([3]), "t": torch.tensor([5])}),
        (Halved(), {"x": torch.randn(1, 3, 32, 32)}),
    ]
    assert [module(**inputs).isfinite().all().item() for module, inputs in calls] == [True] * 4
