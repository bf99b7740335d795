"""The last batch, third part: towers, latents, noise, choices of experts, low ranks, gates, recurrences, long texts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import BATCH, HEAD, HEADS, HIDDEN, INNER, LENGTH, VOCABULARY, WIDE, causal, specimen, tokens


def _heads(x: Tensor, heads: int = HEADS) -> Tensor:
    """(batch, length, heads·size) → (batch, heads, length, size)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _unit(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:])


class _Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Embedding(VOCABULARY, HIDDEN)
        self.z = nn.ModuleList(
            [nn.ModuleList([nn.Linear(HIDDEN, INNER) for _ in range(3)] + [nn.Linear(INNER, HIDDEN)]) for _ in range(2)]
        )
        self.y = nn.ModuleList([nn.Sequential(nn.Linear(HIDDEN, WIDE), nn.GELU()) for _ in range(2)])
        self.x = nn.ModuleList([nn.Linear(WIDE, HIDDEN) for _ in range(2)])
        self.s = nn.Linear(HIDDEN, 32, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.t(ids)
        for z, y, x in zip(self.z, self.y, self.x, strict=True):
            n = F.layer_norm(h, (HIDDEN,))
            h = h + z[3](_merge(F.scaled_dot_product_attention(_heads(z[0](n)), _heads(z[2](n)), _heads(z[1](n)))))
            h = h + x(y(F.layer_norm(h, (HIDDEN,))))
        return F.normalize(self.s(h.mean(1)), dim=-1)


_TOWER = {
    "left.t": "embedding.token",
    "left.z.#.0": "attention.self.q",
    "left.z.#.1": "attention.self.v",
    "left.z.#.2": "attention.self.k",
    "left.z.#.3": "attention.self.o",
    "left.y.#.0": "ffn.dense.up",
    "left.x.#": "ffn.dense.down",
    "left.s": "head | embedding.projection",
}


@specimen(
    lambda: {
        "question": torch.randint(0, VOCABULARY, (3, 7)),
        "passage": torch.randint(0, VOCABULARY, (3, LENGTH)),
    },
    {**_TOWER, **{row.replace("left", "right"): role for row, role in _TOWER.items()}},
)
class Retrieval(nn.Module):
    """Questions and passages, each with a tower of its own, compared all with all."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = _Tower(), _Tower()

    def forward(self, question: Tensor, passage: Tensor) -> Tensor:
        return self.left(question) @ self.right(passage).T / 0.05


class _Look(nn.Module):
    def __init__(self, other: int) -> None:
        super().__init__()
        self.i, self.j = nn.Linear(HIDDEN, INNER, bias=False), nn.Linear(other, 2 * INNER, bias=False)
        self.k, self.up, self.down = nn.Linear(INNER, HIDDEN), nn.Linear(HIDDEN, 2 * WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, (k, v) = self.i(F.layer_norm(x, (HIDDEN,))), self.j(F.layer_norm(y, y.shape[-1:])).chunk(2, -1)
        sim = torch.einsum("bhid,bhjd->bhij", _heads(q), _heads(k)) * HEAD**-0.5
        x = x + self.k(_merge(torch.einsum("bhij,bhjd->bhid", sim.softmax(-1), _heads(v))))
        a, g = self.up(F.layer_norm(x, (HIDDEN,))).chunk(2, -1)
        return x + self.down(a * F.gelu(g))


class _Slots(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.ask = nn.Parameter(torch.randn(6, HIDDEN)), nn.Parameter(torch.randn(5, HIDDEN))


@specimen(
    lambda: {"signal": torch.randn(BATCH, 37, 29)},
    {
        "slots.start": "embedding | other",
        "slots.ask": "embedding | other",
        "read.i": "attention.cross.q",
        "read.j": "attention.cross.kv",
        "read.k": "attention.cross.o",
        "read.up": "ffn.dense.gate_up",
        "read.down": "ffn.dense.down",
        "think.#.i": "attention.self.q",
        "think.#.j": "attention.self.kv",
        "think.#.k": "attention.self.o",
        "think.#.up": "ffn.dense.gate_up",
        "think.#.down": "ffn.dense.down",
        "write.i": "attention.cross.q",
        "write.j": "attention.cross.kv",
        "write.k": "attention.cross.o",
        "write.up": "ffn.dense.gate_up",
        "write.down": "ffn.dense.down",
        "last": "head | head.classifier",
    },
)
class Latents(nn.Module):
    """A Perceiver: learned latents read the raw signal, think twice with one block, and are asked by learned queries."""

    def __init__(self) -> None:
        super().__init__()
        self.slots, self.read, self.write = _Slots(), _Look(29), _Look(HIDDEN)
        self.think, self.last = nn.ModuleList([_Look(HIDDEN)]), nn.Linear(HIDDEN, 7)

    def forward(self, signal: Tensor) -> Tensor:
        x = self.read(self.slots.start.expand(len(signal), -1, -1), signal)
        for block in (*self.think, *self.think):
            x = block(x, x)
        return self.last(self.write(self.slots.ask.expand(len(signal), -1, -1), x))


class _Steered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 6 * HIDDEN))
        self.c1, self.c2 = nn.Linear(HIDDEN, 3 * INNER), nn.Linear(INNER, HIDDEN)
        self.c3 = nn.Sequential(nn.Linear(HIDDEN, WIDE), nn.GELU(approximate="tanh"), nn.Linear(WIDE, HIDDEN))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        s1, m1, g1, s2, m2, g2 = self.query(c)[:, None].chunk(6, -1)
        y = F.layer_norm(x, (HIDDEN,)) * (1 + m1) + s1
        q, k, v = (_heads(z) for z in self.c1(y).chunk(3, -1))
        x = x + g1 * self.c2(_merge(F.scaled_dot_product_attention(q, k, v)))
        return x + g2 * self.c3(F.layer_norm(x, (HIDDEN,)) * (1 + m2) + s2)


@specimen(
    lambda: {
        "noisy": torch.randn(BATCH, 4, 8, 8),
        "when": torch.tensor([13, 700]),
        "kind": torch.tensor([2, 5]),
    },
    {
        "cut": "embedding.patch",
        "clock.#": "embedding.time",
        "kinds": "embedding | other",
        "deep.#.query.1": "modulation",
        "deep.#.c1": "attention.self.qkv",
        "deep.#.c2": "attention.self.o",
        "deep.#.c3.0": "ffn.dense.up",
        "deep.#.c3.2": "ffn.dense.down",
        "steer": "modulation",
        "paint": "head | other",
    },
)
class Denoiser(nn.Module):
    """A diffusion transformer: the time and the kind of the picture shift, scale and gate every branch."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.kinds = nn.Linear(16, HIDDEN), nn.Embedding(9, HIDDEN)
        self.clock = nn.Sequential(nn.Linear(32, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))
        self.deep = nn.ModuleList([_Steered() for _ in range(2)])
        self.steer, self.paint = nn.Linear(HIDDEN, 2 * HIDDEN), nn.Linear(HIDDEN, 16)

    def forward(self, noisy: Tensor, when: Tensor, kind: Tensor) -> Tensor:
        b = len(noisy)
        x = self.cut(noisy.view(b, 4, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, 16, 16))
        angle = torch.arange(16, device=x.device)[:, None] * torch.exp(-torch.arange(24, device=x.device) / 4)
        x = x + torch.cat([angle.sin(), angle.cos()], -1)
        angle = when[:, None].float() * torch.exp(-math.log(10000) * torch.arange(16, device=x.device) / 16)
        c = self.clock(torch.cat([angle.cos(), angle.sin()], -1)) + self.kinds(kind)
        for block in self.deep:
            x = block(x, c)
        shift, scale = self.steer(F.silu(c))[:, None].chunk(2, -1)
        x = self.paint(F.layer_norm(x, (HIDDEN,)) * (1 + scale) + shift)
        return x.view(b, 4, 4, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, 4, 8, 8)


class _Chosen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleList([nn.Linear(HIDDEN, INNER) for _ in range(3)] + [nn.Linear(INNER, HIDDEN)])
        self.lin = nn.Linear(HIDDEN, 5, bias=False)
        self.first = nn.Parameter(torch.randn(5, HIDDEN, WIDE) / 7)
        self.second = nn.Parameter(torch.randn(5, WIDE, HIDDEN) / 10)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        v, q, k = (_heads(linear(_unit(x))) for linear in self.attn[:3])
        x = x + self.attn[3](_merge(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        flat = _unit(x).view(b * t, d)
        share, rows = torch.topk(self.lin(flat).softmax(-1).t(), 6, dim=-1)  # (experts, 6)
        y = F.relu(torch.bmm(flat[rows], self.first)).square()
        y = torch.bmm(y, self.second) * share[..., None]
        return x + torch.zeros_like(flat).index_add(0, rows.flatten(), y.flatten(0, 1)).view(b, t, d)


@specimen(
    tokens(),
    {
        "inn": "embedding.token",
        "mid.#.attn.0": "attention.self.v",
        "mid.#.attn.1": "attention.self.q",
        "mid.#.attn.2": "attention.self.k",
        "mid.#.attn.3": "attention.self.o",
        "mid.#.lin": "router",
        "mid.#.first": "ffn.expert.up",
        "mid.#.second": "ffn.expert.down",
        "outt": "head.lm",
    },
)
class Choosers(nn.Module):
    """Experts that choose six tokens each, with squared ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.inn, self.mid = nn.Embedding(VOCABULARY, HIDDEN), nn.Sequential(_Chosen(), _Chosen())
        self.outt = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.outt(_unit(self.mid(self.inn(tokens))))


def _turn(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] / 100 ** (torch.arange(half, device=x.device) / half)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class _Latent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.aa, self.ab = nn.Linear(HIDDEN, 20, bias=False), nn.Linear(20, HEADS * (HEAD + 8), bias=False)
        self.ba, self.bb = nn.Linear(HIDDEN, 18 + 8, bias=False), nn.Linear(18, 2 * INNER, bias=False)
        self.ca = nn.Linear(INNER, HIDDEN, bias=False)
        self.da, self.db, self.dc = nn.Linear(HIDDEN, WIDE), nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = _unit(x)
        q, q_turned = _heads(self.ab(_unit(self.aa(y)))).split([HEAD, 8], -1)
        low, k_turned = self.ba(y).split([18, 8], -1)
        v, k = _heads(self.bb(_unit(low))).chunk(2, -1)
        k_turned = _turn(k_turned)[:, None].expand(-1, HEADS, -1, -1)
        q, k = torch.cat([_turn(q_turned), q], -1), torch.cat([k_turned, k], -1)
        s = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(causal(x.shape[1], x.device), -torch.inf)
        x = x + self.ca(_merge(s.softmax(-1) @ v))
        y = _unit(x)
        return x + self.dc(self.da(y) * F.silu(self.db(y)))


@specimen(
    tokens(),
    {
        "t": "embedding.token",
        "u.#.aa": "attention.self.q_a",
        "u.#.ab": "attention.self.q_b",
        "u.#.ba": "attention.self.kv_a",
        "u.#.bb": "attention.self.kv_b",
        "u.#.ca": "attention.self.o",
        "u.#.da": "ffn.dense.up",
        "u.#.db": "ffn.dense.gate",
        "u.#.dc": "ffn.dense.down",
        "v": "head.lm",
    },
)
class LatentAttention(nn.Module):
    """Low-rank queries, keys and values, and a turned part that all heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.t, self.u = nn.Embedding(VOCABULARY, HIDDEN), nn.Sequential(_Latent(), _Latent())
        self.v = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.v(_unit(self.u(self.t(tokens))))


class _Gau(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p, self.o = nn.Linear(HIDDEN, 2 * WIDE + 24), nn.Linear(WIDE, HIDDEN)
        self.gq, self.bq = nn.Parameter(torch.randn(24)), nn.Parameter(torch.randn(24))
        self.gk, self.bk = nn.Parameter(torch.randn(24)), nn.Parameter(torch.randn(24))

    def forward(self, x: Tensor) -> Tensor:
        u, v, z = F.silu(self.p(F.layer_norm(x, (HIDDEN,)))).split([WIDE, WIDE, 24], -1)
        s = (z * self.gq + self.bq) @ (z * self.gk + self.bk).mT / 24**0.5
        s = s.masked_fill(causal(x.shape[1], x.device), float("-inf"))
        return x + self.o(u * (s.softmax(-1) @ v))


@specimen(
    tokens(),
    {
        "i": "embedding.token",
        "g.#.p": "attention.self.qkv_gate",
        "g.#.o": "attention.self.o",
        "e": "head.lm",
    },
)
class GatedUnits(nn.Module):
    """Gated attention units: one matrix makes the gate, the values and what queries and keys both come from."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.g = nn.Embedding(VOCABULARY, HIDDEN), nn.Sequential(_Gau(), _Gau(), _Gau())
        self.e = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.e(self.g(self.i(tokens)))
