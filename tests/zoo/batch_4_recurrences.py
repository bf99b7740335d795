"""The last batch, fourth part: recurrences, and attentions that read no further than a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import HEAD, HEADS, HIDDEN, INNER, VOCABULARY, WIDE, specimen, tokens


class _Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k, self.q = nn.Linear(HIDDEN, 2 * INNER, bias=False), nn.Linear(INNER, HIDDEN, bias=False)
        self.taps = nn.Conv1d(INNER, INNER, 4, padding=3, groups=INNER)
        self.v, self.o = nn.Linear(INNER, 5 + 2 * 6, bias=False), nn.Linear(5, INNER)
        self.rates = nn.Parameter(torch.log(torch.arange(1.0, 7).repeat(INNER, 1)))
        self.skip = nn.Parameter(torch.ones(INNER))

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.k(F.rms_norm(x, (HIDDEN,))).chunk(2, -1)
        u = F.silu(self.taps(u.mT)[..., : x.shape[1]].mT)
        step, b, c = self.v(u).split([5, 6, 6], -1)
        step = F.softplus(self.o(step))
        keep = torch.exp(step[..., None] * -self.rates.exp())  # (batch, length, inner, 6)
        add = (step * u)[..., None] * b[:, :, None]
        state, seen = torch.zeros_like(add[:, 0]), []
        for t in range(x.shape[1]):
            state = keep[:, t] * state + add[:, t]
            seen.append((state * c[:, t, None]).sum(-1))
        return x + self.q((torch.stack(seen, 1) + u * self.skip) * F.silu(z))


@specimen(
    tokens(),
    {
        "one": "embedding.token",
        "two.#.k": "mixer.in",
        "two.#.v": "mixer.x",
        "two.#.o": "mixer.dt",
        "two.#.rates": "other",
        "two.#.q": "mixer.out",
        "three": "head.lm",
    },
)
class Selective(nn.Module):
    """A Mamba whose four matrices are called as those of an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Embedding(VOCABULARY, HIDDEN), nn.Sequential(_Scan(), _Scan())
        self.three = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.three(F.rms_norm(self.two(self.one(tokens)), (HIDDEN,)))


class _Kernel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.s, self.t = (nn.Linear(HIDDEN, INNER) for _ in range(3))
        self.u, self.w, self.x = nn.Linear(INNER, HIDDEN), nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, h: Tensor) -> Tensor:
        y = F.layer_norm(h, (HIDDEN,))
        r, s, t = (linear(y).unflatten(-1, (HEADS, HEAD)) for linear in (self.r, self.s, self.t))
        s, t = F.elu(s) + 1, F.elu(t) + 1
        sums = torch.einsum("blhd,blhe->blhde", s, r).cumsum(1)
        total = torch.einsum("blhd,blhd->blh", t, s.cumsum(1))
        y = torch.einsum("blhd,blhde->blhe", t, sums) / (total[..., None] + 1e-6)
        h = h + self.u(y.flatten(2))
        return h + self.x(F.gelu(self.w(F.layer_norm(h, (HIDDEN,)))))


@specimen(
    tokens(),
    {
        "a": "embedding.token",
        "b.#.r": "attention.linear.v",
        "b.#.s": "attention.linear.k",
        "b.#.t": "attention.linear.q",
        "b.#.u": "attention.linear.o",
        "b.#.w": "ffn.dense.up",
        "b.#.x": "ffn.dense.down",
        "c": "head.lm",
    },
)
class Kernels(nn.Module):
    """A linear attention by running sums, with an ordinary feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Embedding(VOCABULARY, HIDDEN), nn.Sequential(_Kernel(), _Kernel())
        self.c = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.c(self.b(self.a(tokens)))


class _Cache:
    """Keeps no more than a window of keys and values per layer."""

    def __init__(self, window: int) -> None:
        self.window, self.held = window, {}  # type: ignore[var-annotated]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer in self.held:
            k, v = (torch.cat(pair, -2) for pair in zip(self.held[layer], (k, v), strict=True))
        self.held[layer] = k[..., -self.window :, :], v[..., -self.window :, :]
        return k, v


class _Near(nn.Module):
    def __init__(self, layer: int, window: int) -> None:
        super().__init__()
        self.layer, self.window = layer, window
        self.m1, self.m2 = nn.Linear(HIDDEN, INNER, bias=False), nn.Linear(HIDDEN, 2 * HEAD, bias=False)
        self.m3, self.m4 = nn.Linear(INNER, HIDDEN, bias=False), nn.Linear(HIDDEN, 2 * WIDE, bias=False)
        self.m5 = nn.Linear(WIDE, HIDDEN, bias=False)

    def forward(self, x: Tensor, cache: _Cache, start: int) -> Tensor:
        b, t, _ = x.shape
        y = F.rms_norm(x, (HIDDEN,))
        v, k = self.m2(y)[:, None].split(HEAD, -1)  # one head for all
        k, v = cache.update(self.layer, k, v)
        q = self.m1(y).view(b, t, HEADS, HEAD).transpose(1, 2)
        s = torch.matmul(q, k.transpose(2, 3)) * HEAD**-0.5
        here = torch.arange(start, start + t, device=x.device)[:, None]
        there = torch.arange(start + t - k.shape[2], start + t, device=x.device)[None]
        allowed = (there <= here) & (there > here - self.window)
        s = torch.where(allowed, s, torch.finfo(s.dtype).min)
        y = torch.matmul(F.softmax(s, -1), v).transpose(1, 2).reshape(b, t, INNER)
        x = x + F.rms_norm(self.m3(y), (HIDDEN,))
        y = self.m4(F.rms_norm(x, (HIDDEN,)))
        return x + F.rms_norm(self.m5(F.gelu(y[..., 0::2]) * y[..., 1::2]), (HIDDEN,))


@specimen(
    tokens("ids"),
    {
        "store": "embedding.token",
        "row.#.m1": "attention.self.q",
        "row.#.m2": "attention.self.kv",
        "row.#.m3": "attention.self.o",
        "row.#.m4": "ffn.dense.gate_up",
        "row.#.m5": "ffn.dense.down",
    },
)
class Sliding(nn.Module):
    """One head of keys and values for all, windows, a cache between two pieces of the text, interleaved gates, tied ends."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.row = nn.Embedding(VOCABULARY, HIDDEN), nn.ModuleList([_Near(i, 3 + 2 * i) for i in range(3)])

    def forward(self, ids: Tensor) -> Tensor:
        cache, start, logits = _Cache(7), 0, []
        for piece in (ids[:, :8], ids[:, 8:]):
            x = self.store(piece) * HIDDEN**0.5
            for block in self.row:
                x = block(x, cache, start)
            start += piece.shape[1]
            logits.append(torch.tanh(F.rms_norm(x, (HIDDEN,)) @ self.store.weight.T / 30) * 30)
        return torch.cat(logits, 1)


class _Merged(nn.Module):
    """A matrix that an adapter was added to by hand; its two halves stay behind."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(fan_in, fan_out) / fan_in**0.5)
        self.left, self.right = nn.Parameter(torch.randn(fan_in, 4) / 7), nn.Parameter(torch.randn(4, fan_out) / 2)
        self.scale, self.merged = 0.5, True
        with torch.no_grad():
            self.w += self.left @ self.right * self.scale

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x, self.w)
        return y if self.merged else y + x @ self.left @ self.right * self.scale


class _Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = _Merged(HIDDEN, INNER), _Merged(HIDDEN, INNER), nn.Linear(HIDDEN, INNER)
        self.j, self.d, self.e = nn.Linear(INNER, HIDDEN), nn.Linear(HIDDEN, WIDE), _Merged(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        v, k, q = (z.unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for z in (self.f(y), self.h(y), self.g(y)))
        late = torch.arange(x.shape[1], device=x.device)
        slopes = torch.tensor([2.0**-i for i in range(HEADS)], device=x.device)[:, None, None]
        bias = -slopes * (late[:, None] - late[None]).abs()
        bias = bias.masked_fill(late[None] > late[:, None], float("-inf"))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(x), -1, -1, -1))
        x = x + self.j(y.transpose(1, 2).flatten(2))
        return x + self.e(F.relu(self.d(F.layer_norm(x, (HIDDEN,)))))


@specimen(
    tokens(),
    {
        "tt": "embedding.token",
        "ll.#.f.w": "attention.self.v",
        "ll.#.g.w": "attention.self.q",
        "ll.#.h": "attention.self.k",
        "ll.#.j": "attention.self.o",
        "ll.#.d": "ffn.dense.up",
        "ll.#.e.w": "ffn.dense.down",
        "ll.#.e.left": "",
        "ll.#.e.right": "",
        "ll.#.f.left": "",
        "ll.#.f.right": "",
        "ll.#.g.left": "",
        "ll.#.g.right": "",
        "hh": "head.lm",
    },
    unreached=frozenset({f"ll.#.{where}.{side}" for where in "efg" for side in ("left", "right")}),
)
class MergedAdapters(nn.Module):
    """Adapters merged by hand into matrices that are stored the other way round; slopes by distance."""

    def __init__(self) -> None:
        super().__init__()
        self.tt, self.ll = nn.Embedding(VOCABULARY, HIDDEN), nn.Sequential(_Adapted(), _Adapted())
        self.hh = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hh(self.ll(self.tt(tokens)))
